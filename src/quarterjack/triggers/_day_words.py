"""A cron expression's days in words: days of the month, weekdays, months and years.

Each function returns words that follow the times of day, with the space or comma
before them: `` on the 1st of every month``, ``, Monday to Friday``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from . import _words
from ._cron_fields import DayRules, ParsedField

__all__ = ["day_words"]

_EVERY_MONTH: Final = 0b1111111111110
_EVERY_MONTH_DAY: Final = (1 << 32) - 2
_EVERY_WEEKDAY: Final = 0b1111111
_LAST_YEAR: Final = 2199
_LISTED_YEARS: Final = 9
_COUNTED: Final = 5
"""From so many days or years on a regular distance is told instead of a list."""


def day_words(day: ParsedField, month: ParsedField, weekday: ParsedField, year: ParsedField, *, both: bool) -> str:
    """Return on which days a rule fires; nothing for every day.

    Args:
        day: Day of month.
        month: Month.
        weekday: Day of week.
        year: Year.
        both: True if a day must match *day* and *weekday*, False if either is enough.
    """
    any_day, any_weekday = day.mask == _EVERY_MONTH_DAY, weekday.mask == _EVERY_WEEKDAY
    months = None if month.mask == _EVERY_MONTH else _words.bits(month.mask)
    years = _years(year)
    if (any_day and any_weekday) if both else (any_day or any_weekday):
        found = _alone(months)
    elif any_day:
        found = _weekdays(weekday, months)
        found += "," if years and found.startswith(",") and months is None else ""
    elif any_weekday:
        found = _month_days(day, months)
    elif both:
        found = _both(day, weekday, months)
    else:
        also = _weekdays(weekday, months).lstrip(", ")
        found = f"{_month_days(day, months)} and also {also}{',' if years else ''}"
    # "1 January 2030" is a date; "of January and July in 2030" needs its preposition.
    ends_in_month = months is not None and len(months) == 1 and years.startswith(" in ") and years[4:].isdigit()
    return found + (years.removeprefix(" in") if ends_in_month and not found.endswith(",") else years)


# -- months and years ----------------------------------------------------------------------


def _alone(months: Sequence[int] | None) -> str:
    if months is None:
        return ""
    words = _months(months)
    return f" from {words}" if " to " in words and " and " not in words else f" in {words}"


def _months(months: Sequence[int]) -> str:
    """Return ``June``, ``June to August`` (also over the year's end) or ``January and July``."""
    runs = _words.runs(months)
    if len(runs) > 1 and runs[0][0] == 1 and runs[-1][-1] == 12:
        runs = [*runs[1:-1], runs[-1] + runs[0]]
    return _words.join(_words.spans(runs, _words.MONTH_NAMES.__getitem__))


def _of(months: Sequence[int] | None) -> str:
    """Return ``of every month``, ``of June``, ``of every month from June to August``."""
    if months is None:
        return "of every month"
    words = _months(months)
    return f"of every month from {words}" if " to " in words and " and " not in words else f"of {words}"


def _years(field: ParsedField) -> str:
    years = _words.bits(field.mask)
    step, is_open = _words.stride(years), years[-1] + (_words.stride(years) or 1) > _LAST_YEAR
    if step == 1 and is_open:
        return "" if years[0] == 1970 else f" from {years[0]} on"
    if step == 1:
        return f" from {years[0]} to {years[-1]}"
    if step and len(years) >= _COUNTED:
        return f" in every {_words.ordinal(step)} year from {years[0]} {'on' if is_open else f'to {years[-1]}'}"
    listed = _words.spans(_words.runs(years), str)
    if len(listed) > _LISTED_YEARS:
        return f" in {len(years)} of the years from {years[0]} to {years[-1]}"
    return f" in {_words.join(listed)}"


# -- days of the month ---------------------------------------------------------------------


def _month_days(field: ParsedField, months: Sequence[int] | None) -> str:
    days, rules = _words.bits(field.mask), field.rules
    plain = rules == DayRules()
    runs = _words.runs(days)
    step = _words.stride(days)
    if plain and step == 1:
        return f" from the {_words.ordinal(days[0])} to the {_words.ordinal(days[-1])} {_of(months)}"
    if plain and step and len(days) >= _COUNTED:
        span = f"from the {_words.ordinal(days[0])} to the {_words.ordinal(days[-1])}"
        return f" on every {_words.ordinal(step)} day {span} {_of(months)}"
    if plain and months is not None and len(months) == 1 and all(len(run) < 3 for run in runs):
        return f" on {_words.join(map(str, days))} {_words.MONTH_NAMES[months[0]]}"
    items = _words.spans(runs, _words.ordinal)
    items += _special(rules, is_first=not items)
    lacking = "" if months is not None or not plain or days[0] < 29 else _that_has(len(days))
    return f" on the {_words.join(items)} {_of(months)}{lacking}"


def _that_has(count: int) -> str:
    """Return what to add where not every month has such a day."""
    return " that has one" if count == 1 else " that has them"


def _special(rules: DayRules, *, is_first: bool) -> list[str]:
    counted = {0: "last day", 1: "last day but one"}
    found = [counted.get(back, f"{_words.ordinal(back + 1)}-last day") for back in rules.from_last]
    named = [f"weekday nearest the {_words.ordinal(day)}" for day in rules.nearest]
    named += ["last weekday"] if rules.last_weekday else []
    lead = is_first and not found
    return found + [word if lead and not n else f"the {word}" for n, word in enumerate(named)]


# -- days of the week ----------------------------------------------------------------------


def _weekdays(field: ParsedField, months: Sequence[int] | None) -> str:
    nth = _nth(field.rules)
    lacking = "" if months is not None or any(n != 5 for _, n in field.rules.nth) else _that_has(1)
    words = f"on the {_words.join(nth, 'and')} {_of(months)}{lacking}"
    if not field.mask:
        return f" {words}"
    plain = _words.weekdays(field.mask)
    lead = _words.apart(plain)
    comma = "" if plain.startswith("on ") else ","
    within = _alone(months)
    return f"{lead}{comma if within else ''}{within}" + (f" and {words}" if nth else "")


def _nth(rules: DayRules) -> list[str]:
    """Return ``1st and 3rd Monday``, ``last Friday``."""
    numbers: dict[int, list[int]] = {}
    for weekday, number in rules.nth:
        numbers.setdefault(weekday, []).append(number)
    found = [
        f"{_words.join('last' if not n else _words.ordinal(n) for n in sorted(which, key=lambda n: n or 6))} "
        f"{_words.WEEKDAY_NAMES[weekday]}"
        for weekday, which in numbers.items()
    ]
    return [word if not n else f"the {word}" for n, word in enumerate(found)]


def _both(day: ParsedField, weekday: ParsedField, months: Sequence[int] | None) -> str:
    """Return the days that are both: ``on the 13th of every month when that is a Friday``."""
    days = _month_days(day, months)
    if days.startswith(" from ") and not weekday.rules.nth:
        return _words.apart(_words.weekdays(weekday.mask)) + days
    either = [_words.one_of(weekday.mask)] if weekday.mask else []
    either += [word if word.startswith("the ") else f"the {word}" for word in _nth(weekday.rules)]
    return f"{days} when that is {_words.join(either, 'or')}"
