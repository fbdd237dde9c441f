"""Rules in words, as a person would write them: what all rules share.

A rule's sentence is kept in parts (`Sentence`) until someone reads it, so that a
combination names a shared zone once and reads like one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime, time
from itertools import groupby, pairwise
from typing import Final, NamedTuple

__all__ = [
    "MONTH_NAMES",
    "WEEKDAY_NAMES",
    "Sentence",
    "apart",
    "bits",
    "clock",
    "dates",
    "instant",
    "join",
    "one_of",
    "ordinal",
    "period",
    "runs",
    "spans",
    "stride",
    "time_of_day",
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
_MOST_OF_ONE_UNIT: Final = 120
"""People say "every 90 minutes" and "every 36 hours", but not "every 100,000 seconds"."""
_SECOND_NS: Final = 1_000_000_000
_COUNTRIES: Final = frozenset({"Brazil", "Canada", "Chile", "Mexico", "US"})
"""Areas that are countries: "Eastern time" alone is several."""
_TIME: Final = re.compile("([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")


class Sentence(NamedTuple):
    """A rule in words, in parts; `text` joins them."""

    when: str = ""
    """How often: ``every 5 minutes``; empty where *times* say it."""
    times: tuple[str, ...] = ()
    """Times of day in order: ``09:00``."""
    days: str = ""
    """On which days, as it follows the times: `` on Sundays``, ``, Monday to Friday``; filters stand here too."""
    zone: str = ""
    """``Rome time``."""
    notes: tuple[str, ...] = ()
    """What is good to know, at the very end."""
    parts: int = 1
    """Of how many sentences it is made."""
    is_filtered: bool = False
    """Its days end with a filter, which beside another sentence would seem to belong to both."""

    @property
    def core(self) -> str:
        """The sentence without its zone and its notes."""
        return (f"at {join(self.times)}" if self.times else self.when) + self.days

    @property
    def text(self) -> str:
        """The whole sentence."""
        shared = {1: "", 2: "both "}.get(self.parts, "all ")
        return "; ".join((self.core + (f", {shared}{self.zone}" if self.zone else ""), *self.notes))

    @classmethod
    def of_several(cls, sentences: Iterable[Sentence]) -> Sentence:
        """Return one sentence for several rules; times of day that share all else are listed together."""
        found: list[Sentence] = []
        for one in sentences:
            same = next((n for n, had in enumerate(found) if one.times and had.times and one[2:] == had[2:]), None)
            if same is None:
                found.append(one)
            else:
                found[same] = one._replace(times=tuple(sorted({*found[same].times, *one.times})))
        if len(found) == 1:
            return found[0]
        notes = tuple(dict.fromkeys(note for one in found for note in one.notes))
        zones = {one.zone for one in found}
        shared = zones.pop() if len(zones) == 1 else ""
        each = [one._replace(zone="" if shared else one.zone, notes=()) for one in found]
        told = [f"({one.text})" if one.is_filtered else one.text for one in each]
        return cls(when=", and ".join(told), zone=shared, notes=notes, parts=len(found))


# -- lists and numbers ---------------------------------------------------------------------


def bits(mask: int) -> list[int]:
    """Return the numbers of the bits that are set."""
    return [number for number in range(mask.bit_length()) if mask >> number & 1]


def runs(values: Sequence[int]) -> list[list[int]]:
    """Return rising *values* cut into runs of consecutive ones."""
    return [[value for _, value in run] for _, run in groupby(enumerate(values), lambda pair: pair[1] - pair[0])]


def spans(found: Iterable[Sequence[int]], name: Callable[[int], str]) -> list[str]:
    """Return *runs* by name: ``first to last``, or each member where there are no more than two."""
    words: list[str] = []
    for run in found:
        words += [f"{name(run[0])} to {name(run[-1])}"] if len(run) > 2 else map(name, run)
    return words


def stride(values: Sequence[int]) -> int:
    """Return the one distance between neighbours of rising *values*, or 0 if they have several or are fewer than 3."""
    steps = {b - a for a, b in pairwise(values)}
    return steps.pop() if len(steps) == 1 and len(values) > 2 else 0


def join(words: Iterable[str], last: str = "and") -> str:
    """Return ``a``, ``a and b`` or ``a, b and c``."""
    found = list(words)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} {last} {found[-1]}" if found else ""


def ordinal(number: int) -> str:
    """Return ``1st``, ``2nd``, ``3rd``, ``4th`` and so on."""
    suffix = "th" if number % 100 in {11, 12, 13} else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def period(ns: int, *, every: bool = True) -> str:
    """Return a duration as ``every 10 seconds``, ``every minute`` or ``1 hour and 10 seconds``."""
    words = _in_one_unit(ns) or join(_counted(n, unit) for n, unit in _in_units(ns)) or "at once"
    return f"every {words.removeprefix('1 ') if ' and ' not in words else words}" if every else words


def _counted(n: float, unit: str) -> str:
    return f"{n:g} {unit}{'' if n == 1 else 's'}"


def _in_one_unit(ns: int) -> str | None:
    for unit, size in _UNITS:
        if ns and ns % size == 0 and ns // size <= _MOST_OF_ONE_UNIT:
            return _counted(ns // size, unit)
    seconds = ns / _SECOND_NS
    return _counted(seconds, "second") if 1 <= seconds < 60 and ns % 1_000_000 == 0 else None


def _in_units(ns: int) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for unit, size in _UNITS:
        n, ns = divmod(ns, size)
        if n:
            found.append((n, unit))
    return found


# -- days ----------------------------------------------------------------------------------


def weekdays(mask: int) -> str:
    """Return ``on Sundays``, ``Monday to Friday``, ``every day but Thursday`` for a mask (Sunday is bit 0)."""
    week = _week(mask)
    if len(week) > 5:
        left_out = [name for day, name in enumerate(WEEKDAY_NAMES) if not mask >> day & 1]
        return f"every day but {left_out[0]}" if left_out else "every day"
    if len(week) > 2 and _is_run(week):
        return f"{WEEKDAY_NAMES[week[0]]} to {WEEKDAY_NAMES[week[-1]]}"
    return "on " + join(f"{WEEKDAY_NAMES[day]}s" for day in week)


def one_of(mask: int) -> str:
    """Return what a single day is that the mask holds: ``a Saturday or Sunday``, ``a day from Monday to Friday``."""
    week = _week(mask)
    if len(week) > 5:
        return f"not a {WEEKDAY_NAMES[next(day for day in range(7) if not mask >> day & 1)]}"
    if len(week) > 2 and _is_run(week):
        return f"a day from {WEEKDAY_NAMES[week[0]]} to {WEEKDAY_NAMES[week[-1]]}"
    return "a " + join((WEEKDAY_NAMES[day] for day in week), "or")


def _week(mask: int) -> list[int]:
    """Return the days from Monday on; those that run over the week's end from the run's first day on."""
    week = [day for day in (1, 2, 3, 4, 5, 6, 0) if mask >> day & 1]
    turned = (week[n:] + week[:n] for n in range(len(week)))
    return next((days for days in turned if _is_run(days)), week)


def _is_run(week: Sequence[int]) -> bool:
    return all((b - a) % 7 == 1 for a, b in pairwise(week))


def apart(words: str) -> str:
    """Return *words* as they follow others: `` on Sundays``, but ``, Monday to Friday``."""
    return f" {words}" if words.startswith(("on ", "every day", "in ", "from ")) else f", {words}"


def dates(days: Sequence[date]) -> str:
    """Return dates in order as ``25 and 26 December 2026``: what all share is said once."""
    names = [f"{day.day} {MONTH_NAMES[day.month]} {day.year}" for day in days]
    if len({(day.year, day.month) for day in days}) == 1:
        return f"{join(str(day.day) for day in days)}{names[0].lstrip('0123456789')}"
    if len({day.year for day in days}) == 1:
        return join(name.removesuffix(f" {days[0].year}") for name in names) + f" {days[0].year}"
    return join(names)


# -- times and zones -----------------------------------------------------------------------


def zone(name: str) -> str:
    """Return a zone in words: ``Rome time``; names that are no place stay as they are."""
    area, _, place = name.rpartition("/")
    if name in {"UTC", "Etc/UTC"}:
        return "UTC"
    if area == "Etc" or (not area and not name.islower() and (name.isupper() or any(map(str.isdigit, name)))):
        return name  # Etc/GMT+5 is five hours *behind* UTC: nothing to make words of
    country = f"{area} " if area in _COUNTRIES else ""
    return f"{country}{place.replace('_', ' ')} time"


def instant(at: datetime) -> str:
    """Return an instant in UTC as ``1 January 2030 at 09:00 UTC``."""
    part = f"{at.microsecond:06}".rstrip("0")
    return f"{dates([at.date()])} at {clock(at.time())}{'.' + part if part else ''} UTC"


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
