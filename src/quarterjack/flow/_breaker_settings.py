"""What a `CircuitBreaker` is told: checked when it is built, and again as a whole at each change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from quarterjack._choices import one_of
from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import number, whole_number
from quarterjack.errors import InvalidOption

__all__ = ["CHANGEABLE", "BreakerSettings", "OnOpen"]

OnOpen = Literal["fail", "hold"]

CHANGEABLE: Final = (
    "failure_ratio",
    "min_calls",
    "slow_call",
    "open_for",
    "max_open_for",
    "jitter",
    "probes",
    "probe_timeout",
    "on_open",
)
"""What `update` takes: all but what says what is remembered."""

DEFAULT_GROWTH: Final = 10.0
"""How often *open_for* the longest opening lasts, if nothing is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """Settings of a breaker; durations are seconds once it is made."""

    failure_ratio: float
    min_calls: int
    window: Seconds
    window_calls: int | None
    slow_call: Seconds | None
    open_for: Seconds
    max_open_for: Seconds | None
    jitter: float
    probes: int
    probe_timeout: Seconds | None
    on_open: OnOpen

    def __post_init__(self) -> None:
        number(self.failure_ratio, "failure_ratio", 0.0, 1.0, exclusive=True)
        whole_number(self.min_calls, "min_calls", 1)
        number(self.jitter, "jitter", 0.0, 1.0)
        whole_number(self.probes, "probes", 1)
        one_of(self.on_open, "on_open", OnOpen)
        for field in ("window", "open_for"):
            self._keep_seconds(field)
        for field in ("slow_call", "max_open_for", "probe_timeout"):
            if getattr(self, field) is not None:
                self._keep_seconds(field)
        self._check_together()

    def _keep_seconds(self, field: str) -> None:
        object.__setattr__(self, field, to_seconds(getattr(self, field), field, exclusive=True))

    def _check_together(self) -> None:
        if self.window_calls is not None and whole_number(self.window_calls, "window_calls", 1) < self.min_calls:
            raise InvalidOption(
                f"min_calls={self.min_calls} is above window_calls={self.window_calls}: so many calls are never "
                "remembered, and it would never open; lower one or raise the other"
            )
        if self.max_open_for is not None and self.max_open_for < self.open_for:  # type: ignore[operator]  # seconds by now
            raise InvalidOption(f"max_open_for must be open_for={self.open_for} or more, got {self.max_open_for}")

    @property
    def slow_s(self) -> float | None:
        """Seconds from which a call counts as failed."""
        return self._seconds(self.slow_call)

    @property
    def probe_s(self) -> float | None:
        """Seconds that a probe or a health check may take."""
        return self._seconds(self.probe_timeout)

    def open_s(self, openings: int) -> float:
        """Return how long the *openings*-th opening in a row lasts at least: twice as long each time, to the limit."""
        first = self._seconds(self.open_for) or 0.0
        longest = self._seconds(self.max_open_for) or first * DEFAULT_GROWTH
        # past 2**60 any limit has long been reached
        return min(longest, first * 2.0 ** min(openings - 1, 60))

    @staticmethod
    def _seconds(value: Any) -> float | None:
        return None if value is None else float(value)
