"""Stages around a job: what a flow holds beside gates, an order and wraps.

They are values. What they mean is done by whoever runs the job (a
`TaskManager`, an app's worker), which knows when it was submitted, how its
attempts ended, and who waits for it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Any

from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import shown
from quarterjack._signatures import Explained
from quarterjack.errors import InvalidOption
from quarterjack.policies.backoff import exception_types

from ._keys import By, check_by

__all__ = ["Deadline", "Dedupe", "Fallback", "Timeout"]

Types = type[BaseException] | Collection[type[BaseException]]
"""Exception types: one, or some of them."""


@dataclass(frozen=True, slots=True, init=False)
class Timeout(Explained):
    """How long an attempt may run, in seconds, its waiting not counted; then it is cancelled and has failed.

    One alarm per attempt: O(log n) time among n of them, O(1) space.
    """

    seconds: float

    def __init__(self, seconds: Seconds) -> None:
        object.__setattr__(self, "seconds", to_seconds(seconds, "seconds of Timeout", exclusive=True))


@dataclass(frozen=True, slots=True, init=False)
class Deadline(Explained):
    """How long a job may take from its submission to its end, in seconds: waits, attempts and pauses together.

    When it has passed, a waiting job is turned away and a running one cancelled;
    both end with `DeadlineExceeded`. One alarm per job: O(log n) time among n of them, O(1) space.
    """

    seconds: float

    def __init__(self, seconds: Seconds) -> None:
        object.__setattr__(self, "seconds", to_seconds(seconds, "seconds of Deadline", exclusive=True))


@dataclass(frozen=True, slots=True, init=False)
class Fallback(Explained):
    """What a job returns when it has failed for good: a value, or what a function of its error returns.

    O(1) time and space beside the function's own.

    Args:
        value: The value; a callable is called with the error, and may be a coroutine function.
        on: Exception types it stands in for, one or a sequence; others are raised as ever. What a gate
            refuses is a `FlowRefused`.
    """

    value: Any
    on: tuple[type[BaseException], ...]

    def __init__(self, value: Any, *, on: Types = Exception) -> None:
        kinds = exception_types(on)
        if kinds is None:
            raise InvalidOption(
                f"on of Fallback must be exception types such as (OSError, FlowRefused), got {shown(on)}"
            )
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "on", kinds)

    async def value_for(self, error: BaseException) -> Any:
        """Return what stands in for *error*."""
        value = self.value(error) if callable(self.value) else self.value
        return await value if inspect.isawaitable(value) else value


@dataclass(frozen=True, slots=True, init=False)
class Dedupe(Explained):
    """One run for all who ask for the same while it lasts (single flight): they get the job that is there.

    It goes by the function and the key, so a coroutine object, which tells neither, is refused.
    O(1) time per submission, one entry of space per run that is not over.

    Args:
        by: A name of the job's key or arguments, or a function of the job; equal keys are the same.
    """

    by: By | Callable[[Any], Hashable]

    def __init__(self, by: By) -> None:
        check_by(by)
        if by is None:
            raise InvalidOption('Dedupe needs by=, a name such as "url", or a function of the job')
        object.__setattr__(self, "by", by)
