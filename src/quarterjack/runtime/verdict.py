"""What becomes of a job after an attempt: the decision between an outcome and the store.

A pure function: counters, policy and a source of randomness come in, a
`Verdict` comes out."""

from __future__ import annotations

import traceback
from random import Random
from typing import NamedTuple

from quarterjack._durations import to_ns
from quarterjack.errors import Discard, FlowRefused, InvalidOption, RetryLater, Snooze
from quarterjack.model import ErrorInfo, FinishKind, Outcome, OutcomeKind
from quarterjack.policies.backoff import RetryPolicy

__all__ = ["Verdict", "describe", "judge"]


class Verdict(NamedTuple):
    """How the store is to finish the attempt."""

    kind: FinishKind
    delay_ns: int = 0
    error: ErrorInfo | None = None
    reason: str | None = None


def describe(error: BaseException) -> ErrorInfo:
    """Return an exception in words, and itself."""
    text = "".join(traceback.format_exception(error))
    try:
        message = str(error)
    except Exception as unprintable:  # a user's __str__ runs here, and its job must end all the same
        message = f"(its text cannot be had: {type(unprintable).__name__})"
    return ErrorInfo(type(error).__qualname__, message, text, error)


def judge(outcome: Outcome, *, failures: int, retry: RetryPolicy, cancel_requested: bool, rng: Random) -> Verdict:
    """Return what becomes of a job whose attempt ended with *outcome*.

    Args:
        outcome: What the executor reported (any kind but LOST, which is left to the lease).
        failures: Failed attempts before this one.
        retry: The job's policy.
        cancel_requested: Somebody asked for its end: it is not tried again.
        rng: For the back-off's jitter.
    """
    if outcome.kind is OutcomeKind.DONE:
        return Verdict(FinishKind.DONE)
    if outcome.kind is OutcomeKind.CANCELLED:
        return Verdict(FinishKind.CANCELLED, reason=outcome.reason)
    if outcome.kind is OutcomeKind.RAISED and outcome.error is not None:
        return _after_raise(outcome.error, failures + 1, retry, cancel_requested, rng)
    error: BaseException | None = outcome.error
    final = FinishKind.FAILED
    if outcome.kind is OutcomeKind.TIMED_OUT:
        error = error if isinstance(error, FlowRefused) else TimeoutError(outcome.reason or "timed out")
        final = FinishKind.TIMED_OUT
    info = describe(error) if error is not None else ErrorInfo(outcome.kind.value, outcome.reason or "")
    tried_again = (
        outcome.kind is not OutcomeKind.REJECTED
        and not cancel_requested
        and not isinstance(error, FlowRefused)  # such as a deadline: it has passed for every attempt
        and retry.allows(failures + 1, error)
    )
    if tried_again:
        return Verdict(FinishKind.RETRY, round(retry.pause_s(failures + 1, rng) * 1e9), info, outcome.reason)
    return Verdict(final, 0, info, outcome.reason)


def _after_raise(
    error: BaseException, failures: int, retry: RetryPolicy, cancel_requested: bool, rng: Random
) -> Verdict:
    try:
        if isinstance(error, Discard):
            return Verdict(FinishKind.FAILED, 0, describe(error), error.reason)
        if isinstance(error, Snooze):
            return Verdict(FinishKind.SNOOZE, to_ns(error.delay, "Snooze(delay)"), None, "snoozed")
        info = describe(error)
        if isinstance(error, RetryLater):
            if failures < retry.attempts and not cancel_requested:
                pause = retry.pause_s(failures, rng) if error.after is None else error.after
                return Verdict(FinishKind.RETRY, to_ns(pause, "RetryLater(after)"), info, error.reason)
            return Verdict(FinishKind.FAILED, 0, info, error.reason)
    except InvalidOption as wrong:  # the body asked for an impossible delay: that is its failure
        return Verdict(FinishKind.FAILED, 0, describe(wrong), str(wrong))
    reason = f"{info.type_name}: {info.message}" if info.message else info.type_name
    if isinstance(error, Exception) and not cancel_requested and retry.allows(failures, error):
        return Verdict(FinishKind.RETRY, round(retry.pause_s(failures, rng) * 1e9), info, reason)
    return Verdict(FinishKind.FAILED, 0, info, reason)
