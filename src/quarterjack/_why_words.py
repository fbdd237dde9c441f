"""Instants, spans and states as people write them in a sentence."""

from __future__ import annotations

from datetime import datetime, tzinfo

from .model import JobRecord, JobState
from .triggers import Trigger, _words
from .triggers.base import from_ns

__all__ = ["local", "span", "state_of", "told_at"]


def local(trigger: Trigger, ns: int, zone: tzinfo | None = None) -> datetime:
    """Return an instant in the zone of a rule, else in *zone*, else in UTC."""
    return from_ns(ns, trigger.zone or zone or from_ns(0).tzinfo)


def told_at(at: datetime) -> str:
    """Return an instant as people write it: ``Sunday 28 March 2027 at 03:00 CEST``."""
    part = f"{at.microsecond // 1_000:03}".rstrip("0")
    face = f"{at:%H:%M:%S}.{part}" if part else _words.clock(at.time())
    day = _words.WEEKDAY_NAMES[at.isoweekday() % 7]
    return f"{day} {_words.dates([at.date()])} at {face} {at.tzname() or ''}".rstrip()


def state_of(job: JobRecord) -> str:
    """Return how a job stands, as after ``which is``."""
    words = {
        JobState.SUBMITTED: "still waiting",
        JobState.SCHEDULED: "taken by a worker, but not begun",
        JobState.STARTED: "handed to its executor, but not begun",
        JobState.RUNNING: "still running",
    }
    state = words.get(job.state, job.state.value.replace("_", " "))
    return f"{state}, but its body still runs" if job.zombie else state


def span(seconds: float) -> str:
    """Return a span as its two largest units: ``3 days and 2 hours``, ``0.3 seconds``."""
    if seconds < 10:
        return f"{round(seconds, 1):g} second{'' if round(seconds, 1) == 1 else 's'}"
    whole, parts = round(seconds), list[str]()
    for size, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute"), (1, "second")):
        count, whole = divmod(whole, size)
        if count:
            parts.append(f"{count} {unit}{'' if count == 1 else 's'}")
        elif parts:
            break
    return _words.join(parts[:2])
