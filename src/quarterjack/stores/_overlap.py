"""Open jobs by overlap key, for the memory store: who overlaps whom, and whose turn it is."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from quarterjack.model import JobRecord, JobState

__all__ = ["OverlapKeys"]

_NONE: list[JobRecord] = []


class OverlapKeys:
    """Open jobs per key, and, for serial jobs, the one that is held while others are parked.

    Jobs of a backfill are in nobody's way: they are not among the open ones, and
    their turn comes when no other job is parked.
    """

    __slots__ = ("_backfills", "_holder", "_open", "_parked")

    def __init__(self) -> None:
        self._open: dict[str, list[JobRecord]] = {}
        self._holder: dict[str, JobRecord] = {}
        self._parked: dict[str, deque[JobRecord]] = {}
        self._backfills: dict[str, deque[JobRecord]] = {}
        """The parked ones of backfills."""

    def open(self, key: str) -> list[JobRecord]:
        """Return the open jobs of *key* but those of backfills, oldest first; not to be changed."""
        return self._open.get(key, _NONE)

    def all_open(self) -> Iterator[JobRecord]:
        """Yield the open jobs of all keys."""
        for jobs in self._open.values():
            yield from jobs

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

    def hold(self, job: JobRecord) -> bool:
        """Take the serial key for *job*, or park the job and return False."""
        key = job.overlap_key
        if not job.serial or key is None:
            return True
        if self._holder.setdefault(key, job) is job:
            return True
        parked = self._backfills if job.is_backfill else self._parked
        parked.setdefault(key, deque()).append(job)
        return False

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
        """Drop the entries of parked jobs that wait no more; return how many are left. O(n)."""
        return _compact(self._parked) + _compact(self._backfills)


def _next_of(parked: dict[str, deque[JobRecord]], key: str) -> JobRecord | None:
    """Take out and return the first job of *key* that still waits."""
    jobs = parked.get(key)
    following = None
    while jobs and following is None:
        candidate = jobs.popleft()
        following = candidate if candidate.state is JobState.SUBMITTED else None
    if jobs is not None and not jobs:
        del parked[key]
    return following


def _compact(parked: dict[str, deque[JobRecord]]) -> int:
    for key, jobs in list(parked.items()):
        left = deque(job for job in jobs if job.state is JobState.SUBMITTED)
        if left:
            parked[key] = left
        else:
            del parked[key]
    return sum(map(len, parked.values()))
