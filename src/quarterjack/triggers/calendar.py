"""`Calendar`: steps of years, months, weeks and days, counted from one date."""

from __future__ import annotations

from datetime import date, datetime, time
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, field_serializer, field_validator, model_validator

from quarterjack.errors import InvalidTrigger

from . import _words, _zone
from ._months import FIRST_DAY, LAST_DAY, day_in_month, day_number, month_number
from ._wall import FoldPolicy, GapPolicy, WallTrigger
from ._words import Sentence
from .base import Trigger, from_ns, instant_ns

__all__ = ["Calendar"]

_UNITS: Final = ("years", "months", "weeks", "days")
_MEAN_MONTH_DAYS: Final = 30.436875
_MOST: Final = 10_000

Steps = Annotated[int, Field(strict=True, ge=0, le=_MOST)]
"""How many of a unit; whole numbers."""


class _StepGrid:
    """The dates ``start + k * step`` at one time of day, for k = 0, 1, 2 …."""

    __slots__ = ("_at", "_clamp", "_day", "_days", "_mean", "_month", "_months", "_start")

    def __init__(self, start: date, months: int, days: int, at_ns: int, *, clamp: bool) -> None:
        self._start = day_number(start)
        self._month, self._day = month_number(self._start), start.day
        self._months, self._days = months, days
        self._mean = months * _MEAN_MONTH_DAYS + days
        self._at = at_ns
        self._clamp = clamp

    def next_wall(self, after: int, /) -> int | None:
        """Return the first match after *after*, or None before the year 10000."""
        k = self._first_after(self._last_day(after))
        while (least := self._date(k, clamp=True)) is not None:
            if self._clamp or self._date(k, clamp=False) is not None:
                return least * _zone.DAY_NS + self._at
            k += 1
        return None

    def prev_wall(self, before: int, /) -> int | None:
        """Return the last match at or before *before*, or None."""
        k = self._first_after(self._last_day(before)) - 1
        while k >= 0:
            found = self._date(k, clamp=self._clamp)
            if found is not None:
                return found * _zone.DAY_NS + self._at
            k -= 1
        return None

    def count_wall(self, after: int, until: int, /) -> int:
        """Return how many matches lie in ``(after, until]``."""
        low, high = self._first_after(self._last_day(after)), self._first_after(self._last_day(until))
        if self._clamp or not self._months or self._day <= 28:  # no step lacks its date
            return high - low
        return sum(self._date(k, clamp=False) is not None for k in range(low, high))

    def _last_day(self, wall: int) -> int:
        """Return the last day whose match is not after *wall*."""
        return (wall - self._at) // _zone.DAY_NS

    def _first_after(self, day: int) -> int:
        """Return the first k whose date, clamped, lies after *day*."""
        if day < self._start:
            return 0
        # Months differ from their mean by days, so the guess is a step or two below.
        k = max(0, int((min(day, LAST_DAY) - self._start) / self._mean) - 2)
        while (found := self._date(k, clamp=True)) is not None and found <= day:
            k += 1
        return k

    def _date(self, k: int, *, clamp: bool) -> int | None:
        """Return the k-th date, counted from the start itself: 31 Jan, 28 Feb, 31 Mar."""
        found = day_in_month(self._month + k * self._months, self._day, clamp=clamp) if self._months else self._start
        if found is None:
            return None
        found += k * self._days
        return found if FIRST_DAY <= found <= LAST_DAY else None


class Calendar(WallTrigger):
    """Steps of the calendar: ``Calendar(months=1, start="2026-01-31", at="09:00", tz="Europe/Rome")``.

    The fire times are the start's date and every step from it, each counted from
    the start itself: 31 January, 28 February, **31** March; never from a date that
    was shortened before. `Every` counts elapsed time instead, `Cron` names days
    that begin anew each month.

    Args:
        years, months, weeks, days: Add up to the step; whole numbers, at least one day.
        at: The time of day, as ``"09:00"``, ``"09:00:30"`` or a ``datetime.time``.
        start: The date the steps are counted from, itself the first: a ``datetime.date``
            or ``"2026-01-31"``. Without it, the day on which the schedule is created.
        missing: What becomes of a step into a month without such a day: ``"skip"``
            leaves it out, ``"clamp"`` takes the month's last day.
        tz: The zone whose calendar and clock it reads.
        gap: What becomes of a time that does not exist on the night when the clocks
            go forward; by default it runs at the first instant after the gap.
        fold: What becomes of a time that exists twice; by default it runs the first time.

    Raises:
        InvalidTrigger: Naming the field, its value and what is allowed.
    """

    example: ClassVar[str] = "Calendar(months=1, start='2026-01-31', at='09:00', tz='Europe/Rome')"

    years: Steps = 0
    months: Steps = 0
    weeks: Steps = 0
    days: Steps = 0
    at: time = time(0)
    start: date | None = None
    missing: Literal["skip", "clamp"] = "skip"

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            years: int = 0,
            months: int = 0,
            weeks: int = 0,
            days: int = 0,
            at: str | time = "00:00",
            start: str | date | None = None,
            missing: Literal["skip", "clamp"] = "skip",
            tz: str = "UTC",
            gap: GapPolicy = "auto",
            fold: FoldPolicy = "auto",
        ) -> None: ...

    @field_validator("at", mode="before")
    @classmethod
    def _time_of_day(cls, value: object) -> time:
        return _words.time_of_day(value)

    @field_validator("start", mode="before")
    @classmethod
    def _is_date(cls, value: object) -> object:
        if isinstance(value, str):
            try:
                return date.fromisoformat(value)
            except ValueError:
                pass
        if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
            return value
        raise ValueError(f"start is a date such as '2026-01-31', and at= its time of day; got {value!r}")

    @field_serializer("at")
    def _written(self, value: time) -> str:
        return value.isoformat()

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if not any(getattr(self, unit) for unit in _UNITS):
            raise ValueError("the step must be a day at least, got none of years, months, weeks and days")
        if self.start is not None and self._grid_of(self.start).next_wall(self._wall_of(self.start)) is None:
            raise ValueError(f"the step after {self.start} lies past the year 9999")
        return self

    @cached_property
    def _at_ns(self) -> int:
        at = self.at
        return ((at.hour * 60 + at.minute) * 60 + at.second) * 1_000_000_000 + at.microsecond * 1_000

    def _wall_of(self, day: date) -> int:
        return day_number(day) * _zone.DAY_NS + self._at_ns

    def _grid_of(self, start: date) -> _StepGrid:
        months, days = self.years * 12 + self.months, self.weeks * 7 + self.days
        return _StepGrid(start, months, days, self._at_ns, clamp=self.missing == "clamp")

    @cached_property
    def grid(self) -> _zone.Grid:
        """The rule over wall-clock time."""
        if self.start is None:
            raise InvalidTrigger(
                f"{self!r} counts from the day its schedule is created, which it does not know yet; "
                "give start=, schedule it, or call resolved(created_ns, schedule_id) first"
            )
        return self._grid_of(self.start)

    @property
    def is_elapsed_like(self) -> bool:
        """False: it names a time of day."""
        return False

    @property
    def needs_resolution(self) -> bool:
        """True without a start."""
        return self.start is None

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the rule with the local day of its schedule's creation as its start, if it has none."""
        del schedule_id
        if self.start is not None:
            return self
        return self.model_copy(update={"start": from_ns(created_ns, self._tz).date()})

    def preview(self, n: int = 10, *, after: datetime) -> list[datetime]:
        """Return the next *n* fire times after *after*; without a start as if created at *after*."""
        if not self.needs_resolution:
            return super().preview(n, after=after)
        return self.resolved(instant_ns(after, "after"), "").preview(n, after=after)

    def _sentence(self) -> Sentence:
        steps = [(getattr(self, unit), unit) for unit in _UNITS if getattr(self, unit)]
        words = _words.join(f"{n} {unit}" if n > 1 else f"1 {unit[:-1]}" for n, unit in steps)
        every = f"every {words.removeprefix('1 ') if len(steps) == 1 else words}"
        origin = _words.dates([self.start]) if self.start is not None else "the day its schedule is created"
        notes = self._policy_notes()
        if self._can_lack_its_day():
            what = "takes its last day" if self.missing == "clamp" else "is left out"
            notes = (f"a month without that day {what}", *notes)
        return Sentence(
            when=f"{every} at {_words.clock(self.at)}, from {origin}", zone=_words.zone(self.tz), notes=notes
        )

    def _can_lack_its_day(self) -> bool:
        return bool(self.years or self.months) and (self.start is None or self.start.day > 28)
