"""One call that makes jobs of schedules: what it inserts, and what it leases on the way.

It decides overlap and unique keys for each job in the step in which it inserts
it. It works on a book's own rows: a part of `_book`, in a module of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from quarterjack import planner
from quarterjack._fast import new_tuple
from quarterjack.backfill import Backfill, backfill_options
from quarterjack.lifecycle import Move, move
from quarterjack.model import TICK_LANE, JobRecord, JobState, Origin, Overlap, Schedule, SubmittedBy
from quarterjack.planner import Plan
from quarterjack.policies.overlap import SERIAL_MODES, Action, Verdict, admit

from .base import Backfilled, CancelAnswer, Claim

if TYPE_CHECKING:
    from ._book import Book

__all__ = ["Firing", "asks_who_is_open", "may_take_turn", "unended"]

_UNBOUNDED: Final = frozenset({"queue_all", "allow"})
"""Policies that ask which jobs are open only if they have a bound."""
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


def asks_who_is_open(policy: Overlap) -> bool:
    """Say whether it takes the open jobs of the key to admit a run."""
    return policy.maximum is not None or policy.mode not in _UNBOUNDED


def may_take_turn(row: Schedule, claim: Claim | None) -> bool:
    """Say whether a run takes turns with others, and *claim* has room to begin it at once."""
    payload, options = row.payload, row.payload.options
    if claim is None or payload.overlap.mode not in SERIAL_MODES:
        return False
    lane = TICK_LANE + payload.task + options.lane_suffix
    return any(want.slots > 0 and lane in want.lanes and options.queue in want.queues for want in claim.wants)


def unended(row: Schedule) -> str | None:
    """Return the id of the newest job, if no end of it was noted: as long as it is open, the next one waits for it."""
    return row.newest_job_id if row.newest_job_id != row.last_job_id else None


def _age(job: JobRecord) -> tuple[int, int, str]:
    """Return what tells the older of two jobs, whatever the order they come in; ids of a process are counted."""
    return job.submitted_at_ns or 0, len(job.id), job.id


def _judge(policy: Overlap, others: Sequence[JobRecord]) -> Verdict:
    waiting = sum(other.state is _SUBMITTED for other in others)
    return admit(policy.mode, policy.maximum, running=len(others) - waiting, waiting=waiting)


def _still(blocker: JobRecord) -> str:
    """Say what keeps a job open."""
    if blocker.state is JobState.STARTED:
        return "handed to its executor, and has not begun"
    return f"{blocker.state.value}, but its body still runs" if blocker.zombie else f"still {blocker.state.value}"


class Firing:
    """One ``schedules_fire``: what it inserts, and what it leases on the way."""

    __slots__ = ("_before_id", "_book", "_claim", "_slots", "cancelled", "jobs", "now", "rows", "wait_ns", "waiting")

    def __init__(self, book: Book, now: int, claim: Claim | None) -> None:
        self._book = book
        self._claim = claim
        self._slots = [want.slots for want in claim.wants] if claim is not None else []
        self._before_id: str | None = None
        self.now = now
        self.rows: list[JobRecord] = []
        self.jobs: list[JobRecord] = []
        self.cancelled: list[JobRecord] = []
        self.waiting = False
        self.wait_ns = 0

    def fire(self, plan: Plan) -> Schedule | None:
        """Make one plan true; None if it lost or came early."""
        book, now = self._book, self.now
        row = book.schedules.get(plan.schedule_id)
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
            self._before_id = unended(row)
            # First: should the run be left out, this says whose end goes on from it.
            row.last_nominal_ns, row.newest_job_id = fire_time, job.id
            self.admit(row, job, row.payload.overlap)
            row.runs += job.state is not JobState.SKIPPED
        if row.payload.max_runs is not None:
            book.schedules[row.id] = row = _counted(row)
        return row

    def _job(self, row: Schedule, nominal: int, missed: int, due: int) -> JobRecord:
        payload = row.payload
        origin: Origin = new_tuple(Origin, (row.id, row.generation, nominal, missed, "schedule"))
        job = JobRecord(self._book.ids(), payload.task, payload.args, payload.kwargs, payload.options, None, origin)
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
        self._book.jobs[job.id] = job
        self._book.record(job, self.now)

    def admit(self, row: Schedule, job: JobRecord, policy: Overlap) -> None:
        """Insert *job* as the overlap policy and its unique key say: to run, or as a SKIPPED row."""
        book = self._book
        key = row.payload.overlap_key or row.id
        others = book.keys.open(key) if asks_who_is_open(policy) else ()  # those who wait may be thousands
        self.rows.append(job)
        job.serial = policy.mode in SERIAL_MODES
        replacing: tuple[list[JobRecord], Verdict] | None = None
        if others:
            verdict = _judge(policy, others)
            if verdict.action is Action.SKIP:
                blocker = min(others, key=_age)
                self._skip(row, job, f"job {blocker.id} of {_whose(blocker, row, key)} is {_still(blocker)}")
                return
            replacing = sorted(others, key=_age), verdict
        if job.options.unique is not None and not self._take_unique(row, job):
            return
        self._insert(key, job)
        if replacing is not None:  # only now: a schedule that hears of their ends must find this one in its way
            self._replace(*replacing, job)
        self._start_or_queue(job)

    def _insert(self, key: str, job: JobRecord) -> None:
        job.state = _SUBMITTED if job.state is _NEW else move(job.state, Move.SUBMITTED)
        self._book.keys.add(key, job)
        self._book.jobs[job.id] = job

    def backfill(self, row: Schedule, plan: Backfill, by: SubmittedBy | None) -> Backfilled:
        """Insert the jobs of *plan* that were never made."""
        book, payload, options = self._book, row.payload, backfill_options(row.payload.options)
        rows: list[JobRecord] = []
        gone: list[int] = []
        for nominal in plan.nominals:
            known_id = book.occurrences.get((row.id, row.generation, nominal))
            if known_id is None:
                origin = Origin(row.id, row.generation, nominal, trigger="backfill")
                job = JobRecord(book.ids(), payload.task, payload.args, payload.kwargs, options, by, origin)
                book.occurrences[row.id, row.generation, nominal] = job.id
                self._put_behind(row, job, is_serial=plan.overlap in SERIAL_MODES)
                rows.append(job)
            elif (known := book.jobs.get(known_id)) is not None:
                rows.append(known)
            else:
                gone.append(nominal)
        return Backfilled(rows, frozenset(job.id for job in self.rows), tuple(gone))

    def _put_behind(self, row: Schedule, job: JobRecord, *, is_serial: bool) -> None:
        """Insert a job that no overlap policy leaves out: it waits."""
        self.rows.append(job)
        job.submitted_at_ns = job.run_at_ns = self.now
        job.serial = is_serial
        if self._take_unique(row, job):
            self._insert(row.overlap_key, job)
            self._start_or_queue(job)

    def _take_unique(self, row: Schedule, job: JobRecord) -> bool:
        """Take the job's unique key; where another one has it, insert a SKIPPED row and return False."""
        unique, holder = job.options.unique, self._book.taken_by(job, self.now)
        if holder is None:
            self._book.unique.take(job, self.now)
        elif unique is not None:
            self._skip(row, job, f"job {holder.id} holds its unique key {unique.key!r}")
        return holder is None

    def _replace(self, others: list[JobRecord], verdict: Verdict, job: JobRecord) -> None:
        if verdict.drop_waiting:
            for other in [other for other in others if other.state is _SUBMITTED]:
                self._book.end_here(other, Move.SKIPPED, self.now, f"replaced by the newer job {job.id}")
        if verdict.cancel_open:
            self._cancel(others, job)

    def _skip(self, row: Schedule, job: JobRecord, reason: str) -> None:
        book = self._book
        job.state = move(job.state, Move.SKIPPED)
        job.finished_at_ns = self.now
        job.reason = reason
        job.overlap_key = row.overlap_key  # should it be repeated, it counts as open like any other
        book.jobs[job.id] = job
        book.record(job, self.now)
        book.chains.ended(row, job, self.now)

    def _cancel(self, others: list[JobRecord], job: JobRecord) -> None:
        for other in others:
            answer = self._book.cancel_one(other.id, f"replaced by job {job.id}", self.now)
            if answer is CancelAnswer.REQUESTED:
                self.cancelled.append(other)

    def _has_others_before(self, job: JobRecord) -> bool:
        """Say whether another one waits for the serial key of *job*, whose turn comes first, or is known to have it.

        Where the schedule's job before it does, it is not asked for all that wait: they may be thousands, and a
        durable store has to load them.
        """
        before = None if self._before_id is None else self._book.jobs.get(self._before_id)
        if before is not None and before.serial and before.overlap_key == job.overlap_key:
            in_its_way = before.state.is_held or (before.state is _SUBMITTED and before.run_at_ns <= self.now)
            if in_its_way:
                return True
        others = self._book.keys.open(job.overlap_key or "")
        return any(
            other is not job and other.state is _SUBMITTED and other.serial and other.run_at_ns <= self.now
            for other in others
        )

    def _start_or_queue(self, job: JobRecord) -> None:
        """Lease the job to the caller if it has room for it, else let it wait."""
        claim, book, slots = self._claim, self._book, self._slots
        if claim is not None and job.run_at_ns <= self.now:
            for index, (queues, lanes, _) in enumerate(claim.wants):
                if slots[index] > 0 and job.lane in lanes and job.queue in queues:
                    if not job.serial or (not self._has_others_before(job) and book.keys.take(job)):
                        slots[index] -= 1
                        book.lease(job, claim, self.now)
                        self.jobs.append(job)
                        return
                    break
        self.waiting = True
        book.enqueue(job, self.now)
