"""What every durable store does alike: the calls of the contract, as decisions of the book.

An engine subclasses `DurableStore`. It *must* write:

- ``open`` (beginning with this one's), ``close``, ``migrate``, ``now_ns`` and ``wake``;
- `_transact`: one transaction around a decision (see there), and after its commit `_told`;
- `_claim`: one transaction that leases waiting jobs, set-based;
- the views: ``jobs_get``, ``jobs_list``, ``jobs_purge``, ``stats``, ``outcomes``, ``schedules_get``,
  ``schedules_list``, ``schedules_due``;
- limits, workers and audit rows.

It *may* override, for speed: ``jobs_put`` (where no job has a unique key), ``jobs_renew``,
``jobs_release`` and ``jobs_finish`` (where jobs are plain: no overlap key, no unique key, no origin),
each giving the rest to ``super()``. What it overrides must tell `_told` the same.

**Turns.** Jobs that share a serial overlap key are held one at a time. A claim leaves out a serial job
whose key another one holds (a zombie does, a backfill's job does), and may *park* it: mark it, so that
the next claims do not come across it. `Changes.turns` names the keys for which the first parked one
(in the order of claims, backfills last) is to be brought back, if none of the key is held by then."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, NamedTuple, TypeVar

from quarterjack.backfill import Backfill
from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.declared import Put
from quarterjack.errors import StoreError, UsageError
from quarterjack.model import (
    FINISHED,
    Fenced,
    Finish,
    JobFilter,
    JobIds,
    JobRecord,
    JobState,
    Schedule,
    SubmittedBy,
)
from quarterjack.planner import Plan

from ._needs import Changes, Needs
from ._part import Part
from ._part_rows import Stamps
from ._rows import Encoding
from .base import (
    Backfilled,
    CancelAnswer,
    Claim,
    Claimed,
    Fired,
    Hint,
    HintListener,
    Renewal,
    Renewed,
    Store,
)

__all__ = ["DurableStore", "Leased"]

log = logging.getLogger("quarterjack")

T = TypeVar("T")

_REPEATED_AT_ONCE = 500
"""Jobs that one transaction of ``jobs_retry`` runs again."""


class Leased(NamedTuple):
    """What `DurableStore._claim` did.

    Attributes:
        claimed: The jobs now held, and when the next waiting one falls due.
        expired: Jobs whose lease has run out, the earliest first, at most some hundreds: if there are any,
            nothing was leased.
        has_held_up: Whether a schedule is held up (`Schedule.held_up_ns`), which a lease may let go on.
    """

    claimed: Claimed
    expired: Sequence[str] = ()
    has_held_up: bool = True


class DurableStore(Store):
    """A store whose rows outlive the process; see the module's head for what an engine adds."""

    keeps_objects: ClassVar[bool] = False
    never_suspends: ClassVar[bool] = False

    def __init__(self) -> None:
        self._clock: Clock = SYSTEM_CLOCK
        self._ids = JobIds()
        self._encoding = Encoding()
        self._listeners: tuple[HintListener, ...] = ()

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        """Take the app's clock, ids and encoding; the engine connects.

        Raises:
            UsageError: If there is no encoding.
        """
        if encoding is None:
            raise UsageError(f"the {self.name} store keeps rows as plain values: open it with an encoding")
        self._clock, self._ids, self._encoding = clock, ids, encoding

    # -- what an engine writes -------------------------------------------------------

    @abstractmethod
    async def _transact(self, needs: Needs, decide: Callable[[Part, int], T]) -> T:
        """Make a decision come true, in one transaction.

        Read the store's clock, make a `Part` (with ``self._ids``), load *needs*, and
        `Part.run` *decide*; on `Missing` load that too and run it again. Write
        `Part.changes`, commit, tell `_told`, return the answer. What was loaded, and
        what was found absent, must be the same when it commits (by locks, or by
        revisions that the commit compares); if it is not, begin anew with `Part.fresh`.
        An error of *decide* rolls back and passes through.
        """

    @abstractmethod
    async def _claim(self, claim: Claim) -> Leased:
        """Lease waiting jobs whose time has come, in one transaction, and write what `Book.lease` does.

        If leases have run out, lease nothing and name them. Serial jobs take turns: see
        the module's head.
        """

    # -- hints -----------------------------------------------------------------------

    def listen(self, hint: HintListener) -> Callable[[], None]:
        """Call *hint* when there may be something to do."""
        self._listeners = (*self._listeners, hint)

        def end() -> None:
            self._listeners = tuple(known for known in self._listeners if known is not hint)

        return end

    def _hear(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        """Tell this process's listeners: of a commit here, or of what another process has sent."""
        for listener in self._listeners:
            listener(hint, ids)

    def _told(self, changes: Changes) -> None:
        """A decision was committed: tell this process. An engine extends it to send others theirs."""
        for hint, ids in changes.hints:
            self._hear(hint, ids)

    # -- jobs ------------------------------------------------------------------------

    async def jobs_put(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        """Store new jobs; see the contract. A call that fails leaves the records as they were."""
        uniques = frozenset((job.task, unique.key) for job in jobs if (unique := job.options.unique) is not None)

        def decide(part: Part, now: int) -> list[JobRecord]:
            stamps.take_back()
            rows = part.put(jobs, now)
            part.tell(Hint.JOBS)
            return rows

        with Stamps(jobs) as stamps:
            return await self._transact(Needs(uniques=uniques), decide)

    async def jobs_claim(self, claim: Claim) -> Claimed:
        """Take back what ran out, then lease waiting jobs; see the contract."""
        leased = await self._claim(claim)
        while leased.expired:
            await self._rescue(leased.expired)
            leased = await self._claim(claim)
        if leased.has_held_up:
            await self._free_after(leased.claimed.jobs)
        return leased.claimed

    async def _rescue(self, job_ids: Sequence[str]) -> None:
        def decide(part: Part, now: int) -> None:
            part.require_around(job_ids)
            for job_id in job_ids:
                job = part.jobs.get(job_id)
                if job is not None and job.lease_until_ns is not None and job.lease_until_ns <= now:
                    part.rescue(job, now)

        await self._transact(Needs(jobs=frozenset(job_ids)), decide)

    async def _free_after(self, jobs: Sequence[JobRecord]) -> None:
        """Jobs that waited are held now: let the schedules go on that this makes room for.

        A transaction of its own; should it fail, the jobs' ends make the same room, and
        who claimed must hear what it holds.
        """
        keys = frozenset(job.overlap_key for job in jobs if job.overlap_key is not None)
        uniques = frozenset((job.task, unique.key) for job in jobs if (unique := job.options.unique) is not None)
        if not keys and not uniques:
            return
        needs = Needs(keys=keys, uniques=uniques)

        def decide(part: Part, now: int) -> None:
            part.require(needs)
            part.free_chains(now)

        try:
            await self._transact(needs, decide)
        except StoreError:
            log.exception("letting schedules go on that wait for room failed; they go on when these jobs have ended")

    async def jobs_release(self, jobs: Iterable[Fenced], *, delay_ns: int = 0, reason: str | None = None) -> None:
        """Give jobs back unrun."""
        fences = tuple(jobs)
        ids = [fence.job_id for fence in fences]

        def decide(part: Part, now: int) -> None:
            part.require_around(ids)
            part.release(fences, now, delay_ns, reason)

        await self._transact(Needs(jobs=frozenset(ids)), decide)

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Extend leases; see the contract."""
        ids = frozenset(renewal.job_id for renewal in renewals)
        return await self._transact(Needs(jobs=ids), lambda part, now: part.renew(owner, renewals, lease_s, now))

    async def jobs_finish(self, finishes: Sequence[Finish]) -> list[JobState | None]:
        """Record how attempts ended; see the contract."""
        ids = [finish.job_id for finish in finishes]

        def decide(part: Part, now: int) -> list[JobState | None]:
            part.require_around(ids)
            return part.finish(finishes, now)

        return await self._transact(Needs(jobs=frozenset(ids)), decide)

    async def jobs_ended(self, jobs: Iterable[Fenced]) -> None:
        """Free what bodies that outlived their outcome still kept."""
        fences = tuple(jobs)
        ids = [fence.job_id for fence in fences]

        def decide(part: Part, now: int) -> None:
            part.require_around(ids)
            part.ended(fences, now)

        await self._transact(Needs(jobs=frozenset(ids)), decide)

    async def jobs_request_cancel(self, job_ids: Sequence[str], reason: str = "") -> list[CancelAnswer]:
        """Cancel waiting jobs at once and ask the workers of held ones."""

        def decide(part: Part, now: int) -> list[CancelAnswer]:
            part.require_around(job_ids)
            return part.request_cancel(job_ids, reason, now)

        return await self._transact(Needs(jobs=frozenset(job_ids)), decide)

    async def jobs_retry(self, where: JobFilter, job_ids: Sequence[str] | None = None) -> list[str]:
        """Run finished jobs again, the oldest first; return their ids.

        Many are run again by the hundreds, each lot whole or not at all: who calls again
        after an error repeats the rest.
        """
        again: list[str] = []
        meant = await self._finished(where) if job_ids is None else list(dict.fromkeys(job_ids))
        for first in range(0, len(meant), _REPEATED_AT_ONCE):
            again += await self._repeat(meant[first : first + _REPEATED_AT_ONCE], where)
        return again

    async def _finished(self, where: JobFilter) -> list[str]:
        states = FINISHED & where.states if where.states else FINISHED
        if not states:
            return []
        found: list[str] = []
        cursor: str | None = None
        while True:
            page = await self.jobs_list(where._replace(states=states), limit=1_000, cursor=cursor)
            found += [job.id for job in page.jobs]
            cursor = page.cursor
            if cursor is None:
                return found[::-1]

    async def _repeat(self, job_ids: Sequence[str], where: JobFilter) -> list[str]:
        def decide(part: Part, now: int) -> list[str]:
            part.require_around(job_ids)
            found = [job for job_id in job_ids if (job := part.jobs.get(job_id)) is not None and where.matches(job)]
            return part.repeat(found, now)

        return await self._transact(Needs(jobs=frozenset(job_ids)), decide)

    # -- schedules -------------------------------------------------------------------

    async def schedules_put(self, schedules: Sequence[Schedule]) -> list[Put]:
        """Insert or update by id; a trigger that raises parks its own row.

        Raises:
            InvalidOption: If one of them cannot be written down as plain values; none is put then.
        """
        settled = [self._encoding.settled(schedule) for schedule in schedules]
        ids = frozenset(schedule.id for schedule in schedules)
        return await self._transact(Needs(schedules=ids), lambda part, now: part.put_schedules(settled, now))

    async def schedules_remove(self, schedule_ids: Sequence[str]) -> int:
        """Delete rows; their jobs stay, their backfills are forgotten."""
        needs = Needs(schedules=frozenset(schedule_ids))
        return await self._transact(needs, lambda part, _now: part.remove_schedules(schedule_ids))

    async def schedules_fire(self, plans: Sequence[Plan], claim: Claim | None = None) -> Fired:
        """Make plans true; see the contract."""
        ids = [plan.schedule_id for plan in plans]

        def decide(part: Part, now: int) -> Fired:
            part.require_to_fire(ids, is_claiming=claim is not None)
            return part.fire(plans, claim, now)

        return await self._transact(Needs(schedules=frozenset(ids)), decide)

    async def schedules_pause(self, schedule_id: str, note: str | None, until_ns: int | None) -> Schedule | None:
        """Stop firing; the cursor stands still."""
        needs = Needs(schedules=frozenset({schedule_id}))
        return await self._transact(needs, lambda part, now: part.pause(schedule_id, note, until_ns, now))

    async def schedules_resume(self, schedule_id: str, *, catch_up: bool) -> Schedule | None:
        """Fire again, from now on or from the cursor. A schedule that is not paused stays as it is."""
        needs = Needs(schedules=frozenset({schedule_id}))
        return await self._transact(needs, lambda part, now: part.resume(schedule_id, now, catch_up=catch_up))

    async def schedules_park(self, schedule_id: str, reason: str) -> None:
        """Stop a schedule whose rule is broken, and keep the reason."""
        needs = Needs(schedules=frozenset({schedule_id}))
        await self._transact(needs, lambda part, _now: part.park(schedule_id, reason))

    async def schedules_trigger(self, schedule_id: str, job: JobRecord, overlap: str | None = None) -> JobRecord | None:
        """Insert one extra job of a schedule under its overlap policy, or *overlap*."""

        def decide(part: Part, now: int) -> JobRecord | None:
            stamps.take_back()
            return part.trigger(schedule_id, job, overlap, now)

        with Stamps([job]) as stamps:
            return await self._transact(Needs(schedules=frozenset({schedule_id})), decide)

    async def schedules_backfill(self, plan: Backfill, by: SubmittedBy | None = None) -> Backfilled | None:
        """Insert the jobs of fire times that have passed, those never made yet."""
        wanted = frozenset((plan.schedule_id, plan.generation, nominal) for nominal in plan.nominals)

        def decide(part: Part, now: int) -> Backfilled | None:
            part.require(Needs(jobs=frozenset(part.occurrences.values())))
            return part.backfill(plan, by, now)

        return await self._transact(Needs(schedules=frozenset({plan.schedule_id}), occurrences=wanted), decide)

    async def _rebase(self, step_ns: int) -> None:
        """Put schedules right after the clock was set back, for engines that go by the local one."""
        ids = [row.id for row in await self.schedules_list()]

        def decide(part: Part, now: int) -> None:
            part.rebase([row for key in ids if (row := part.schedules.get(key)) is not None], step_ns, now)
            part.tell(Hint.SCHEDULES)

        await self._transact(Needs(schedules=frozenset(ids)), decide)
