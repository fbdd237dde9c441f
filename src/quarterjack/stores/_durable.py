"""What every durable store does alike: the calls of the contract, as decisions of the book.

An engine subclasses `DurableStore`. It *must* write:

- ``open`` (beginning with this one's), ``close``, ``migrate``, ``now_ns`` and ``wake``;
- `_transact`: one transaction around a decision (see there), and after its commit `_told`;
- `_claim`: one transaction that leases waiting jobs, set-based, and `_leased_by`, which lists them;
- the views: ``jobs_get``, ``jobs_list``, ``jobs_purge``, ``stats``, ``outcomes``, ``schedules_get``,
  ``schedules_list``, ``schedules_due``;
- limits, workers and audit rows.

It *may* override, for speed: ``jobs_put`` (where no job has a unique key), ``jobs_renew``,
``jobs_release`` and ``jobs_finish`` (where jobs are plain: no overlap key, no unique key, no origin),
each giving the rest to ``super()``. What it overrides must tell `_told` the same.

**Turns.** Jobs that share a serial overlap key are held one at a time. A claim leaves out a serial job
whose key another one holds (a zombie does, a backfill's job does), and one of a backfill while any other
waits for the key and is due. It may *park* them: mark them, so that the next claims do not come across them.
`Changes.turns` names the keys for which the first parked one (in the order of claims, backfills last) is to
be brought back, if none of the key is held by then."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from quarterjack.errors import StoreError
from quarterjack.model import FINISHED, Fenced, Finish, JobFilter, JobRecord, JobState

from ._durable_schedules import DurableSchedules
from ._needs import Needs
from ._part import Part
from ._part_rows import Stamps
from .base import CancelAnswer, Claim, Claimed, Hint, Renewal, Renewed

__all__ = ["DurableStore", "Leased", "ending", "taking_back"]

log = logging.getLogger("quarterjack")

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


class DurableStore(DurableSchedules):
    """A store whose rows outlive the process; see the module's head for what an engine adds."""

    _may_have_claimed = False
    """A claim failed, and may have been made: see `_free_all`."""

    @abstractmethod
    async def _claim(self, claim: Claim) -> Leased:
        """Lease waiting jobs whose time has come, in one transaction, and write what `Book.lease` does.

        If leases have run out, lease nothing and name them. Serial jobs take turns: see
        the module's head.
        """

    @abstractmethod
    async def _leased_by(self, owner: str) -> list[Fenced]:
        """Return the SCHEDULED jobs of *owner*, of those whose lease has an end."""

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
        """Take back what ran out, then lease waiting jobs; see the contract.

        Where taking back changes nothing (rows that contradict each other), it is not tried for ever:
        the call comes to its end with nothing, and says so.
        """
        try:
            leased = await self._claim_or_rescue(claim)
        except StoreError:
            self._may_have_claimed = True
            raise
        if self._may_have_claimed:
            await self._free_all()
        elif leased.has_held_up:
            await self._free_after(leased.claimed.jobs)
        return leased.claimed

    async def _claim_or_rescue(self, claim: Claim) -> Leased:
        leased = await self._claim(claim)
        before: Sequence[str] = ()
        while leased.expired:
            if leased.expired == before:
                log.error("jobs whose lease ran out cannot be taken back, so nothing is claimed: %s", before)
                break
            before = leased.expired
            await self._rescue(before)
            leased = await self._claim(claim)
        return leased

    async def _rescue(self, job_ids: Sequence[str]) -> None:
        await self._transact(*taking_back(job_ids))

    async def _free_after(self, jobs: Sequence[JobRecord]) -> None:
        """Jobs that waited are held now: let the schedules go on that this makes room for.

        A transaction of its own; should it fail, the jobs' ends make the same room, and
        who claimed must hear what it holds.
        """
        keys = frozenset(job.overlap_key for job in jobs if job.overlap_key is not None)
        uniques = frozenset((job.task, unique.key) for job in jobs if (unique := job.options.unique) is not None)
        await self._let_go_on(Needs(keys=keys, uniques=uniques))

    async def _free_all(self) -> None:
        """A claim may have been made whose answer was lost: who waits for room is asked, not who has made it."""
        try:
            rows = [row for row in await self.schedules_list() if row.held_up_ns is not None]
        except StoreError:
            return  # the next claim tries again
        keys = frozenset(row.overlap_key for row in rows)
        uniques = frozenset(
            (row.payload.task, one.key) for row in rows if (one := row.payload.options.unique) is not None
        )
        self._may_have_claimed = not await self._let_go_on(Needs(keys=keys, uniques=uniques))

    async def _let_go_on(self, needs: Needs) -> bool:
        if not needs.keys and not needs.uniques:
            return True

        def decide(part: Part, now: int) -> None:
            part.require(needs)
            part.free_chains(now)

        try:
            await self._transact(needs, decide)
        except StoreError:
            log.exception("letting schedules go on that wait for room failed; they go on when these jobs have ended")
            return False
        return True

    async def jobs_release(self, jobs: Iterable[Fenced], *, delay_ns: int = 0, reason: str | None = None) -> None:
        """Give jobs back unrun."""
        fences = tuple(jobs)
        ids = [fence.job_id for fence in fences]

        def decide(part: Part, now: int) -> None:
            part.require_around(ids)
            part.release(fences, now, delay_ns, reason)

        await self._transact(Needs(jobs=frozenset(ids)), decide)

    async def jobs_release_unknown(
        self, owner: str, known: Iterable[Fenced], *, reason: str | None = None
    ) -> list[str]:
        """Give back what *owner* has leased and does not know of; see the contract."""
        held = frozenset(known)
        unknown = [fence for fence in await self._leased_by(owner) if fence not in held]
        if unknown:
            await self.jobs_release(unknown, reason=reason)
        return [fence.job_id for fence in unknown]

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Extend leases; see the contract."""
        ids = frozenset(renewal.job_id for renewal in renewals)
        return await self._transact(Needs(jobs=ids), lambda part, now: part.renew(owner, renewals, lease_s, now))

    async def jobs_finish(self, finishes: Sequence[Finish]) -> list[JobState | None]:
        """Record how attempts ended; see the contract."""
        return await self._transact(*ending(finishes))

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
        return [job.id async for job in self.jobs_all(where._replace(states=states))][::-1]

    async def _repeat(self, job_ids: Sequence[str], where: JobFilter) -> list[str]:
        def decide(part: Part, now: int) -> list[str]:
            part.require_around(job_ids)
            found = [job for job_id in job_ids if (job := part.jobs.get(job_id)) is not None and where.matches(job)]
            return part.repeat(found, now)

        return await self._transact(Needs(jobs=frozenset(job_ids)), decide)


# -- decisions that engines make in transactions of their own, too ----------------------------


def taking_back(job_ids: Sequence[str]) -> tuple[Needs, Callable[[Part, int], None]]:
    """Return how jobs are taken back whose lease has run out: their worker is gone."""

    def decide(part: Part, now: int) -> None:
        part.require_around(job_ids)
        for job_id in job_ids:
            job = part.jobs.get(job_id)
            if job is not None and job.lease_until_ns is not None and job.lease_until_ns <= now:
                part.rescue(job, now)

    return Needs(jobs=frozenset(job_ids)), decide


def ending(finishes: Sequence[Finish]) -> tuple[Needs, Callable[[Part, int], list[JobState | None]]]:
    """Return how it is decided what becomes of jobs whose attempts have ended."""
    ids = [finish.job_id for finish in finishes]

    def decide(part: Part, now: int) -> list[JobState | None]:
        part.require_around(ids)
        return part.finish(finishes, now)

    return Needs(jobs=frozenset(ids)), decide
