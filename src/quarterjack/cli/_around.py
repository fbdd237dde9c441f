"""``qj next --around-dst``: the fire times around the next days on which a zone's clock is set."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import islice
from typing import Any, Final, NamedTuple

import click

from quarterjack import ClockChange, Trigger
from quarterjack.model import Schedule, as_datetime
from quarterjack.triggers.base import instant_ns

from ._hints import listing
from ._output import for_people, is_for_people, iso, show_table, shown
from ._shell import wrapped
from ._spans import in_words

__all__ = ["Ruled", "nights", "nights_as_dicts", "show_nights"]

_CHANGES: Final = 2
"""So many changes of each zone are shown: mostly one forward and one back."""
_DAY: Final = timedelta(days=1)


class Ruled(NamedTuple):
    """A rule to look at, under its name; *row* if it is a schedule's."""

    name: str
    trigger: Trigger
    row: Schedule | None


class _Fire(NamedTuple):
    at: datetime
    name: str
    trigger: Trigger
    note: str


class Night(NamedTuple):
    """A change of a zone's clock, what each rule does then, and the fire times around it."""

    at: datetime
    change_by_name: dict[str, ClockChange]
    fires: list[_Fire]


def nights(rules: Iterable[Ruled], at_ns: int, count: int) -> list[Night]:
    """Return the next changes of the zones whose clocks *rules* read, each with *count* fire times at most."""
    after = as_datetime(at_ns) or datetime.fromtimestamp(0, UTC)
    found: dict[tuple[str, datetime], list[tuple[Ruled, ClockChange]]] = {}
    for rule in rules:
        for change in rule.trigger.clock_changes(after=after):
            key = str(change.at.tzinfo), change.at.astimezone(UTC)
            found.setdefault(key, []).append((rule, change))
    kept: list[Night] = []
    seen: dict[str, int] = {}
    for (zone, _), members in sorted(found.items(), key=lambda item: item[0][1]):
        seen[zone] = seen.get(zone, 0) + 1
        if seen[zone] <= _CHANGES:
            kept.append(_night(members, count))
    return kept


def _night(members: list[tuple[Ruled, ClockChange]], count: int) -> Night:
    at = members[0][1].at
    before = sorted(
        (fire for rule, change in members for fire in _walk(rule, change, count // 2, back=True)), key=_when
    )
    before = before[len(before) - min(len(before), count // 2) :]
    after = sorted((fire for rule, change in members for fire in _walk(rule, change, count, back=False)), key=_when)
    return Night(at, {rule.name: change for rule, change in members}, before + after[: count - len(before)])


def _when(fire: _Fire) -> datetime:
    return fire.at.astimezone(UTC)  # within one zone datetimes compare by the clock face


def _walk(rule: Ruled, change: ClockChange, count: int, *, back: bool) -> list[_Fire]:
    """Return fire times from the day before to the day after the change, away from it; at least one if there is one."""
    low, high = _days_around(change)
    found: list[_Fire] = []
    for ns in islice(_instants(rule, instant_ns(change.at), back=back), count):
        at = as_datetime(ns)
        if at is None or (found and not low <= at < high):
            break
        found.append(_Fire(at, rule.name, rule.trigger, _note(at, change)))
    return found


def _instants(rule: Ruled, change_ns: int, *, back: bool) -> Iterator[int]:
    """Yield fire times from the change on, or from it back; those that the schedule's bounds allow."""
    timing = None if rule.row is None else rule.row.timing
    low = None if timing is None else timing.start_ns
    high = None if timing is None else timing.end_ns
    at = rule.trigger.prev_ns(change_ns - 1) if back else rule.trigger.next_ns(change_ns - 1)
    while at is not None and (low is None or at >= low) and (high is None or at <= high):
        yield at
        at = rule.trigger.prev_ns(at - 1) if back else rule.trigger.next_ns(at)


def _days_around(change: ClockChange) -> tuple[datetime, datetime]:
    """Return the day before the change, its day and the day after, as instants."""
    day = _face_before(change).replace(hour=0, minute=0, second=0, microsecond=0)
    zone = change.at.tzinfo
    return (day - _DAY).replace(tzinfo=zone).astimezone(UTC), (day + 2 * _DAY).replace(tzinfo=zone).astimezone(UTC)


def _face_before(change: ClockChange) -> datetime:
    """Return what the clock shows at the moment it is set, naive."""
    return change.at.replace(tzinfo=None) - change.shift


def _note(at: datetime, change: ClockChange) -> str:
    """Say what is unusual about a fire time."""
    local = at.astimezone(change.at.tzinfo)
    if local in change.instead:
        skipped = [f"{one:%H:%M}" for one in change.skipped]
        if len(skipped) == len(change.instead):
            return f"for {skipped[change.instead.index(local)]}, which does not exist"
        return f"for {skipped[0]} to {skipped[-1]}, which do not exist"
    if local.time() in change.repeated and local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset():
        return f"the {'second' if local.fold else 'first'} {local:%H:%M}"
    return ""


# -- showing ----------------------------------------------------------------------------------


def show_nights(found: list[Night], now: datetime, zone: tzinfo | None, *, is_app: bool) -> None:
    """Print each change with its fire times: a table on a terminal, else one line a fire."""
    for number, night in enumerate(found):
        if is_for_people():
            if number:
                click.echo()
            for words in _headlines(night, is_app=is_app):
                click.secho(wrapped(words, indent=2, stream=sys.stdout), bold=True)
        _show(night, now, zone)


def _headlines(night: Night, *, is_app: bool) -> list[str]:
    """Return what the change does, and, in an app, to which schedules."""
    names: dict[str, list[str]] = {}
    for name, change in night.change_by_name.items():
        names.setdefault(change.words, []).append(name)
    return [f"{listing(those)}: {words}" if is_app else words for words, those in names.items()]


def _show(night: Night, now: datetime, zone: tzinfo | None) -> None:
    people: list[list[str]] = []
    plain: list[list[str]] = []
    change = next(iter(night.change_by_name.values()))
    mark: list[str] | None = _mark(change)
    for fire in night.fires:
        at, in_s = shown(fire.at, fire.trigger, zone), (fire.at - now).total_seconds()
        if mark is not None and fire.at >= night.at.astimezone(UTC):
            people.append(mark)
            mark = None
        people.append([for_people(at), in_words(in_s) if in_s else "at start", fire.name, fire.note])
        plain.append([at.isoformat(), f"{in_s:.3f}", fire.name, fire.note])
    if mark is not None:
        people.append(mark)
    show_table({"fires": "", "in": "cyan", "schedule": "", "unusual": "yellow"}, people, plain)


def _mark(change: ClockChange) -> list[str]:
    """Return the line that stands where the clock is set."""
    before, way = _face_before(change), "forward" if change.shift > timedelta(0) else "back"
    return [f"{before:%a %Y-%m-%d %H:%M} → {change.at:%H:%M} {change.at:%Z}", "", "", f"the clocks go {way}"]


def nights_as_dicts(found: list[Night], now: datetime, zone: tzinfo | None) -> list[dict[str, Any]]:
    """Return the changes as ``--json`` shows them."""
    return [
        {
            "at": iso(night.at),
            "zone": str(night.at.tzinfo),
            "shift_s": next(iter(night.change_by_name.values())).shift.total_seconds(),
            "schedules": [
                {"schedule": name, "is_affected": change.is_affected, "words": change.words}
                for name, change in night.change_by_name.items()
            ],
            "fires": [
                {
                    "schedule": fire.name,
                    "at": iso(shown(fire.at, fire.trigger, zone)),
                    "in_s": (fire.at - now).total_seconds(),
                    "note": fire.note or None,
                }
                for fire in night.fires
            ],
        }
        for night in found
    ]
