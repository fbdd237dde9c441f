"""Retries: whether a failed attempt is tried again, and when.

`Retry` is a value: its decisions are functions of the counters, the error and
a source of randomness that the caller passes in. What it cannot decide alone,
whether all who share a budget have retried too much already, stands in
`quarterjack.policies.budget` and is asked by whoever runs the job."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields
from random import Random
from typing import Any, Final, Literal, Self, cast

from quarterjack._choices import one_of
from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import number, shown, whole_number
from quarterjack._signatures import check_plain, explained
from quarterjack.errors import FlowRefused, InvalidOption, RaisedElsewhere

from .budget import RetryBudget

__all__ = ["NO_RETRY", "Jitter", "Retry", "equal_jitter", "exception_types", "full_jitter", "random_walk"]

Jitter = Literal["full", "equal", "decorrelated", "none"]

Failure = type[BaseException] | Collection[type[BaseException]] | Callable[[Exception], bool]
"""Exception types, or a function of the exception."""

FIRST_CEILING_S: Final = 1.0
"""Of the pause after the first failure, unless somebody says otherwise."""
MOST_STEPS: Final = 64
"""So many steps of the random walk are drawn at most; whatever base and cap are, it has forgotten its start by then."""
STEP: Final = 3.0
"""A step of the random walk leads at most so many times as far as the one before."""


@dataclass(frozen=True, slots=True, init=False, repr=False)
class Retry:
    """Which attempts of a job are worth another one, how many, and after how long.

    Never tried again, whatever *on* says: a job that was cancelled, one that a flow
    turned away (`FlowRefused`, such as `CircuitOpen`: asking again is what the
    breaker is there to prevent), and one that ended by `SystemExit` or the like.

    A decision takes O(1) time; between attempts a job holds nothing but its record.

    Args:
        on: What is worth another attempt: an exception type, several of them, or a function
            of the exception. ``()`` is none, for who looks at results only.
        attempts: Attempts in all, the first one included.
        deadline: Seconds since the job was first due, after which no attempt starts.
        base: Ceiling of the pause after the first failure, in seconds: 1, or *cap* if that is less.
        cap: Longest pause, in seconds.
        mult: What the ceiling is multiplied by with each further failure, 1 or more.
        jitter: How the pause is drawn: ``"full"`` from 0 to the ceiling, ``"equal"`` from its half
            to the ceiling, ``"decorrelated"`` by a random walk between *base* and *cap*;
            ``"none"`` takes the ceiling.
        on_result: A function of the result that says whether it is worth another attempt. When none
            is left the job is done, with the last result.
        retry_after: A function of the exception that names the pause (an HTTP header, say), in seconds,
            as their text, or as a ``timedelta``; None leaves it to the other options. It is cut to *cap*.
        budget: Bounds the retries of all jobs that share it; see `RetryBudget`.
        give_up_on: What is not tried again although *on* covers it; in the same forms.

    Raises:
        InvalidOption: Naming the option, the value and what is allowed.
    """

    on: Failure
    attempts: int = 3
    deadline_s: float | None = None
    base_s: float = FIRST_CEILING_S
    cap_s: float = 300.0
    mult: float = 2.0
    jitter: Jitter = "full"
    on_result: Callable[[Any], bool] | None = None
    retry_after: Callable[[Exception], Seconds | None] | None = None
    budget: RetryBudget | None = None
    give_up_on: Failure = ()

    def __new__(cls, *args: object, **given: object) -> Self:
        """Say what it needs: ``Retry(3)`` is a guess that ``retry=3`` of a task invites."""
        if (args or given) and "on" not in given:  # a copy is made without any
            raise InvalidOption(
                "Retry needs on=, what is worth another attempt, such as on=(OSError, TimeoutError); "
                "retry=3 is short for Retry(on=Exception, attempts=3)"
            )
        return object.__new__(cls)

    @explained
    def __init__(  # pyright: ignore[reportInconsistentConstructor]  # __new__ is for callers without a type checker
        self,
        *,
        on: Failure,
        attempts: int = 3,
        deadline: Seconds | None = None,
        base: Seconds | None = None,
        cap: Seconds = 300.0,
        mult: float = 2.0,
        jitter: Jitter = "full",
        on_result: Callable[[Any], bool] | None = None,
        retry_after: Callable[[Exception], Seconds | None] | None = None,
        budget: RetryBudget | None = None,
        give_up_on: Failure = (),
    ) -> None:
        def keep(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        one_of(jitter, "jitter", Jitter)
        if budget is not None and not isinstance(budget, RetryBudget):
            raise InvalidOption(f"budget must be a RetryBudget, which jobs share, got {shown(budget)}")
        keep("on", _failure(on, "on"))
        keep("attempts", whole_number(attempts, "attempts of a retry", 1, 1_000_000))
        keep("deadline_s", None if deadline is None else to_seconds(deadline, "deadline", exclusive=True))
        cap_s = to_seconds(cap, "cap")
        base_s = min(FIRST_CEILING_S, cap_s) if base is None else to_seconds(base, "base")
        if base_s > cap_s:
            raise InvalidOption(f"base={base_s:g} is above cap={cap_s:g}, the longest pause: lower it or raise cap=")
        keep("base_s", base_s)
        keep("cap_s", cap_s)
        keep("mult", float(number(mult, "mult", 1, 1_000)))
        keep("jitter", jitter)
        keep("on_result", _function(on_result, "on_result", "the result"))
        keep("retry_after", _function(retry_after, "retry_after", "the exception"))
        keep("budget", budget)
        keep("give_up_on", _failure(give_up_on, "give_up_on"))

    def allows(self, failures: int, error: BaseException | None) -> bool:
        """Say whether another attempt follows the *failures*-th failure, which raised *error*.

        An error that is not at hand (it happened in another process) counts as covered.
        """
        if failures >= self.attempts:
            return False
        if error is None:
            return True
        if not isinstance(error, Exception) or isinstance(error, FlowRefused):
            return False
        return _covers(self.on, error) and not _covers(self.give_up_on, error)

    def refuses(self, result: Any) -> bool:
        """Say whether *result* is worth another attempt."""
        return self.on_result is not None and bool(self.on_result(result))

    def in_time(self, age_s: float) -> bool:
        """Say whether an attempt may still start *age_s* seconds after the job was first due."""
        return self.deadline_s is None or age_s <= self.deadline_s

    def pause_s(self, failures: int, rng: Random, error: BaseException | None = None) -> float:
        """Return the seconds to wait after the *failures*-th failure (1 or more), from 0 to the cap."""
        if self.retry_after is not None and isinstance(error, Exception):
            named = self.retry_after(error)
            if named is not None:
                return min(self.cap_s, to_seconds(_read(named), "what retry_after returned"))
        if self.jitter == "decorrelated":
            return random_walk(failures, self.base_s, self.cap_s, rng)
        ceiling = _ceiling(failures, self.base_s, self.cap_s, self.mult)
        if self.jitter == "none":
            return ceiling
        return equal_jitter(ceiling, rng) if self.jitter == "equal" else full_jitter(ceiling, rng)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ({name: getattr(self, field) for field, name in _NAMES.items()},)

    def __repr__(self) -> str:
        given = [
            f"{_NAMES[field.name]}={_word(getattr(self, field.name))}"
            for field in fields(self)
            if field.name in {"on", "attempts"} or getattr(self, field.name) != field.default
        ]
        return f"Retry({', '.join(given)})"


_NAMES: Final = {field.name: field.name.removesuffix("_s") for field in fields(Retry)}
"""The fields by the names of the options that set them."""


def _restored(options: dict[str, Any]) -> Retry:
    return Retry(**options)


def exception_types(value: Any) -> tuple[type[BaseException], ...] | None:
    """Return the exception types that *value* is, one or a sequence or set of them; None if it is something else."""
    kinds: list[Any] = [*value] if isinstance(value, tuple | list | set | frozenset) else [value]
    return tuple(kinds) if all(map(_is_error, kinds)) else None


def _failure(value: Any, field: str) -> Failure:
    if (kinds := exception_types(value)) is not None:
        return kinds
    if callable(value) and not isinstance(value, type):
        check_plain(value, field)
        function: Any = value
        return cast("Failure", function)
    raise InvalidOption(
        f"{field} must be exception types such as (OSError,), or a function of the exception, got {shown(value)}"
    )


def _read(named: Any) -> Any:
    """Return the number that a ``Retry-After`` header holds as text; anything else as it is."""
    try:
        return float(named) if isinstance(named, str) else named
    except ValueError:
        return named


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, BaseException)


def _function(value: Any, field: str, of: str) -> Any:
    if value is not None and (not callable(value) or isinstance(value, type)):
        raise InvalidOption(f"{field} must be a function of {of}, got {shown(value)}")
    if value is not None:
        check_plain(value, field)
    return value


def _covers(what: Any, error: Exception) -> bool:
    if not isinstance(what, tuple):
        return bool(what(error))
    kinds = cast("tuple[type, ...]", what)
    if isinstance(error, RaisedElsewhere) and any(_full_name(kind) in error.kinds for kind in kinds):
        return True
    return isinstance(error, kinds)


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _word(value: Any) -> str:
    if isinstance(value, tuple):
        names = [kind.__name__ for kind in cast("tuple[type, ...]", value)]
        return names[0] if len(names) == 1 else f"({', '.join(names)})"
    if isinstance(value, float):
        return f"{value:g}"
    return repr(value) if isinstance(value, str | int | RetryBudget) else _name_of(value)


def _name_of(function: Any) -> str:
    return getattr(function, "__qualname__", None) or repr(function)


NO_RETRY: Final = Retry(on=Exception, attempts=1)


def _ceiling(failures: int, base_s: float, cap_s: float, mult: float) -> float:
    if base_s >= cap_s or base_s == 0.0:
        return min(base_s, cap_s)
    # Compared as logarithms: the product itself overflows long after any cap has been reached.
    if (failures - 1) * math.log(mult) >= math.log(cap_s) - math.log(base_s):
        return cap_s
    return float(min(cap_s, base_s * mult ** (failures - 1)))


def full_jitter(ceiling_s: float, rng: Random) -> float:
    """Return a pause drawn evenly from 0 to *ceiling_s* seconds.

    Source:
        M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    uniform: Callable[[float, float], float] = rng.uniform
    return uniform(0.0, ceiling_s)


def equal_jitter(ceiling_s: float, rng: Random) -> float:
    """Return a pause drawn evenly from the half of *ceiling_s* seconds to the whole.

    Source:
        As `full_jitter`.
    """
    return ceiling_s / 2 + full_jitter(ceiling_s / 2, rng)


def random_walk(failures: int, base_s: float, cap_s: float, rng: Random) -> float:
    """Return the *failures*-th step of a walk, each drawn evenly from *base_s* to three times the one before.

    The walk is drawn anew each time, so that no store need keep the last pause: the
    pause after the n-th failure is spread as it is in one walk that goes on.

    Source:
        "Decorrelated jitter", as `full_jitter`.
    """
    pause = min(base_s, cap_s)
    for _ in range(min(failures, MOST_STEPS)):
        pause = min(cap_s, rng.uniform(base_s, pause * STEP))
    return pause
