"""What becomes of a job after an attempt: the decision between an outcome and the store.

A pure function: counters, policy and a source of randomness come in, a
`Verdict` comes out."""

from __future__ import annotations

import traceback
from random import Random
from typing import Any, Final, NamedTuple

from quarterjack._durations import to_ns
from quarterjack.errors import Discard, FlowRefused, InvalidOption, RaisedElsewhere, RetryLater, Snooze
from quarterjack.model import ErrorInfo, FinishKind, Outcome, OutcomeKind
from quarterjack.policies.backoff import Retry

__all__ = ["Verdict", "decide", "describe", "judge", "past_deadline_words"]


class Verdict(NamedTuple):
    """How the store is to finish the attempt."""

    kind: FinishKind
    delay_ns: int = 0
    error: ErrorInfo | None = None
    reason: str | None = None


def describe(error: BaseException) -> ErrorInfo:
    """Return an exception in words, and itself."""
    if isinstance(error, RaisedElsewhere):
        return ErrorInfo(error.type_name, error.message, error.traceback_text)
    text = "".join(traceback.format_exception(error))
    try:
        message = str(error)
    except Exception as unprintable:  # a user's __str__ runs here, and its job must end all the same
        message = f"(its text cannot be had: {type(unprintable).__name__})"
    return ErrorInfo(type(error).__qualname__, message, text, error)


def decide(
    outcome: Outcome,
    *,
    failures: int,
    retry: Retry,
    cancel_requested: bool,
    rng: Random,
    age_s: float = 0.0,
    now: float = 0.0,
) -> Verdict:
    """As `judge`, with what a retry needs beside: room in its budget, and functions of the user's that do not raise.

    *now* is monotonic seconds, for the budget; the others are as `judge` takes them.
    """
    try:
        verdict = judge(
            outcome, failures=failures, retry=retry, cancel_requested=cancel_requested, rng=rng, age_s=age_s
        )
        if verdict.kind is not FinishKind.RETRY or retry.budget is None or not outcome.stopped:
            return verdict  # of a body that still runs it is asked again when that has ended
        if retry.budget.spend(now):
            return verdict
        final = judge(outcome, failures=failures, retry=retry, cancel_requested=True, rng=rng)
        return final._replace(reason=f"{final.reason or 'failed'}; not tried again: the retry budget is spent")
    except Exception as error:  # a predicate, a signal or an error class of the user's runs here; its job must end
        if error.__context__ is None:
            error.__context__ = outcome.error
        info = describe(error)
        return Verdict(FinishKind.FAILED, 0, info, info.words)


def judge(
    outcome: Outcome, *, failures: int, retry: Retry, cancel_requested: bool, rng: Random, age_s: float = 0.0
) -> Verdict:
    """Return what becomes of a job whose attempt ended with *outcome*.

    Args:
        outcome: What the executor reported (any kind but LOST, which is left to the lease; an orphan that nobody
            wants any more is cancelled, others go back and are not judged).
        failures: Failed attempts before this one.
        retry: The job's policy.
        cancel_requested: Somebody asked for its end: it is not tried again.
        rng: For the back-off's jitter.
        age_s: Seconds since the job was first due.
    """
    if outcome.kind is OutcomeKind.DONE:
        return _after_return(outcome.result, failures + 1, retry, cancel_requested, rng, age_s)
    if outcome.kind is OutcomeKind.MISSED:
        return Verdict(FinishKind.MISSED, reason=outcome.reason)
    if outcome.kind in _CANCELLED:
        return Verdict(FinishKind.CANCELLED, reason=outcome.reason)
    if outcome.kind is OutcomeKind.RAISED and outcome.error is not None:
        verdict = _after_raise(outcome.error, failures + 1, retry, cancel_requested, rng, age_s)
        # It was raised in another process: its words tell where, and what the exception at hand stands for.
        return verdict if outcome.info is None or verdict.error is None else verdict._replace(error=outcome.info)
    error: BaseException | None = outcome.error
    final = FinishKind.FAILED
    if outcome.kind is OutcomeKind.TIMED_OUT:
        error = error if isinstance(error, FlowRefused) else TimeoutError(outcome.reason or "timed out")
        final = FinishKind.TIMED_OUT
    unnamed = ErrorInfo(outcome.kind.value, outcome.reason or "")
    info = outcome.info or (unnamed if error is None else describe(error))
    may_retry = outcome.kind is not OutcomeKind.REJECTED and not cancel_requested
    if may_retry and retry.allows(failures + 1, error):
        pause_s = retry.pause_s(failures + 1, rng, error)
        if retry.in_time(age_s + pause_s):
            return Verdict(FinishKind.RETRY, round(pause_s * 1e9), info, outcome.reason)
        return Verdict(final, 0, info, past_deadline_words(outcome.reason or info.type_name, retry))
    return Verdict(final, 0, info, outcome.reason)


_CANCELLED: Final = frozenset({OutcomeKind.CANCELLED, OutcomeKind.ORPHANED})


def _after_return(
    result: Any, failures: int, retry: Retry, cancel_requested: bool, rng: Random, age_s: float
) -> Verdict:
    if not cancel_requested and retry.refuses(result) and failures < retry.attempts:
        pause_s = retry.pause_s(failures, rng)
        if retry.in_time(age_s + pause_s):
            return Verdict(FinishKind.RETRY, round(pause_s * 1e9), None, "its result is worth another attempt")
    return Verdict(FinishKind.DONE)


def _after_raise(
    error: BaseException, failures: int, retry: Retry, cancel_requested: bool, rng: Random, age_s: float
) -> Verdict:
    try:
        if isinstance(error, Discard):
            return Verdict(FinishKind.FAILED, 0, describe(error), error.reason)
        if isinstance(error, Snooze):
            return Verdict(FinishKind.SNOOZE, to_ns(error.delay, "Snooze(delay)"), None, "snoozed")
        if isinstance(error, RetryLater):
            return _after_wish(error, failures, retry, cancel_requested, rng, age_s)
    except InvalidOption as wrong:  # the body asked for an impossible delay: that is its failure
        return Verdict(FinishKind.FAILED, 0, describe(wrong), str(wrong))
    info = describe(error)
    reason = info.words
    if not cancel_requested and retry.allows(failures, error):
        pause_s = retry.pause_s(failures, rng, error)
        if retry.in_time(age_s + pause_s):
            return Verdict(FinishKind.RETRY, round(pause_s * 1e9), info, reason)
        reason = past_deadline_words(reason, retry)
    return Verdict(FinishKind.FAILED, 0, info, reason)


def _after_wish(
    wish: RetryLater, failures: int, retry: Retry, cancel_requested: bool, rng: Random, age_s: float
) -> Verdict:
    info, reason = describe(wish), wish.reason
    if failures < retry.attempts and not cancel_requested:
        pause_ns = to_ns(retry.pause_s(failures, rng) if wish.after is None else wish.after, "RetryLater(after)")
        if retry.in_time(age_s + pause_ns / 1e9):
            return Verdict(FinishKind.RETRY, pause_ns, info, reason)
        reason = past_deadline_words(reason, retry)
    return Verdict(FinishKind.FAILED, 0, info, reason)


def past_deadline_words(reason: str, retry: Retry) -> str:
    """Return why a job is not tried again for its retry's deadline, after what went wrong."""
    return f"{reason}; not tried again: that would be past the deadline of {retry.deadline_s or 0.0:g} s"
