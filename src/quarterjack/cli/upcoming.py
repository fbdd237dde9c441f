"""``qj next``: the fire times to come, of an app, a schedule, or a cron line."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from typing import Any, Final, NamedTuple

import click

from quarterjack import Quarterjack, Trigger
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.model import Schedule, as_datetime
from quarterjack.triggers.base import instant_ns

from ._around import Ruled, nights, nights_as_dicts, show_nights
from ._hints import listing
from ._output import for_people, iso, json_option, show_json, show_table, shown, tell_notes, zone_option
from ._planning import Fire, Rule, find_rule, listed, outlook, zone_name
from ._spans import in_words
from ._target import Target
from ._times import moment

__all__ = ["command"]

_EPOCH: Final = datetime.fromtimestamp(0, UTC)


class Line(NamedTuple):
    """One fire time to show."""

    at: datetime
    due: datetime
    name: str
    trigger: Trigger


@click.command("next")
@click.argument("words", nargs=-1, metavar="[[APP] [SCHEDULE] | CRON]")
@click.option(
    "--count", "-n", type=click.IntRange(1, 100_000), default=10, show_default=True, metavar="N", help="How many."
)
@click.option("--after", metavar="ISO", help="Fire times after this moment, as 2027-03-28T00:00; now without it.")
@click.option("--around-dst", is_flag=True, help="Those around the next days on which the clock of the zone is set.")
@zone_option
@json_option
def command(
    words: tuple[str, ...], count: int, after: str | None, around_dst: bool, zone: tzinfo | None, as_json: bool
) -> None:
    """List the fire times to come.

    Of a whole app, all its schedules in one list; of one schedule; or of a bare
    cron line, read in --tz (UTC without it):

    \b
        qj next module:app
        qj next module:app reports.midnight --count 3
        qj next "*/5 9-17 * * mon-fri" --tz Europe/Rome --after 2027-03-27
        qj next "30 2 * * *" --tz Europe/Rome --around-dst
    """
    now_ns = SYSTEM_CLOCK.now_ns()
    at_ns = now_ns if after is None else instant_ns(moment(after, "--after", zone))
    rule, target = find_rule(words, at_ns, zone_name(zone))
    now = as_datetime(now_ns) or _EPOCH
    if around_dst:
        _around(rule, target, at_ns, count, zone, now, as_json=as_json)
        return
    lines, notes = _lines(rule, None if target is None else target.app, at_ns, count, zone, now_ns)
    if as_json:
        show_json("next", app=None if target is None else target.name, now=iso(now), fires=_dicts(lines, now))
    else:
        _show(lines, now)
    tell_notes(notes)
    if not lines and not notes:
        tell_notes(["nothing fires any more after that"])


def _lines(
    rule: Rule | None, app: Quarterjack | None, at_ns: int, count: int, zone: tzinfo | None, now_ns: int
) -> tuple[list[Line], list[str]]:
    """Return what to show, in order of time, and what to say beside it."""
    if rule is not None and not rule.trigger.is_periodic and rule.row is None:
        return [], [f"{rule.text}: a stream has no fire times; {rule.trigger.explain()}"]
    if rule is not None and rule.row is None:
        times = rule.trigger.preview(count, after=as_datetime(at_ns) or _EPOCH)
        return [Line(shown(at, rule.trigger, zone), at, rule.text, rule.trigger) for at in times], []
    if rule is not None and rule.row is not None:
        rows = [rule.row]
    else:
        rows = outlook(app, at_ns).rows if app is not None else []
    notes: list[str] = []
    if rule is None and app is not None:
        notes += [f"{one.id}: a stream has no fire times; {one.trigger.explain()}" for one in app.declared_streams()]
    walks: list[list[Line]] = []
    for row in rows:
        found, why = listed(row, count, now_ns)
        walks.append([_line(row, fire, zone) for fire in found])
        if why is not None:
            notes.append(f"{row.id}: {why}")
    merged = heapq.merge(*walks, key=lambda line: line.at)
    return list(merged)[:count], notes


def _line(row: Schedule, fire: Fire, zone: tzinfo | None) -> Line:
    return Line(shown(fire.nominal, row.trigger, zone), shown(fire.due, row.trigger, zone), row.id, row.trigger)


def _dicts(lines: Iterable[Line], now: datetime) -> list[dict[str, Any]]:
    return [
        {
            "schedule": line.name,
            "at": iso(line.at),
            "due": iso(line.due),
            "in_s": (line.at - now).total_seconds(),
        }
        for line in lines
    ]


def _show(lines: list[Line], now: datetime) -> None:
    if not lines:
        return
    people = [
        [for_people(line.at), in_words(in_s) if (in_s := (line.at - now).total_seconds()) else "at start", line.name]
        for line in lines
    ]
    plain = [[line.at.isoformat(), f"{(line.at - now).total_seconds():.3f}", line.name] for line in lines]
    columns = {"fires": "bold", "in": "cyan", "schedule": ""}
    show_table(columns, people, plain, beneath={"in": "fires"})


# -- around the days on which a clock is set --------------------------------------------------


def _around(
    rule: Rule | None,
    target: Target | None,
    at_ns: int,
    count: int,
    zone: tzinfo | None,
    now: datetime,
    *,
    as_json: bool,
) -> None:
    rules, notes = _readers(rule, target, at_ns)
    found = nights(rules, at_ns, count)
    if as_json:
        app = None if target is None else target.name
        show_json("clock-changes", app=app, now=iso(now), changes=nights_as_dicts(found, now, zone))
    else:
        show_nights(found, now, zone, is_app=rule is None)
    if not found and not notes:
        notes = ["no clock that this rule reads is set within a year; name its zone, as in --tz Europe/Rome"]
    tell_notes(notes)


def _readers(rule: Rule | None, target: Target | None, at_ns: int) -> tuple[list[Ruled], list[str]]:
    """Return the rules that read a clock, and what to say of the others."""
    if rule is not None:
        rules = [Ruled(rule.text, rule.trigger, rule.row)]
    else:
        rows = outlook(target.app, at_ns).rows if target is not None else []
        rules = [Ruled(row.id, row.trigger, row) for row in rows if row.parked_reason is None]
    readers: list[Ruled] = []
    others: list[str] = []
    notes: list[str] = []
    for one in rules:
        try:
            reads = one.trigger.is_periodic and bool(one.trigger.clock_changes(after=as_datetime(at_ns) or _EPOCH))
        except Exception as error:  # a trigger of the user's own may raise anything
            notes.append(f"{one.name}: {type(error).__name__}: {error}")
            continue
        if reads:
            readers.append(one)
        else:
            others.append(one.name)
    if others and (rule is None or rule.trigger.zone is None):
        notes.append(f"the clocks do not matter to {listing(others)}")
    return readers, notes
