"""Open jobs by overlap key: who overlaps whom, and whose turn it is."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from itertools import count

from quarterjack.model import JobRecord, JobState

__all__ = ["OverlapKeys"]

_NONE: list[JobRecord] = []
_Line = list[tuple[int, int, JobRecord]]
"""Parked jobs of a key, as a heap by what claims go by."""


class OverlapKeys:
    """Open jobs per key, and, for serial jobs, the one that is held while others are parked.

    Jobs of a backfill are in nobody's way: they are not among the open ones, and
    their turn comes when no other job is parked.
    """

    __slots__ = ("_backfills", "_holder", "_open", "_parked", "_ticket")

    def __init__(self) -> None:
        self._open: dict[str, list[JobRecord]] = {}
        self._holder: dict[str, JobRecord] = {}
        self._parked: dict[str, _Line] = {}
        self._backfills: dict[str, _Line] = {}
        """The parked ones of backfills."""
        self._ticket = count()

    def open(self, key: str) -> list[JobRecord]:
        """Return the open jobs of *key* but those of backfills, oldest first; not to be changed."""
        return self._open.get(key, _NONE)

    def add(self, key: str, job: JobRecord) -> None:
        """Count *job* as open, unless it is a backfill's."""
        job.overlap_key = key
        if job.is_backfill:
            return
        jobs = self._open.get(key)
        if jobs is None:
            self._open[key] = [job]
        else:
            jobs.append(job)

    def close(self, job: JobRecord) -> JobRecord | None:
        """Count *job* as open no more; return the parked job whose turn comes."""
        key = job.overlap_key
        if key is None:
            return None
        jobs = self._open.get(key)
        if jobs is not None and job in jobs:
            if len(jobs) == 1:
                del self._open[key]
            else:
                jobs.remove(job)
        return self.let_go(job) if job.serial else None

    def take(self, job: JobRecord) -> bool:
        """Let *job*, which waits, have its serial key; False if another one has it."""
        key = job.overlap_key
        return not job.serial or key is None or self._holder.setdefault(key, job) is job

    def hold(self, job: JobRecord, now: int) -> bool:
        """Take the serial key for *job*, or park the job and return False.

        A backfill's makes way for any other that waits for the key and is due.
        """
        if not (job.is_backfill and self._has_waiting(job.overlap_key or "", now)) and self.take(job):
            return True
        parked = self._backfills if job.is_backfill else self._parked
        entry = (job.order_at_ns, next(self._ticket), job)
        heappush(parked.setdefault(job.overlap_key or "", []), entry)
        return False

    def _has_waiting(self, key: str, now: int) -> bool:
        return any(job.serial and job.state is JobState.SUBMITTED and job.run_at_ns <= now for job in self.open(key))

    def let_go(self, job: JobRecord) -> JobRecord | None:
        """Give the serial key back if *job* has it; return the parked job whose turn comes.

        If nobody has the key it is somebody's turn too: *job* may be the one whose
        turn had come, and which ended before it was claimed.
        """
        key = job.overlap_key
        if key is None or self._holder.get(key, job) is not job:
            return None
        self._holder.pop(key, None)
        return _next_of(self._parked, key) or _next_of(self._backfills, key)

    def compact(self) -> int:
        """Drop parked jobs that wait no more, take up the others' new orders; return how many these are. O(n)."""
        return _renew(self._parked) + _renew(self._backfills)


def _next_of(parked: dict[str, _Line], key: str) -> JobRecord | None:
    """Take out and return the first job of *key* that still waits."""
    line = parked.get(key)
    following = None
    while line and following is None:
        candidate = heappop(line)[2]
        following = candidate if candidate.state is JobState.SUBMITTED else None
    if line is not None and not line:
        del parked[key]
    return following


def _renew(parked: dict[str, _Line]) -> int:
    """Keep the jobs that still wait, by the order they have now; return how many they are."""
    for key, line in list(parked.items()):
        left = [(job.order_at_ns, ticket, job) for _, ticket, job in line if job.state is JobState.SUBMITTED]
        heapify(left)
        if left:
            parked[key] = left
        else:
            del parked[key]
    return sum(map(len, parked.values()))
