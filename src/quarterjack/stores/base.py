"""The store contract: few calls, each atomic, each over a set.

The runtime is written against this page alone. A call is one transaction: it
happens whole or not at all, and two processes that call at once see one order.

Words: a job is *held* while a worker has its lease. Every write of a holder is
fenced by ``(job, attempt, owner)``; the store refuses a holder whose lease has
moved on. ``now`` is always the store's clock. Hints (`listen`) make things
quick and are never needed for things to be right.

What each call promises is written beside it; `quarterjack.testing` carries
the suite that holds a store to it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Final, Literal

from quarterjack.backfill import Backfill
from quarterjack.clock import Clock
from quarterjack.declared import Put
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

from ._rows import Encoding
from ._values import (
    AGING_NS,
    LOOK_AHEAD,
    NO_CHECKPOINT,
    WAITER_S,
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
    StoreStats,
    Want,
)
from .leases import CarriedLink, LeaseLink

__all__ = [
    "AGING_NS",
    "NO_CHECKPOINT",
    "LOOK_AHEAD",
    "WAITER_S",
    "Acquired",
    "AuditRow",
    "Backfilled",
    "CancelAnswer",
    "Claim",
    "Claimed",
    "Fired",
    "Hint",
    "HintListener",
    "JobPage",
    "Renewal",
    "Renewed",
    "Store",
    "StoreStats",
    "Want",
]

PAGE: Final = 1_000
"""Rows that `Store.jobs_all` reads at once."""


class Store(ABC):
    """Where schedules and jobs live. All calls belong to one event loop."""

    name: ClassVar[str]
    is_shared: ClassVar[bool]
    """Other processes see it: leases are renewed, outcomes polled."""
    keeps_objects: ClassVar[bool]
    """Rows are live Python objects: nothing is encoded, the caller's record *is* the row."""
    never_suspends: ClassVar[bool]
    """Its calls end within one turn of the loop: the runtime may call them from a callback."""
    uses_local_clock: ClassVar[bool]
    """``now`` is this machine's wall clock, so a step of it must be told to `clock_stepped`."""

    # -- life ------------------------------------------------------------------------

    @abstractmethod
    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        """Connect, and refuse a schema newer than this version knows.

        *clock* is the app's: the store's own where `uses_local_clock`. *ids*
        names the jobs that ``schedules_fire`` inserts. *encoding* turns rows into
        plain values and back; a store that keeps objects needs none.
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything; idempotent."""

    @abstractmethod
    async def migrate(self) -> None:
        """Bring the schema up to this version, under a lock; a no-op where there is none."""

    @abstractmethod
    async def now_ns(self) -> int:
        """Return the store's clock: the only one for due times and leases."""

    def lease_link(self) -> LeaseLink:
        """Return a way to renew leases from another thread; call it on the app's loop.

        By default its calls are carried to the app's loop, where users' code may block
        them: a store that can connect twice returns a link with a connection of its own.
        """
        return CarriedLink(self, asyncio.get_running_loop())

    @abstractmethod
    def listen(self, hint: HintListener) -> Callable[[], None]:
        """Call *hint* on the loop when there may be something to do; returns the function that ends it.

        It gets what to look at and the ids concerned; no ids means "look at all".
        """

    @abstractmethod
    async def wake(self, hint: Hint) -> None:
        """Send a hint to every listener, in other processes too where the store can."""

    def clock_stepped(self, delta_ns: int) -> None:
        """Put right what counts elapsed time after the local wall clock was set by *delta_ns*.

        Waiting delays shift with the clock; schedules are rebased as `planner.rebased`
        says. Only stores that use the local clock override this.
        """

    # -- jobs ------------------------------------------------------------------------

    @abstractmethod
    async def jobs_put(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        """Store new jobs; return, for each, the row that stands for it: the caller's own object where it was stored.

        Stamps ``submitted_at``, turns ``delay`` into ``run_at`` and moves the
        job to SUBMITTED. Where a ``unique`` key is taken the existing row is
        returned and nothing is stored (a row that was purged has little more than its
        id); ``on_conflict="raise"`` raises `UniqueConflict` and stores none of *jobs*.
        """

    @abstractmethod
    async def jobs_claim(self, claim: Claim) -> Claimed:
        """Lease waiting jobs whose time has come, and held ones whose lease ran out.

        Order is ``run_at + priority * aging``. Each claim adds 1 to ``attempt``;
        a lease that ran out adds 1 to ``rescues``, and beyond ``max_rescues``
        the job is LOST instead. Jobs that share a serial overlap key are held
        one at a time.
        """

    @abstractmethod
    async def jobs_release(self, jobs: Iterable[Fenced], *, delay_ns: int = 0, reason: str | None = None) -> None:
        """Give jobs back unrun; no counter moves but ``attempt``. Stale holders are ignored."""

    @abstractmethod
    async def jobs_release_unknown(
        self, owner: str, known: Iterable[Fenced], *, reason: str | None = None
    ) -> list[str]:
        """Give back what *owner* has leased and does not know of; return the ids.

        For when the answer of a claim or a fire was lost: it may have been done all the same, and what it
        leased waits for nobody. That is each SCHEDULED job under *owner* whose lease has an end and whose fence is
        not in *known*; a job that has begun is left alone. Ask while no claim and no fire of this owner is
        under way, for what these lease is not known yet either.
        """

    @abstractmethod
    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Extend leases, keep progress and checkpoints; answer which are lost and which to cancel.

        A job whose ``running_at_ns`` is given becomes RUNNING, if it is not; one that is SCHEDULED and has only
        ``started_at_ns`` becomes STARTED. Bodies that
        outlived their outcome (``Finish.zombie``) are renewed likewise, until `jobs_ended`.
        """

    @abstractmethod
    async def jobs_finish(self, finishes: Sequence[Finish]) -> list[JobState | None]:
        """Record how attempts ended; return the state each job has now, None where its lease had moved on.

        RETRY and SNOOZE put the job back with ``run_at = now + delay``; the first
        RETRY keeps in ``first_due`` the ``run_at`` that the failed attempt had; a final
        outcome frees its unique and overlap keys, updates its schedule, and
        re-arms schedules that run again after their job's end: all in one step.
        The end that re-arms one is that of its newest occurrence (`planner.is_newest`);
        with ``Finish.zombie`` its body has not ended, and `jobs_ended` does it.
        """

    @abstractmethod
    async def jobs_ended(self, jobs: Iterable[Fenced]) -> None:
        """Free what bodies that outlived their outcome (``Finish.zombie``) still kept."""

    @abstractmethod
    async def jobs_request_cancel(self, job_ids: Sequence[str], reason: str = "") -> list[CancelAnswer]:
        """Cancel waiting jobs at once and ask the workers of held ones.

        The first *reason* that was given is kept on a held job until it ends: its worker reads it there.
        """

    @abstractmethod
    async def jobs_retry(self, where: JobFilter, job_ids: Sequence[str] | None = None) -> list[str]:
        """Run finished jobs again from the start (failures and rescues at 0); return their ids.

        With *job_ids* of these alone. A job whose unique key another one has taken meanwhile stays as it is.
        """

    @abstractmethod
    async def jobs_get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Return the rows; None where there is none. Stores that keep objects return the live rows."""

    @abstractmethod
    async def jobs_list(
        self,
        where: JobFilter,
        *,
        limit: int = 100,
        cursor: str | None = None,
        order: Literal["newest", "slowest"] = "newest",
    ) -> JobPage:
        """Return rows, newest or slowest first, a page at a time; live ones from stores that keep objects.

        *Slowest* goes by how long the body ran, or has been running; rows whose body neither runs
        nor has ended for good come last.
        """

    async def jobs_all(self, where: JobFilter) -> AsyncIterator[JobRecord]:
        """Yield all rows that are meant, the newest first, read a page at a time: there may be too many for the memory.

        What comes or goes meanwhile may be among them or not.
        """
        cursor: str | None = None
        while True:
            page = await self.jobs_list(where, limit=PAGE, cursor=cursor)
            for job in page.jobs:
                yield job
            cursor = page.cursor
            if cursor is None:
                return

    async def jobs_count(self, where: JobFilter) -> int:
        """Return how many rows are meant. A store that can count overrides this, which reads them all."""
        found = 0
        async for _ in self.jobs_all(where):
            found += 1
        return found

    @abstractmethod
    async def jobs_purge(self, older_than: timedelta, limit: int = 10_000, *, keep: int | None = None) -> int:
        """Delete finished jobs that ended longer ago than *older_than*, at most *limit*; return how many.

        With *keep*, those beyond the newest *keep* finished jobs go too, however young.
        """

    @abstractmethod
    async def stats(self) -> StoreStats:
        """Return counts for views."""

    @abstractmethod
    async def outcomes(self, since_ns: int) -> Mapping[tuple[int, str, JobState], int]:
        """Return how many jobs ended: {(start of the minute, task, state): count}."""

    # -- schedules -------------------------------------------------------------------

    @abstractmethod
    async def schedules_put(self, schedules: Sequence[Schedule]) -> list[Put]:
        """Insert or update by id, as `planner.upserted` says; return the rows, and what `declared.judged` said."""

    @abstractmethod
    async def schedules_get(self, schedule_id: str) -> Schedule | None:
        """Return the row, or None. Stores that keep objects return the live row."""

    @abstractmethod
    async def schedules_list(self) -> list[Schedule]:
        """Return snapshots of all rows, by id."""

    @abstractmethod
    async def schedules_remove(self, schedule_ids: Sequence[str]) -> int:
        """Delete rows (their jobs stay, their backfills are forgotten); return how many there were."""

    @abstractmethod
    async def schedules_due(self, horizon_ns: int, limit: int = 1_000) -> list[Schedule]:
        """Return what is due or falls due within *horizon_ns* from now, earliest first.

        Stores that keep objects return the live rows.
        """

    @abstractmethod
    async def schedules_fire(self, plans: Sequence[Plan], claim: Claim | None = None) -> Fired:
        """Make plans true: move each cursor and insert its jobs, one job per occurrence ever.

        A plan whose cursor or generation has moved on loses; one that is not due
        by the store's clock is refused with how long to wait. Overlap is decided
        here, against the open jobs (what a plan leaves out is one MISSED row, with the
        fire time and reason of `planner.unserved`), and so is the jobs' unique key (a taken one
        makes a SKIPPED row, ``on_conflict="raise"`` too). With *claim*, inserted
        jobs that fit it are held by the caller at once.

        A schedule that runs again after its job's end, and whose newest run was left
        out or replaced before it began, is re-armed in the step that makes room for
        it (`policies.overlap.has_room`, and its unique key free), not before.
        """

    @abstractmethod
    async def schedules_pause(self, schedule_id: str, note: str | None, until_ns: int | None) -> Schedule | None:
        """Stop firing; the cursor stands still. Returns the row, or None if there is none."""

    @abstractmethod
    async def schedules_resume(self, schedule_id: str, *, catch_up: bool) -> Schedule | None:
        """Fire again, from now on or (*catch_up*) from the cursor. Returns the row, or None."""

    @abstractmethod
    async def schedules_park(self, schedule_id: str, reason: str) -> None:
        """Stop a schedule whose rule is broken, and keep the reason."""

    @abstractmethod
    async def schedules_trigger(self, schedule_id: str, job: JobRecord, overlap: str | None = None) -> JobRecord | None:
        """Insert one extra *job* of a schedule under its overlap policy (or *overlap*); the cursor stays.

        Returns the row (SUBMITTED or SKIPPED), or None if there is no such schedule.
        """

    @abstractmethod
    async def schedules_backfill(self, plan: Backfill, by: SubmittedBy | None = None) -> Backfilled | None:
        """Insert a job for each fire time of *plan*, one per occurrence ever: those that are there stay.

        "Ever" is as long as there is the schedule: what was made outlives the purge of
        its row, and is forgotten by ``schedules_remove``.

        Their ``run_at`` is now, their options are `backfill.backfill_options` of the
        row's, and they end without a trace in the schedule's row. No overlap policy
        leaves them out, and none counts them: serial ones (``overlap="queue_all"``)
        take turns with all serial jobs of the schedule's key, and come after every
        other that waits for it. A unique key that is taken makes a SKIPPED row.

        Returns None, and inserts nothing, if there is no such schedule or its
        generation is another one by now.
        """

    # -- limits across processes -----------------------------------------------------

    @abstractmethod
    async def limit_acquire(
        self, limit: str, holders: Sequence[str], *, maximum: int, ttl_s: float, waiter: str | None = None
    ) -> Acquired:
        """Take one of *maximum* slots for each of *holders*, in their order, as many as are free, for *ttl_s* seconds.

        A slot is a row that runs out, never a counter, and a holder's name is its fence: who makes a new one for
        each slot loses none by an answer that was lost, or by a call that arrives late. Where not all were taken
        *waiter* is known to wait for `WAITER_S`; else it waits no more. Without holders nothing is taken.
        """

    @abstractmethod
    async def limit_renew(self, limit: str, holders: Sequence[str], ttl_s: float) -> list[str]:
        """Keep slots for *ttl_s* from now; return the holders whose slots ran out and are gone."""

    @abstractmethod
    async def limit_release(self, limit: str, holders: Sequence[str]) -> None:
        """Give slots back, and tell `Hint.LIMITS` if somebody waits for one; idempotent."""

    @abstractmethod
    async def limit_take(self, limit: str, n: float, *, rate: float, burst: float) -> float:
        """Take *n* tokens of a bucket that refills at *rate* per second up to *burst*.

        Returns 0.0 if they were taken, else the seconds until they could be (nothing is taken).
        """

    # -- workers and records ---------------------------------------------------------

    @abstractmethod
    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Register or refresh a worker; return the command an operator left for it, until it says that it has heard.

        It says so by the same ``worker.command`` the next time: an answer may be lost.
        """

    @abstractmethod
    async def workers_list(self) -> list[WorkerInfo]:
        """Return the registered workers."""

    @abstractmethod
    async def workers_remove(self, worker_id: str) -> None:
        """Forget a worker that ended."""

    @abstractmethod
    async def workers_command(self, worker_id: str, command: str) -> bool:
        """Leave *command* for a worker; False if there is none of this id."""

    @abstractmethod
    async def audit_put(self, rows: Sequence[AuditRow]) -> None:
        """Keep rows that say who did what; bounded by the store's retention."""

    @abstractmethod
    async def audit_list(self, limit: int = 100) -> list[AuditRow]:
        """Return the newest rows first."""
