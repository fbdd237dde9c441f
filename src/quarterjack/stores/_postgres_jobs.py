"""The common case of jobs in one statement each: put, claim, renew, finish; the rest is decided by the book.

Plain jobs have no unique key, no overlap key and no schedule. Their ends need no
decision beyond the fence, so they are written in sets, without a transaction
around them. What a statement passes over goes the long way (`_durable`)."""

from __future__ import annotations

import logging
from abc import ABC
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final

from quarterjack._durations import NS_PER_S
from quarterjack.errors import StoreError
from quarterjack.model import FINAL_STATES, Fenced, Finish, FinishKind, JobRecord, JobState

from ._durable import DurableStore, Leased
from ._postgres_columns import sent
from ._postgres_hints import Hints
from ._postgres_link import Link
from ._postgres_pool import Connection
from ._rows import Encoding
from ._stamping import stamp
from .base import Claim, Claimed, Hint, Renewal, Renewed, Want

__all__ = ["PostgresJobs", "renew"]

log = logging.getLogger("quarterjack")

RESCUED_AT_ONCE: Final = 500
_CLAIMED_AT: Final = 4
"""Where a row of the statement ``claim`` begins to tell of a job: its number, then its columns."""

_Try = tuple[str, int]
"""An attempt: the job's id, and its number."""


async def renew(
    connection: Connection, sql: str, encoding: Encoding, owner: str, renewals: Sequence[Renewal], lease_s: float | None
) -> Renewed:
    """Renew leases over *connection*; see the contract."""
    payloads = encoding.payloads
    rows = await connection.fetch(
        sql,
        owner,
        [one.job_id for one in renewals],
        [one.attempt for one in renewals],
        [None if one.progress is None else payloads.progress(one.progress) for one in renewals],
        [None if one.checkpoint is None else payloads.packed(one.checkpoint) for one in renewals],
        [one.running_at_ns for one in renewals],
        [one.started_at_ns for one in renewals],
        None if lease_s is None else round(lease_s * NS_PER_S),
    )
    lost = [job_id for job_id, is_lost, _ in rows if is_lost]
    return Renewed(lost, [job_id for job_id, _, is_cancelled in rows if is_cancelled])


class PostgresJobs(DurableStore, ABC):
    """Jobs that need no decision, in sets."""

    _link: Link
    _encoding: Encoding
    _hints: Hints
    _last_lanes: frozenset[str] = frozenset()
    """The lanes of the want that brought something last: most likely it is the one that does again."""

    # -- in --------------------------------------------------------------------------

    async def jobs_put(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        """Store new jobs; those without a unique key take one statement."""
        if any(job.options.unique is not None for job in jobs):
            return await super().jobs_put(jobs)
        if jobs:
            now = await self._link.value("put", *sent(map(self._put_row, jobs)))
            stamp(jobs, now)
            self._hear(Hint.JOBS)
            self._hints.send(Hint.JOBS)
        return list(jobs)

    def _put_row(self, job: JobRecord) -> tuple[Any, ...]:
        return *self._encoding.new_job(job), job.options.run_at_ns, job.options.delay_ns

    # -- leases ----------------------------------------------------------------------

    async def _claim(self, claim: Claim) -> Leased:
        """Lease waiting jobs; a statement per want, as long as there is anything for the wants to come.

        Only the first looks for leases that ran out, and what later ones fail at is left to the next claim: what
        has been leased by then must be heard of.
        """
        lease_ns = None if claim.lease_s is None else round(claim.lease_s * NS_PER_S)
        wants = _in_best_order(claim.wants, self._last_lanes)
        queues = list({queue for want in wants for queue in want.queues})
        lanes = list({lane for want in wants for lane in want.lanes})
        later = list({lane for want in wants[1:] for lane in want.lanes})
        jobs: list[JobRecord] = []
        next_run_at: int | None = None
        has_held_up, has_others, taken = False, True, list[int]()
        for place, want in enumerate(wants):
            if not has_others:
                break
            if _is_exhausted(want, wants[:place], taken):
                taken.append(0)
                continue
            arguments = [list(want.queues), list(want.lanes), want.slots, claim.owner, lease_ns, place == 0]
            try:
                rows = await self._link.rows("claim", *arguments, place == 0, queues, lanes, later)
                if rows[0]["has_expired"]:
                    expired = await self._expired()
                    if expired:
                        return Leased(Claimed(jobs, None), expired)
                    # somebody else is at them, or a transaction that completes them
                    rows = await self._link.rows("claim", *arguments, False, queues, lanes, later)
            except StoreError as error:
                if not jobs:
                    raise
                log.warning("only a part of what there is room for was claimed: %s", error)
                break
            if place == 0:
                _, next_run_at, has_held_up, has_others = rows[0][:_CLAIMED_AT]
            found = [self._encoding.record(row[_CLAIMED_AT + 1 :]) for row in rows if row["id"] is not None]
            if found:
                self._last_lanes = want.lanes
            taken.append(len(found))
            jobs += found
        return Leased(Claimed(jobs, next_run_at), (), has_held_up)

    async def _expired(self) -> list[str]:
        """Return jobs whose lease has run out; those that a transaction has completed are done, and no longer there."""
        rows = await self._link.rows("expired", RESCUED_AT_ONCE)
        completed = [row for row in rows if row["completed"]]
        if completed:
            now = await self.now_ns()
            await self.jobs_finish(
                [Finish(row["id"], row["attempt"], row["owner"], FinishKind.DONE, now) for row in completed]
            )
        return [row["id"] for row in rows if not row["completed"]]

    async def _leased_by(self, owner: str) -> list[Fenced]:
        return [Fenced(*row) for row in await self._link.rows("leased_by", owner)]

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Extend leases; see the contract."""
        if not renewals:
            return Renewed([], [])
        async with self._link.connection("renewing leases") as connection:
            return await renew(connection, self._link.sql["renew"], self._encoding, owner, renewals, lease_s)

    # -- out -------------------------------------------------------------------------

    async def jobs_finish(self, finishes: Sequence[Finish]) -> list[JobState | None]:
        """Record how attempts ended; plain jobs take one statement.

        Several may be of one job: an attempt whose lease has moved on, and the one after it.
        """
        first = {_try_of(one): n for n, one in reversed([*enumerate(finishes)])}
        final = sorted((finishes[n] for n in first.values() if _is_final(finishes[n])), key=itemgetter(0))
        handled, completed = await self._finish_plain(final)
        others = [one.job_id for one in finishes if not _is_final(one)]
        if others:
            completed |= self._results(await self._link.rows("completed", others))
        answers: list[JobState | None] = [None] * len(finishes)
        left: dict[int, Finish] = {}
        for n, one in enumerate(finishes):
            if _try_of(one) in handled and first[_try_of(one)] == n:
                answers[n] = FINAL_STATES[one.kind]
            else:
                left[n] = _completed(one, completed)
        if left:
            for n, state in zip(left, await super().jobs_finish([*left.values()]), strict=True):
                answers[n] = state
        if handled:
            self._hints.send(Hint.ENDED, [job_id for job_id, _ in handled])
        return answers

    async def _finish_plain(self, finishes: Sequence[Finish]) -> tuple[set[_Try], dict[_Try, Any]]:
        """Return the attempts that it ended, and the results of those that a transaction completed."""
        if not finishes:
            return set(), {}
        rows = await self._link.rows("finish", *sent(map(self._finish_row, finishes)))
        handled = {(row["id"], row["attempt"]) for row in rows if not row["is_completed"]}
        return handled, self._results(row for row in rows if row["is_completed"])

    def _results(self, rows: Iterable[Any]) -> dict[_Try, Any]:
        return {(row["id"], row["attempt"]): self._encoding.payloads.unpacked(row["result"]) for row in rows}

    def _finish_row(self, finish: Finish) -> tuple[Any, ...]:
        job_id, attempt, owner, kind, at_ns, started_ns, running_ns, result, error, reason, _, _ = finish
        state = FINAL_STATES[kind].value
        ending = self._encoding.payloads.outcome(result, error, reason)
        return job_id, attempt, owner, state, at_ns, started_ns, running_ns, *ending


def _in_best_order(wants: Sequence[Want], last_lanes: frozenset[str]) -> Sequence[Want]:
    """Return *wants* with that of *last_lanes* first, if it takes nothing from those that were before it."""
    for place, want in enumerate(wants):
        if want.lanes == last_lanes:
            before = wants[:place]
            if all(want.lanes.isdisjoint(one.lanes) for one in before):
                return [want, *before, *wants[place + 1 :]]
            break
    return wants


def _is_exhausted(want: Want, before: Sequence[Want], taken: Sequence[int]) -> bool:
    """Say whether a want before, which looked for all of this one's jobs, found fewer than it had room for."""
    return any(
        n < one.slots and want.lanes <= one.lanes and {*want.queues} <= {*one.queues}
        for one, n in zip(before, taken, strict=True)
    )


def _is_final(finish: Finish) -> bool:
    return finish.kind in FINAL_STATES and not finish.zombie


def _try_of(finish: Finish) -> _Try:
    return finish.job_id, finish.attempt


def _completed(finish: Finish, completed: dict[_Try, Any]) -> Finish:
    """Return *finish*, or that the job is done where its effects were committed already."""
    if _try_of(finish) not in completed:
        return finish
    result = completed[_try_of(finish)]
    return finish._replace(kind=FinishKind.DONE, result=result, error=None, reason=None, delay_ns=0)
