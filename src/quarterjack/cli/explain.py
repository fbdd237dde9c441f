"""``qj explain``: a rule in words, its next fires, and what is good to know about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from types import MappingProxyType
from typing import Final

import click

from quarterjack import NotPeriodic, Stream, Trigger
from quarterjack._signatures import label_of
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.model import Schedule, as_datetime
from quarterjack.triggers.base import instant_ns

from ._output import for_people, iso, json_option, show_json, shown, tell_notes, zone_option
from ._planning import Rule, depends_on_start, find_rule, listed, rule_dict, zone_name
from ._shell import EXIT_USAGE, Failure
from ._spans import in_words
from ._times import moment

__all__ = ["command"]

_DAY: Final = timedelta(days=1)
_MOMENT: Final = timedelta(microseconds=1)
_AHEAD: Final = timedelta(days=366)
_COUNTED: Final = 1_000_000
"""Counting a day's fires stops here: some triggers count one by one."""

_OVERLAP: Final = MappingProxyType(
    {
        "skip": "is left out",
        "queue_one": "waits for its end, one at most",
        "queue_latest": "waits for its end, in the place of any that waits already",
        "queue_all": "waits for its end, each in its turn",
        "cancel_previous": "cancels it and runs",
        "allow": "runs beside it",
    }
)
_MISSED: Final = MappingProxyType(
    {
        "latest": "the newest runs once",
        "earliest": "the oldest runs once",
        "all": "each runs, the newest {most} at most",
        "skip": "none runs",
    }
)


@click.command("explain")
@click.argument("words", nargs=-1, required=True, metavar="CRON | [APP] SCHEDULE")
@click.option(
    "--count", "-n", type=click.IntRange(0, 1000), default=5, show_default=True, metavar="N", help="Fire times to show."
)
@click.option("--after", metavar="ISO", help="Look from this moment on; now without it.")
@zone_option
@json_option
def command(words: tuple[str, ...], count: int, after: str | None, zone: tzinfo | None, as_json: bool) -> None:
    """Put a rule into words, with its next fire times and its notes.

    The notes say how often it fires, and what it does on the next days on
    which the clock of its zone is set forward or back:

    \b
        qj explain "30 2 * * *" --tz Europe/Rome
        qj explain module:app reports.midnight
    """
    now_ns = SYSTEM_CLOCK.now_ns()
    at_ns = now_ns if after is None else instant_ns(moment(after, "--after", zone))
    rule, target = find_rule(words, at_ns, zone_name(zone))
    if rule is None:
        name = target.name if target is not None else words[0]
        raise Failure(f"{name} is an app; name a schedule of it, or a cron line", f"qj ls {name}", EXIT_USAGE)
    at = as_datetime(at_ns) or datetime.fromtimestamp(0, UTC)
    fires, why = _fires(rule, at, count, zone, now_ns)
    keeps_rows = target is not None and target.app.store.is_shared
    notes = _notes(rule, at, fires, keeps_rows=keeps_rows)
    if why is not None and why not in notes:
        notes.append(why)
    if as_json:
        show_json(
            "rule",
            text=rule.text,
            words=rule.trigger.explain(),
            rule=rule_dict(rule.trigger),
            zone=None if rule.trigger.zone is None else str(rule.trigger.zone),
            fires=[iso(one) for one in fires],
            notes=notes,
        )
        return
    _show(rule, fires, notes, as_datetime(now_ns) or at)


def _fires(rule: Rule, at: datetime, count: int, zone: tzinfo | None, now_ns: int) -> tuple[list[datetime], str | None]:
    if isinstance(rule.trigger, Stream):
        return [], None
    if rule.row is None:
        return [shown(one, rule.trigger, zone) for one in rule.trigger.preview(count, after=at)], None
    found, why = listed(rule.row, count, now_ns)
    return [shown(one.nominal, rule.trigger, zone) for one in found], why


def _show(rule: Rule, fires: list[datetime], notes: list[str], now: datetime) -> None:
    click.secho(rule.trigger.explain(), bold=True)
    names = [for_people(one) for one in fires]
    width = max(map(len, names), default=0)
    for number, (one, name) in enumerate(zip(fires, names, strict=True)):
        label = "next  " if number == 0 else "      "
        in_s = (one - now).total_seconds()
        wait = f"in {in_words(in_s)}" if in_s > 0 else in_words(in_s) if in_s else "at start"
        click.echo(f"{label}{name:<{width}}   {wait}")
    if not fires and not isinstance(rule.trigger, Stream):
        click.echo("no fire times to come")
    tell_notes(notes, stderr=False)


# -- notes --------------------------------------------------------------------------


def _notes(rule: Rule, at: datetime, fires: list[datetime], *, keeps_rows: bool) -> list[str]:
    """Return what is good to know: how often, since when, and the days the clock is set.

    *keeps_rows* says whether its store remembers the schedule from one start to the next.
    """
    trigger = rule.trigger
    if isinstance(trigger, Stream):
        return _about_stream(trigger)
    if not trigger.is_periodic or (rule.row is not None and rule.row.parked_reason is not None):
        return []
    try:
        notes = [*_rate(trigger, at, fires), *_clock_changes(rule, at)] if fires else []
    except NotPeriodic as error:  # a union may hold a rule that cannot be listed
        return [str(error)]
    except Exception as error:  # a trigger of the user's own may raise anything
        notes = [f"{type(error).__name__}: {error}"]
    return [*_policies(rule.row, keeps_rows=keeps_rows), *notes] if rule.row is not None else notes


def _about_stream(stream: Stream) -> list[str]:
    """Return what becomes of a stream's items, and of its source."""
    if stream.ack is None:
        acknowledged = "an item that has an ack() of its own is acknowledged once its job is stored"
    else:
        acknowledged = f"an item is acknowledged by {label_of(stream.ack)} once its job is stored"
    notes = ["each process that fires schedules takes items for itself", acknowledged]
    if stream.key is not None:
        notes.append(f"an item whose key ({label_of(stream.key)}) another job holds makes no second one")
    notes.append("a source that raises is opened again, after pauses that grow from about 1 to 60 seconds")
    if stream.restart is None:
        notes.append("a source that ends is not opened again before the next start of the app")
    return notes


def _policies(row: Schedule, *, keeps_rows: bool) -> list[str]:
    """Return what the schedule adds to its rule."""
    timing, payload = row.timing, row.payload
    mode, most = payload.overlap.mode, payload.overlap.maximum
    limit = f", {most} at most" if most is not None else ""
    notes = [f"while a run goes on the next one {_OVERLAP[mode]}{limit} (overlap={mode!r})"]
    folded = _MISSED[payload.missed].format(most=payload.max_catchup)
    if keeps_rows:
        notes.append(f"of fire times that pass while the app is down {folded} (missed={payload.missed!r})")
    else:
        passed = "while the machine sleeps or the loop stands still"
        notes.append(f"of fire times that pass {passed} {folded} (missed={payload.missed!r})")
        notes.append("after a restart nothing is caught up: its store lives in the process")
    for name, bound in (("start", timing.start_ns), ("end", timing.end_ns)):
        if bound is not None:
            notes.append(f"no fire time {'before' if name == 'start' else 'after'} {name}={iso(as_datetime(bound))}")
    if timing.jitter_ns:
        notes.append(f"starts are spread over {in_words(timing.jitter_ns / 1e9)} after each fire time")
    if payload.max_runs is not None:
        notes.append(f"it runs at most {payload.max_runs} times")
    if depends_on_start(row):
        notes.append("it is counted from the start of the app, here as if it started at that moment")
    return notes


def _rate(trigger: Trigger, at: datetime, fires: list[datetime]) -> list[str]:
    start = at.astimezone(trigger.zone or UTC)
    if _count(trigger, start, start + _DAY) == _COUNTED:
        return [f"more than {_COUNTED:,} times a day"]
    by_day = [_count(trigger, start + day * _DAY, start + (day + 1) * _DAY) for day in range(7)]
    most, per_week = max(by_day), sum(by_day)
    if most == min(by_day) and most:
        return ["once a day" if most == 1 else f"{most:,} times a day"]
    if per_week >= 7:
        return [f"about {per_week / 7:,.0f} times a day" if per_week >= 14 else f"{per_week} times a week"]
    per_year = trigger.count(at, at + _AHEAD, cap=1_000)
    if per_year == 0:
        is_soon = any(one - at <= _AHEAD for one in fires)  # its only one is at this very moment
        return [] if is_soon else ["not once within a year"]
    return [f"{per_year} {'time' if per_year == 1 else 'times'} within a year"]


def _clock_changes(rule: Rule, at: datetime) -> list[str]:
    """Say what the rule does where its zone's clock is set within a year; of no effect at all, one line is enough."""
    timing = None if rule.row is None else rule.row.timing
    end = None if timing is None else as_datetime(timing.end_ns)
    start = at if timing is None else max(at, as_datetime(timing.start_ns) or at)
    until = start + _AHEAD if end is None else max(start, min(end, start + _AHEAD))
    changes = rule.trigger.clock_changes(after=start, until=until)
    return [change.words for change in changes if change.is_affected] or [change.words for change in changes[:1]]


def _count(trigger: Trigger, start: datetime, end: datetime) -> int:
    """Count the fire times in ``[start, end)``, as instants: within one zone datetimes compare by the clock face."""
    return trigger.count(start.astimezone(UTC) - _MOMENT, end.astimezone(UTC) - _MOMENT, cap=_COUNTED)
