"""Calendar arithmetic in months and days, on plain numbers: what `Calendar` stands on.

A day is its number since 1970-01-01. A month is its number since the year 0, so
that steps of months are additions."""

from __future__ import annotations

from calendar import monthrange
from datetime import date
from typing import Final

__all__ = ["FIRST_DAY", "LAST_DAY", "day_in_month", "day_number", "month_number"]

_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
FIRST_DAY: Final = date.min.toordinal() - _EPOCH_ORDINAL
LAST_DAY: Final = date.max.toordinal() - _EPOCH_ORDINAL


def day_number(day: date) -> int:
    """Return the days from 1970-01-01 to *day*."""
    return day.toordinal() - _EPOCH_ORDINAL


def month_number(day: int) -> int:
    """Return the number of the month that a day lies in."""
    at = date.fromordinal(day + _EPOCH_ORDINAL)
    return at.year * 12 + at.month - 1


def day_in_month(month: int, day: int, *, clamp: bool) -> int | None:
    """Return the day of this number in a month; where it has none, its last day (*clamp*) or None.

    None also outside the years 1 to 9999.
    """
    year, index = divmod(month, 12)
    if not 1 <= year <= 9999:
        return None
    length = monthrange(year, index + 1)[1]
    if day > length and not clamp:
        return None
    return date(year, index + 1, min(day, length)).toordinal() - _EPOCH_ORDINAL
