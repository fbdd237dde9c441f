"""A cron expression as a grid over wall-clock time: bit masks, no walking.

A day is found by months and day masks, a time of day by scanning bits, so the
next match of a rare expression costs no more steps than it skips months."""

from __future__ import annotations

from calendar import monthrange
from datetime import date
from functools import lru_cache
from typing import Final

from ._cron_fields import ParsedField, day_mask

__all__ = ["CronGrid"]

_NS: Final = 1_000_000_000
_DAY_S: Final = 86_400
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_FIRST_YEAR, _LAST_YEAR = 1900, 2400
"""The Gregorian calendar repeats after 400 years: what does not match in them never does."""


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


class CronGrid:
    """The wall times that match; built by `Cron` and `At`."""

    __slots__ = ("_both", "_day", "_days", "_hours", "_minutes", "_months", "_seconds", "_weekdays", "_years", "month")

    def __init__(
        self,
        seconds: int,
        minutes: int,
        hours: int,
        days: ParsedField,
        months: int,
        weekdays: ParsedField,
        years: int | None,
        *,
        both: bool,
    ) -> None:
        self._seconds, self._minutes, self._hours = seconds, minutes, hours
        self._days, self._weekdays, self._both = days, weekdays, both
        self._months, self._years = months, years
        self.month = lru_cache(maxsize=64)(self._month)

    def _month(self, year: int, month: int) -> int:
        """Return the mask of matching days of a month."""
        if not self._months >> month & 1 or (self._years is not None and not self._years >> year & 1):
            return 0
        first, length = monthrange(year, month)
        return day_mask(self._days, self._weekdays, both=self._both, first_weekday=(first + 1) % 7, length=length)

    def ever(self) -> bool:
        """Say whether any day matches at all."""
        for year in range(1970, 2370):
            if self._years is not None and not self._years >> year & 1:
                continue
            if any(self._months >> month & 1 and self._month(year, month) for month in range(1, 13)):
                return True
        return False

    # -- days ------------------------------------------------------------------------

    def _next_day(self, ordinal: int) -> int | None:
        """Return the first matching day at or after *ordinal*."""
        at = date.fromordinal(ordinal)
        year, month = at.year, at.month
        mask = self.month(year, month) >> at.day << at.day
        while not mask:
            month += 1
            if month > 12:
                year, month = year + 1, 1
            if year > _LAST_YEAR:
                return None
            mask = self.month(year, month)
        return date(year, month, _lowest(mask)).toordinal()

    def _prev_day(self, ordinal: int) -> int | None:
        """Return the last matching day at or before *ordinal*."""
        at = date.fromordinal(ordinal)
        year, month = at.year, at.month
        mask = self.month(year, month) & ((2 << at.day) - 1)
        while not mask:
            month -= 1
            if not month:
                year, month = year - 1, 12
            if year < _FIRST_YEAR:
                return None
            mask = self.month(year, month)
        return date(year, month, mask.bit_length() - 1).toordinal()

    # -- times of day -------------------------------------------------------------------

    def _next_time(self, second: int) -> int | None:
        """Return the first matching second of the day at or after *second*."""
        hour, rest = divmod(second, 3_600)
        minute, sec = divmod(rest, 60)
        hours = self._hours >> hour
        if hours & 1:
            minutes = self._minutes >> minute
            if minutes & 1:
                seconds = self._seconds >> sec
                if seconds:
                    return second + _lowest(seconds)
            minutes &= ~1
            if minutes:
                return hour * 3_600 + (minute + _lowest(minutes)) * 60 + _lowest(self._seconds)
        hours &= ~1
        if not hours:
            return None
        return (hour + _lowest(hours)) * 3_600 + _lowest(self._minutes) * 60 + _lowest(self._seconds)

    def _prev_time(self, second: int) -> int | None:
        """Return the last matching second of the day at or before *second*."""
        hour, rest = divmod(second, 3_600)
        minute, sec = divmod(rest, 60)
        if self._hours >> hour & 1:
            if self._minutes >> minute & 1:
                seconds = self._seconds & ((2 << sec) - 1)
                if seconds:
                    return second - sec + seconds.bit_length() - 1
            minutes = self._minutes & ((1 << minute) - 1)
            if minutes:
                return hour * 3_600 + (minutes.bit_length() - 1) * 60 + self._seconds.bit_length() - 1
        hours = self._hours & ((1 << hour) - 1)
        if not hours:
            return None
        last = self._minutes.bit_length() - 1, self._seconds.bit_length() - 1
        return (hours.bit_length() - 1) * 3_600 + last[0] * 60 + last[1]

    # -- the grid ------------------------------------------------------------------------

    def next_wall(self, after: int, /) -> int | None:
        """Return the first match after *after*, in wall nanoseconds."""
        day, second = divmod(after // _NS + 1, _DAY_S)
        ordinal = day + _EPOCH_ORDINAL
        found = self._next_day(ordinal)
        if found == ordinal:
            at = self._next_time(second)
            if at is not None:
                return (day * _DAY_S + at) * _NS
            found = self._next_day(ordinal + 1)
        if found is None:
            return None
        first = self._next_time(0)
        return None if first is None else ((found - _EPOCH_ORDINAL) * _DAY_S + first) * _NS

    def prev_wall(self, before: int, /) -> int | None:
        """Return the last match at or before *before*, in wall nanoseconds."""
        day, second = divmod(before // _NS, _DAY_S)
        ordinal = day + _EPOCH_ORDINAL
        found = self._prev_day(ordinal)
        if found == ordinal:
            at = self._prev_time(second)
            if at is not None:
                return (day * _DAY_S + at) * _NS
            found = self._prev_day(ordinal - 1)
        if found is None:
            return None
        last = self._prev_time(_DAY_S - 1)
        return None if last is None else ((found - _EPOCH_ORDINAL) * _DAY_S + last) * _NS
