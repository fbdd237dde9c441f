"""Ends of attempts: what a worker computes and says of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final, Protocol

from quarterjack.errors import DeadlineExceeded, Discard, FlowRefused
from quarterjack.flow.outcome import CANCELLED, TIMED_OUT, Ended, EndKind
from quarterjack.model import ErrorInfo, Finish, FinishKind, JobRecord, JobState, OutcomeKind
from quarterjack.policies.backoff import Retry

from .verdict import Verdict, past_deadline_words

__all__ = ["adopt", "age_s", "as_ended", "first_due_ns", "log_failure", "one_failure", "past_deadline", "untried"]

log = logging.getLogger("quarterjack.worker")


def adopt(record: JobRecord, finish: Finish, state: JobState) -> None:
    """Write into a worker's own copy of a row what the store made of an outcome."""
    record.failures += finish.kind is FinishKind.RETRY or state in _FAILED
    record.state, record.error, record.reason = state, finish.error, finish.reason
    record.started_at_ns, record.running_at_ns = finish.started_at_ns, finish.running_at_ns
    if state.is_finished:
        record.result, record.finished_at_ns = finish.result, finish.at_ns


_FAILED: Final = frozenset({JobState.FAILED, JobState.TIMED_OUT})


def first_due_ns(record: JobRecord) -> int:
    """Return when the attempt was due that failed first; of a job that has not failed yet, when it is due."""
    first = record.first_due_ns if record.failures else None
    return record.run_at_ns if first is None else first


def age_s(record: JobRecord, at_ns: int) -> float:
    """Return the seconds from then until *at_ns*."""
    return max(0, at_ns - first_due_ns(record)) / 1e9


def past_deadline(record: JobRecord, at_ns: int) -> Verdict | None:
    """Return the end of a job whose retry may start no more, for its deadline has passed; None if it may."""
    retry = record.options.retry
    return None if retry.in_time(age_s(record, at_ns)) else untried(record, retry)


def untried(record: JobRecord, retry: Retry) -> Verdict:
    """Return the end of a job that is not tried again, for the deadline of *retry* has passed."""
    error = record.error
    before = record.reason if error is None else error.words
    reason = past_deadline_words(before or "failed", retry)
    return Verdict(FinishKind.FAILED, 0, error or ErrorInfo("TimeoutError", reason), reason)


def as_ended(kind: OutcomeKind, error: BaseException | None) -> Ended:
    """Return how the pass of an attempt ended that did not return."""
    if kind is OutcomeKind.RAISED:
        return Ended(EndKind.RAISED, error)
    return TIMED_OUT if kind is OutcomeKind.TIMED_OUT else CANCELLED


class HasEnded(Protocol):
    """What is told of a job in the log."""

    @property
    def id(self) -> str: ...
    @property
    def task(self) -> str: ...


_TOLD: Final[ContextVar[list[BaseException] | None]] = ContextVar("quarterjack_told", default=None)
"""What the log has the traceback of already, of an error that many jobs share."""


@contextmanager
def one_failure() -> Iterator[None]:
    """Have the log show the traceback of an error once for all jobs that are ended with it in this block."""
    token = _TOLD.set([])
    try:
        yield
    finally:
        _TOLD.reset(token)


def log_failure(
    record: HasEnded, attempt: int, error: BaseException | None, verdict: Verdict, to: logging.Logger = log
) -> None:
    """Say once that a job has failed, however many wait for it."""
    info = verdict.error
    facts = {"job": record.id, "task": record.task, "attempt": attempt}
    if isinstance(error, Discard):  # asked for by the body: no fault, and nobody needs its traceback
        to.info("job %s (%s) is discarded: %s", record.id, record.task, error.reason, extra=facts)
    elif isinstance(error, DeadlineExceeded):  # while it waited, or while it ran
        to.warning("job %s (%s) is over: %s", record.id, record.task, error, extra=facts)
    elif isinstance(error, FlowRefused):  # by a rule of the user's own; in an outage there are many
        to.warning("job %s (%s) is turned away by its flow: %s", record.id, record.task, error, extra=facts)
    elif verdict.kind is FinishKind.TIMED_OUT:
        words = "job %s (%s) timed out in attempt %d: %s"
        to.warning(words, record.id, record.task, attempt, verdict.reason, extra=facts)
    else:
        said = (info.message or info.type_name) if info is not None else error
        words = "job %s (%s) failed in attempt %d: %s"
        to.error(words, record.id, record.task, attempt, said, exc_info=_untold(error), extra=facts)


def _untold(error: BaseException | None) -> BaseException | None:
    told = _TOLD.get()
    if told is None or error is None:
        return error
    if any(one is error for one in told):
        return None
    told.append(error)
    return error
