"""The memory store: everything in this process, gone with it.

Rows are live objects: the record a client submitted is the row, so a state is
visible the moment it changes and arguments need no encoding. It promises what
every store promises except to outlive its process.

Nothing here awaits: each call runs from its first to its last line within one
turn of the event loop, which is what makes it atomic. The clock is the app's.

By default leases do not run out (`Claim.lease_s` None): a worker in this
process cannot die apart from the store. Delays count elapsed time: when the
wall clock is set, waiting delays shift with it (`clock_stepped`).

Jobs are in `_memory_jobs`, what schedules make of them in `_firing`; here are life, schedules, views and limits."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import Final, Literal, cast

from quarterjack import planner
from quarterjack._durations import NS_PER_S
from quarterjack.backfill import Backfill
from quarterjack.clock import Clock
from quarterjack.declared import Put, judged
from quarterjack.errors import Conflict
from quarterjack.lifecycle import Move, move
from quarterjack.model import JobFilter, JobIds, JobRecord, JobState, Overlap, Schedule, SubmittedBy, WorkerInfo
from quarterjack.planner import Plan
from quarterjack.policies.overlap import OverlapMode

from ._firing import Firing
from ._limits import Limits
from ._memory_jobs import MemoryJobs
from .base import AuditRow, Backfilled, CancelAnswer, Claim, Fired, Hint, JobPage, StoreStats

__all__ = ["MemoryStore"]

_SUBMITTED = JobState.SUBMITTED
_MINUTE_NS: Final = 60 * NS_PER_S


class MemoryStore(MemoryJobs):
    """Keeps everything in this process.

    Args:
        keep_finished: How many finished jobs stay for views and look-ups by id; the newest one always does.
    """

    def __init__(self, *, keep_finished: int = 1_000) -> None:
        super().__init__(keep_finished=keep_finished)
        self._is_open = False
        self._limits = Limits()
        self._workers: dict[str, WorkerInfo] = {}
        self._commands: dict[str, str] = {}
        self._audit: deque[AuditRow] = deque(maxlen=1_000)

    # -- life ------------------------------------------------------------------------

    async def open(self, clock: Clock, ids: JobIds) -> None:
        """Adopt the app's clock and ids. Rows of schedules are made anew at each start.

        Raises:
            Conflict: If another running app has this store.
        """
        if self._is_open:
            raise Conflict("this MemoryStore serves a running app already; make one store per app")
        self._is_open = True
        self._clock = clock
        self._ahead_ns = clock.now_ns() - clock.boottime_ns()
        self._ids = ids
        self._schedules.clear()

    async def close(self) -> None:
        """Forget schedules and workers; jobs stay readable as long as the store object lives."""
        self._is_open = False
        self._schedules.clear()
        for job in [job for job in self._jobs.values() if job.zombie]:
            self._bury(job, self._now())  # nobody is left to say when its body ends, and its schedule may start anew
        self._workers.clear()
        self._commands.clear()

    async def migrate(self) -> None:
        """Do nothing: there is no schema."""

    async def now_ns(self) -> int:
        """Return the app's wall clock."""
        return self._clock.now_ns()

    async def wake(self, hint: Hint) -> None:
        """Send a hint to every listener."""
        self._tell(hint)

    def clock_stepped(self, delta_ns: int) -> None:
        """Shift waiting delays and leases with the clock, and rebase schedules after a step back."""
        self._now()
        if delta_ns < 0:
            self._rebase(-delta_ns)
        self._tell(Hint.JOBS)
        self._tell(Hint.SCHEDULES)

    def _rebase(self, step_ns: int) -> None:
        now = self._clock.now_ns()
        for row in list(self._schedules.values()):
            try:
                moved = planner.rebased(row, now, step_ns)
            except Exception as error:  # a user's trigger runs here; it parks its own schedule and no other
                moved = planner.parked(row, error)
            if moved is not None:
                self._schedules[row.id] = moved

    # -- jobs: control and views -----------------------------------------------------

    async def jobs_request_cancel(self, job_ids: Sequence[str], reason: str = "") -> list[CancelAnswer]:
        """Cancel waiting jobs at once and ask the workers of held ones."""
        now = self._now()
        answers = [self._request_cancel(job_id, reason, now) for job_id in job_ids]
        asked = [job_id for job_id, a in zip(job_ids, answers, strict=True) if a is CancelAnswer.REQUESTED]
        if asked:
            self._tell(Hint.CANCELS, asked)
        return answers

    def _request_cancel(self, job_id: str, reason: str, now: int) -> CancelAnswer:
        job = self._jobs.get(job_id)
        if job is None:
            return CancelAnswer.GONE
        if job.state.is_finished:
            return CancelAnswer.FINISHED
        job.cancel_requested = True
        if job.state is _SUBMITTED:
            self._end_here(job, Move.CANCELLED, now, reason or None)
            return CancelAnswer.CANCELLED
        return CancelAnswer.REQUESTED

    async def jobs_retry(self, where: JobFilter) -> list[str]:
        """Run finished jobs again from the start; return their ids."""
        now = self._now()
        meant = [job for job in self._jobs.values() if job.state.is_finished and not job.zombie and where.matches(job)]
        if meant:
            self._compact()  # each waits once: cancelled where it waited, it would stand there twice
        again: list[str] = []
        for job in meant:
            if not self._unique.retake(job, now):
                continue
            again.append(job.id)
            job.state = move(job.state, Move.REPEATED)
            job.failures = job.rescues = 0
            job.cancel_requested = job.delay_born = False
            job.finished_at_ns = job.started_at_ns = job.running_at_ns = None
            job.result = job.error = job.reason = None
            job.run_at_ns = now
            if job.overlap_key is not None:
                self._keys.add(job.overlap_key, job)
            self._enqueue(job, now)
        if again:
            self._forget_finished(set(again))
            self._tell(Hint.JOBS)
        return again

    async def jobs_get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Return the live rows."""
        return [self._jobs.get(job_id) for job_id in job_ids]

    async def jobs_list(
        self,
        where: JobFilter,
        *,
        limit: int = 100,
        cursor: str | None = None,
        order: Literal["newest", "slowest"] = "newest",
    ) -> JobPage:
        """Return the live rows, newest or slowest first."""
        rows: Iterator[JobRecord] = (job for job in reversed(self._jobs.values()) if where.matches(job))
        if order == "slowest":
            now = self._clock.now_ns()
            rows = iter(sorted(rows, key=lambda job: -_duration_ns(job, now)))
        if cursor is not None:
            for job in rows:
                if job.id == cursor:
                    break
        page = list(islice(rows, limit))
        more = next(rows, None) is not None
        return JobPage(page, page[-1].id if page and more else None)

    async def jobs_purge(self, older_than: timedelta, limit: int = 10_000, *, keep: int | None = None) -> int:
        """Delete finished jobs that ended longer ago than *older_than*, and those beyond the newest *keep*."""
        before = self._clock.now_ns() - older_than // timedelta(microseconds=1) * 1_000
        done = [job for job in self._jobs.values() if job.state.is_finished and not job.zombie]
        done.sort(key=lambda job: job.finished_at_ns or 0)
        surplus = 0 if keep is None else len(done) - keep
        old = [job for n, job in enumerate(done) if n < surplus or (job.finished_at_ns or 0) < before][:limit]
        for job in old:
            del self._jobs[job.id]
        self._forget_finished({job.id for job in old})
        return len(old)

    def _forget_finished(self, job_ids: set[str]) -> None:
        """Count these jobs no more among the finished ones that are kept; they may come again, at the end."""
        self._finished = deque(job for job in self._finished if job.id not in job_ids)

    async def stats(self) -> StoreStats:
        """Return counts for views; O(jobs kept)."""
        now = self._clock.now_ns()
        states: dict[JobState, int] = {}
        waiting: dict[str, int] = {}
        oldest: int | None = None
        for job in self._jobs.values():
            states[job.state] = states.get(job.state, 0) + 1
            if job.state is _SUBMITTED:
                waiting[job.queue] = waiting.get(job.queue, 0) + 1
                if job.run_at_ns <= now and (oldest is None or job.run_at_ns < oldest):
                    oldest = job.run_at_ns
        return StoreStats(states, waiting, oldest)

    async def outcomes(self, since_ns: int) -> Mapping[tuple[int, str, JobState], int]:
        """Return how many jobs ended, per minute, task and state; the last 24 hours are kept."""
        return {
            (minute * _MINUTE_NS, task, state): n
            for minute, counts in self._outcomes.items()
            if (minute + 1) * _MINUTE_NS > since_ns
            for (task, state), n in counts.items()
        }

    # -- schedules -------------------------------------------------------------------

    async def schedules_put(self, schedules: Sequence[Schedule]) -> list[Put]:
        """Insert or update by id; a trigger that raises parks its own row."""
        now = self._clock.now_ns()
        puts: list[Put] = []
        for schedule in schedules:
            old = self._schedules.get(schedule.id)
            verdict = judged(old, schedule)
            try:
                row = planner.upserted(old, schedule, now)
            except Exception as error:  # a user's trigger runs here; it parks its own schedule and no other
                row = planner.upserted_parked(old, schedule, now, error)
            self._schedules[row.id] = row
            self._chains.revive(row, now)
            puts.append(Put(self._schedules[row.id], verdict))
        self._tell(Hint.SCHEDULES, [put.row.id for put in puts])
        return puts

    async def schedules_get(self, schedule_id: str) -> Schedule | None:
        """Return the live row, or None."""
        return self._schedules.get(schedule_id)

    async def schedules_list(self) -> list[Schedule]:
        """Return snapshots of all rows, by id."""
        return [self._schedules[key].copy() for key in sorted(self._schedules)]

    async def schedules_remove(self, schedule_ids: Sequence[str]) -> int:
        """Delete rows; their jobs stay."""
        removed = [key for key in schedule_ids if self._schedules.pop(key, None) is not None]
        self._tell(Hint.SCHEDULES, removed)
        return len(removed)

    async def schedules_due(self, horizon_ns: int, limit: int = 1_000) -> list[Schedule]:
        """Return the live rows due within the horizon, earliest first."""
        until = self._clock.now_ns() + horizon_ns
        due = [(at, key) for key, row in self._schedules.items() if (at := row.wake_ns) is not None and at <= until]
        return [self._schedules[key] for _, key in heapq.nsmallest(limit, due)]

    async def schedules_fire(self, plans: Sequence[Plan], claim: Claim | None = None) -> Fired:
        """Make plans true; see the contract."""
        firing = Firing(self, self._now(), claim)
        rows = [firing.fire(plan) for plan in plans]
        if self._chains.held_up:
            self._free_chains(firing.now)
        if firing.waiting:
            self._tell(Hint.JOBS)
        return Fired(rows, firing.rows, firing.jobs, firing.cancelled, firing.wait_ns)

    async def schedules_pause(self, schedule_id: str, note: str | None, until_ns: int | None) -> Schedule | None:
        """Stop firing; the cursor stands still."""
        row = self._schedules.get(schedule_id)
        if row is not None:
            row.paused_at_ns = self._clock.now_ns()
            row.pause_note, row.paused_until_ns = note, until_ns
            self._tell(Hint.SCHEDULES, (schedule_id,))
        return row

    async def schedules_resume(self, schedule_id: str, *, catch_up: bool) -> Schedule | None:
        """Fire again, from now on or from the cursor. A schedule that is not paused stays as it is."""
        row = self._schedules.get(schedule_id)
        if row is None or row.paused_at_ns is None:
            return row
        row = self._schedules[schedule_id] = planner.resumed(row, self._clock.now_ns(), catch_up=catch_up)
        self._tell(Hint.SCHEDULES, (schedule_id,))
        return row

    async def schedules_park(self, schedule_id: str, reason: str) -> None:
        """Stop a schedule whose rule is broken, and keep the reason."""
        row = self._schedules.get(schedule_id)
        if row is not None:
            row.parked_reason = reason
            row.next_nominal_ns = row.next_due_ns = None

    async def schedules_trigger(self, schedule_id: str, job: JobRecord, overlap: str | None = None) -> JobRecord | None:
        """Insert one extra job of a schedule under its overlap policy, or *overlap*."""
        row = self._schedules.get(schedule_id)
        if row is None:
            return None
        policy = row.payload.overlap if overlap is None else Overlap(cast("OverlapMode", overlap))
        firing = Firing(self, self._now(), None)
        job.submitted_at_ns = job.run_at_ns = firing.now
        firing.admit(row, job, policy)
        self._tell(Hint.JOBS)
        return job

    async def schedules_backfill(self, plan: Backfill, by: SubmittedBy | None = None) -> Backfilled | None:
        """Insert the jobs of fire times that have passed, those not there yet. O(jobs kept)."""
        row = self._schedules.get(plan.schedule_id)
        if row is None or row.generation != plan.generation:
            return None
        done = Firing(self, self._now(), None).backfill(row, plan, by)
        self._tell(Hint.JOBS)
        return done

    # -- limits, workers, records ----------------------------------------------------

    async def limit_acquire(self, limit: str, holder: str, n: int, *, maximum: int, ttl_s: float) -> bool:
        """Take slots, all or none."""
        return self._limits.acquire(limit, holder, n, maximum, round(ttl_s * NS_PER_S), self._clock.now_ns())

    async def limit_renew(self, limit: str, holder: str, ttl_s: float) -> bool:
        """Keep slots longer; False if they are gone."""
        return self._limits.renew(limit, holder, round(ttl_s * NS_PER_S), self._clock.now_ns())

    async def limit_release(self, limit: str, holder: str) -> None:
        """Give the holder's slots back."""
        self._limits.release(limit, holder)

    async def limit_take(self, limit: str, n: float, *, rate: float, burst: float) -> float:
        """Take tokens, or return the seconds until they are there."""
        return self._limits.take(limit, n, rate, burst, self._clock.now_ns())

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Register or refresh a worker; return the command left for it, once."""
        self._workers[worker.id] = worker
        return self._commands.pop(worker.id, None)

    async def workers_list(self) -> list[WorkerInfo]:
        """Return the registered workers."""
        return list(self._workers.values())

    async def workers_remove(self, worker_id: str) -> None:
        """Forget a worker that ended."""
        self._workers.pop(worker_id, None)
        self._commands.pop(worker_id, None)

    async def workers_command(self, worker_id: str, command: str) -> bool:
        """Leave a command for a worker."""
        if worker_id not in self._workers:
            return False
        self._commands[worker_id] = command
        return True

    async def audit_put(self, rows: Sequence[AuditRow]) -> None:
        """Keep the last 1,000 rows."""
        self._audit.extend(rows)

    async def audit_list(self, limit: int = 100) -> list[AuditRow]:
        """Return the newest rows first."""
        return list(reversed(self._audit))[:limit]


def _duration_ns(job: JobRecord, now: int) -> int:
    if job.running_at_ns is None or not job.has_run:
        return -1
    return (job.finished_at_ns or now) - job.running_at_ns
