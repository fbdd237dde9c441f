"""``counts=``: what the end of a pass says about the service behind it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Final

from quarterjack._numbers import shown
from quarterjack._signatures import check_plain
from quarterjack.errors import Discard, FlowRefused, InvalidOption, Snooze
from quarterjack.policies.backoff import exception_types

from .outcome import Ended, EndKind

__all__ = ["Counts", "Judge", "judge_of"]

Counts = type[BaseException] | Collection[type[BaseException]] | Callable[[Ended], bool | None]
"""Exception types that count as failures, or a function of the end."""

Judge = Callable[[Ended], bool | None]
"""Says whether it has failed; None: it says nothing about the service."""

_SAY_NOTHING: Final = (FlowRefused, Snooze, Discard)
"""Raised about the job itself: another gate was closed inside the body, or there is nothing (yet) to do."""


def judge_of(counts: Any) -> Judge:
    """Return how to judge ends.

    With exception types a timeout has failed too, other exceptions are answers of
    a service that works, and whoever was cancelled or never began says nothing.

    Raises:
        InvalidOption: If *counts* is none of its forms.
    """
    failures = exception_types(counts)
    if failures:
        return _by_types(failures)
    if failures is not None or isinstance(counts, type) or not callable(counts):
        raise InvalidOption(
            "counts must be exception types such as (OSError, TimeoutError), or a function of how a call ended "
            f"that returns True (failed), False (worked) or None (says nothing), got {shown(counts)}"
        )
    check_plain(counts, "counts")
    return _by_function(counts)


def _by_types(failures: tuple[Any, ...]) -> Judge:
    def judge(ended: Ended) -> bool | None:
        kind = ended.kind
        if kind is EndKind.RETURNED:
            return False
        if kind is EndKind.RAISED:
            return None if isinstance(ended.error, _SAY_NOTHING) else isinstance(ended.error, failures)
        return True if kind is EndKind.TIMED_OUT else None

    return judge


def _by_function(function: Any) -> Judge:
    """Return a judge that asks *function* about whatever has begun."""

    def judge(ended: Ended) -> bool | None:
        if ended.kind is EndKind.NOT_STARTED:
            return None
        answer = function(ended)
        return None if answer is None else bool(answer)

    return judge
