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

from ._hints import typed
from ._output import for_people, in_words, iso, json_option, show_json, show_table, shown, tell_notes, zone_option
from ._planning import Fire, Rule, find_rule, listed, outlook, zone_name
from ._shell import EXIT_USAGE, Failure

__all__ = ["command", "moment"]

YEARS: Final = range(1900, 9901)
"""Near the ends of the calendar there is no room to look ahead, nor for another zone's date."""


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
@zone_option
@json_option
def command(words: tuple[str, ...], count: int, after: str | None, zone: tzinfo | None, as_json: bool) -> None:
    """List the fire times to come.

    Of a whole app, all its schedules in one list; of one schedule; or of a bare
    cron line, read in --tz (UTC without it):

    \b
        qj next module:app
        qj next module:app reports.midnight --count 3
        qj next "*/5 9-17 * * mon-fri" --tz Europe/Rome --after 2027-03-27
    """
    now_ns = SYSTEM_CLOCK.now_ns()
    at_ns = now_ns if after is None else moment(after, zone)
    rule, target = find_rule(words, at_ns, zone_name(zone))
    lines, notes = _lines(rule, None if target is None else target.app, at_ns, count, zone)
    now = as_datetime(now_ns) or datetime.fromtimestamp(0, UTC)
    if as_json:
        show_json("next", app=None if target is None else target.name, now=iso(now), fires=_dicts(lines, now))
    else:
        _show(lines, now)
    tell_notes(notes)
    if not lines and not notes:
        tell_notes(["nothing fires any more after that"])


def moment(text: str, zone: tzinfo | None) -> int:
    """Return an ISO moment in nanoseconds; without an offset it is read in *zone*, else in the machine's.

    Raises:
        Failure: If it is none.
    """
    try:
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            at = at.replace(tzinfo=zone) if zone is not None else at.astimezone()
        if at.year in YEARS:
            return instant_ns(at)
        what = f"lies outside of the years {YEARS[0]} to {YEARS[-1]}"
    except (ValueError, OverflowError):  # the latter in the first and last days of the calendar
        what = "is no ISO moment"
    words = click.get_current_context().params.get("words", ())
    raise Failure(f"--after {text!r} {what}", f"{typed(*words)} --after 2027-03-28T00:00", EXIT_USAGE)


def _lines(
    rule: Rule | None, app: Quarterjack | None, at_ns: int, count: int, zone: tzinfo | None
) -> tuple[list[Line], list[str]]:
    """Return what to show, in order of time, and what to say beside it."""
    if rule is not None and rule.row is None:
        times = rule.trigger.preview(count, after=as_datetime(at_ns) or datetime.fromtimestamp(0, UTC))
        return [Line(shown(at, rule.trigger, zone), at, rule.text, rule.trigger) for at in times], []
    if rule is not None and rule.row is not None:
        rows = [rule.row]
    else:
        rows = outlook(app, at_ns).rows if app is not None else []
    notes: list[str] = []
    walks: list[list[Line]] = []
    for row in rows:
        found, why = listed(row, count)
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
