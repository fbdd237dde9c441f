"""Rules in words, as a person would write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import time
from typing import Final

__all__ = [
    "MONTH_NAMES",
    "WEEKDAY_NAMES",
    "apart",
    "bits",
    "clock",
    "join",
    "ordinal",
    "period",
    "time_of_day",
    "times",
    "weekdays",
    "zone",
]

WEEKDAY_NAMES: Final = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")
MONTH_NAMES: Final = (
    *("", "January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_UNITS: Final = (
    ("week", 7 * 86_400_000_000_000),
    ("day", 86_400_000_000_000),
    ("hour", 3_600_000_000_000),
    ("minute", 60_000_000_000),
    ("second", 1_000_000_000),
    ("millisecond", 1_000_000),
    ("microsecond", 1_000),
)
_WORKDAYS: Final = 0b0111110
_TIME: Final = re.compile("([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")


def bits(mask: int) -> list[int]:
    """Return the numbers of the bits that are set."""
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def join(words: Iterable[str]) -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    found = list(words)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}" if found else ""


def ordinal(number: int) -> str:
    """Return ``1st``, ``2nd``, ``3rd``, ``4th`` and so on."""
    suffix = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def period(ns: int, *, every: bool = True) -> str:
    """Return a duration as ``every 10 seconds``, ``every minute`` or ``1 hour 30 minutes``."""
    parts: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        n, ns = divmod(ns, size)
        if n:
            parts.append((n, unit))
    if not parts:
        return "at once"
    if every and len(parts) == 1 and parts[0][0] == 1:
        return f"every {parts[0][1]}"
    text = " ".join(f"{n} {unit}{'' if n == 1 else 's'}" for n, unit in parts)
    return f"every {text}" if every else text


def times(hours: Sequence[int], minutes: Sequence[int], seconds: Sequence[int]) -> str | None:
    """Return ``at 09:00 and 17:00`` for up to six times of day, else None."""
    if len(hours) * len(minutes) * len(seconds) > 6:
        return None
    with_seconds = tuple(seconds) != (0,)
    found = [
        f"{h:02}:{m:02}:{s:02}" if with_seconds else f"{h:02}:{m:02}" for h in hours for m in minutes for s in seconds
    ]
    return f"at {join(found)}"


def weekdays(mask: int) -> str:
    """Return ``on Sundays``, ``Monday to Friday`` or ``on Mondays and Thursdays`` for a mask (Sunday is bit 0)."""
    if mask == _WORKDAYS:
        return "Monday to Friday"
    days = bits(mask)
    week = [*days[1:], days[0]] if days and days[0] == 0 and len(days) > 1 else days
    run = [(week[0] + n) % 7 for n in range(len(week))]
    if len(week) > 2 and week == run:
        return f"{WEEKDAY_NAMES[week[0]]} to {WEEKDAY_NAMES[week[-1]]}"
    return "on " + join(f"{WEEKDAY_NAMES[day]}s" for day in week)


def zone(name: str) -> str:
    """Return a zone in words with the comma before them: ``, Rome time``."""
    if name == "UTC":
        return ", UTC"
    return f", {name.rpartition('/')[2].replace('_', ' ')} time"


def clock(at: time) -> str:
    """Return a time of day as on a clock, with seconds only where there are some."""
    return f"{at:%H:%M:%S}" if at.second or at.microsecond else f"{at:%H:%M}"


def time_of_day(value: object) -> time:
    """Return ``"14:30"`` or ``"14:30:15"`` as a time of day; a naive ``time`` is one already.

    Raises:
        ValueError: If it is neither; says what it should look like.
    """
    if isinstance(value, time) and value.tzinfo is None:
        return value
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is not None:
        hour, minute, second = (int(part or 0) for part in match.groups())
        if hour < 24 and minute < 60 and second < 60:
            return time(hour, minute, second)
    raise ValueError(f"a time of day is HH:MM or HH:MM:SS, from 00:00 to 23:59:59, got {value!r}")


def apart(words: str) -> str:
    """Return *words* as they follow others: `` on Sundays``, but ``, Monday to Friday``."""
    return f" {words}" if words.startswith("on ") else f", {words}"
