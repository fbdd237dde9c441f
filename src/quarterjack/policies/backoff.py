"""Retries: whether a failed attempt is tried again, and when.

Pure functions: the caller passes the counters and a source of randomness."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Final, Literal, Self, get_args

from quarterjack._durations import to_seconds
from quarterjack.errors import InvalidOption

__all__ = ["NO_RETRY", "Jitter", "RetryPolicy", "full_jitter"]

Jitter = Literal["full", "none"]


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after how long a failed attempt is tried again.

    Attributes:
        attempts: Attempts in all, the first one included; 1 means no retry.
        base_s: Ceiling of the pause after the first failure, in seconds.
        cap_s: Longest pause, in seconds.
        jitter: ``"full"`` draws evenly from 0 to the ceiling, ``"none"`` takes the ceiling.
        on: Exception types worth another attempt.
    """

    attempts: int = 1
    base_s: float = 1.0
    cap_s: float = 300.0
    jitter: Jitter = "full"
    on: tuple[type[BaseException], ...] = (Exception,)

    def __new__(cls, *_: object, **fields: object) -> Self:
        """Refuse fields it does not have, as every option is refused: by a sentence."""
        for name in fields:
            if name not in cls.__dataclass_fields__:
                near = difflib.get_close_matches(name, cls.__dataclass_fields__, n=1)
                hint = f"did you mean {near[0]!r}?" if near else "it takes " + ", ".join(cls.__dataclass_fields__)
                raise InvalidOption(f"RetryPolicy has no field {name!r}; {hint}")
        return object.__new__(cls)

    def __post_init__(self) -> None:
        if isinstance(self.attempts, bool) or not isinstance(self.attempts, int) or not 1 <= self.attempts <= 1_000_000:
            raise InvalidOption(f"retry must be 1 to 1000000 attempts, got {self.attempts!r}")
        for field in ("base_s", "cap_s"):  # a timedelta is taken, as everywhere, and kept as a number
            object.__setattr__(self, field, to_seconds(getattr(self, field), field))
        if self.jitter not in get_args(Jitter):
            raise InvalidOption(f"jitter must be one of {', '.join(map(repr, get_args(Jitter)))}, got {self.jitter!r}")
        are_types = isinstance(self.on, tuple) and all(
            isinstance(t, type) and issubclass(t, BaseException) for t in self.on
        )
        if not are_types:
            raise InvalidOption(f"on must be a tuple of exception types such as (OSError,), got {self.on!r}")

    def allows(self, failures: int, error: BaseException | None) -> bool:
        """Say whether another attempt follows the *failures*-th failure, which raised *error*.

        An error that is not at hand (it happened in another process) counts as covered.
        """
        return failures < self.attempts and (error is None or isinstance(error, self.on))

    def pause_s(self, failures: int, rng: Random) -> float:
        """Return the seconds to wait after the *failures*-th failure (1 or more)."""
        ceiling = _ceiling(failures, self.base_s, self.cap_s)
        return ceiling if self.jitter == "none" else full_jitter(ceiling, rng)


NO_RETRY: Final = RetryPolicy()


def _ceiling(failures: int, base_s: float, cap_s: float) -> float:
    # past 2**1000 a float overflows; by then any cap has long been reached
    return float(min(cap_s, base_s * 2.0 ** min(failures - 1, 1_000)))


def full_jitter(ceiling_s: float, rng: Random) -> float:
    """Return a pause drawn evenly from 0 to *ceiling_s* seconds.

    Source:
        M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """
    uniform: Callable[[float, float], float] = rng.uniform
    return uniform(0.0, ceiling_s)
