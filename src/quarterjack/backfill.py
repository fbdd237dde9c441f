"""Backfill: jobs for fire times that have passed, made on purpose.

Pure functions: no clock, no store. `backfill_plan` lists the fire times of a
range by the schedule's own rule and bounds; the store inserts a job for each
that it has none for (``schedules_backfill``).

A backfill is no part of the schedule's life. Its occurrences have keys of their
own, ``(schedule, generation, fire time)`` once more: the same range twice makes
each job once, and a fire time that the schedule ran itself is run again. It moves
no cursor, uses up no ``max_runs``, and says nothing of how the schedule does."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal, NamedTuple

from .errors import InvalidOption, NotPeriodic
from .model import RunOptions, Schedule
from .planner import bounded_rule
from .policies.missed import Periodic
from .triggers.base import from_ns

__all__ = ["MOST", "PRIORITY", "Backfill", "BackfillOverlap", "backfill_options", "backfill_plan"]

BackfillOverlap = Literal["queue_all", "allow"]

MOST: Final = 10_000
"""How many jobs one backfill makes at most: they are inserted in one step, which others wait for."""
PRIORITY: Final = 4
"""What its jobs are at least put back to: the last of the named levels."""


class Backfill(NamedTuple):
    """Fire times to make jobs for; valid while the schedule's generation is unchanged."""

    schedule_id: str
    generation: int
    nominals: tuple[int, ...]
    overlap: BackfillOverlap = "queue_all"
    """One after the other, in turn with the schedule's own runs; or side by side."""


def backfill_plan(
    schedule: Schedule, start_ns: int, end_ns: int, *, limit: int, overlap: BackfillOverlap = "queue_all"
) -> Backfill:
    """Return the fire times of *schedule* in ``[start_ns, end_ns)``, oldest first.

    Raises:
        NotPeriodic: If its fire times depend on how its runs end.
        InvalidOption: If there are more than *limit*, or if its unique key would let only one of them in.
    """
    trigger = schedule.trigger
    if not trigger.is_periodic:
        raise NotPeriodic(
            f"schedule {schedule.id!r} cannot be backfilled: when {trigger!r} runs cannot be listed; "
            f"`await app.trigger_now({schedule.id!r})` runs it once more"
        )
    rule = bounded_rule(schedule)
    nominals = _listed(rule, start_ns, end_ns, limit)
    if nominals is None:
        raise _too_many(schedule, rule, start_ns, end_ns, limit)
    unique = schedule.payload.options.unique
    if unique is not None and len(nominals) > 1:
        raise InvalidOption(
            f"schedule {schedule.id!r} has the unique key {unique.key!r}, which lets one job in at a time: all but one "
            f"of {len(nominals)} would be left out; `await app.update_schedule({schedule.id!r}, unique=None)` before"
        )
    return Backfill(schedule.id, schedule.generation, nominals, overlap)


def _listed(rule: Periodic, start_ns: int, end_ns: int, limit: int) -> tuple[int, ...] | None:
    """Return the fire times of the range, or None if there are more than *limit*."""
    found: list[int] = []
    at = rule.next_ns(start_ns - 1)
    while at is not None and at < end_ns:
        if len(found) == limit:
            return None
        found.append(at)
        at = rule.next_ns(at)
    return tuple(found)


def _too_many(schedule: Schedule, rule: Periodic, start_ns: int, end_ns: int, limit: int) -> InvalidOption:
    count = max(limit + 1, rule.count_ns(start_ns - 1, end_ns - 1, MOST + 1))  # one of the user's own may disagree
    words, advice = f"{count} jobs", f"pass limit={count}, or a shorter range"
    if count > MOST:
        words, advice = f"more than {MOST} jobs", "one call makes no more: go through the range in parts"
    return InvalidOption(
        f"backfill of {schedule.id!r} from {from_ns(start_ns).isoformat()} to {from_ns(end_ns).isoformat()} would make "
        f"{words}, and limit is {limit}; {advice}"
    )


def backfill_options(options: RunOptions) -> RunOptions:
    """Return how the jobs of a backfill are run: as the schedule's, but last, and however long they have waited."""
    return replace(options, priority=max(options.priority, PRIORITY), start_deadline_s=None)
