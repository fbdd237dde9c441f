"""A durable store without a database, for tests: plain dicts of encoded rows, as slow and as plain as can be.

Nothing of a caller's is ever shared: rows are tuples of plain values, encoded when
they are written and decoded whenever they are read. Several stores may share
one `Tables`, as processes share a database. `ReferenceStore.faults` breaks commits
on purpose, and *whim* makes each round of loading bring only some of what was asked."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import ClassVar, Literal, TypeVar

from quarterjack.clock import Clock
from quarterjack.errors import StoreUnavailable
from quarterjack.model import Fenced, JobFilter, JobIds, JobRecord, JobState, Schedule, WorkerInfo
from quarterjack.stores._durable import DurableStore, Leased
from quarterjack.stores._limits import Limits
from quarterjack.stores._needs import Changes, Loaded, Missing, Needs, Taken, UniqueKey
from quarterjack.stores._part import Part
from quarterjack.stores._rows import ColumnValue, Encoding
from quarterjack.stores.base import Acquired, AuditRow, Claim, Claimed, Hint, JobPage, StoreStats, Want

__all__ = ["Fault", "ReferenceStore", "Tables"]

T = TypeVar("T")

Fault = Literal["before", "after"]
"""A commit that does not take place, or whose answer is lost."""
MINUTE_NS = 60_000_000_000


@dataclass
class Stored:
    """A job's row, and what the engine keeps beside it."""

    row: tuple[ColumnValue, ...]
    number: int
    """When it was inserted."""
    parked: bool = False


@dataclass
class Tables:
    """What outlives a process."""

    jobs: dict[str, Stored] = field(default_factory=dict[str, Stored])
    schedules: dict[str, tuple[ColumnValue, ...]] = field(default_factory=dict[str, tuple[ColumnValue, ...]])
    uniques: dict[UniqueKey, Taken] = field(default_factory=dict[UniqueKey, Taken])
    occurrences: dict[tuple[str, int, int], str] = field(default_factory=dict[tuple[str, int, int], str])
    outcomes: dict[tuple[int, str, JobState], int] = field(default_factory=dict[tuple[int, str, JobState], int])
    limits: Limits = field(default_factory=Limits, compare=False)
    workers: dict[str, WorkerInfo] = field(default_factory=dict[str, WorkerInfo])
    commands: dict[str, str] = field(default_factory=dict[str, str])
    audit: list[AuditRow] = field(default_factory=list[AuditRow])
    number: int = 0
    stores: list[ReferenceStore] = field(default_factory=list["ReferenceStore"], compare=False)
    """Who has them open, to be told of commits."""

    def snapshot(self) -> Tables:
        """Return what they hold now."""
        stores, self.stores = self.stores, []
        try:
            return copy.deepcopy(self)
        finally:
            self.stores = stores


class ReferenceStore(DurableStore):
    """The contract over `Tables`.

    Args:
        tables: What to work on; new ones by default.
        whim: Chooses, round by round, which part of what is asked for is loaded; None loads all of it.
    """

    name: ClassVar[str] = "reference"
    is_shared: ClassVar[bool] = True
    uses_local_clock: ClassVar[bool] = False

    def __init__(self, tables: Tables | None = None, *, whim: Random | None = None) -> None:
        super().__init__()
        self.tables = Tables() if tables is None else tables
        self.whim = whim
        self.faults: list[Fault | None] = []
        """What befalls the next commits, in order."""
        self.rounds = 0
        """How often a decision was made."""

    # -- life ------------------------------------------------------------------------

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        await super().open(clock, ids, encoding)
        self.tables.stores.append(self)

    async def close(self) -> None:
        if self in self.tables.stores:
            self.tables.stores.remove(self)

    async def migrate(self) -> None:
        """Do nothing: there is no schema."""

    async def now_ns(self) -> int:
        return self._clock.now_ns()

    async def wake(self, hint: Hint) -> None:
        for store in self.tables.stores:
            store._hear(hint)

    # -- transactions ----------------------------------------------------------------

    async def _transact(self, needs: Needs, decide: Callable[[Part, int], T]) -> T:
        await asyncio.sleep(0)  # others' calls come between
        part, now = Part(self._ids), self._clock.now_ns()
        self._load(part, needs)
        while True:
            self.rounds += 1
            try:
                answer = part.run(decide, now)
            except Missing as missing:
                self._load(part, missing.needs)
                continue
            self._commit(part.changes())
            return answer

    def _load(self, part: Part, needs: Needs) -> None:
        if self.whim is not None:
            needs = _some(needs, self.whim)
        part.load(needs, self._found(needs))

    def _found(self, needs: Needs) -> Loaded:
        tables = self.tables
        lines = {key: [job.id for job in self._jobs() if _is_open(job, key)] for key in needs.lines}
        uniques = {key: taken for key in needs.uniques if (taken := tables.uniques.get(key)) is not None}
        wanted = {*needs.jobs, *(job_id for ids in lines.values() for job_id in ids)}
        wanted |= {taken.job_id for taken in uniques.values()}
        made = {at: job_id for at in needs.occurrences if (job_id := tables.occurrences.get(at)) is not None}
        schedules = {key: self._schedule(key) for key in needs.schedules if key in tables.schedules}
        rows = [self._schedule(key) for key in tables.schedules]
        held_up = [row for row in rows if row.held_up_ns is not None]
        jobs = {job_id: self._job(job_id) for job_id in wanted if job_id in tables.jobs}
        if self.whim is not None:
            jobs = dict(self.whim.sample(sorted(jobs.items()), len(jobs)))
            self.whim.shuffle(held_up)
        return Loaded(jobs, schedules, lines, uniques, made, held_up)

    def _commit(self, changes: Changes, parked: Iterable[str] = ()) -> None:
        """Write all or nothing: whatever cannot be encoded says so before anything is written."""
        fault = self.faults.pop(0) if self.faults else None
        tables, encoding = self.tables, self._encoding
        inserted = {job.id: encoding.job_row(job) for job in changes.inserted}
        updated = {job.id: encoding.job_row(job) for job in changes.updated}
        schedules = {key: encoding.schedule_row(row) for key, row in changes.schedules.items()}
        if fault == "before":
            raise StoreUnavailable("the commit failed on demand")
        for job_id, row in inserted.items():
            assert job_id not in tables.jobs, "a job is inserted once"
            tables.number += 1
            tables.jobs[job_id] = Stored(row, tables.number)
        for job_id, row in updated.items():
            stored = tables.jobs[job_id]
            tables.jobs[job_id] = Stored(row, stored.number)
        tables.schedules.update(schedules)
        for schedule_id in changes.removed:
            del tables.schedules[schedule_id]
            tables.occurrences = {at: job for at, job in tables.occurrences.items() if at[0] != schedule_id}
        for unique, taken in changes.uniques.items():
            if taken is None:
                del tables.uniques[unique]
            else:
                tables.uniques[unique] = taken
        tables.occurrences.update(changes.occurrences)
        for counted, n in changes.outcomes.items():
            tables.outcomes[counted] = tables.outcomes.get(counted, 0) + n
        for job_id in parked:
            tables.jobs[job_id].parked = True
        for key in changes.turns:
            self._give_turn(key)
        self._tell_others(changes)
        self._told(changes)
        if fault == "after":
            raise StoreUnavailable("the answer was lost on demand")

    def _give_turn(self, key: str) -> None:
        serial = [job for job in self._jobs() if job.serial and job.overlap_key == key]
        if any(job.state.is_held or job.zombie for job in serial):
            return
        parked = [job for job in serial if self.tables.jobs[job.id].parked]
        if parked:
            first = min(parked, key=lambda job: (job.is_backfill, job.order_at_ns, self.tables.jobs[job.id].number))
            self.tables.jobs[first.id].parked = False

    def _tell_others(self, changes: Changes) -> None:
        for store in self.tables.stores:
            if store is not self:
                for hint, ids in changes.hints:
                    if hint is not Hint.FINISHED:
                        store._hear(hint, ids)
                if changes.ended:
                    store._hear(Hint.ENDED, changes.ended)

    async def _claim(self, claim: Claim) -> Leased:
        await asyncio.sleep(0)
        now = self._clock.now_ns()
        expired = [job for job in self._jobs() if job.lease_until_ns is not None and job.lease_until_ns <= now]
        if expired:
            expired.sort(key=lambda job: job.lease_until_ns or 0)
            return Leased(Claimed([], None), [job.id for job in expired])
        part, parked = Part(self._ids), list[str]()
        taken: list[JobRecord] = []
        for want in claim.wants:
            taken += self._wanted(want, now, parked, taken)
        part.load(Needs(), Loaded({job.id: job for job in taken}))

        def lease(part: Part, now: int) -> None:
            for job in taken:
                part.lease(job, claim, now)

        part.run(lease, now)
        self._commit(part.changes(), parked)
        held_up = any(self._schedule(key).held_up_ns is not None for key in self.tables.schedules)
        waiting = [job for job in self._jobs() if job.state is JobState.SUBMITTED and job.run_at_ns > now]
        later = [
            job.run_at_ns for job in waiting if any(job.queue in w.queues and job.lane in w.lanes for w in claim.wants)
        ]
        return Leased(Claimed(taken, min(later, default=None)), has_held_up=held_up)

    async def _leased_by(self, owner: str) -> list[Fenced]:
        held = [job for job in self._jobs() if job.owner == owner and job.state is JobState.SCHEDULED]
        return [job.fence for job in held if job.lease_until_ns is not None]

    def _wanted(self, want: Want, now: int, parked: list[str], before: Sequence[JobRecord]) -> list[JobRecord]:
        taken: list[JobRecord] = []
        known = {job.id for job in before}
        serial = [job for job in self._jobs() if job.serial]
        held = {job.overlap_key for job in serial if job.state.is_held or job.zombie}
        held |= {job.overlap_key for job in before if job.serial}
        awaited = {job.overlap_key for job in serial if _is_due(job, now) and not job.is_backfill}
        for queue in want.queues:
            for job in sorted(self._jobs(), key=lambda job: job.order_at_ns):
                if len(taken) == want.slots or not _is_due(job, now) or self.tables.jobs[job.id].parked:
                    continue
                if job.queue != queue or job.lane not in want.lanes or job.id in known:
                    continue
                if job.serial and (job.overlap_key in held or (job.is_backfill and job.overlap_key in awaited)):
                    parked.append(job.id)
                    continue
                if job.serial:
                    held.add(job.overlap_key)
                taken.append(job)
        return taken

    # -- rows ------------------------------------------------------------------------

    def _job(self, job_id: str) -> JobRecord:
        return self._encoding.record(self.tables.jobs[job_id].row)

    def _jobs(self) -> Iterable[JobRecord]:
        """Yield all jobs, in the order they were inserted."""
        return [self._encoding.record(stored.row) for stored in self.tables.jobs.values()]

    def _schedule(self, schedule_id: str) -> Schedule:
        return self._encoding.schedule(self.tables.schedules[schedule_id])

    # -- views -----------------------------------------------------------------------

    async def jobs_get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        return [self._job(job_id) if job_id in self.tables.jobs else None for job_id in job_ids]

    async def jobs_list(
        self,
        where: JobFilter,
        *,
        limit: int = 100,
        cursor: str | None = None,
        order: Literal["newest", "slowest"] = "newest",
    ) -> JobPage:
        rows = [job for job in list(self._jobs())[::-1] if where.matches(job)]
        if order == "slowest":
            now = self._clock.now_ns()
            rows.sort(key=lambda job: -_duration_ns(job, now))
        if cursor is not None:
            rows = rows[[job.id for job in rows].index(cursor) + 1 :]
        page = rows[:limit]
        return JobPage(page, page[-1].id if len(rows) > limit else None)

    async def jobs_purge(self, older_than: timedelta, limit: int = 10_000, *, keep: int | None = None) -> int:
        now = self._clock.now_ns()
        before = now - older_than // timedelta(microseconds=1) * 1_000
        done = [job for job in self._jobs() if job.state.is_finished and not job.zombie]
        done.sort(key=lambda job: job.finished_at_ns or 0)
        surplus = 0 if keep is None else len(done) - keep
        old = [job.id for n, job in enumerate(done) if n < surplus or (job.finished_at_ns or 0) < before][:limit]
        for job_id in old:
            del self.tables.jobs[job_id]
        return len(old)

    async def stats(self) -> StoreStats:
        states: dict[JobState, int] = {}
        waiting: dict[str, int] = {}
        due: list[int] = []
        for job in self._jobs():
            states[job.state] = states.get(job.state, 0) + 1
            if job.state is JobState.SUBMITTED:
                waiting[job.queue] = waiting.get(job.queue, 0) + 1
                due.append(job.run_at_ns)
        now = self._clock.now_ns()
        return StoreStats(states, waiting, min((at for at in due if at <= now), default=None))

    async def outcomes(self, since_ns: int) -> Mapping[tuple[int, str, JobState], int]:
        return {key: n for key, n in self.tables.outcomes.items() if key[0] + MINUTE_NS > since_ns}

    async def schedules_get(self, schedule_id: str) -> Schedule | None:
        return self._schedule(schedule_id) if schedule_id in self.tables.schedules else None

    async def schedules_list(self) -> list[Schedule]:
        return [self._schedule(key) for key in sorted(self.tables.schedules)]

    async def schedules_due(self, horizon_ns: int, limit: int = 1_000) -> list[Schedule]:
        until = self._clock.now_ns() + horizon_ns
        rows = [self._schedule(key) for key in self.tables.schedules]
        due = [row for row in rows if row.wake_ns is not None and row.wake_ns <= until]
        return sorted(due, key=lambda row: (row.wake_ns or 0, row.id))[:limit]

    # -- limits, workers, records ----------------------------------------------------

    async def limit_acquire(
        self, limit: str, holders: Sequence[str], *, maximum: int, ttl_s: float, waiter: str | None = None
    ) -> Acquired:
        return self.tables.limits.acquire(limit, holders, maximum, round(ttl_s * 1e9), self._clock.now_ns(), waiter)

    async def limit_renew(self, limit: str, holders: Sequence[str], ttl_s: float) -> list[str]:
        return self.tables.limits.renew(limit, holders, round(ttl_s * 1e9), self._clock.now_ns())

    async def limit_release(self, limit: str, holders: Sequence[str]) -> None:
        if self.tables.limits.release(limit, holders, self._clock.now_ns()):
            for store in self.tables.stores:
                store._hear(Hint.LIMITS, (limit,))

    async def limit_take(self, limit: str, n: float, *, rate: float, burst: float) -> float:
        return self.tables.limits.take(limit, n, rate, burst, self._clock.now_ns())

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        self.tables.workers[worker.id] = worker._replace(command=None)
        if self.tables.commands.get(worker.id) == worker.command:
            self.tables.commands.pop(worker.id, None)
        return self.tables.commands.get(worker.id)

    async def workers_list(self) -> list[WorkerInfo]:
        return list(self.tables.workers.values())

    async def workers_remove(self, worker_id: str) -> None:
        self.tables.workers.pop(worker_id, None)

    async def workers_command(self, worker_id: str, command: str) -> bool:
        if worker_id in self.tables.workers:
            self.tables.commands[worker_id] = command
        return worker_id in self.tables.workers

    async def audit_put(self, rows: Sequence[AuditRow]) -> None:
        self.tables.audit.extend(rows)

    async def audit_list(self, limit: int = 100) -> list[AuditRow]:
        return self.tables.audit[::-1][:limit]


def _is_open(job: JobRecord, key: str) -> bool:
    if job.overlap_key != key or (job.state.is_finished and not job.zombie):
        return False
    return not (job.is_backfill and job.state is JobState.SUBMITTED)


def _is_due(job: JobRecord, now: int) -> bool:
    return job.state is JobState.SUBMITTED and job.run_at_ns <= now


def _duration_ns(job: JobRecord, now: int) -> int:
    if job.running_at_ns is None or not job.has_run:
        return -1
    return (job.finished_at_ns or now) - job.running_at_ns


def _some(needs: Needs, whim: Random) -> Needs:
    """Return some of what is asked for, and at least one."""
    found = [(name, one) for name, wanted in needs._asdict().items() for one in sorted(wanted)]
    chosen = [one for one in found if whim.random() < 0.5] or found[:1]
    return Needs(**{name: frozenset(one for kind, one in chosen if kind == name) for name in Needs._fields})
