"""The memory store's jobs: put, lease, finish. See `memory` for the whole."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import count
from typing import ClassVar, Final

from quarterjack._durations import NS_PER_S
from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.errors import UniqueConflict
from quarterjack.lifecycle import Move, move
from quarterjack.model import (
    Fenced,
    Finish,
    FinishKind,
    JobIds,
    JobRecord,
    JobState,
    Origin,
    Schedule,
)

from ._chains import Chains
from ._overlap import OverlapKeys
from ._ready import ReadyQueue
from ._unique import UniqueKeys
from .base import AGING_NS, Claim, Claimed, Hint, HintListener, Renewal, Renewed, Store

__all__ = ["MemoryJobs"]

_NEW, _SUBMITTED, _SCHEDULED = JobState.NEW, JobState.SUBMITTED, JobState.SCHEDULED
_RUNNING = JobState.RUNNING
_SKIPPED, _MISSED = JobState.SKIPPED, JobState.MISSED
_MINUTE_NS: Final = 60 * NS_PER_S
_STEP_NS: Final = NS_PER_S
"""A wall clock that went this much against elapsed time was set; less is a time server's nudge."""
_OUTCOME_MINUTES: Final = 24 * 60
"""How long the counts per minute are kept."""
_FEW_DEAD: Final = 64
"""So many entries that nobody waits in any more are not worth a search for them."""
_FINAL_MOVES: Final = {
    FinishKind.DONE: Move.RETURNED,
    FinishKind.FAILED: Move.RAISED,
    FinishKind.TIMED_OUT: Move.TIMED_OUT,
    FinishKind.CANCELLED: Move.CANCELLED,
    FinishKind.MISSED: Move.MISSED,
}
_BACK_MOVES: Final = {FinishKind.RETRY: Move.RETRIED, FinishKind.SNOOZE: Move.SNOOZED}
_FAILED_ENDS: Final = frozenset({JobState.FAILED, JobState.TIMED_OUT})
_BAD_ENDS: Final = frozenset({JobState.FAILED, JobState.TIMED_OUT, JobState.LOST})


class MemoryJobs(Store):
    """The half of the memory store that keeps jobs."""

    name: ClassVar[str] = "memory"
    is_shared: ClassVar[bool] = False
    keeps_objects: ClassVar[bool] = True
    never_suspends: ClassVar[bool] = True
    uses_local_clock: ClassVar[bool] = True

    def __init__(self, *, keep_finished: int = 1_000) -> None:
        self._clock: Clock = SYSTEM_CLOCK
        self._ahead_ns = self._clock.now_ns() - self._clock.boottime_ns()
        self._keep_finished = max(1, keep_finished)  # the newest: whoever is told of an end by its id may look
        self._ids = JobIds()
        self._ticket = count()
        self._hinted = False
        """Somebody was told of new jobs and has not claimed since: telling again would say nothing new."""
        self._listeners: tuple[HintListener, ...] = ()
        self._jobs: dict[str, JobRecord] = {}
        self._ready: dict[str, ReadyQueue] = {}
        self._delayed: list[tuple[int, int, JobRecord]] = []
        self._dead = 0
        """How many entries of jobs that ended while they waited may stand among the waiting ones."""
        self._most_dead = _FEW_DEAD
        self._leases: list[tuple[int, int, int, JobRecord]] = []
        self._unique = UniqueKeys()
        self._keys = OverlapKeys()
        self._finished: deque[JobRecord] = deque()
        self._outcomes: dict[int, dict[tuple[str, JobState], int]] = {}
        self._minute: dict[tuple[str, JobState], int] = {}
        self._minute_ends_ns = 0
        self._schedules: dict[str, Schedule] = {}
        self._chains = Chains(self._schedules, self._keys, self._unique)

    def _now(self) -> int:
        """Return the wall clock; should it have been set since the last call, what waits is moved first.

        Others may hear of the step later than the next job comes in: that one has the
        new time already, and must not be moved with those before it.
        """
        clock = self._clock
        now = clock.now_ns()
        ahead = now - clock.boottime_ns()
        step = ahead - self._ahead_ns
        self._ahead_ns = ahead
        if step > _STEP_NS or step < -_STEP_NS:
            self._shift_waiting(now, step)
            self._shift_leases(step)
        return now

    def listen(self, hint: HintListener) -> Callable[[], None]:
        """Call *hint* when there may be something to do."""
        self._listeners = (*self._listeners, hint)

        def end() -> None:
            self._listeners = tuple(known for known in self._listeners if known is not hint)

        return end

    def _tell(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        for listener in self._listeners:
            listener(hint, ids)

    # -- jobs: in and out ------------------------------------------------------------

    async def jobs_put(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        """Store new jobs; see the contract."""
        now = self._now()
        rows: list[JobRecord] = []
        for job in jobs:
            if job.options.unique is not None:
                self._refuse_conflicts(jobs, now)
                rows = [self._unique_holder(job, now) or self._put(job, now) for job in jobs]
                break
        else:
            for job in jobs:
                rows.append(self._put(job, now))  # as a comprehension it costs a frame per call
        if not self._hinted:
            self._hinted = True
            self._tell(Hint.JOBS)
        return rows

    def _put(self, job: JobRecord, now: int) -> JobRecord:
        options = job.options
        job.submitted_at_ns = now
        if options.run_at_ns is not None:
            job.run_at_ns = options.run_at_ns
        elif options.delay_ns:
            job.run_at_ns = now + options.delay_ns
            job.delay_born = True
        else:
            job.run_at_ns = now
        job.state = _SUBMITTED if job.state is _NEW else move(job.state, Move.SUBMITTED)
        self._jobs[job.id] = job
        self._enqueue(job, now)
        if options.unique is not None:
            self._unique.take(job, now)
        return job

    def _enqueue(self, job: JobRecord, now: int) -> None:
        run_at = job.run_at_ns
        job.order_at_ns = run_at + job.priority * AGING_NS
        if run_at > now:
            heapq.heappush(self._delayed, (run_at, next(self._ticket), job))
        elif (queue := self._ready.get(job.queue)) is not None:
            queue.push(job)
        else:
            self._make_ready(job)

    def _make_ready(self, job: JobRecord) -> None:
        queue = self._ready.get(job.queue)
        if queue is None:
            queue = self._ready[job.queue] = ReadyQueue()
        queue.push(job)

    def _compact(self) -> None:
        """Drop what jobs that wait no more left behind where they waited; O(n)."""
        live = sum(queue.compact() for queue in self._ready.values())
        self._delayed = [entry for entry in self._delayed if entry[2].state is _SUBMITTED]
        heapq.heapify(self._delayed)
        live += len(self._delayed) + self._keys.compact()
        self._dead, self._most_dead = 0, max(_FEW_DEAD, live)

    def _shift_waiting(self, now: int, delta_ns: int) -> None:
        """Move what waits with a wall clock that was set by *delta_ns*.

        What counts elapsed time (delays, and jobs that were due at once) keeps the
        time it has waited; and among those whose time has come the order stays,
        where a newcomer would else overtake them by the whole step.
        """
        before = now - delta_ns
        for job in self._jobs.values():
            if job.state is not _SUBMITTED:
                continue
            is_due = job.run_at_ns <= before
            has_no_instant = (job.origin is None and job.options.run_at_ns is None) or job.is_backfill
            if job.delay_born or (is_due and has_no_instant):
                job.run_at_ns += delta_ns
            if job.delay_born or is_due:
                job.order_at_ns += delta_ns
            if job.first_due_ns is not None:
                job.first_due_ns += delta_ns
        for queue in self._ready.values():
            queue.rekey()
        self._delayed = [(job.run_at_ns, ticket, job) for _, ticket, job in self._delayed]
        heapq.heapify(self._delayed)

    def _shift_leases(self, delta_ns: int) -> None:
        leases = [entry for entry in self._leases if entry[3].lease_until_ns == entry[0]]
        for _, _, _, job in leases:
            job.lease_until_ns = (job.lease_until_ns or 0) + delta_ns
        self._leases = [(until + delta_ns, ticket, attempt, job) for until, ticket, attempt, job in leases]
        heapq.heapify(self._leases)

    # -- unique ----------------------------------------------------------------------

    def _refuse_conflicts(self, jobs: Sequence[JobRecord], now: int) -> None:
        """Raise for the first job whose key is taken, by a stored job or by one before it in *jobs*."""
        before: dict[tuple[str, str], str] = {}
        for job in jobs:
            unique = job.options.unique
            if unique is None:
                continue
            if unique.on_conflict == "raise":
                holder = self._unique.holder(job.task, unique, now)
                taken_by = before.get((job.task, unique.key)) if holder is None else holder.id
                if taken_by is not None:
                    raise UniqueConflict(unique.key, taken_by)
            before.setdefault((job.task, unique.key), job.id)

    def _unique_holder(self, job: JobRecord, now: int) -> JobRecord | None:
        """Return the row that stands in *job*'s place, if its key is taken."""
        unique = job.options.unique
        holder = self._unique.holder(job.task, unique, now)
        if holder is None or not _gives_way(holder, job):
            return holder
        self._unique.take(job, now)  # first: whoever hears of the holder's end must not find the key free
        self._end_here(holder, Move.CANCELLED, now, f"replaced by job {job.id}")
        return None

    # -- jobs: leases ----------------------------------------------------------------

    async def jobs_claim(self, claim: Claim) -> Claimed:
        """Lease waiting jobs; see the contract."""
        self._hinted = False
        now = self._now()
        self._promote(now)
        if self._leases:
            self._rescue(now)
        jobs: list[JobRecord] = []
        for want in claim.wants:
            left = want.slots
            for name in want.queues:
                queue = self._ready.get(name)
                if queue is not None and left > 0:
                    left -= queue.take(want.lanes, left, self._keys.hold, jobs)
        for job in jobs:
            self._lease(job, claim, now)
        if self._chains.held_up:
            self._free_chains(now)
        return Claimed(jobs, self._next_run_at())

    def _lease(self, job: JobRecord, claim: Claim, now: int) -> None:
        job.state = _SCHEDULED if job.state is _SUBMITTED else move(job.state, Move.LEASED)
        job.attempt += 1
        job.owner = claim.owner
        job.scheduled_at_ns = now
        job.order_at_ns = 0  # it waits no more; a number less to keep
        job.started_at_ns = job.running_at_ns = None
        job.reason = None
        if claim.lease_s is not None:
            self._extend(job, now + round(claim.lease_s * NS_PER_S))

    def _extend(self, job: JobRecord, until: int) -> None:
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
                self._make_ready(job)

    def _rescue(self, now: int) -> None:
        """Take back jobs whose lease ran out: their worker is gone."""
        leases = self._leases
        while leases and leases[0][0] <= now:
            until, _, attempt, job = heapq.heappop(leases)
            if job.lease_until_ns != until or job.attempt != attempt:
                continue
            if job.zombie:
                self._bury(job, now)
            elif job.state.is_held:
                self._rescue_one(job, now)

    def _rescue_one(self, job: JobRecord, now: int) -> None:
        job.rescues += 1
        if job.rescues > job.options.max_rescues:
            reason = f"its worker died {job.rescues} times (max_rescues={job.options.max_rescues})"
            self._end_here(job, Move.LOST, now, reason)
        elif job.cancel_requested:
            self._end_here(job, Move.CANCELLED, now, "cancelled; its worker died")
        else:
            self._back(job, Move.LEASE_EXPIRED, now, 0, "its worker's lease ran out")

    def _back(self, job: JobRecord, how: Move, now: int, delay_ns: int, reason: str | None) -> None:
        """Put a held job back among the waiting ones."""
        job.state = move(job.state, how)
        job.owner = job.lease_until_ns = None
        job.reason = reason
        job.run_at_ns = now + delay_ns if delay_ns else min(job.run_at_ns, now)
        job.delay_born = delay_ns > 0
        following = self._keys.let_go(job)
        self._enqueue(job, now)
        if following is not None:
            self._make_ready(following)

    def _held(self, fence: Fenced | Finish) -> JobRecord | None:
        """Return the row if this holder still holds it."""
        job = self._jobs.get(fence.job_id)
        if job is not None and job.attempt == fence.attempt and job.owner == fence.owner and job.state.is_held:
            return job
        return None

    async def jobs_release(self, jobs: Iterable[Fenced], *, delay_ns: int = 0, reason: str | None = None) -> None:
        """Give jobs back unrun."""
        now = self._now()
        for fence in jobs:
            job = self._held(fence)
            if job is not None:
                self._back(job, Move.RELEASED, now, delay_ns, reason)
        self._tell(Hint.JOBS)

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Extend leases; see the contract."""
        now = self._now()
        lost: list[str] = []
        cancelled: list[str] = []
        for renewal in renewals:
            job = self._jobs.get(renewal.job_id)
            if job is None or job.attempt != renewal.attempt or job.owner != owner:
                lost.append(renewal.job_id)
                continue
            if renewal.progress is not None:
                job.progress = renewal.progress
            if renewal.checkpoint is not None:
                job.checkpoint = renewal.checkpoint
            if renewal.running_at_ns is not None and job.state.is_held and job.state is not _RUNNING:
                job.state = move(job.state, Move.BEGAN)
                job.running_at_ns = renewal.running_at_ns
                job.started_at_ns = job.started_at_ns or renewal.running_at_ns
            if lease_s is not None:
                self._extend(job, now + round(lease_s * NS_PER_S))
            if job.cancel_requested:
                cancelled.append(job.id)
        return Renewed(lost, cancelled)

    # -- jobs: ends ------------------------------------------------------------------

    async def jobs_finish(self, finishes: Sequence[Finish]) -> list[Finish]:
        """Record how attempts ended; see the contract."""
        now = self._now()
        refused: list[Finish] = []
        back = False
        jobs = self._jobs
        for finish in finishes:
            # All at once: reading twelve fields of a named tuple by name costs half a microsecond.
            job_id, attempt, owner, kind, at_ns, started_ns, running_ns, result, error, reason, _, zombie = finish
            job = jobs.get(job_id)
            if job is None or job.attempt != attempt or job.owner != owner or not job.state.is_held:
                refused.append(finish)
                continue
            job.started_at_ns, job.running_at_ns = started_ns, running_ns
            how = _FINAL_MOVES.get(kind)
            if how is None:
                self._again(job, finish, now)
                back = True
                continue
            job.result, job.error = result, error
            job.zombie = zombie
            self._end(job, how, now, reason, at_ns)
        if back:
            self._tell(Hint.JOBS)
        return refused

    def _again(self, job: JobRecord, finish: Finish, now: int) -> None:
        job.error = finish.error
        if finish.kind is FinishKind.RETRY:
            if not job.failures:
                job.first_due_ns = job.run_at_ns
            job.failures += 1
        if job.cancel_requested:
            self._end(job, Move.CANCELLED, now, finish.reason, finish.at_ns)
        else:
            self._back(job, _BACK_MOVES[finish.kind], now, finish.delay_ns, finish.reason)

    def _end_here(self, job: JobRecord, how: Move, now: int, reason: str | None) -> None:
        """End *job* by the store's own decision, and tell who may wait for it."""
        has_waited = job.state is _SUBMITTED
        if has_waited:
            job.started_at_ns = job.running_at_ns = None  # an earlier attempt's: its body did not run until now
        self._end(job, how, now, reason, now)
        self._tell(Hint.FINISHED, (job.id,))
        if has_waited:
            self._dead += 1
            if self._dead > self._most_dead:  # as many were alive at the last search, so each costs O(1)
                self._compact()

    def _end(self, job: JobRecord, how: Move, now: int, reason: str | None, at_ns: int) -> None:
        """Move *job* to a final state and free what it held."""
        job.state = state = move(job.state, how)
        job.finished_at_ns = at_ns
        job.reason = reason
        if state in _FAILED_ENDS:
            job.failures += 1
        if not job.zombie:
            job.owner = job.lease_until_ns = None
            if job.overlap_key is not None:
                self._free_key(job, now)
        if job.options.unique is not None:
            self._free_unique(job, now)
        if job.origin is not None:
            self._tell_schedule(job, job.origin, now)
        self._record(job, now)

    def _free_key(self, job: JobRecord, now: int) -> None:
        """Open the job's overlap key: the next one that waits for it may start."""
        following = self._keys.close(job)
        if following is not None:
            self._make_ready(following)
            self._tell(Hint.JOBS)
        if self._chains.held_up:
            self._free_chains(now)

    def _free_unique(self, job: JobRecord, now: int) -> None:
        self._unique.forget(job)
        if self._chains.held_up:
            self._free_chains(now)

    def _free_chains(self, now: int) -> None:
        """Let the schedules go on that wait for room, if there is some now."""
        armed = self._chains.free(now)
        if armed:
            self._tell(Hint.SCHEDULES, armed)

    def _record(self, job: JobRecord, now: int) -> None:
        """Keep the finished row among the last ones, and count it for the views."""
        self._finished.append(job)
        if len(self._finished) > self._keep_finished:
            oldest = self._finished.popleft()
            if oldest.zombie:
                self._finished.append(oldest)  # `jobs_ended` must still find it
            elif oldest.state.is_finished and self._jobs.get(oldest.id) is oldest:
                del self._jobs[oldest.id]
        if now >= self._minute_ends_ns:
            self._next_minute(now)
        key = (job.task, job.state)
        self._minute[key] = self._minute.get(key, 0) + 1

    def _next_minute(self, now: int) -> None:
        minute = now // _MINUTE_NS
        self._minute_ends_ns = (minute + 1) * _MINUTE_NS
        self._minute = self._outcomes.setdefault(minute, {})
        for old in [known for known in self._outcomes if known <= minute - _OUTCOME_MINUTES]:
            del self._outcomes[old]
        self._unique.sweep(now)

    def _tell_schedule(self, job: JobRecord, origin: Origin, now: int) -> None:
        row = self._schedules.get(origin.schedule_id)
        if row is None or job.is_backfill:  # how days gone by went says nothing of how its schedule does
            return
        state = job.state
        if state is not _SKIPPED and state is not _MISSED:
            row.last_job_id, row.last_state, row.last_finished_ns = job.id, state, job.finished_at_ns
            if state in _BAD_ENDS:
                self._count_failure(row, job, now)
            else:
                row.failures_in_a_row = 0
        if row.next_nominal_ns is None and not job.zombie and self._chains.ended(row, job, now):
            self._tell(Hint.SCHEDULES, (row.id,))

    def _count_failure(self, row: Schedule, job: JobRecord, now: int) -> None:
        row.failures_in_a_row += 1
        most = row.payload.pause_on_failure
        if most is not None and row.failures_in_a_row >= most and row.paused_at_ns is None:
            row.paused_at_ns = now
            row.pause_note = f"{row.failures_in_a_row} failures in a row; the last one: {job.id}"
            self._tell(Hint.PAUSED, (row.id,))

    async def jobs_ended(self, jobs: Iterable[Fenced]) -> None:
        """Free what bodies that outlived their outcome still kept; a schedule may have waited for that."""
        now = self._now()
        for fence in jobs:
            job = self._jobs.get(fence.job_id)
            if job is not None and job.zombie and job.attempt == fence.attempt and job.owner == fence.owner:
                self._bury(job, now)

    def _bury(self, job: JobRecord, now: int) -> None:
        job.zombie = False
        job.owner = job.lease_until_ns = None
        if job.overlap_key is not None:
            self._free_key(job, now)
        row = self._schedules.get(job.origin.schedule_id) if job.origin is not None else None
        if row is not None and self._chains.ended(row, job, now):
            self._tell(Hint.SCHEDULES, (row.id,))


def _gives_way(holder: JobRecord, job: JobRecord) -> bool:
    """Say whether the holder of *job*'s unique key is to be replaced by it: it asks for that, and the other waits."""
    unique = job.options.unique
    return unique is not None and unique.on_conflict == "replace" and holder.state is _SUBMITTED
