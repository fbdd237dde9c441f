"""``qj simulate``: an app's schedules, played in virtual time with bodies that only take time."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, tzinfo
from typing import Any, Final

import click

from quarterjack._durations import parse_duration
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import InvalidOption, UnknownTask
from quarterjack.testing import Collision, ScheduleLoad, Simulation, TooManyFires, simulate

from ._hints import listing, typed
from ._output import for_people, is_for_people, iso, json_option, show_json, show_table, shown, tell_notes, zone_option
from ._shell import EXIT_USAGE, Failure, wrapped
from ._spans import in_words
from ._target import load, target_argument
from ._times import moment

__all__ = ["command"]

_SHOWN: Final = 5
"""So many collisions, and busiest minutes, are told; --json has more."""


@click.command("simulate")
@target_argument
@click.option("--for", "for_", default="7d", show_default=True, metavar="TIME", help="How long, as 7d, 12h, 1h30m.")
@click.option("--start", metavar="ISO", help="When it begins, as 2027-03-25T00:00; now without it.")
@click.option(
    "--assume",
    multiple=True,
    metavar="TIME | TASK=TIME",
    help="How long a body takes, as 30s or nightly=2m; 1s without it. May be repeated.",
)
@zone_option
@json_option
def command(
    target: str | None, for_: str, start: str | None, assume: tuple[str, ...], zone: tzinfo | None, as_json: bool
) -> None:
    """Play an app's schedules in virtual time, and tell how they get on with each other.

    The app is imported, not started: no body and no hook is run. Each body is
    replaced by the time it is assumed to take; all else is played as it would
    happen: overlaps, slots, the gates of flows, jitter, the nights when the clocks
    change.

    \b
        qj simulate module:app --for 7d --assume 30s --assume reports.nightly=20m
    """
    found = load(target)
    began = SYSTEM_CLOCK.monotonic_ns()
    at = SYSTEM_CLOCK.now() if start is None else moment(start, "--start", zone)
    logging.getLogger("quarterjack").setLevel(logging.CRITICAL)  # what it would log is in the answer
    try:
        parse_duration(for_, "--for")
        result = simulate(found.app, for_, start=at, assume=_assumed(assume))
    except TooManyFires as error:
        raise Failure(str(error), typed(found.name, "--for", error.fits), EXIT_USAGE) from None
    except UnknownTask as error:
        raise Failure(str(error), f"qj ls {found.name}", EXIT_USAGE) from None
    except InvalidOption as error:
        raise Failure(str(error), typed(found.name, "--for", "7d", "--assume", "30s"), EXIT_USAGE) from None
    if as_json:
        show_json("simulation", app=found.name, **_as_dict(result, zone))
        return
    took_s = (SYSTEM_CLOCK.monotonic_ns() - began) / 1e9
    _show(result, found.name, zone, took_s)


def _assumed(texts: Iterable[str]) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for text in texts:
        name, is_named, duration = text.rpartition("=")
        found[name if is_named else "*"] = parse_duration(duration, f"--assume {text}")
    return found


# -- for people and pipes ---------------------------------------------------------------------


def _show(found: Simulation, name: str, zone: tzinfo | None, took_s: float) -> None:
    length = in_words((found.end - found.start).total_seconds())
    if is_for_people():
        head = f"{name}: {length} from {_at(found.start, zone)}, {found.runs:,} runs, played in {in_words(took_s)}"
        click.secho(wrapped(head, indent=2), bold=True)
    columns = dict.fromkeys(
        ("schedule", "runs", "skipped", "missed", "cancelled", "refused", "waiting", "longest wait", "busy"), ""
    )
    people = [[one.id, *_counts(one), _wait(one.longest_wait_s), _wait(one.busy_s)] for one in found.schedules]
    plain = [[one.id, *_numbers(one), f"{one.longest_wait_s:.3f}", f"{one.busy_s:.3f}"] for one in found.schedules]
    if people:
        show_table(columns | {"schedule": "bold"}, people, plain)
    tell_notes(_notes(found, zone), stderr=not is_for_people())


def _numbers(one: ScheduleLoad) -> list[str]:
    return [str(n) for n in (one.runs, one.skipped, one.missed, one.cancelled, one.refused, one.waiting)]


def _counts(one: ScheduleLoad) -> list[str]:
    return [
        f"{n:,}" if n else "—" for n in (one.runs, one.skipped, one.missed, one.cancelled, one.refused, one.waiting)
    ]


def _wait(seconds: float) -> str:
    return in_words(seconds) if seconds else "—"


def _at(at: datetime, zone: tzinfo | None) -> str:
    return for_people(shown(at, None, zone))


def _notes(found: Simulation, zone: tzinfo | None) -> list[str]:
    return [
        f"assumed: {_assumptions(found)}",
        *_slots(found, zone),
        *_together(found, zone),
        *_nights(found),
        *(f"{one} is parked: {why}" for one, why in found.parked.items()),
        *(f"{one} of a flow is not played: {why}" for one, why in found.unplayed.items()),
    ]


def _assumptions(found: Simulation) -> str:
    """Say how long bodies were assumed to take: what most share first."""
    if not found.assumed:
        return "nothing, as there are no schedules"
    usual, _ = Counter(found.assumed.values()).most_common(1)[0]
    others = [f"{task} {in_words(seconds)}" for task, seconds in found.assumed.items() if seconds != usual]
    head = f"each run takes {in_words(usual)}" + (f", but {', '.join(others)}" if others else "")
    return f"{head} (--assume 30s, --assume TASK=2m); nothing fails"


def _slots(found: Simulation, zone: tzinfo | None) -> list[str]:
    return [
        f"at most {one.peak} of {one.slots} slots of executor {one.name!r} at once, first on {_at(one.peak_at, zone)}"
        + (": all of them" if one.peak >= one.slots else "")
        for one in found.executors
        if one.peak_at is not None
    ]


def _together(found: Simulation, zone: tzinfo | None) -> list[str]:
    if not found.collisions:
        return ["no two runs start within one second"]
    worst = found.collisions[:_SHOWN]
    notes = [_collision(one, zone) for one in worst]
    minute, starts = found.busiest[0]
    return [*notes, f"the busiest minute is {_at(minute, zone)}, with {starts} starts"]


def _collision(one: Collision, zone: tzinfo | None) -> str:
    often = "" if one.seconds == 1 else f", and so in {one.seconds:,} seconds"
    return f"{one.starts} starts within one second on {_at(one.at, zone)}{often}: {listing(one.schedules)}"


def _nights(found: Simulation) -> list[str]:
    """Return what the days do on which a clock is set, and to whom; of no effect at all, the day is enough."""
    names: dict[str, list[str]] = {}
    for one, change in found.clock_changes:
        if change.is_affected:
            names.setdefault(change.words, []).append(one)
    if not names:
        return list(dict.fromkeys(change.words for _, change in found.clock_changes))
    return [f"{listing(those)}: {words}" for words, those in names.items()]


# -- for programs -----------------------------------------------------------------------------


def _as_dict(found: Simulation, zone: tzinfo | None) -> dict[str, Any]:
    def told(at: datetime | None) -> str | None:
        return None if at is None else iso(shown(at, None, zone))

    return {
        "start": told(found.start),
        "end": told(found.end),
        "runs": found.runs,
        "assumed_s": dict(found.assumed),
        "schedules": [
            {
                "id": one.id,
                "runs": one.runs,
                "skipped": one.skipped,
                "missed": one.missed,
                "cancelled": one.cancelled,
                "refused": one.refused,
                "waiting": one.waiting,
                "longest_wait_s": one.longest_wait_s,
                "busy_s": one.busy_s,
            }
            for one in found.schedules
        ],
        "executors": [
            {"name": one.name, "slots": one.slots, "peak": one.peak, "peak_at": told(one.peak_at)}
            for one in found.executors
        ],
        "collisions": [
            {"at": told(one.at), "starts": one.starts, "seconds": one.seconds, "together": list(one.schedules)}
            for one in found.collisions
        ],
        "busiest_minutes": [{"at": told(at), "starts": starts} for at, starts in found.busiest],
        "clock_changes": [
            {"schedule": one, "at": iso(change.at), "is_affected": change.is_affected, "words": change.words}
            for one, change in found.clock_changes
        ],
        "parked": dict(found.parked),
        "unplayed": dict(found.unplayed),
    }
