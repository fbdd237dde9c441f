"""A cron expression in words: its times of day, its days, and the traps worth a note.

Cron's steps are the trap: ``*/7`` begins anew in each hour. And ``H`` has no value
before a schedule's id decides it, so it is told as what it is: a minute of the
schedule's own."""

from __future__ import annotations

import re
from typing import Final

from . import _words
from ._cron_fields import FIELDS, CronFields, ParsedField
from ._day_words import day_words
from ._time_words import TimesOfDay
from ._words import Sentence

__all__ = ["cron_sentence"]

_OUTER: Final = {
    "second": "minute",
    "minute": "hour",
    "hour": "day",
    "day of month": "month",
    "month": "year",
    "day of week": "week",
}
_PERIODS: Final = {"second": 60, "minute": 60, "hour": 24}
"""How many values the fields have whose steps `Every` knows as periods."""
_DRAWN: Final = re.compile(r"H(?:\(([0-9]+)-([0-9]+)\))?(?:/([0-9]+))?")
_BY_ID: Final = "the schedule's id decides"


def cron_sentence(expression: str, fields: CronFields, zone: str, *, is_bound: bool) -> Sentence:
    """Return an expression in words.

    Args:
        expression: As it was written, for what has no other words.
        fields: What it means.
        zone: Its zone in words.
        is_bound: False while nothing has decided its ``H``.
    """
    if not is_bound and any(field.has_hash for field in fields):
        return _drawn_sentence(expression, fields, zone)
    notes = (*_step_notes(fields), *_either_note(fields))
    days = _days(fields)
    times = _times(fields, is_daily=not days)
    if named := times.named():
        return Sentence(times=named, days=_after_times(days), zone=zone, notes=notes)
    return Sentence(when=times.rhythm(), days=_after_rhythm(days), zone=zone, notes=notes)


def _times(fields: CronFields, *, is_daily: bool) -> TimesOfDay:
    hours, minutes, seconds = (_words.bits(field.mask) for field in (fields.hour, fields.minute, fields.second))
    return TimesOfDay(hours, minutes, seconds, is_daily)


def _days(fields: CronFields) -> str:
    return day_words(fields.day, fields.month, fields.weekday, fields.year, both=fields.both)


def _after_times(days: str) -> str:
    """Return the days as they follow times: every day is said, for "at 09:00 in June" might be one day."""
    is_told = days.startswith((",", " on ", " from the ", " every day"))
    return days if is_told else f" every day{days}"


def _after_rhythm(days: str) -> str:
    """Return the days as they follow a rhythm, which may end in "from … to …" itself."""
    return f",{days}" if days.startswith((" from ", " every day")) else days


# -- notes ---------------------------------------------------------------------------------


def _step_notes(fields: CronFields) -> list[str]:
    """Return a note for each step that does not go round evenly: it begins anew, unlike a period."""
    found: list[str] = []
    for name, field in zip(FIELDS, fields, strict=True):
        match = re.fullmatch(r"\+?(?:\*|H|[0-9]+)/([0-9]+)", field.text)
        step = int(match[1]) if match else 1
        span = _PERIODS.get(name, 0)
        if step == 1 or name not in _OUTER or field.mask.bit_count() < 2 or (span and span % step == 0):
            continue
        if name == "month" and 12 % step == 0:
            continue
        even = f", Every({name}s={step}) is even" if span else ""
        found.append(f"the step of {step} begins anew each {_OUTER[name]}{even}")
    return found


def _either_note(fields: CronFields) -> list[str]:
    """Return a note where one of two day fields is every day, so that the other one changes nothing."""
    if fields.both:
        return []
    full = [field for field, every in ((fields.day, 0xFFFFFFFE), (fields.weekday, 0b1111111)) if field.mask == every]
    if not full:
        return []
    return [f"either of its two day fields is enough, and {full[0].text} is every day"]


# -- what an id decides --------------------------------------------------------------------


def _drawn_sentence(expression: str, fields: CronFields, zone: str) -> Sentence:
    """Return the words of an expression whose ``H`` nothing has decided yet."""
    when, days = _drawn_times(fields), _drawn_days(fields)
    if when is None or days is None:
        return Sentence(when=f"by the cron line {expression!r}", zone=zone, notes=(f"{_BY_ID} each H",))
    days = _after_rhythm(days) if when.startswith("every ") else _after_times(days)
    return Sentence(when=when, days=days, zone=zone, notes=(f"{_BY_ID} which",))


def _drawn_times(fields: CronFields) -> str | None:
    """Return the times of day, or None if they have no plain words."""
    second, minute, hour = fields.second, fields.minute, fields.hour
    if not (second.has_hash or minute.has_hash or hour.has_hash):
        times = _times(fields, is_daily=False)
        named = times.named()
        return f"at {_words.join(named)}" if named else times.rhythm()
    hours = _words.bits(hour.mask)
    if second.has_hash:
        is_plain = second.text == "H" and minute.mask.bit_count() == 60 and len(hours) == 24 and not hour.has_hash
        return "every minute at a second of its own" if is_plain else None
    drawn = _DRAWN.fullmatch(minute.text)
    if second.mask != 1 or (minute.has_hash and drawn is None):
        return None
    if hour.has_hash:
        return _drawn_hour(minute, hour, drawn)
    return None if drawn is None else _drawn_minute(drawn, hours)


def _drawn_minute(drawn: re.Match[str], hours: list[int]) -> str | None:
    low, high, step = int(drawn[1] or 0), int(drawn[2] or 59), int(drawn[3] or 0)
    if step:
        is_plain = len(hours) == 24 and not drawn[1] and 60 % step == 0
        return f"every {step} minutes, from a minute of its own on" if is_plain else None
    within = f" from :{low:02} to :{high:02}" if drawn[1] else ""
    if len(hours) == 24:
        return f"every hour at a minute of its own{within}"
    if len(hours) == 1:
        return f"at a minute of its own between {hours[0]:02}:{low:02} and {hours[0]:02}:{high:02}"
    if _words.stride(hours) == 1:
        return f"every hour from {hours[0]:02} to {hours[-1]:02}, at a minute of its own{within}"
    return f"at a minute of its own{within} in the hours {_words.join(f'{one:02}' for one in hours)}"


def _drawn_hour(minute: ParsedField, hour: ParsedField, drawn: re.Match[str] | None) -> str | None:
    found = _DRAWN.fullmatch(hour.text)
    if found is None or found[3] or (drawn is not None and (drawn[1] or drawn[3])):
        return None
    within = f" between {int(found[1]):02}:00 and {int(found[2]):02}:59" if found[1] else ""
    if drawn is not None:
        return f"at a time of its own{within}"
    minutes = _words.bits(minute.mask)
    return f"at :{minutes[0]:02} in an hour of its own{within}" if len(minutes) == 1 else None


def _drawn_days(fields: CronFields) -> str | None:
    """Return the days, or None if they have no plain words."""
    day, month, weekday = fields.day, fields.month, fields.weekday
    if not (day.has_hash or month.has_hash or weekday.has_hash):
        return _days(fields)
    if fields.year.text != "*" or {field.text for field in (day, month, weekday)} - {"*", "H"}:
        return None
    if day.has_hash and weekday.has_hash:
        return None
    on = " on a day of its own" if day.has_hash else " on a weekday of its own" if weekday.has_hash else ""
    return f"{on}{' in a month of its own' if month.has_hash else ' each month' if day.has_hash else ''}"
