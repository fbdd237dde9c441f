"""One call that makes jobs of schedules, for the memory store: what it inserts, and what it leases on the way.

It decides overlap and unique keys for each job in the turn of the loop in which
it inserts it. It works on the store's own rows: half of `memory`, in a module of
its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from quarterjack import planner
from quarterjack._fast import new_tuple
from quarterjack.backfill import Backfill, backfill_options
from quarterjack.lifecycle import Move, move
from quarterjack.model import JobRecord, JobState, Origin, Overlap, Schedule, SubmittedBy
from quarterjack.planner import Plan
from quarterjack.policies.overlap import SERIAL_MODES, Action, Verdict, admit

from .base import Backfilled, CancelAnswer, Claim

if TYPE_CHECKING:
    from .memory import MemoryStore

__all__ = ["Firing"]

_UNBOUNDED: Final = frozenset({"queue_all", "allow"})
"""Policies that ask how many there are only if they have a bound."""
_NEW, _SUBMITTED = JobState.NEW, JobState.SUBMITTED


def _counted(row: Schedule) -> Schedule:
    try:
        return planner.counted(row)
    except Exception as error:  # a user's trigger runs here; it parks its own schedule and no other
        return planner.parked(row, error)


def _whose(blocker: JobRecord, row: Schedule, key: str) -> str:
    """Say whose job stands in the way of a run of *row*."""
    schedule_id = blocker.origin.schedule_id if blocker.origin is not None else row.id
    return "the same schedule" if schedule_id == row.id else f"schedule {schedule_id} (overlap_key={key!r})"


def _still(blocker: JobRecord) -> str:
    """Say what keeps a job open."""
    return f"{blocker.state.value}, but its body still runs" if blocker.zombie else f"still {blocker.state.value}"


class Firing:
    """One ``schedules_fire``: what it inserts, and what it leases on the way."""

    __slots__ = ("_claim", "_slots", "_store", "cancelled", "jobs", "now", "rows", "wait_ns", "waiting")

    def __init__(self, store: MemoryStore, now: int, claim: Claim | None) -> None:
        self._store = store
        self._claim = claim
        self._slots = [want.slots for want in claim.wants] if claim is not None else []
        self.now = now
        self.rows: list[JobRecord] = []
        self.jobs: list[JobRecord] = []
        self.cancelled: list[JobRecord] = []
        self.waiting = False
        self.wait_ns = 0

    def fire(self, plan: Plan) -> Schedule | None:
        """Make one plan true; None if it lost or came early."""
        store, now = self._store, self.now
        row = store._schedules.get(plan.schedule_id)
        if row is None or row.cursor_ns != plan.old_cursor_ns or row.generation != plan.generation:
            return None
        if row.paused_at_ns is not None or row.next_due_ns is None:
            return None
        if plan.not_before_ns > now:
            early = plan.not_before_ns - now
            self.wait_ns = min(self.wait_ns, early) if self.wait_ns else early
            return None
        nominal, due = row.next_nominal_ns, row.next_due_ns
        unserved = planner.unserved(row, plan) if plan.missed else None
        row.cursor_ns = plan.cursor_ns
        row.next_nominal_ns, row.next_due_ns = plan.next_nominal_ns, plan.next_due_ns
        if unserved is not None:
            self._miss(row, plan.missed, *unserved)
        missed = plan.missed
        for fire_time in plan.nominals:
            job = self._job(row, fire_time, missed, due if fire_time == nominal else fire_time)
            missed = 0
            row.last_nominal_ns = fire_time  # first: should the run be left out, this says whose end goes on from it
            self.admit(row, job, row.payload.overlap)
            row.runs += job.state is not JobState.SKIPPED
        if row.payload.max_runs is not None:
            store._schedules[row.id] = row = _counted(row)
        return row

    def _job(self, row: Schedule, nominal: int, missed: int, due: int) -> JobRecord:
        payload = row.payload
        origin: Origin = new_tuple(Origin, (row.id, row.generation, nominal, missed, "schedule"))
        job = JobRecord(self._store._ids(), payload.task, payload.args, payload.kwargs, payload.options, None, origin)
        job.submitted_at_ns = self.now
        job.run_at_ns = due
        return job

    def _miss(self, row: Schedule, missed: int, nominal: int, reason: str) -> None:
        """Record the fire times nobody served as one row."""
        job = self._job(row, nominal, missed, nominal)
        job.state = move(job.state, Move.MISSED)
        job.reason = reason
        job.overlap_key = row.overlap_key  # should it be repeated, it counts as open like any other
        job.finished_at_ns = self.now
        self.rows.append(job)
        self._store._jobs[job.id] = job
        self._store._record(job, self.now)

    def admit(self, row: Schedule, job: JobRecord, policy: Overlap) -> None:
        """Insert *job* as the overlap policy and its unique key say: to run, or as a SKIPPED row."""
        store = self._store
        key = row.payload.overlap_key or row.id
        others = store._keys.open(key)
        self.rows.append(job)
        job.serial = policy.mode in SERIAL_MODES
        replacing: tuple[list[JobRecord], Verdict] | None = None
        if others:
            verdict = self._judge(policy, others)
            if verdict.action is Action.SKIP:
                self._skip(row, job, f"job {others[0].id} of {_whose(others[0], row, key)} is {_still(others[0])}")
                return
            replacing = list(others), verdict
        if job.options.unique is not None and not self._take_unique(row, job):
            return
        self._insert(key, job)
        if replacing is not None:  # only now: a schedule that hears of their ends must find this one in its way
            self._replace(*replacing, job)
        self._start_or_queue(job)

    def _insert(self, key: str, job: JobRecord) -> None:
        job.state = _SUBMITTED if job.state is _NEW else move(job.state, Move.SUBMITTED)
        self._store._keys.add(key, job)
        self._store._jobs[job.id] = job

    def backfill(self, row: Schedule, plan: Backfill, by: SubmittedBy | None) -> Backfilled:
        """Insert the jobs of *plan* that are not there yet."""
        known = {job.origin: job for job in self._store._jobs.values() if job.is_backfill}
        payload, options = row.payload, backfill_options(row.payload.options)
        rows: list[JobRecord] = []
        for nominal in plan.nominals:
            origin = Origin(row.id, row.generation, nominal, trigger="backfill")
            job = known.get(origin)
            if job is None:
                job = JobRecord(self._store._ids(), payload.task, payload.args, payload.kwargs, options, by, origin)
                self._put_behind(row, job, is_serial=plan.overlap in SERIAL_MODES)
            rows.append(job)
        return Backfilled(rows, frozenset(job.id for job in self.rows))

    def _put_behind(self, row: Schedule, job: JobRecord, *, is_serial: bool) -> None:
        """Insert a job that no overlap policy leaves out: it waits."""
        self.rows.append(job)
        job.submitted_at_ns = job.run_at_ns = self.now
        job.serial = is_serial
        if self._take_unique(row, job):
            self._insert(row.overlap_key, job)
            self._start_or_queue(job)

    def _judge(self, policy: Overlap, others: list[JobRecord]) -> Verdict:
        if policy.maximum is None and policy.mode in _UNBOUNDED:  # to count those who wait would be O(n) for each
            return admit(policy.mode, None, running=len(others), waiting=0)
        waiting = sum(other.state is _SUBMITTED for other in others)
        return admit(policy.mode, policy.maximum, running=len(others) - waiting, waiting=waiting)

    def _take_unique(self, row: Schedule, job: JobRecord) -> bool:
        """Take the job's unique key; where another one has it, insert a SKIPPED row and return False."""
        unique, holder = job.options.unique, self._store._unique_holder(job, self.now)
        if holder is None:
            self._store._unique.take(job, self.now)
        elif unique is not None:
            self._skip(row, job, f"job {holder.id} holds its unique key {unique.key!r}")
        return holder is None

    def _replace(self, others: list[JobRecord], verdict: Verdict, job: JobRecord) -> None:
        if verdict.drop_waiting:
            for other in [other for other in others if other.state is _SUBMITTED]:
                self._store._end_here(other, Move.SKIPPED, self.now, f"replaced by the newer job {job.id}")
        if verdict.cancel_open:
            self._cancel(others, job)

    def _skip(self, row: Schedule, job: JobRecord, reason: str) -> None:
        store = self._store
        job.state = move(job.state, Move.SKIPPED)
        job.finished_at_ns = self.now
        job.reason = reason
        job.overlap_key = row.overlap_key  # should it be repeated, it counts as open like any other
        store._jobs[job.id] = job
        store._record(job, self.now)
        store._chains.ended(row, job, self.now)

    def _cancel(self, others: list[JobRecord], job: JobRecord) -> None:
        for other in others:
            answer = self._store._request_cancel(other.id, f"replaced by job {job.id}", self.now)
            if answer is CancelAnswer.REQUESTED:
                self.cancelled.append(other)

    def _has_others_before(self, job: JobRecord) -> bool:
        """Say whether another one waits for the serial key of *job*, whose turn comes first."""
        others = self._store._keys.open(job.overlap_key or "")
        return any(
            other is not job and other.state is _SUBMITTED and other.serial and other.run_at_ns <= self.now
            for other in others
        )

    def _start_or_queue(self, job: JobRecord) -> None:
        """Lease the job to the caller if it has room for it, else let it wait."""
        claim, store, slots = self._claim, self._store, self._slots
        if claim is not None and job.run_at_ns <= self.now and not (job.serial and self._has_others_before(job)):
            for index, (queues, lanes, _) in enumerate(claim.wants):
                if slots[index] > 0 and job.lane in lanes and job.queue in queues:
                    if not job.serial or store._keys.hold(job):
                        slots[index] -= 1
                        job.order_at_ns = job.run_at_ns
                        store._lease(job, claim, self.now)
                        self.jobs.append(job)
                    return
        self.waiting = True
        store._enqueue(job, self.now)
