"""Who is at work: the registry of processes, read at a moment.

Pure functions. A process that was killed leaves its row behind for an hour; it
counts as lost once it has given no sign of life for a minute, six times as long
as a living one takes at most. One that is drained lives, and takes nothing."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterable, Sequence
from typing import Final, Literal, NamedTuple

from .model import Schedule, WorkerInfo

__all__ = [
    "LOST_AFTER_S",
    "NOBODY",
    "Standing",
    "Unserved",
    "at_work",
    "halted",
    "is_lost",
    "serving",
    "standing",
    "unfired",
    "unserved",
    "why_nobody",
]

LOST_AFTER_S: Final = 60.0
NOBODY: Final = "nobody is at work: qj run starts a process"

Standing = Literal["working", "drained", "ending", "lost"]


def is_lost(worker: WorkerInfo, now_ns: int) -> bool:
    """Say whether a process has given no sign of life for so long that it is taken for lost."""
    return now_ns - worker.seen_at_ns > LOST_AFTER_S * 1e9


def standing(worker: WorkerInfo, now_ns: int) -> Standing:
    """Return how a process stands, in a word."""
    return "lost" if is_lost(worker, now_ns) else worker.halt or "working"


def at_work(workers: Iterable[WorkerInfo], now_ns: int) -> list[WorkerInfo]:
    """Return those that are not lost."""
    return [one for one in workers if not is_lost(one, now_ns)]


def serving(workers: Iterable[WorkerInfo], queue: str, now_ns: int, task: str | None = None) -> list[WorkerInfo]:
    """Return those at work that take jobs of this queue; of *task*, if it is given, those that have not parked it."""
    return [
        one
        for one in at_work(workers, now_ns)
        if one.runs_jobs and queue in one.queues and not one.halt and task not in one.parked
    ]


class Unserved(NamedTuple):
    """Why nobody takes a job."""

    words: str
    is_parked: bool = False
    """Those who would take it have parked its task."""


def unserved(workers: Sequence[WorkerInfo], queue: str, now_ns: int, task: str | None = None) -> Unserved | None:
    """Return why nobody at work takes jobs of a queue, or of one *task* in it; None if somebody does."""
    alive = at_work(workers, now_ns)
    if not alive:
        return Unserved(NOBODY)
    if not any(one.runs_jobs for one in alive):
        return Unserved(f"none of the {len(alive)} at work runs jobs: start one whose role is 'both' or 'worker'")
    there = [one for one in alive if one.runs_jobs and queue in one.queues]
    if not there:
        more = f"give it to a worker by queues=, or start one: qj run --queue {shlex.quote(queue)}"
        return Unserved(f"nobody at work serves its queue {queue!r}: {more}")
    able = [one for one in there if not one.halt]
    if not able:
        return Unserved(halted(there, f"serves its queue {queue!r}"))
    if all(task in one.parked for one in able):
        who = " and ".join(f"worker {one.id}" for one in able)
        dying = "its processes died again and again"
        return Unserved(f"its task is parked at {who}, as {dying}: restart that process once it is mended", True)
    return None


def halted(there: Collection[WorkerInfo], does: str) -> str:
    """Return that all who *does* something at work take nothing more, with what to do about it."""
    drained = [one.id for one in there if one.halt == "drained"]
    who = "the only one at work that" if len(there) == 1 else f"each of the {len(there)} at work that"
    if not drained:
        return f"{who} {does} is ending: qj run starts another one"
    return f"{who} {does} is drained: qj workers resume {drained[0]} has it go on"


def unfired(workers: Sequence[WorkerInfo], now_ns: int) -> str | None:
    """Return why nobody at work fires schedules; None if somebody does."""
    alive = at_work(workers, now_ns)
    there = [one for one in alive if one.fires]
    if not alive:
        return NOBODY
    if not there:
        return "no process fires schedules: start one whose role is 'both' or 'scheduler'"
    return halted(there, "fires schedules") if all(one.halt for one in there) else None


def why_nobody(row: Schedule, workers: Sequence[WorkerInfo], now_ns: int) -> str | None:
    """Return why nobody at work fires a schedule, or takes its jobs; None if somebody does."""
    found = unserved(workers, row.payload.options.queue, now_ns, row.payload.task)
    return unfired(workers, now_ns) or (None if found is None else found.words)
