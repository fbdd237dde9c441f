"""The memory store's book: every row there is, who is next, and what is kept of the past. See `memory`."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Final

from quarterjack._durations import NS_PER_S
from quarterjack.model import JobRecord, JobState

from ._book import Book
from ._overlap import OverlapKeys
from ._ready import ReadyQueue
from ._unique import UniqueKeys
from .base import AGING_NS, Claim, Claimed, Hint

__all__ = ["MINUTE_NS", "MemoryBook"]

_SUBMITTED = JobState.SUBMITTED
MINUTE_NS: Final = 60 * NS_PER_S
_OUTCOME_MINUTES: Final = 24 * 60
"""How long the counts per minute are kept."""
_FEW_DEAD: Final = 64
"""So many entries that nobody waits in any more are not worth a search for them."""


class MemoryBook(Book):
    """All rows, live, and the order they wait in.

    Args:
        ids: Names the jobs that schedules make.
        tell: Hears each hint.
        keep_finished: How many finished jobs stay.
    """

    def __init__(
        self, ids: Callable[[], str], tell: Callable[[Hint, Sequence[str]], None], *, keep_finished: int
    ) -> None:
        super().__init__(ids, {}, {}, OverlapKeys(), UniqueKeys(), {})
        self._tell = tell
        self.keep_finished = keep_finished
        self._ticket = count()
        self._ready: dict[str, ReadyQueue] = {}
        self._delayed: list[tuple[int, int, JobRecord]] = []
        self._dead = 0
        """How many entries of jobs that ended while they waited may stand among the waiting ones."""
        self._most_dead = _FEW_DEAD
        self._leases: list[tuple[int, int, int, JobRecord]] = []
        self._claimed_ns = 0
        self._finished: deque[JobRecord] = deque()
        self.outcomes: dict[int, dict[tuple[str, JobState], int]] = {}
        """How many jobs ended, by minute."""
        self._minute: dict[tuple[str, JobState], int] = {}
        self._minute_ends_ns = 0

    def tell(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        self._tell(hint, ids)

    # -- waiting ---------------------------------------------------------------------

    def enqueue(self, job: JobRecord, now: int) -> None:
        run_at = job.run_at_ns
        job.order_at_ns = run_at + job.priority * AGING_NS
        if run_at > now:
            heapq.heappush(self._delayed, (run_at, next(self._ticket), job))
        elif (queue := self._ready.get(job.queue)) is not None:
            queue.push(job)
        else:
            self.give_turn(job)

    def give_turn(self, job: JobRecord) -> None:
        queue = self._ready.get(job.queue)
        if queue is None:
            queue = self._ready[job.queue] = ReadyQueue()
        queue.push(job)

    def left_waiting(self, job: JobRecord) -> None:
        del job
        self._dead += 1
        if self._dead > self._most_dead:  # as many were alive at the last search, so each costs O(1)
            self.compact()

    def compact(self) -> None:
        """Drop what jobs that wait no more left behind where they waited; O(n)."""
        live = sum(queue.compact() for queue in self._ready.values())
        self._delayed = [entry for entry in self._delayed if entry[2].state is _SUBMITTED]
        heapq.heapify(self._delayed)
        live += len(self._delayed) + self.keys.compact()
        self._dead, self._most_dead = 0, max(_FEW_DEAD, live)

    # -- leases ----------------------------------------------------------------------

    def claim(self, claim: Claim, now: int) -> Claimed:
        """Lease waiting jobs whose time has come, after taking back those whose lease ran out."""
        self._claimed_ns = now
        if self._delayed:
            self._promote(now)
        if self._leases:
            self._rescue_all(now)
        jobs: list[JobRecord] = []
        for want in claim.wants:
            left = want.slots
            for name in want.queues:
                queue = self._ready.get(name)
                if queue is not None and left > 0:
                    left -= queue.take(want.lanes, left, self._admit, jobs)
        for job in jobs:
            self.lease(job, claim, now)
        self.free_chains(now)
        return Claimed(jobs, self._next_run_at() if self._delayed else None)

    def _admit(self, job: JobRecord) -> bool:
        return self.keys.hold(job, self._claimed_ns)

    def extend(self, job: JobRecord, until: int) -> None:
        job.lease_until_ns = until
        heapq.heappush(self._leases, (until, next(self._ticket), job.attempt, job))

    def _next_run_at(self) -> int | None:
        delayed = self._delayed
        while delayed and delayed[0][2].state is not _SUBMITTED:
            heapq.heappop(delayed)
        return delayed[0][0] if delayed else None

    def _promote(self, now: int) -> None:
        delayed = self._delayed
        while delayed and delayed[0][0] <= now:
            job = heapq.heappop(delayed)[2]
            if job.state is _SUBMITTED and job.run_at_ns <= now:
                self.give_turn(job)

    def _rescue_all(self, now: int) -> None:
        leases = self._leases
        while leases and leases[0][0] <= now:
            until, _, attempt, job = heapq.heappop(leases)
            if job.lease_until_ns == until and job.attempt == attempt:
                self.rescue(job, now)

    # -- a clock that was set --------------------------------------------------------

    def shift(self, now: int, delta_ns: int) -> None:
        """Move what waits, and every lease, with a wall clock that was set by *delta_ns*.

        What counts elapsed time (delays, and jobs that were due at once) keeps the
        time it has waited; and among those whose time has come the order stays,
        where a newcomer would else overtake them by the whole step.
        """
        before = now - delta_ns
        for job in self.jobs.values():
            if job.state is _SUBMITTED:
                _shift_waiting(job, before, delta_ns)
        for queue in self._ready.values():
            queue.rekey()
        self._delayed = [(job.run_at_ns, ticket, job) for _, ticket, job in self._delayed]
        heapq.heapify(self._delayed)
        self.keys.compact()
        self._shift_leases(delta_ns)

    def _shift_leases(self, delta_ns: int) -> None:
        leases = [entry for entry in self._leases if entry[3].lease_until_ns == entry[0]]
        for _, _, _, job in leases:
            job.lease_until_ns = (job.lease_until_ns or 0) + delta_ns
        self._leases = [(until + delta_ns, ticket, attempt, job) for until, ticket, attempt, job in leases]
        heapq.heapify(self._leases)

    # -- the past --------------------------------------------------------------------

    def record(self, job: JobRecord, now: int) -> None:
        self._finished.append(job)
        if len(self._finished) > self.keep_finished:
            oldest = self._finished.popleft()
            if oldest.zombie:
                self._finished.append(oldest)  # `ended` must still find it
            elif oldest.state.is_finished and self.jobs.get(oldest.id) is oldest:
                del self.jobs[oldest.id]
        if now >= self._minute_ends_ns:
            self._next_minute(now)
        key = (job.task, job.state)
        self._minute[key] = self._minute.get(key, 0) + 1

    def _next_minute(self, now: int) -> None:
        minute = now // MINUTE_NS
        self._minute_ends_ns = (minute + 1) * MINUTE_NS
        self._minute = self.outcomes.setdefault(minute, {})
        for old in [known for known in self.outcomes if known <= minute - _OUTCOME_MINUTES]:
            del self.outcomes[old]
        self.unique.sweep(now)

    def repeat_all(self, jobs: Sequence[JobRecord], now: int) -> list[str]:
        """Run finished jobs again; each waits once, and ends once more."""
        if jobs:
            self.compact()  # cancelled where it waited, it would stand there twice
        again = self.repeat(jobs, now)
        if again:
            self._forget_finished(set(again))
        return again

    def purge(self, jobs: Sequence[JobRecord]) -> None:
        """Delete the rows of finished jobs."""
        for job in jobs:
            del self.jobs[job.id]
        self._forget_finished({job.id for job in jobs})

    def _forget_finished(self, job_ids: set[str]) -> None:
        """Count these jobs no more among the finished ones that are kept; they may come again, at the end."""
        self._finished = deque(job for job in self._finished if job.id not in job_ids)

    def forget_occurrences(self, schedule_id: str) -> None:
        for known in [occurrence for occurrence in self.occurrences if occurrence[0] == schedule_id]:
            del self.occurrences[known]


def _shift_waiting(job: JobRecord, before: int, delta_ns: int) -> None:
    is_due = job.run_at_ns <= before
    has_no_instant = (job.origin is None and job.options.run_at_ns is None) or job.is_backfill
    if job.delay_born or (is_due and has_no_instant):
        job.run_at_ns += delta_ns
    if job.delay_born or is_due:
        job.order_at_ns += delta_ns
    if job.first_due_ns is not None:
        job.first_due_ns += delta_ns
