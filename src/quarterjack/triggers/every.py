"""Elapsed time: `Every` fires once per period, from whatever instant its grid stands on.

A fire time is computed from the grid, never from "now plus the period", so
nothing adds up: not a late start, not a long run, not a restart."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import ClassVar, Final, Literal, Self

from pydantic import field_validator, model_validator

from quarterjack.errors import InvalidTrigger

from . import _words
from ._periods import LONGEST_NS, SHORTEST_NS, Amount, Shift, exact_ns, given, total_ns
from .base import NativeTrigger, Trigger, from_ns, in_utc, instant_ns

__all__ = ["Every", "EveryFrom"]

_SECOND_NS: Final = 1_000_000_000
_DAY_NS: Final = 86_400 * _SECOND_NS
_NAMED_ANCHORS: Final = ("epoch", "start")


class Every(NativeTrigger):
    """Once per period of elapsed time, without drift: ``anchor + phase + k · period``.

    ::

        Every(minutes=5)                   :00, :05, :10 … in UTC, on every replica alike
        Every(minutes=5, phase=60)         :01, :06, :11 …
        Every(minutes=5, anchor="start")   5, 10, 15 … minutes after its schedule was created

    It is blind to daylight saving: a day is 24 hours. For the face of a clock see
    `Aligned`, for times of day `At` and `Cron`.

    Args:
        weeks, days, hours, minutes, seconds, milliseconds: Add up to the period,
            from 1 millisecond to about 200 years; fractions are allowed.
        phase: Seconds by which the grid is shifted, in either direction.
        anchor: An instant the grid stands on: ``"epoch"`` (1970-01-01 UTC; restarts
            and replicas agree without asking anyone), an aware datetime, or
            ``"start"``: the schedule's creation, the first run one period later.
        first: ``"immediate"`` runs once more, when the schedule is created.

    Raises:
        InvalidTrigger: Naming the field, its value and what is allowed.
    """

    example: ClassVar[str] = "Every(seconds=10)"

    weeks: Amount = 0
    days: Amount = 0
    hours: Amount = 0
    minutes: Amount = 0
    seconds: Amount = 0
    milliseconds: Amount = 0
    phase: Shift = 0
    anchor: datetime | Literal["epoch", "start"] = "epoch"
    first: Literal["immediate"] | None = None

    @field_validator("anchor", mode="before")
    @classmethod
    def _is_anchor(cls, value: object) -> object:
        if isinstance(value, str) and value not in _NAMED_ANCHORS:
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(_bad_anchor(value)) from None
        if isinstance(value, datetime):
            # In UTC: two datetimes of different zones never compare equal inside a repeated hour.
            return in_utc(value, "anchor")
        if value not in _NAMED_ANCHORS:
            raise ValueError(_bad_anchor(value))
        return value

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not SHORTEST_NS <= total_ns(self) <= LONGEST_NS:
            raise ValueError(f"the period must be from 1 millisecond to 200 years, got {given(self)}")
        return self

    @cached_property
    def period_ns(self) -> int:
        """The period in nanoseconds."""
        return total_ns(self)

    @cached_property
    def _origin_ns(self) -> int:
        if self.anchor == "start":
            raise InvalidTrigger(
                f"{self!r} counts from its schedule's creation, which it does not know yet; "
                "schedule it, or call resolved(created_ns, schedule_id) first"
            )
        base = instant_ns(self.anchor, "anchor") if isinstance(self.anchor, datetime) else 0
        return base + exact_ns(self.phase, _SECOND_NS)

    @property
    def needs_resolution(self) -> bool:
        """True with ``anchor="start"``."""
        return self.anchor == "start"

    @property
    def fires_at_creation(self) -> bool:
        """True with ``first="immediate"``."""
        return self.first is not None

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the rule with its grid standing on the schedule's creation, if it asked for that."""
        del schedule_id
        if self.anchor != "start":
            return self
        return EveryFrom(period_ns=self.period_ns, origin_ns=created_ns + exact_ns(self.phase, _SECOND_NS))

    def preview(self, n: int = 10, *, after: datetime) -> list[datetime]:
        """Return the next *n* fire times after *after*; with ``anchor="start"`` as if created at *after*."""
        if not self.needs_resolution:
            return super().preview(n, after=after)
        return self.resolved(instant_ns(after, "after"), "").preview(n, after=after)

    def next_ns(self, after: int, /) -> int:
        """Return the first fire time after *after*."""
        period = self.period_ns
        origin = self._origin_ns
        return after + period - (after - origin) % period

    def prev_ns(self, before: int, /) -> int:
        """Return the last fire time at or before *before*."""
        return before - (before - self._origin_ns) % self.period_ns

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Return how many fire times lie in ``(after, until]``, at most *cap*."""
        period, origin = self.period_ns, self._origin_ns
        return max(0, min(cap, (until - origin) // period - (after - origin) // period))

    def explain(self) -> str:
        """Return the rule in words: ``every 10 seconds``."""
        words = _words.period(self.period_ns)
        if self.anchor == "epoch" and self.period_ns % _DAY_NS == 0:
            words += self._time_words()
        elif self.phase:
            shift = _words.period(abs(exact_ns(self.phase, _SECOND_NS)), every=False)
            words += f", shifted {'by' if self.phase > 0 else 'back by'} {shift}"
        if isinstance(self.anchor, datetime):
            words += f", counted from {_words.instant(self.anchor)}"
        elif self.anchor == "start":
            words += ", counted from its schedule's creation"
        return words + (", and once when its schedule is created" if self.first else "")

    def _time_words(self) -> str:
        """Return when a period of whole days or weeks fires, which the epoch decides, not the reader's week."""
        at = from_ns(self._origin_ns)
        day = f" on {_words.WEEKDAY_NAMES[at.isoweekday() % 7]}s" if self.period_ns % (7 * _DAY_NS) == 0 else ""
        return f"{day} at {_words.clock(at.time())} UTC"


def _bad_anchor(value: object) -> str:
    return f"anchor must be 'epoch', 'start' or an aware datetime, got {value!r}"


class EveryFrom(NativeTrigger):
    """`Every` with ``anchor="start"``, once its schedule exists: the grid from one instant on.

    Not built by hand; it is what the scheduler asks and stores beside the declared rule.
    """

    period_ns: int
    origin_ns: int

    def next_ns(self, after: int, /) -> int:
        """Return the first fire time after *after*; none lies before one period after the origin."""
        origin, period = self.origin_ns, self.period_ns
        return origin + (max(after - origin, 0) // period + 1) * period

    def prev_ns(self, before: int, /) -> int | None:
        """Return the last fire time at or before *before*, or None."""
        steps = (before - self.origin_ns) // self.period_ns
        return self.origin_ns + steps * self.period_ns if steps >= 1 else None

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Return how many fire times lie in ``(after, until]``, at most *cap*."""
        origin, period = self.origin_ns, self.period_ns
        return max(0, min(cap, (until - origin) // period - max(0, (after - origin) // period)))

    def explain(self) -> str:
        """Return the rule in words."""
        return f"{_words.period(self.period_ns)}, counted from {_words.instant(from_ns(self.origin_ns))}"
