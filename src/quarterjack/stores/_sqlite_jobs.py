"""The calls that most jobs live by, each a few statements for a whole batch: put, claim, finish, renew.

A job is *plain* if nothing but itself is concerned: it has no overlap key, no
unique key, and no schedule made it. Plain jobs are written here by SQL alone; the
others are decided by the book all stores share (`_durable`), which the callers of
these functions turn to for what is left over. All functions run within the
transaction of a `Session`; who waits for a serial key, and whose turn it is,
stands in the column ``place``."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from quarterjack._durations import NS_PER_S
from quarterjack.model import FINAL_STATES, Fenced, Finish, FinishKind, JobRecord

from ._needs import UniqueKey
from ._rows import Encoding
from ._sqlite_engine import Session
from ._sqlite_rows import AT, DELAYED, INSERT_NEW_JOB, READY, sql
from ._stamping import stamps_of
from .base import LOOK_AHEAD, Claim, Hint, Renewal, Renewed, Want

__all__ = [
    "Ended",
    "Row",
    "are_waited_for",
    "claim",
    "count_outcomes",
    "ended",
    "expired",
    "finish",
    "has_only_one_try",
    "keys_of",
    "leased_by",
    "next_run_at",
    "promote",
    "put",
    "renew",
    "settle_lines",
]

Row = tuple[Any, ...]
_STATE, _SERIAL, _KEY = AT["state"], AT["serial"], AT["overlap_key"]
_MINUTE_NS: Final = 60 * NS_PER_S
_OUTCOMES_KEPT_NS: Final = 24 * 60 * _MINUTE_NS
_COUNTED_FAILURES: Final = frozenset({FinishKind.FAILED, FinishKind.TIMED_OUT})
_RESCUED_AT_ONCE: Final = 200
_PROMOTED_AT_ONCE: Final = 1_000
"""Others wait for the transaction: 5 ms."""
_CHUNK: Final = 500
"""Rows of parameters in one statement: 11 each, and SQLite takes 32,766 in all."""


# -- in ----------------------------------------------------------------------------------


def put(session: Session, jobs: Sequence[JobRecord], rows: Iterable[Sequence[Any]]) -> None:
    """Insert new jobs; *rows* are theirs, as `Encoding.new_job` returns them."""
    now = session.now_ns
    written = [_stamped(row, job, now) for job, row in zip(jobs, rows, strict=True)]
    if len(written) == 1:
        session.run(INSERT_NEW_JOB, written[0])
    else:
        session.connection.executemany(INSERT_NEW_JOB, written)


def _stamped(row: Sequence[Any], job: JobRecord, now: int) -> tuple[Any, ...]:
    stamps = _, run_at, _, _ = stamps_of(job, now)
    return *row, *stamps, READY if run_at <= now else DELAYED


# -- claim -------------------------------------------------------------------------------


def promote(session: Session) -> None:
    """Let the jobs wait for a worker whose time has come, the earliest first, some of them at a time."""
    due = session.run(sql("due"), (session.now_ns, _PROMOTED_AT_ONCE)).fetchall()
    if due:
        session.run(sql("promote"), (json.dumps([seq for seq, _ in due]),))
        settle_lines(session, list(dict.fromkeys(key for _, key in due if key is not None)))


def next_run_at(session: Session, wants: Iterable[Want]) -> int | None:
    """Return when the next job falls due of those that are wanted, or the last one that is looked at.

    That is now while some are due that the last `promote` has left for the next one.
    """
    (first,) = session.one(sql("first_run_at"))
    if first is None or first <= session.now_ns:
        return None if first is None else session.now_ns
    known = [(want.queues, want.lanes) for want in wants]
    n, run_at = 0, None
    for n, (run_at, queue, lane) in enumerate(session.run(sql("delayed"), (session.now_ns, LOOK_AHEAD)), 1):  # noqa: B007
        if any(queue in queues and lane in lanes for queues, lanes in known):
            return int(run_at)
    return run_at if n == LOOK_AHEAD else None


def claim(session: Session, asked: Claim) -> list[Row]:
    """Lease waiting jobs, most urgent first; return their rows as they are now."""
    taking = _Taking(session)
    for want in asked.wants:
        taking.take(want)
    if not taking.rows:
        return []
    now = session.now_ns
    until = None if asked.lease_s is None else now + round(asked.lease_s * NS_PER_S)
    seqs = json.dumps(list(taking.rows))
    session.run(sql("lease"), {"seqs": seqs, "owner": asked.owner, "now": now, "until": until})
    for key in taking.keys:
        session.run(sql("line_waits"), (key,))
    return [_leased(row, asked.owner, now, until) for row in taking.rows.values()]


def expired(session: Session) -> list[str]:
    """Return jobs whose lease has run out, those first that ran out first."""
    (first,) = session.one(sql("first_lease_end"))
    if first is None or first > session.now_ns:
        return []
    return [job_id for (job_id,) in session.run(sql("expired"), (session.now_ns, _RESCUED_AT_ONCE))]


def leased_by(session: Session, owner: str) -> list[Fenced]:
    """Return what an owner holds that has not begun."""
    return [Fenced(*row) for row in session.run(sql("leased_by"), (owner,))]


def has_only_one_try(rows: Iterable[Row]) -> bool:
    """Say whether one of the jobs must not be begun twice."""
    most = AT["max_rescues"]
    return any(row[most] == 0 for row in rows)


def keys_of(rows: Iterable[Row]) -> tuple[frozenset[str], frozenset[UniqueKey]]:
    """Return the overlap keys and the unique keys of jobs."""
    overlap, unique = AT["overlap_key"], AT["unique_key"]
    keys = frozenset(row[overlap] for row in rows if row[overlap] is not None)
    return keys, frozenset((row[AT["task"]], row[unique]) for row in rows if row[unique] is not None)


def are_waited_for(session: Session, keys: Iterable[str], uniques: Iterable[UniqueKey]) -> bool:
    """Say whether schedules may wait for the jobs of these keys to begin."""
    tasks = [task for task, _ in uniques]
    (answer,) = session.one(sql("is_waited_for"), (json.dumps([*keys]), json.dumps(tasks)))
    return bool(answer)


class _Taking:
    """What one claim takes: rows by ``seq``, no two of one serial key."""

    __slots__ = ("_session", "keys", "rows")

    def __init__(self, session: Session) -> None:
        self._session = session
        self.rows: dict[int, Row] = {}
        self.keys: set[str] = set()

    def take(self, want: Want) -> None:
        """Take up to ``want.slots`` more, earlier queues first."""
        most = len(self.rows) + want.slots
        for queue in want.queues:
            if len(self.rows) >= most:
                return
            for seq, *row in self._ready(queue, want.lanes, most):
                if seq not in self.rows and self._has_turn(row):
                    self.rows[seq] = tuple(row)
                    if len(self.rows) == most:
                        return

    def _ready(self, queue: str, wanted: frozenset[str], limit: int) -> list[Row]:
        """Return the most urgent ones of the lanes wanted; those taken by now are among them."""
        lanes = [lane for (lane,) in self._session.run(sql("lanes"), {"queue": queue}) if lane in wanted]
        if not lanes:
            return []
        if len(lanes) == 1:
            return self._session.run(sql("ready_in_lane"), (queue, lanes[0], limit)).fetchall()
        several = {"queue": queue, "lanes": json.dumps(lanes), "most": limit}
        return self._session.run(sql("ready_in_lanes"), several).fetchall()

    def _has_turn(self, row: Sequence[Any]) -> bool:
        """Say whether nobody before has taken the serial key of *row*, and take it."""
        if not row[_SERIAL]:
            return True
        if row[_KEY] in self.keys:
            return False
        self.keys.add(row[_KEY])
        return True


def _leased(row: Sequence[Any], owner: str, now: int, until: int | None) -> Row:
    """Return *row* as the statement that leases it leaves it."""
    values = list(row)
    values[_STATE], values[AT["reason"]], values[AT["owner"]] = "scheduled", None, owner
    values[AT["attempt"]] += 1
    values[AT["lease_until_ns"]] = until
    values[AT["order_at_ns"]], values[AT["scheduled_at_ns"]] = 0, now
    values[AT["started_at_ns"]] = values[AT["running_at_ns"]] = None
    return tuple(values)


def settle_lines(session: Session, keys: Collection[str]) -> None:
    """See whose turn it is among the jobs of each serial key, after something about them has changed."""
    if not keys:
        return
    for (key,) in session.run(sql("waited_lines"), (json.dumps([*keys]),)).fetchall():
        (is_taken,) = session.one(sql("line_is_taken"), (key,))
        session.run(sql("line_waits"), (key,))
        if not is_taken:
            session.run(sql("line_goes_on"), {"key": key})


# -- out ---------------------------------------------------------------------------------


class Ended(NamedTuple):
    """What a finish writes, encoded; the order is that of the query ``finish``."""

    job_id: str
    attempt: int
    owner: str
    state: str
    at_ns: int
    started_at_ns: int | None
    running_at_ns: int | None
    result: bytes | None
    error: bytes | None
    reason: str | None
    failures: int


def ended(finish: Finish, encoding: Encoding) -> Ended | None:
    """Return *finish* as it is written if its job is plain; None if the book has to decide."""
    state = FINAL_STATES.get(finish.kind)
    if state is None or finish.zombie:
        return None
    return Ended(
        finish.job_id,
        finish.attempt,
        finish.owner,
        state.value,
        finish.at_ns,
        finish.started_at_ns,
        finish.running_at_ns,
        *encoding.payloads.outcome(finish.result, finish.error, finish.reason),
        finish.kind in _COUNTED_FAILURES,
    )


def finish(session: Session, ends: Sequence[Ended]) -> tuple[set[str], list[str]]:
    """Record how plain jobs ended; return which did, and which others are held by somebody."""
    done: list[tuple[str, str, str]] = []
    for start in range(0, len(ends), _CHUNK):
        part = ends[start : start + _CHUNK]
        rows = ", ".join(["(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"] * len(part))
        done += session.run(sql("finish", rows=rows), [value for end in part for value in end]).fetchall()
    count_outcomes(session, ((task, state) for _, task, state in done))
    ids = {job_id for job_id, _, _ in done}
    if ids:
        session.tell_others(Hint.ENDED, list(ids))
    if len(ids) == len(ends):
        return ids, []
    others = json.dumps([end.job_id for end in ends if end.job_id not in ids])
    return ids, [job_id for (job_id,) in session.run(sql("held_of"), (others,))]


def count_outcomes(session: Session, ends: Iterable[tuple[str, str]]) -> None:
    """Count tasks and final states, under this minute; those of a day ago go."""
    minute = session.now_ns // _MINUTE_NS * _MINUTE_NS
    counts: dict[tuple[str, str], int] = {}
    for end in ends:
        counts[end] = counts.get(end, 0) + 1
    session.connection.executemany(
        sql("count_outcome"), [(minute, task, state, n) for (task, state), n in counts.items()]
    )
    if counts:
        session.run(sql("forget_outcomes"), (minute - _OUTCOMES_KEPT_NS,))


def renew(
    session: Session, owner: str, renewals: Sequence[Renewal], lease_s: float | None, encoding: Encoding
) -> Renewed:
    """Extend leases and keep what bodies said; answer which are lost and which to cancel."""
    until = None if lease_s is None else session.now_ns + round(lease_s * NS_PER_S)
    wanted: dict[str, int] = {}
    for start in range(0, len(renewals), _CHUNK):
        part = renewals[start : start + _CHUNK]
        fences = [value for renewal in part for value in renewal[:2]]
        rows = session.run(sql("renew", rows=", ".join(["(?, ?)"] * len(part))), (until, *fences, owner))
        wanted.update(rows.fetchall())
    for renewal in renewals:
        fence = {"id": renewal.job_id, "attempt": renewal.attempt, "owner": owner}
        if renewal.progress is not None or renewal.checkpoint is not None:
            progress = encoding.payloads.progress(renewal.progress)
            kept = {"progress": progress, "checkpoint": encoding.payloads.packed(renewal.checkpoint)}
            session.run(sql("keep"), {**fence, **kept})
        if renewal.running_at_ns is not None:
            session.run(sql("began"), {**fence, "at": renewal.running_at_ns, "accepted": renewal.started_at_ns})
        elif renewal.started_at_ns is not None:
            session.run(sql("accepted"), {**fence, "at": renewal.started_at_ns})
    return Renewed([r.job_id for r in renewals if r.job_id not in wanted], [k for k, asked in wanted.items() if asked])
