"""Filters: which instants a rule may fire at. ``Every(minutes=1) & Weekdays("mon-fri")``.

A filter is a pure predicate over instants, never another trigger: two sets of
points have no useful intersection. Besides its verdict it may tell *how long* the
verdict stays the same (`Filter.span_ns`); a search then leaps over closed hours and
days instead of trying each fire time in them."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import UTC, date, datetime, time, tzinfo
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final, Never, Self, cast

from pydantic import field_validator, model_validator

from quarterjack.errors import InvalidTrigger

from . import _words, _zone
from ._rule import Rule
from ._weekdays import parse_weekdays, weekday_text
from .base import from_ns, instant_ns

__all__ = ["Between", "Dates", "Filter", "WallFilter", "Weekdays"]

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_SECOND_NS: Final = 1_000_000_000
_NAMED_DATES: Final = 4
_AGES: Final = 401 * 366
"""Days up to which a list of dates says nothing more: farther than any search looks."""


class Filter(Rule):
    """A pure predicate over instants: ``rule & keep`` and ``rule - drop``.

    Subclass it with your fields and ``allows``; it is a pydantic model as `Trigger`
    is. A search through such a predicate looks at 10,000 fire times at most, unless
    it also defines `span_ns`.
    """

    @abstractmethod
    def allows(self, at: datetime) -> bool:
        """Say whether a rule may fire at the aware datetime *at*."""

    def __and__(self, other: object) -> Never:
        raise self._no_rule("&", other)

    def __or__(self, other: object) -> Never:
        raise self._no_rule("|", other)

    def __sub__(self, other: object) -> Never:
        raise self._no_rule("-", other)

    def _no_rule(self, operator: str, other: object) -> InvalidTrigger:
        both = f"; a TimeWindow takes both as a list, [{self!r}, {other!r}]"
        return InvalidTrigger(
            f"{operator} stands between a rule and a filter, and {self!r} is a filter: Python takes - before &, and & "
            f"before |, so put the rule in parentheses, as in (Every(hours=1) & {self!r}) {operator} {other!r}"
            f"{both if operator == '&' and isinstance(other, Filter) else ''}"
        )

    def explain(self) -> str:
        """Return the filter in words, to stand after a rule's; a custom one is shown as it is written."""
        return repr(self)

    def allows_ns(self, at: int, zone: tzinfo | None, /) -> bool:
        """As `allows`, in nanoseconds since the epoch; *zone* is the trigger's, to show the instant in."""
        return bool(self.allows(from_ns(at, zone or UTC)))

    def span_ns(self, at: int, /) -> tuple[int, int]:
        """Return a span ``[start, end)`` around *at* in which the verdict is the same as at *at*."""
        return at, at + 1


class WallFilter(Filter):
    """A filter that looks at the wall clock of a zone."""

    tz: str = "UTC"

    @field_validator("tz")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        _zone.zone(name)
        return name

    @cached_property
    def _tz(self) -> tzinfo:
        return _zone.zone(self.tz)

    @property
    def zone(self) -> tzinfo:
        """The zone whose clock it looks at."""
        return self._tz

    @abstractmethod
    def wall_span(self, wall: int, /) -> tuple[bool, int, int]:
        """Return the verdict at a wall time, and the wall times ``[start, end)`` around it that share it."""

    def allows(self, at: datetime) -> bool:
        """Say whether a rule may fire at the aware datetime *at*.

        Raises:
            NaiveDatetime: If it has no zone.
        """
        return self.allows_ns(instant_ns(at, "at"), None)

    def allows_ns(self, at: int, zone: tzinfo | None, /) -> bool:
        """As `allows`, in nanoseconds since the epoch; its own zone decides."""
        del zone
        return self.wall_span(at + _zone.stretch(self._tz, at).offset)[0]

    def span_ns(self, at: int, /) -> tuple[int, int]:
        """Return a span around *at* in which the verdict is the same: exact within one offset of the zone."""
        here = _zone.stretch(self._tz, at)
        _, low, high = self.wall_span(at + here.offset)
        start, end = low - here.offset, high - here.offset
        # Beyond the stretch the offset is another, but never by more than the sway.
        return (
            start if start >= here.start else min(here.start, start + _zone.SWAY_NS),
            end if end <= here.end else max(here.end, end - _zone.SWAY_NS),
        )

    def explain(self) -> str:
        """Return the filter in words: ``Monday to Friday, Rome time``."""
        return f"{self.day_words()}, {self.zone_words()}"

    @abstractmethod
    def day_words(self) -> str:
        """Return the filter in words, without its zone."""

    def zone_words(self) -> str:
        """Return the zone in words: ``Rome time``."""
        return _words.zone(self.tz)


class Weekdays(WallFilter):
    """Days of the week: ``Every(minutes=1) & Weekdays("mon-fri", tz="Europe/Rome")``.

    Args:
        days: A day, a range (``fri-mon`` wraps), ``weekdays``, ``weekend``, several
            with commas, or a sequence of those.
        tz: The zone whose midnights divide the days.

    Raises:
        InvalidTrigger: Naming the part that is no weekday, or the unknown zone.
    """

    positional: ClassVar[tuple[str, ...]] = ("days",)
    example: ClassVar[str] = "Weekdays('mon-fri', tz='Europe/Rome')"

    days: str

    if TYPE_CHECKING:

        def __init__(self, days: str | Sequence[str], *, tz: str = "UTC") -> None: ...

    @field_validator("days", mode="before")
    @classmethod
    def _one_spelling(cls, value: object) -> str:
        return weekday_text(parse_weekdays(value, "days"))

    @cached_property
    def _mask(self) -> int:
        return parse_weekdays(self.days, "days")

    def wall_span(self, wall: int, /) -> tuple[bool, int, int]:
        """Return the verdict at a wall time, and its day."""
        day = wall // _zone.DAY_NS
        # Day 0, 1970-01-01, was a Thursday: number 4 where Sunday is 0.
        return bool(self._mask >> (day + 4) % 7 & 1), day * _zone.DAY_NS, (day + 1) * _zone.DAY_NS

    def day_words(self) -> str:
        """Return ``Monday to Friday``."""
        return _words.weekdays(self._mask)


class Between(WallFilter):
    """Times of day: ``Every(minutes=5) & Between("09:00", "17:00", tz="Europe/Rome")``.

    The first time belongs to it, the second does not. A second one that is earlier
    is the next morning's: ``Between("22:00", "06:00")``.

    Args:
        start: Beginning, as ``"09:00"``, ``"09:00:30"`` or a ``datetime.time``.
        end: End, in the same forms; itself not allowed.
        tz: The zone whose clock is meant.

    Raises:
        InvalidTrigger: If a time cannot be read, both are equal, or the zone is unknown.
    """

    positional: ClassVar[tuple[str, ...]] = ("start", "end")
    example: ClassVar[str] = "Between('09:00', '17:00', tz='Europe/Rome')"

    start: time
    end: time

    if TYPE_CHECKING:

        def __init__(self, start: str | time, end: str | time, *, tz: str = "UTC") -> None: ...

    @field_validator("start", "end", mode="before")
    @classmethod
    def _time_of_day(cls, value: object) -> time:
        return _words.time_of_day(value)

    @model_validator(mode="after")
    def _differ(self) -> Self:
        if self.start == self.end:
            raise ValueError(f"start and end are both {_words.clock(self.start)}, so nothing lies between them")
        return self

    @cached_property
    def _bounds(self) -> tuple[int, int]:
        low, high = (
            (at.hour * 3_600 + at.minute * 60 + at.second) * _SECOND_NS + at.microsecond * 1_000
            for at in (self.start, self.end)
        )
        return low, high

    def wall_span(self, wall: int, /) -> tuple[bool, int, int]:
        """Return the verdict at a wall time, and the part of its day that shares it."""
        start, end = self._bounds
        low, high = min(start, end), max(start, end)
        midnight = wall // _zone.DAY_NS * _zone.DAY_NS
        within = wall - midnight
        if within < low:
            return start > end, midnight, midnight + low
        if within < high:
            return start < end, midnight + low, midnight + high
        return start > end, midnight + high, midnight + _zone.DAY_NS

    def day_words(self) -> str:
        """Return ``from 09:00 until just before 17:00``."""
        return f"from {_words.clock(self.start)} until just before {_words.clock(self.end)}"


class Dates(WallFilter):
    """Whole days by date, such as holidays: ``At("09:00") - Dates("2026-12-25", "2026-12-26")``.

    Args:
        days: Dates, as ``datetime.date`` or ``"2026-12-25"``; at least one.
        tz: The zone whose midnights divide the days.

    Raises:
        InvalidTrigger: If a date cannot be read, there is none, or the zone is unknown.
    """

    example: ClassVar[str] = "Dates('2026-12-25', '2026-12-26', tz='Europe/Rome')"

    days: tuple[date, ...]

    if TYPE_CHECKING:

        def __init__(self, *days: date | str, tz: str = "UTC") -> None: ...

    @classmethod
    def arranged(cls, args: tuple[Any, ...], data: dict[str, Any]) -> dict[str, Any]:
        """Take the dates by position; ``days=`` is how JSON gives them back."""
        return {"days": args, **data} if not args or "days" not in data else super().arranged(args, data)

    @field_validator("days", mode="before")
    @classmethod
    def _in_order(cls, value: object) -> tuple[date, ...]:
        if not isinstance(value, Iterable) or isinstance(value, str):
            raise ValueError(f"days must be dates, got {value!r}")  # noqa: TRY004  # pydantic passes ValueError on
        found = tuple(sorted({_as_date(day) for day in cast("Iterable[object]", value)}))
        if not found:
            raise ValueError("it needs at least one date")
        return found

    @cached_property
    def _numbers(self) -> list[int]:
        return [day.toordinal() - _EPOCH_ORDINAL for day in self.days]

    def wall_span(self, wall: int, /) -> tuple[bool, int, int]:
        """Return the verdict at a wall time, and its day, or all days between two dates of the list."""
        day, numbers = wall // _zone.DAY_NS, self._numbers
        place = bisect_left(numbers, day)
        if place < len(numbers) and numbers[place] == day:
            return True, day * _zone.DAY_NS, (day + 1) * _zone.DAY_NS
        before = numbers[place - 1] + 1 if place else day - _AGES
        following = numbers[place] if place < len(numbers) else day + _AGES
        return False, before * _zone.DAY_NS, following * _zone.DAY_NS

    def day_words(self) -> str:
        """Return ``on 25 and 26 December 2026``, of many dates their number and the first and last."""
        if len(self.days) > _NAMED_DATES:
            first, last = (_words.dates([day]) for day in (self.days[0], self.days[-1]))
            return f"on {len(self.days)} dates from {first} to {last}"
        return f"on {_words.dates(self.days)}"


def _as_date(day: object) -> date:
    if isinstance(day, date) and not isinstance(day, datetime):
        return day
    if isinstance(day, str):
        try:
            return date.fromisoformat(day)
        except ValueError:
            pass
    raise ValueError(f"{day!r} is no date; write date(2026, 12, 25) or '2026-12-25'")
