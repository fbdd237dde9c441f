"""Unique keys: which job stands in the way of another with its key.

A key of a period is about time, not about rows: it holds until the period is
over, and keeps the row it answers with for as long. Periods that are over are
swept as new ones come in, and whenever the store asks."""

from __future__ import annotations

from datetime import timedelta
from heapq import heappop, heappush

from quarterjack.model import JobRecord, Unique

__all__ = ["UniqueKeys"]


class UniqueKeys:
    """The newest job of each key, and until when it holds it (None: as long as its scope says)."""

    __slots__ = ("_entries", "_periods")

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], tuple[JobRecord, int | None]] = {}
        self._periods: list[tuple[int, tuple[str, str]]] = []

    def __len__(self) -> int:
        """Return how many keys are remembered."""
        return len(self._entries)

    def holder(self, task: str, unique: Unique | None, now: int) -> JobRecord | None:
        """Return the job of *task* that holds the key, or None if it is free."""
        entry = None if unique is None else self._entries.get((task, unique.key))
        if unique is None or entry is None:
            return None
        job, until = entry
        if until is not None:
            return job if now < until else None
        if job.state.is_finished or (unique.scope == "queued" and job.state.is_held):
            return None
        return job

    def until(self, task: str, unique: Unique | None) -> int | None:
        """Return when the period of the key ends; None if no period holds it."""
        entry = None if unique is None else self._entries.get((task, unique.key))
        return None if entry is None else entry[1]

    def take(self, job: JobRecord, now: int) -> None:
        """Let *job* hold its key from now on, if it has one."""
        unique = job.options.unique
        if unique is None:
            return
        key, until = (job.task, unique.key), None
        if isinstance(unique.scope, timedelta):
            until = now + unique.scope // timedelta(microseconds=1) * 1_000
            heappush(self._periods, (until, key))
        self._entries[key] = (job, until)
        self.sweep(now)

    def retake(self, job: JobRecord, now: int) -> bool:
        """Take the key for a finished job that is to run again; False if another job has it by now."""
        unique = job.options.unique
        if unique is None:
            return True
        holder = self.holder(job.task, unique, now)
        if holder is None and not isinstance(unique.scope, timedelta):
            self._entries[job.task, unique.key] = (job, None)
        return holder is None or holder is job

    def forget(self, job: JobRecord) -> None:
        """Free the key of a job that has ended, unless its period goes on or another job has it."""
        unique = job.options.unique
        if unique is not None and self._entries.get((job.task, unique.key)) == (job, None):
            del self._entries[job.task, unique.key]

    def sweep(self, now: int) -> None:
        """Drop the keys whose period is over."""
        periods = self._periods
        while periods and periods[0][0] <= now:
            until, key = heappop(periods)
            entry = self._entries.get(key)
            if entry is not None and entry[1] == until:
                del self._entries[key]
