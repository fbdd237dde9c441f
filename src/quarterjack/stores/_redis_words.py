"""What the hot scripts of the Redis store are told, and what they answer, as Python values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from quarterjack.model import ErrorInfo, Fenced, Finish, FinishKind, JobRecord

from ._durable import Leased
from ._redis_link import Word
from ._redis_rows import job_row
from ._rows import NEW_JOB_COLUMNS, Encoding
from .base import LOOK_AHEAD, Claim, Claimed, Renewal

__all__ = [
    "claim_words",
    "finish_words",
    "is_plain",
    "lease_us",
    "leased",
    "parted",
    "put_words",
    "release_words",
    "renew_words",
]

_BACK: Final = frozenset({FinishKind.RETRY, FinishKind.SNOOZE})


def is_plain(job: JobRecord) -> bool:
    """Say whether nothing hangs on the job but its own row: scripts may move it by themselves."""
    return job.options.unique is None and job.overlap_key is None and job.origin is None


def parted(ns: int) -> tuple[int, str]:
    """Return microseconds, and the rest as three digits."""
    us, rest = divmod(ns, 1_000)
    return us, f"{rest:03d}"


def lease_us(lease_s: float | None) -> Word:
    """Return a lease as scripts take it; "" never runs out."""
    return "" if lease_s is None else round(lease_s * 1_000_000)


# -- put --------------------------------------------------------------------------------


def put_words(jobs: Sequence[JobRecord], encoding: Encoding) -> list[Word]:
    """Return *jobs* as `put.lua` takes them.

    Raises:
        InvalidArguments: If the arguments of one are no JSON, or too large.
        InvalidOption: If an option of one cannot be written down.
    """
    words: list[Word] = [len(jobs)]
    for job in jobs:
        row, options = encoding.new_job(job), job.options
        words += (job.id, job.task, job.queue, job.lane, job.priority)
        hot: list[Word] = []
        if options.run_at_ns is not None:
            words += ("at", options.run_at_ns)
        elif options.delay_ns:
            words += ("in", *parted(options.delay_ns))
            hot += ("delay_born", 1)
        else:
            words += _AT_ONCE
        data: list[Word] = []
        for name, value in zip(_GIVEN, row[_GIVEN_AT:], strict=True):
            if value is not None:
                (hot if isinstance(value, int) or len(value) <= _SHORT else data).extend((name, value))
        _append(words, hot)
        _append(words, data)
    return words


_SHORT: Final = 48
"""Longer values would unpack the small hash, at twice its size: the server's limit is 64 bytes by default."""
_AT_ONCE: Final = ("in", 0, "000")
_GIVEN_AT: Final = NEW_JOB_COLUMNS.index("max_rescues")
_GIVEN: Final = NEW_JOB_COLUMNS[_GIVEN_AT:]


# -- claim ------------------------------------------------------------------------------


def claim_words(claim: Claim) -> list[Word]:
    """Return *claim* as `claim.lua` takes it."""
    words: list[Word] = [claim.owner, lease_us(claim.lease_s), LOOK_AHEAD, len(claim.wants)]
    for want in claim.wants:
        words += (max(0, want.slots), len(want.queues), *want.queues, len(want.lanes), *want.lanes)
    return words


def leased(reply: Sequence[Any], encoding: Encoding) -> Leased:
    """Return what `claim.lua` answered."""
    if reply[1]:
        return Leased(Claimed([], None), reply[1])
    record = encoding.record
    jobs = [record(job_row(*row)) for row in reply[3]]
    return Leased(Claimed(jobs, int(reply[2]) if reply[2] else None), (), bool(reply[4]))


# -- renew, finish, release -------------------------------------------------------------


def renew_words(owner: str, renewals: Sequence[Renewal], lease_s: float | None, encoding: Encoding) -> list[Word]:
    """Return *renewals* as `renew.lua` takes them."""
    words: list[Word] = [owner, lease_us(lease_s), len(renewals)]
    payloads = encoding.payloads
    for job_id, attempt, progress, checkpoint, running_at_ns, started_at_ns in renewals:
        data: list[Word] = []
        if progress is not None:
            data += ("progress", payloads.progress(progress) or b"")
        if checkpoint is not None:
            data += ("checkpoint", payloads.packed(checkpoint) or b"")
        moments = ("" if at_ns is None else at_ns for at_ns in (running_at_ns, started_at_ns))
        words += (job_id, attempt, *moments, len(data), *data)
    return words


def finish_words(finishes: Sequence[Finish], encoding: Encoding) -> list[Word]:
    """Return *finishes* as `finish.lua` takes them."""
    words: list[Word] = [len(finishes)]
    for finish in finishes:
        job_id, attempt, owner, kind, at_ns, started_ns, running_ns, result, error, reason, delay_ns, _ = finish
        words += (
            job_id,
            attempt,
            owner,
            kind.value,
            at_ns,
            "" if started_ns is None else started_ns,
            "" if running_ns is None else running_ns,
            *parted(delay_ns),
        )
        if result is None and error is None and reason is None:  # most of all
            words.append(0)
        else:
            _append(words, _outcome(None if kind in _BACK else result, error, reason, encoding))
    return words


def _append(words: list[Word], data: list[Word]) -> None:
    words.append(len(data))
    words += data


def _outcome(result: Any, error: ErrorInfo | None, reason: str | None, encoding: Encoding) -> list[Word]:
    data: list[Word] = []
    for name, value in zip(_ENDING, encoding.payloads.outcome(result, error, reason), strict=True):
        if value is not None:
            data += (name, value)
    return data


_ENDING: Final = ("result", "error", "reason")


def release_words(fences: Sequence[Fenced], delay_ns: int, reason: str | None, encoding: Encoding) -> list[Word]:
    """Return a release as `finish.lua` takes it."""
    words: list[Word] = [len(fences)]
    why = encoding.payloads.reason(reason)
    data: list[Word] = [] if why is None else ["reason", why]
    for fence in fences:
        words += (*fence, "release", 0, "", "", *parted(delay_ns))
        _append(words, data)
    return words
