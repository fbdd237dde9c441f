"""Weekdays as people write them: ``"mon-fri"``, ``"every sunday"``, ``["sat", "sun"]``."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, cast

from . import _words

__all__ = ["EVERY_DAY", "parse_weekdays", "weekday_text"]

EVERY_DAY: Final = 0b1111111
"""All weekdays as a mask; Sunday is bit 0, as in cron."""

_SHORT: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_GROUPS: Final = {
    **dict.fromkeys(("every day", "day", "daily", "all"), EVERY_DAY),
    **dict.fromkeys(("weekday", "weekdays", "workday", "workdays"), 0b0111110),
    **dict.fromkeys(("weekend", "weekends"), 0b1000001),
}
_DAYS: Final = {
    spelling: number
    for number, name in enumerate(_words.WEEKDAY_NAMES)
    for spelling in (name.lower(), f"{name.lower()}s", _SHORT[number])
} | {"tues": 2, "thur": 4, "thurs": 4}


def parse_weekdays(value: object, field: str) -> int:
    """Return the weekdays that *value* names as a mask, Sunday in bit 0.

    Args:
        value: A day, a range (which may wrap: ``fri-mon``), a group (``weekdays``,
            ``weekend``, ``every day``), several of them with commas, or a sequence.
        field: Its name, for the message.

    Raises:
        ValueError: If it names no weekday; says which part, and what may have been meant.
    """
    mask = 0
    for text in _parts(value, field):
        part = " ".join(text.lower().split())
        mask |= _GROUPS.get(part) or _days(part.removeprefix("every ").removeprefix("on "), text.strip(), field)
    if not mask:
        raise ValueError(f"{field} names no day; write 'mon-fri', 'sunday' or 'every day'")
    return mask


def _parts(value: object, field: str) -> list[str]:
    several: Iterable[object] = [value]
    if isinstance(value, Iterable) and not isinstance(value, str):
        several = cast("Iterable[object]", value)
    found: list[str] = []
    for text in several:
        if not isinstance(text, str):
            message = f"{field} must name weekdays, such as 'mon-fri' or ['sat', 'sun'], got {text!r}"
            raise ValueError(message)  # noqa: TRY004  # pydantic passes ValueError on
        found += text.replace(" and ", ",").split(",")
    return found


def _days(part: str, text: str, field: str) -> int:
    if part in _GROUPS:
        return _GROUPS[part]
    first, dash, last = (piece.strip() for piece in part.partition("-"))
    low = _number(first, text, field)
    span = (_number(last, text, field) - low) % 7 if dash else 0
    mask = 0
    for step in range(span + 1):
        mask |= 1 << (low + step) % 7
    return mask


def _number(name: str, text: str, field: str) -> int:
    number = _DAYS.get(name)
    if number is None:
        near = difflib.get_close_matches(name, [*_DAYS, *_GROUPS], n=1)
        hint = f"did you mean {near[0]!r}?" if near else "write 'mon-fri', 'sunday' or 'every day'"
        raise ValueError(f"{field}: {text!r} is no weekday; {hint}")
    return number


def weekday_text(mask: int) -> str:
    """Return the one spelling of a set of weekdays, so that equal rules are equal: ``mon-fri``, ``sat,sun``."""
    if mask == EVERY_DAY:
        return "every day"
    week = [day for day in (1, 2, 3, 4, 5, 6, 0) if mask >> day & 1]
    if len(week) > 2 and all((b - a) % 7 == 1 for a, b in pairwise(week)):
        return f"{_SHORT[week[0]]}-{_SHORT[week[-1]]}"
    return ",".join(_SHORT[day] for day in week)
