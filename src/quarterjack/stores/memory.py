"""The memory store: everything in this process, gone with it.

Rows are live objects: the record a client submitted is the row, so a state is
visible the moment it changes and arguments need no encoding. It promises what
every store promises except to outlive its process.

Nothing here awaits: each call runs from its first to its last line within one
turn of the event loop, which is what makes it atomic. The clock is the app's.

By default leases do not run out (`Claim.lease_s` None): a worker in this
process cannot die apart from the store. Delays count elapsed time: when the
wall clock is set, waiting delays shift with it (`clock_stepped`).

What its calls decide is in `_book`, who is next among the waiting in `_memory_book`; here are life and views."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import islice
from typing import ClassVar, Final, Literal

from quarterjack._durations import NS_PER_S
from quarterjack.backfill import Backfill
from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.declared import Put
from quarterjack.errors import Conflict
from quarterjack.model import (
    Fenced,
    Finish,
    JobFilter,
    JobIds,
    JobRecord,
    JobState,
    Schedule,
    SubmittedBy,
    WorkerInfo,
)
from quarterjack.planner import Plan

from ._limits import Limits
from ._listeners import Listeners
from ._memory_book import MINUTE_NS, MemoryBook
from ._rows import Encoding
from .base import (
    Acquired,
    AuditRow,
    Backfilled,
    CancelAnswer,
    Claim,
    Claimed,
    Fired,
    Hint,
    HintListener,
    JobPage,
    Renewal,
    Renewed,
    Store,
    StoreStats,
)

__all__ = ["MemoryStore"]

_SUBMITTED = JobState.SUBMITTED
_STEP_NS: Final = NS_PER_S
"""A wall clock that went this much against elapsed time was set; less is a time server's nudge."""


class MemoryStore(Store):
    """Keeps everything in this process.

    Args:
        keep_finished: How many finished jobs stay for views and look-ups by id; the newest one always does.
    """

    name: ClassVar[str] = "memory"
    is_shared: ClassVar[bool] = False
    keeps_objects: ClassVar[bool] = True
    never_suspends: ClassVar[bool] = True
    uses_local_clock: ClassVar[bool] = True

    def __init__(self, *, keep_finished: int = 1_000) -> None:
        self._clock: Clock = SYSTEM_CLOCK
        self._ahead_ns = self._clock.now_ns() - self._clock.boottime_ns()
        self._is_open = False
        self._hinted = False
        """Somebody was told of new jobs and has not claimed since: telling again would say nothing new."""
        self._listeners = Listeners()
        keep = max(1, keep_finished)  # the newest: whoever is told of an end by its id may look
        self._book = MemoryBook(JobIds(), self._tell, keep_finished=keep)
        self._jobs = self._book.jobs
        self._schedules = self._book.schedules
        self._limits = Limits()
        self._workers: dict[str, WorkerInfo] = {}
        self._commands: dict[str, str] = {}
        self._audit: deque[AuditRow] = deque(maxlen=1_000)

    # -- life ------------------------------------------------------------------------

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        """Adopt the app's clock and ids. Rows of schedules are made anew at each start.

        Raises:
            Conflict: If another running app has this store.
        """
        del encoding  # rows are live objects
        if self._is_open:
            raise Conflict("this MemoryStore serves a running app already; make one store per app")
        self._is_open = True
        self._clock = clock
        self._ahead_ns = clock.now_ns() - clock.boottime_ns()
        self._book.ids = ids
        self._schedules.clear()

    async def close(self) -> None:
        """Forget schedules and workers; jobs stay readable as long as the store object lives."""
        self._is_open = False
        self._schedules.clear()
        for job in [job for job in self._jobs.values() if job.zombie]:
            self._book.bury(job, self._now())  # nobody is left to say when its body ends; its schedule may start anew
        self._workers.clear()
        self._commands.clear()

    async def migrate(self) -> None:
        """Do nothing: there is no schema."""

    async def now_ns(self) -> int:
        """Return the app's wall clock."""
        return self._clock.now_ns()

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
            self._book.shift(now, step)
            self._limits.shift(step)
        return now

    def clock_stepped(self, delta_ns: int) -> None:
        """Shift waiting delays and leases with the clock, and rebase schedules after a step back."""
        now = self._now()
        if delta_ns < 0:
            self._book.rebase(list(self._schedules.values()), -delta_ns, now)
        self._tell(Hint.JOBS)
        self._tell(Hint.SCHEDULES)

    def listen(self, hint: HintListener) -> Callable[[], None]:
        """Call *hint* when there may be something to do."""
        return self._listeners.add(hint)

    def _tell(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        self._listeners.tell(hint, ids)

    async def wake(self, hint: Hint) -> None:
        """Send a hint to every listener."""
        self._tell(hint)

    # -- jobs ------------------------------------------------------------------------

    async def jobs_put(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        """Store new jobs; see the contract."""
        rows = self._book.put(jobs, self._now())
        if not self._hinted:
            self._hinted = True
            self._tell(Hint.JOBS)
        return rows

    async def jobs_claim(self, claim: Claim) -> Claimed:
        """Lease waiting jobs; see the contract."""
        self._hinted = False
        return self._book.claim(claim, self._now())

    async def jobs_release(self, jobs: Iterable[Fenced], *, delay_ns: int = 0, reason: str | None = None) -> None:
        """Give jobs back unrun."""
        self._book.release(jobs, self._now(), delay_ns, reason)

    async def jobs_release_unknown(
        self, owner: str, known: Iterable[Fenced], *, reason: str | None = None
    ) -> list[str]:
        """Give back what *owner* has leased and does not know of; see the contract."""
        held = frozenset(known)
        unknown = [
            job.fence
            for job in self._jobs.values()
            if job.owner == owner and job.state is JobState.SCHEDULED and job.lease_until_ns is not None
        ]
        unknown = [fence for fence in unknown if fence not in held]
        if unknown:
            self._book.release(unknown, self._now(), 0, reason)
        return [fence.job_id for fence in unknown]

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Extend leases; see the contract."""
        return self._book.renew(owner, renewals, lease_s, self._now())

    async def jobs_finish(self, finishes: Sequence[Finish]) -> list[JobState | None]:
        """Record how attempts ended; see the contract."""
        return self._book.finish(finishes, self._now())

    async def jobs_ended(self, jobs: Iterable[Fenced]) -> None:
        """Free what bodies that outlived their outcome still kept; a schedule may have waited for that."""
        self._book.ended(jobs, self._now())

    async def jobs_request_cancel(self, job_ids: Sequence[str], reason: str = "") -> list[CancelAnswer]:
        """Cancel waiting jobs at once and ask the workers of held ones."""
        return self._book.request_cancel(job_ids, reason, self._now())

    async def jobs_retry(self, where: JobFilter, job_ids: Sequence[str] | None = None) -> list[str]:
        """Run finished jobs again from the start; return their ids."""
        among = self._jobs.values() if job_ids is None else filter(None, map(self._jobs.get, dict.fromkeys(job_ids)))
        meant = [job for job in among if job.state.is_finished and not job.zombie and where.matches(job)]
        return self._book.repeat_all(meant, self._now())

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

    async def jobs_count(self, where: JobFilter) -> int:
        """Return how many rows are meant."""
        return sum(map(where.matches, self._jobs.values()))

    async def jobs_purge(self, older_than: timedelta, limit: int = 10_000, *, keep: int | None = None) -> int:
        """Delete finished jobs that ended longer ago than *older_than*, and those beyond the newest *keep*."""
        before = self._clock.now_ns() - older_than // timedelta(microseconds=1) * 1_000
        done = [job for job in self._jobs.values() if job.state.is_finished and not job.zombie]
        done.sort(key=lambda job: job.finished_at_ns or 0)
        surplus = 0 if keep is None else len(done) - keep
        old = [job for n, job in enumerate(done) if n < surplus or (job.finished_at_ns or 0) < before][:limit]
        self._book.purge(old)
        return len(old)

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
            (minute * MINUTE_NS, task, state): n
            for minute, counts in self._book.outcomes.items()
            if (minute + 1) * MINUTE_NS > since_ns
            for (task, state), n in counts.items()
        }

    # -- schedules -------------------------------------------------------------------

    async def schedules_put(self, schedules: Sequence[Schedule]) -> list[Put]:
        """Insert or update by id; a trigger that raises parks its own row."""
        return self._book.put_schedules(schedules, self._clock.now_ns())

    async def schedules_get(self, schedule_id: str) -> Schedule | None:
        """Return the live row, or None."""
        return self._schedules.get(schedule_id)

    async def schedules_list(self) -> list[Schedule]:
        """Return snapshots of all rows, by id."""
        return [self._schedules[key].copy() for key in sorted(self._schedules)]

    async def schedules_remove(self, schedule_ids: Sequence[str]) -> int:
        """Delete rows; their jobs stay."""
        return self._book.remove_schedules(schedule_ids)

    async def schedules_due(self, horizon_ns: int, limit: int = 1_000) -> list[Schedule]:
        """Return the live rows due within the horizon, earliest first."""
        until = self._clock.now_ns() + horizon_ns
        due = [(at, key) for key, row in self._schedules.items() if (at := row.wake_ns) is not None and at <= until]
        return [self._schedules[key] for _, key in heapq.nsmallest(limit, due)]

    async def schedules_fire(self, plans: Sequence[Plan], claim: Claim | None = None) -> Fired:
        """Make plans true; see the contract."""
        return self._book.fire(plans, claim, self._now())

    async def schedules_pause(self, schedule_id: str, note: str | None, until_ns: int | None) -> Schedule | None:
        """Stop firing; the cursor stands still."""
        return self._book.pause(schedule_id, note, until_ns, self._clock.now_ns())

    async def schedules_resume(self, schedule_id: str, *, catch_up: bool) -> Schedule | None:
        """Fire again, from now on or from the cursor. A schedule that is not paused stays as it is."""
        return self._book.resume(schedule_id, self._clock.now_ns(), catch_up=catch_up)

    async def schedules_park(self, schedule_id: str, reason: str) -> None:
        """Stop a schedule whose rule is broken, and keep the reason."""
        self._book.park(schedule_id, reason)

    async def schedules_trigger(self, schedule_id: str, job: JobRecord, overlap: str | None = None) -> JobRecord | None:
        """Insert one extra job of a schedule under its overlap policy, or *overlap*."""
        return self._book.trigger(schedule_id, job, overlap, self._now())

    async def schedules_backfill(self, plan: Backfill, by: SubmittedBy | None = None) -> Backfilled | None:
        """Insert the jobs of fire times that have passed, those never made yet."""
        return self._book.backfill(plan, by, self._now())

    # -- limits, workers, records ----------------------------------------------------

    async def limit_acquire(
        self, limit: str, holders: Sequence[str], *, maximum: int, ttl_s: float, waiter: str | None = None
    ) -> Acquired:
        """Take slots, as many as are free."""
        return self._limits.acquire(limit, holders, maximum, round(ttl_s * NS_PER_S), self._now(), waiter)

    async def limit_renew(self, limit: str, holders: Sequence[str], ttl_s: float) -> list[str]:
        """Keep slots longer; return those that are gone."""
        return self._limits.renew(limit, holders, round(ttl_s * NS_PER_S), self._now())

    async def limit_release(self, limit: str, holders: Sequence[str]) -> None:
        """Give slots back."""
        if self._limits.release(limit, holders, self._now()):
            self._tell(Hint.LIMITS, (limit,))

    async def limit_take(self, limit: str, n: float, *, rate: float, burst: float) -> float:
        """Take tokens, or return the seconds until they are there."""
        return self._limits.take(limit, n, rate, burst, self._now())

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Register or refresh a worker; return the command left for it, until it has heard."""
        self._workers[worker.id] = worker._replace(command=None)
        if self._commands.get(worker.id) == worker.command:
            self._commands.pop(worker.id, None)
        return self._commands.get(worker.id)

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
