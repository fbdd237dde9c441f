"""Why a rule does not fire at an instant: the filter that drops it, the clock that skips it, the field that differs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Final

from . import _words
from ._cron_fields import CronFields, ParsedField, day_mask, parse_field
from ._wall import WallTrigger
from .at import At
from .base import from_ns, instant_ns
from .combine import Filtered, Union
from .cron import Cron

if TYPE_CHECKING:
    from .base import Trigger

__all__ = ["fires_at", "is_skipped_by_clock", "mismatch"]

_ANY_DAY = parse_field("day of month", "*", 1, "*", None)
_ANY_WEEKDAY = parse_field("day of week", "*", 1, "*", None)


def fires_at(trigger: Trigger, at: int) -> bool:
    """Say whether an instant is one of the rule's fire times."""
    return trigger.prev_ns(at) == at


def mismatch(trigger: Trigger, at: int) -> str:
    """Return in words why an instant is no fire time of the rule; nothing where only the nearest ones say it."""
    if isinstance(trigger, Filtered):
        return _filtered(trigger, at)
    if isinstance(trigger, Union):
        said = [words for member in trigger.members if (words := mismatch(member, at))]
        return "; ".join(dict.fromkeys(said)) if len(said) == len(trigger.members) else ""
    if isinstance(trigger, WallTrigger):
        return _wall(trigger, at)
    return ""


def _filtered(trigger: Filtered, at: int) -> str:
    if not fires_at(trigger.trigger, at):
        return mismatch(trigger.trigger, at)
    words = trigger.filter.explain()
    return f"its filter drops it: {'only' if trigger.keep else 'not'} {words}"


def _wall(trigger: WallTrigger, at: int) -> str:
    local = from_ns(at, trigger.zone)
    offset = local.utcoffset()
    wall = at if offset is None else at + (offset.days * 86_400 + offset.seconds) * 1_000_000_000
    if trigger.grid.prev_wall(wall) == wall:
        return _twice(trigger, local)
    if isinstance(trigger, Cron):
        return _cron(trigger._parsed, local)
    return _at(trigger, local) if isinstance(trigger, At) else ""


def _twice(trigger: WallTrigger, local: datetime) -> str:
    """The wall clock shows one of its times, and yet it does not fire: the time came twice."""
    which = "second" if local.fold else "first"
    runs = "first" if trigger._policies[1] == "first" else "second"
    return f"{_words.clock(local.time())} came twice that night; this was the {which}, and it runs the {runs} time only"


def _at(rule: At, local: datetime) -> str:
    said: list[str] = []
    if (local.hour, local.minute, local.second, local.microsecond) != (rule.hour, rule.minute, rule.second, 0):
        said.append(f"its time is {rule.hour:02}:{rule.minute:02}" + (f":{rule.second:02}" if rule.second else ""))
    if not rule._mask >> _weekday(local) & 1:
        said.append(f"it runs {_words.weekdays(rule._mask)}, and this was a {_words.WEEKDAY_NAMES[_weekday(local)]}")
    return "; ".join(said)


def _weekday(local: datetime) -> int:
    return local.isoweekday() % 7


def _cron(fields: CronFields, local: datetime) -> str:
    """Name each field that does not match."""
    said: list[str] = []
    values = ((fields.second, local.second), (fields.minute, local.minute), (fields.hour, local.hour))
    for name, (field, value) in zip(("second", "minute", "hour"), values, strict=True):
        if not field.mask >> value & 1:
            said.append(f"the {name} is {value:02}, and the field says {field.text!r}")
    said += _day(fields, local)
    if not fields.month.mask >> local.month & 1:
        said.append(f"the month is {_words.MONTH_NAMES[local.month]}, and the field says {fields.month.text!r}")
    if not fields.year.mask >> local.year & 1:
        said.append(f"the year is {local.year}, and the field says {fields.year.text!r}")
    if not said and local.microsecond:
        said.append("cron fires on whole seconds")
    return "; ".join(said)


def _day(fields: CronFields, local: datetime) -> list[str]:
    by_day = _has_day(fields.day, _ANY_WEEKDAY, local)
    by_weekday = _has_day(_ANY_DAY, fields.weekday, local)
    if (by_day and by_weekday) if fields.both else (by_day or by_weekday):
        return []
    day, weekday = f"the day of the month is {local.day}", f"the day is a {_words.WEEKDAY_NAMES[_weekday(local)]}"
    said = [f"{day}, and the field says {fields.day.text!r}"] if not by_day else []
    if not by_weekday:
        named = fields.weekday.text.upper()
        which = f", the {_ORDINAL[(local.day - 1) // 7]} of its month" if "#" in named or named.endswith("L") else ""
        said.append(f"{weekday}{which}, and the field says {fields.weekday.text!r}")
    return said


_ORDINAL: Final = ("first", "second", "third", "fourth", "fifth")


def _has_day(days: ParsedField, weekdays: ParsedField, local: datetime) -> bool:
    first = local.replace(day=1)
    following = first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
    length = (following.date() - first.date()).days
    mask = day_mask(days, weekdays, both=True, first_weekday=_weekday(first), length=length)
    return bool(mask >> local.day & 1)


def is_skipped_by_clock(at: datetime) -> bool:
    """Say whether a local time does not exist: the clocks of its zone go forward over it."""
    return from_ns(instant_ns(at), at.tzinfo).replace(tzinfo=None) != at.replace(tzinfo=None)
