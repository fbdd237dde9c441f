"""Periodic triggers: `Every` counts elapsed time, `Aligned` stands on the clock face."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from . import _words, _zone
from ._wall import FoldPolicy, GapPolicy, WallTrigger
from .base import NativeTrigger, Trigger, instant_ns

__all__ = ["Aligned", "Every"]

_MS: Final = 1_000_000
_UNITS_NS: Final = {
    "weeks": 7 * 86_400 * 10**9,
    "days": 86_400 * 10**9,
    "hours": 3_600 * 10**9,
    "minutes": 60 * 10**9,
    "seconds": 10**9,
    "milliseconds": _MS,
}
_LONGEST_NS: Final = 200 * 366 * 86_400 * 10**9

Amount = Annotated[float, Field(ge=0, allow_inf_nan=False, le=10**13)]


def _total_ns(trigger: Any) -> int:
    """Return the sum of a trigger's units in nanoseconds, exact for whole numbers."""
    total = 0
    for unit, size in _UNITS_NS.items():
        amount = getattr(trigger, unit, 0)
        total += int(amount) * size if amount == int(amount) else round(amount * size)
    return total


def _given(trigger: Any) -> str:
    named = [f"{unit}={amount:g}" for unit in _UNITS_NS if (amount := getattr(trigger, unit, 0))]
    return ", ".join(named) or "nothing"


class Every(NativeTrigger):
    """Every so much elapsed time, without drift: ``n = anchor + phase + k · D``, blind to daylight saving.

    Args:
        weeks, days, hours, minutes, seconds, milliseconds: The period D, their
            sum; from 1 millisecond to about 200 years.
        phase: Seconds to shift the grid by.
        anchor: Where the grid stands: ``"epoch"`` (restarts and replicas agree
            without asking anybody), an aware datetime, or ``"start"`` (the first
            run is D after the schedule was created).
        first: ``"immediate"`` also runs once when the schedule is created.

    Raises:
        InvalidTrigger: Naming the field, its value and what is allowed.
    """

    weeks: Amount = 0
    days: Amount = 0
    hours: Amount = 0
    minutes: Amount = 0
    seconds: Amount = 0
    milliseconds: Amount = 0
    phase: Annotated[float, Field(allow_inf_nan=False)] = 0
    anchor: datetime | Literal["epoch", "start"] = "epoch"
    first: Literal["immediate"] | None = None

    def __init__(
        self,
        *,
        weeks: float = 0,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
        phase: float = 0,
        anchor: datetime | Literal["epoch", "start"] = "epoch",
        first: Literal["immediate"] | None = None,
        **unknown: Any,
    ) -> None:
        fields: dict[str, Any] = {
            "weeks": weeks,
            "days": days,
            "hours": hours,
            "minutes": minutes,
            "seconds": seconds,
            "milliseconds": milliseconds,
            "phase": phase,
            "anchor": anchor,
            "first": first,
        }
        super().__init__(**fields, **unknown)

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not _MS <= _total_ns(self) <= _LONGEST_NS:
            raise ValueError(
                f"the period must be from 1 millisecond to 200 years, got {_given(self)}; "
                "write for example Every(seconds=10)"
            )
        if isinstance(self.anchor, datetime):
            instant_ns(self.anchor, "anchor")
        return self

    @cached_property
    def _period(self) -> int:
        return _total_ns(self)

    @cached_property
    def _origin(self) -> int:
        base = instant_ns(self.anchor) if isinstance(self.anchor, datetime) else 0
        return base + round(self.phase * 10**9)

    @property
    def fires_at_creation(self) -> bool:
        """True with ``first="immediate"``."""
        return self.first == "immediate"

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the rule with ``anchor="start"`` replaced by the schedule's creation."""
        del schedule_id
        if self.anchor != "start":
            return self
        return _Anchored(period_ns=self._period, origin_ns=created_ns + round(self.phase * 10**9))

    def next_ns(self, after: int, /) -> int:
        """Return the first fire time after *after*."""
        origin, period = self._origin, self._period
        return origin + ((after - origin) // period + 1) * period

    def prev_ns(self, before: int, /) -> int:
        """Return the last fire time at or before *before*."""
        origin, period = self._origin, self._period
        return origin + (before - origin) // period * period

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Return how many fire times lie in ``(after, until]``."""
        origin, period = self._origin, self._period
        return max(0, min(cap, (until - origin) // period - (after - origin) // period))

    def explain(self) -> str:
        """Return the rule in words."""
        words = _words.period(self._period)
        if isinstance(self.anchor, datetime):
            words += f", counted from {self.anchor.isoformat(' ', 'seconds')}"
        elif self.anchor == "start":
            words += ", counted from its creation"
        return words + (", and once at its creation" if self.first else "")


class _Anchored(NativeTrigger):
    """`Every` with ``anchor="start"`` once its schedule exists: the same grid from a stored instant."""

    period_ns: int
    origin_ns: int

    def next_ns(self, after: int, /) -> int:
        after = max(after, self.origin_ns)
        return self.origin_ns + ((after - self.origin_ns) // self.period_ns + 1) * self.period_ns

    def prev_ns(self, before: int, /) -> int | None:
        steps = (before - self.origin_ns) // self.period_ns
        return self.origin_ns + steps * self.period_ns if steps >= 1 else None

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        passed = max(0, (after - self.origin_ns) // self.period_ns)
        return max(0, min(cap, (until - self.origin_ns) // self.period_ns - passed))

    def explain(self) -> str:
        return f"{_words.period(self.period_ns)}, counted from its creation"


class _DayGrid:
    """The wall-clock grid that starts anew at each midnight."""

    __slots__ = ("_period",)

    def __init__(self, period: int) -> None:
        self._period = period

    def next_wall(self, after: int, /) -> int:
        day, within = divmod(after, _zone.DAY_NS)
        following = (within // self._period + 1) * self._period
        return day * _zone.DAY_NS + min(following, _zone.DAY_NS)

    def prev_wall(self, before: int, /) -> int:
        day, within = divmod(before, _zone.DAY_NS)
        return day * _zone.DAY_NS + within // self._period * self._period


class Aligned(WallTrigger):
    """The clock tops of a zone: a grid that starts anew at each local midnight.

    ``Aligned(minutes=15)`` is :00, :15, :30 and :45 on the clock face. Where the
    period does not divide the day, the day's last step is shorter (7 hours:
    00:00, 07:00, 14:00, 21:00, 00:00); the grid that goes on across hours and
    days is ``Every``. Daylight saving goes as for cron: both passes of a
    repeated hour, nothing in a skipped one.

    Args:
        days, hours, minutes, seconds, milliseconds: The period, their sum; from
            1 millisecond to 24 hours.
        tz: The zone, such as ``"Europe/Rome"``.
        gap: What becomes of clock tops that do not exist (`_zone`).
        fold: What becomes of clock tops that exist twice.

    Raises:
        InvalidTrigger: Naming the field, its value and what is allowed.
    """

    days: Amount = 0
    hours: Amount = 0
    minutes: Amount = 0
    seconds: Amount = 0
    milliseconds: Amount = 0

    def __init__(
        self,
        *,
        days: float = 0,
        hours: float = 0,
        minutes: float = 0,
        seconds: float = 0,
        milliseconds: float = 0,
        tz: str = "UTC",
        gap: GapPolicy = "auto",
        fold: FoldPolicy = "auto",
        **unknown: Any,
    ) -> None:
        fields: dict[str, Any] = {
            "days": days,
            "hours": hours,
            "minutes": minutes,
            "seconds": seconds,
            "milliseconds": milliseconds,
            "tz": tz,
            "gap": gap,
            "fold": fold,
        }
        super().__init__(**fields, **unknown)

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not _MS <= _total_ns(self) <= _zone.DAY_NS:
            raise ValueError(
                f"the period must be from 1 millisecond to 24 hours, got {_given(self)}; "
                "longer ones have no clock top: use Every(…) or Cron(…)"
            )
        return self

    @cached_property
    def grid(self) -> _zone.Grid:
        """The rule over wall-clock time."""
        return _DayGrid(_total_ns(self))

    @property
    def is_elapsed_like(self) -> bool:
        """True, but for once a day: midnight is a time of day."""
        return _total_ns(self) < _zone.DAY_NS

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Return how many fire times lie in ``(after, until]``."""
        period = _total_ns(self)
        if self.tz != "UTC" or _zone.DAY_NS % period:
            return super().count_ns(after, until, cap)
        return max(0, min(cap, until // period - after // period))

    def explain(self) -> str:
        """Return the rule in words."""
        return f"{_words.period(_total_ns(self))} on the clock{self.zone_words()}"
