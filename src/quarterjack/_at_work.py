"""Who is at work: the registry of processes, read at a moment.

Pure functions. A process that was killed leaves its row behind for an hour; it
counts as lost once it has given no sign of life for a minute, six times as long
as a living one takes at most."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .model import WorkerInfo

__all__ = ["LOST_AFTER_S", "at_work", "is_lost", "serving"]

LOST_AFTER_S: Final = 60.0


def is_lost(worker: WorkerInfo, now_ns: int) -> bool:
    """Say whether a process has given no sign of life for so long that it is taken for lost."""
    return now_ns - worker.seen_at_ns > LOST_AFTER_S * 1e9


def at_work(workers: Iterable[WorkerInfo], now_ns: int) -> list[WorkerInfo]:
    """Return those that are not lost."""
    return [one for one in workers if not is_lost(one, now_ns)]


def serving(workers: Iterable[WorkerInfo], queue: str, now_ns: int) -> list[WorkerInfo]:
    """Return those at work that run jobs of this queue."""
    return [one for one in at_work(workers, now_ns) if one.runs_jobs and queue in one.queues]
