"""A cron expression as a grid over wall-clock time: bit masks, no walking.

A day is found by months and day masks, a time of day by scanning bits, so the
next match of a rare expression costs no more steps than it skips months. What a
month's days are depends only on the weekday of its first and on its length:
there are 28 kinds of month, and each is worked out once."""

from __future__ import annotations

from datetime import date
from typing import Final

from ._cron_fields import ParsedField, day_mask

__all__ = ["CronGrid"]

_NS: Final = 1_000_000_000
_DAY_S: Final = 86_400
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_YEARS: Final = 400
"""The calendar repeats after so many years: what does not match in them never does."""
_FIRST_YEAR: Final = 1
_LAST_YEAR: Final = 9999
_LENGTHS: Final = (0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_EVERY_MONTH: Final = 0b1111111111110
_EVERY_MONTH_DAY: Final = (1 << 32) - 2
_EVERY_WEEKDAY: Final = 0b1111111


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


def _length(year: int, month: int) -> int:
    if month == 2 and year % 4 == 0 and (year % 100 or year % 400 == 0):
        return 29
    return _LENGTHS[month]


class CronGrid:
    """The wall times that match; built by `Cron` and `At`.

    Args:
        seconds, minutes, hours, months: Masks of what matches.
        days, weekdays: The fields, for what a mask cannot say.
        years: A mask, or None for all.
        both: True if a day must match *days* and *weekdays*, False if one is enough.
    """

    __slots__ = (
        *("_both", "_days", "_first", "_hours", "_is_daily", "_kinds", "_last", "_minutes", "_months", "_seconds"),
        *("_weekdays", "_year_high", "_year_low", "_years"),
    )

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
        self._year_low = _FIRST_YEAR if years is None else _lowest(years)
        self._year_high = _LAST_YEAR if years is None else years.bit_length() - 1
        self._kinds: dict[int, int] = {}
        any_day = days.mask == _EVERY_MONTH_DAY and (not both or weekdays.mask == _EVERY_WEEKDAY)
        self._is_daily = any_day and months == _EVERY_MONTH and years is None
        self._first = _lowest(hours) * 3_600 + _lowest(minutes) * 60 + _lowest(seconds)
        self._last = (hours.bit_length() - 1) * 3_600 + (minutes.bit_length() - 1) * 60 + seconds.bit_length() - 1

    def ever(self) -> bool:
        """Say whether any day matches at all."""
        months = [month for month in range(1, 13) if self._months >> month & 1]
        if self._years is None:
            # Each month begins on each weekday somewhere in 400 years, February in both lengths.
            lengths = [(month, _LENGTHS[month]) for month in months] + ([(2, 29)] if 2 in months else [])
            return any(self._kind(first, length) for _, length in lengths for first in range(7))
        return self._next_day(date(self._year_low, 1, 1).toordinal()) is not None

    # -- days ------------------------------------------------------------------------------

    def _kind(self, first_weekday: int, length: int) -> int:
        """Return the mask of matching days in a month of this kind."""
        key = first_weekday << 5 | length
        mask = self._kinds.get(key)
        if mask is None:
            mask = self._kinds[key] = day_mask(
                self._days, self._weekdays, both=self._both, first_weekday=first_weekday, length=length
            )
        return mask

    def _month(self, year: int, month: int, first: int, length: int) -> int:
        """Return the mask of matching days in the month whose first day has the ordinal *first*."""
        if not self._months >> month & 1 or (self._years is not None and not self._years >> year & 1):
            return 0
        # Ordinal 1 was a Monday, so a multiple of seven is a Sunday.
        return self._kind(first % 7, length)

    def _next_day(self, ordinal: int) -> int | None:
        """Return the first matching day at or after *ordinal*."""
        at = date.fromordinal(ordinal)
        if at.year < self._year_low:
            at = date(self._year_low, 1, 1)
        year, month, first = at.year, at.month, at.toordinal() - at.day + 1
        end = min(year + _YEARS, self._year_high)
        length = _length(year, month)
        mask = self._month(year, month, first, length) >> at.day << at.day
        while not mask:
            first += length
            month += 1
            if month > 12:
                year, month = year + 1, 1
            if year > end:
                return None
            length = _length(year, month)
            mask = self._month(year, month, first, length)
        return first + _lowest(mask) - 1 if year <= end else None

    def _prev_day(self, ordinal: int) -> int | None:
        """Return the last matching day at or before *ordinal*."""
        at = date.fromordinal(ordinal)
        if at.year > self._year_high:
            at = date(self._year_high, 12, 31)
        year, month, first = at.year, at.month, at.toordinal() - at.day + 1
        end = max(year - _YEARS, self._year_low)
        mask = self._month(year, month, first, _length(year, month)) & ((2 << at.day) - 1)
        while not mask:
            month -= 1
            if not month:
                year, month = year - 1, 12
            if year < end:
                return None
            length = _length(year, month)
            first -= length
            mask = self._month(year, month, first, length)
        return first + mask.bit_length() - 2 if year >= end else None

    def _count_days(self, low: int, high: int) -> int:
        """Return how many days match from ordinal *low* to *high*, both included."""
        if low > high:
            return 0
        if self._is_daily:
            return high - low + 1
        at = date.fromordinal(low)
        year, month, first = at.year, at.month, low - at.day + 1
        hidden, total = at.day, 0
        while first <= high:
            length = _length(year, month)
            mask = self._month(year, month, first, length) >> hidden << hidden
            total += (mask & ((2 << (high - first + 1)) - 1) if high - first < length else mask).bit_count()
            hidden, first, month = 0, first + length, month + 1
            if month > 12:
                year, month = year + 1, 1
        return total

    # -- times of day ------------------------------------------------------------------------

    def _next_time(self, second: int) -> int | None:
        """Return the first matching second of the day at or after *second*."""
        hour, rest = divmod(second, 3_600)
        hours = self._hours >> hour
        if hours & 1:
            minute, sec = divmod(rest, 60)
            minutes = self._minutes >> minute
            if minutes & 1:
                seconds = self._seconds >> sec
                if seconds:
                    return second + _lowest(seconds)
            minutes &= -2
            if minutes:
                return hour * 3_600 + (minute + _lowest(minutes)) * 60 + _lowest(self._seconds)
        hours &= -2
        if not hours:
            return None
        return (hour + _lowest(hours)) * 3_600 + self._first % 3_600

    def _prev_time(self, second: int) -> int | None:
        """Return the last matching second of the day at or before *second*."""
        hour, rest = divmod(second, 3_600)
        if self._hours >> hour & 1:
            minute, sec = divmod(rest, 60)
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
        return (hours.bit_length() - 1) * 3_600 + self._last % 3_600

    def _count_times(self, second: int) -> int:
        """Return how many times of day match up to *second*, included."""
        hour, rest = divmod(second, 3_600)
        minute, sec = divmod(rest, 60)
        per_minute = self._seconds.bit_count()
        total = (self._hours & ((1 << hour) - 1)).bit_count() * self._minutes.bit_count() * per_minute
        if self._hours >> hour & 1:
            total += (self._minutes & ((1 << minute) - 1)).bit_count() * per_minute
            if self._minutes >> minute & 1:
                total += (self._seconds & ((2 << sec) - 1)).bit_count()
        return total

    # -- the grid ----------------------------------------------------------------------------

    def next_wall(self, after: int, /) -> int | None:
        """Return the first match after *after*, in wall nanoseconds."""
        day, second = divmod(after // _NS + 1, _DAY_S)
        found: int | None = day
        if self._is_daily or (found := self._next_day_number(day)) == day:
            at = self._next_time(second)
            if at is not None:
                return (day * _DAY_S + at) * _NS
            found = day + 1 if self._is_daily else self._next_day_number(day + 1)
        return None if found is None else (found * _DAY_S + self._first) * _NS

    def _next_day_number(self, day: int) -> int | None:
        found = self._next_day(day + _EPOCH_ORDINAL)
        return None if found is None else found - _EPOCH_ORDINAL

    def prev_wall(self, before: int, /) -> int | None:
        """Return the last match at or before *before*, in wall nanoseconds."""
        day, second = divmod(before // _NS, _DAY_S)
        found: int | None = day
        if self._is_daily or (found := self._prev_day_number(day)) == day:
            at = self._prev_time(second)
            if at is not None:
                return (day * _DAY_S + at) * _NS
            found = day - 1 if self._is_daily else self._prev_day_number(day - 1)
        return None if found is None else (found * _DAY_S + self._last) * _NS

    def _prev_day_number(self, day: int) -> int | None:
        found = self._prev_day(day + _EPOCH_ORDINAL)
        return None if found is None else found - _EPOCH_ORDINAL

    def count_wall(self, after: int, until: int, /) -> int:
        """Return how many matches lie in ``(after, until]``, in as many steps as there are months."""
        if after >= until:
            return 0
        day, second = divmod(after // _NS, _DAY_S)
        last_day, last_second = divmod(until // _NS, _DAY_S)
        per_day = self._hours.bit_count() * self._minutes.bit_count() * self._seconds.bit_count()
        low, high = day + _EPOCH_ORDINAL, last_day + _EPOCH_ORDINAL
        # Whole days first, then what the first day had before the range, and the last day after it.
        total = self._count_days(low, high) * per_day
        if self._count_days(low, low):
            total -= self._count_times(second)
        if self._count_days(high, high):
            total -= per_day - self._count_times(last_second)
        return total
