"""``qj ls``: an app's schedules and streams, when each fires next, its rule in words."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

import click

from quarterjack import ScheduleView
from quarterjack.model import as_datetime
from quarterjack.runtime.streams import DeclaredStream

from ._output import for_people, iso, json_option, show_json, show_table, shown, tell_notes, until, zone_option
from ._planning import Outlook, depends_on_start, outlook, rule_dict
from ._spans import in_words
from ._target import load, target_argument

__all__ = ["command"]

NOT_KNOWN = "last runs and pauses are not known here: this app's store lives in the process that runs it"


@click.command("ls")
@target_argument
@zone_option
@json_option
def command(target: str | None, zone: tzinfo | None, as_json: bool) -> None:
    """List an app's schedules and streams: next fire time, and the rule in words.

    The app is imported, not started: its hooks and its lifespan do not run.
    With a store that lives in the process (the memory store), fire times are
    those of an app that starts now, and last runs cannot be known.
    """
    found = load(target)
    now_ns = found.app.clock.now_ns()
    seen = outlook(found.app, now_ns)
    now = as_datetime(now_ns)
    if now is None:
        return
    streams = sorted(found.app.declared_streams(), key=lambda one: one.id)
    if as_json:
        show_json(
            "schedules",
            app=found.name,
            store=found.app.store.name,
            now=iso(now),
            is_live=seen.is_live,
            schedules=[as_dict(view, now, zone) for view in seen.views],
            streams=[{"id": id_, "task": task.name, "words": rule.explain()} for id_, task, rule in streams],
        )
        return
    _show(seen, streams, now, zone)
    tell_notes(_notes(seen, streams, found.name))


def as_dict(view: ScheduleView, now: datetime, zone: tzinfo | None) -> dict[str, Any]:
    """Return a schedule as ``--json`` shows it."""
    return {
        "id": view.id,
        "task": view.task,
        "next": iso(_next(view, zone)),
        "in_s": None if view.next is None else (view.next - now).total_seconds(),
        "words": view.explain(),
        "rule": rule_dict(view.trigger),
        "last": iso(view.last),
        "last_state": None if view.last_state is None else view.last_state.value,
        "is_paused": view.is_paused,
        "parked_reason": view.parked_reason,
    }


def _next(view: ScheduleView, zone: tzinfo | None) -> datetime | None:
    return None if view.next is None else shown(view.next, view.trigger, zone)


def _show(seen: Outlook, streams: list[DeclaredStream], now: datetime, zone: tzinfo | None) -> None:
    columns = {"schedule": "bold", "next": "", "in": "cyan", "rule": ""}
    beneath = {"rule": "schedule", "in": "next"}
    if seen.is_live:
        columns |= {"last": "", "result": ""}
        beneath["result"] = "last"
    people: list[list[str]] = []
    plain: list[list[str]] = []
    for view in seen.views:
        at, words = _next(view, zone), view.explain()
        in_s = None if view.next is None else (view.next - now).total_seconds()
        state = view.last_state.value if view.last_state else ""
        ago = "" if view.last is None else in_words((view.last - now).total_seconds())
        wait = until(in_s, is_live=seen.is_live)
        people.append([view.id, "—" if at is None else for_people(at), wait, words, *([ago, state] * seen.is_live)])
        last = [iso(view.last) or "", state] * seen.is_live
        plain.append([view.id, iso(at) or "", "" if in_s is None else f"{in_s:.3f}", words, *last])
    nothing = ["", ""] * seen.is_live
    for stream in streams:
        people.append([stream.id, "—", "", stream.trigger.explain(), *nothing])
        plain.append([stream.id, "", "", stream.trigger.explain(), *nothing])
    if people:
        show_table(columns, people, plain, beneath=beneath)


def _notes(seen: Outlook, streams: list[DeclaredStream], name: str) -> list[str]:
    if not seen.rows and not streams:
        return [f"{name} has no schedules: give a task a trigger, as in @app.task(Every(minutes=5))"]
    from_start = [row.id for row in seen.rows if not seen.is_live and depends_on_start(row)]
    notes = [] if seen.is_live or not seen.rows else [NOT_KNOWN]
    if from_start:
        notes.append(f"counted from the start of the app, here as if it started now: {', '.join(from_start)}")
    return notes
