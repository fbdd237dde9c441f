"""What a book holds, and how its jobs go back or end. The base of `_book_jobs` and `_book`.

Everything here is synchronous and pure over rows in memory: *now* is an argument,
and what a store adds of its own (where a waiting job stands, whom to tell, what
to keep of the past) are the few methods under "for the store"."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Final

from quarterjack.lifecycle import Move, move
from quarterjack.model import JobRecord, JobState, Origin, Schedule

from ._chains import Chains
from ._overlap import OverlapKeys
from ._unique import UniqueKeys
from .base import AGING_NS, Hint

__all__ = ["BookBase", "Occurrence"]

Occurrence = tuple[str, int, int]
"""A backfill's: schedule, generation, fire time."""

_SUBMITTED, _SKIPPED, _MISSED = JobState.SUBMITTED, JobState.SKIPPED, JobState.MISSED
_FAILED_ENDS: Final = frozenset({JobState.FAILED, JobState.TIMED_OUT})
_BAD_ENDS: Final = frozenset({JobState.FAILED, JobState.TIMED_OUT, JobState.LOST})


class BookBase(ABC):
    """Jobs, schedules and keys, and the steps that all transitions are made of."""

    def __init__(
        self,
        ids: Callable[[], str],
        jobs: dict[str, JobRecord],
        schedules: dict[str, Schedule],
        keys: OverlapKeys,
        unique: UniqueKeys,
        occurrences: dict[Occurrence, str],
    ) -> None:
        self.ids = ids
        """Names the jobs that schedules make."""
        self.jobs = jobs
        self.schedules = schedules
        self.keys = keys
        self.unique = unique
        self.occurrences = occurrences
        """The jobs of backfills; they are remembered when the rows are long purged."""
        self.chains = Chains(jobs, schedules, keys, unique)

    # -- for the store ---------------------------------------------------------------

    @abstractmethod
    def tell(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        """Somebody may want to look again."""

    def enqueue(self, job: JobRecord, now: int) -> None:
        """*job* waits from now on, for its ``run_at`` or for a worker: set the order that claims go by."""
        del now
        job.order_at_ns = job.run_at_ns + job.priority * AGING_NS

    @abstractmethod
    def give_turn(self, job: JobRecord) -> None:
        """*job*, a parked one, may be claimed: the serial key it shares is free."""

    @abstractmethod
    def extend(self, job: JobRecord, until: int) -> None:
        """The lease of *job* runs out at *until*."""

    @abstractmethod
    def left_waiting(self, job: JobRecord) -> None:
        """*job* has ended where it waited."""

    @abstractmethod
    def forget_occurrences(self, schedule_id: str) -> None:
        """The schedule is removed: one of the same id that comes later has no backfills yet."""

    @abstractmethod
    def record(self, job: JobRecord, now: int) -> None:
        """*job* has ended: count it for the views."""

    # -- back ------------------------------------------------------------------------

    def back(self, job: JobRecord, how: Move, now: int, delay_ns: int, reason: str | None) -> None:
        """Put a held job back among the waiting ones."""
        job.state = move(job.state, how)
        job.owner = job.lease_until_ns = None
        job.reason = reason
        job.run_at_ns = now + delay_ns if delay_ns else min(job.run_at_ns, now)
        job.delay_born = delay_ns > 0
        following = self.keys.let_go(job)
        self.enqueue(job, now)
        if following is not None:
            self.give_turn(following)

    # -- unique keys -----------------------------------------------------------------

    def taken_by(self, job: JobRecord, now: int) -> JobRecord | None:
        """Return the row that stands in *job*'s place, if its unique key is taken."""
        unique = job.options.unique
        holder = self.unique.holder(job.task, unique, now)
        if holder is None or not _gives_way(holder, job):
            return holder
        self.unique.take(job, now)  # first: whoever hears of the holder's end must not find the key free
        self.end_here(holder, Move.CANCELLED, now, f"replaced by job {job.id}")
        return None

    # -- ends ------------------------------------------------------------------------

    def end_here(self, job: JobRecord, how: Move, now: int, reason: str | None) -> None:
        """End *job* by the store's own decision, and tell who may wait for it."""
        has_waited = job.state is _SUBMITTED
        if has_waited:
            job.started_at_ns = job.running_at_ns = None  # an earlier attempt's: its body did not run until now
        self.end(job, how, now, reason, now)
        self.tell(Hint.FINISHED, (job.id,))
        if has_waited:
            self.left_waiting(job)

    def end(self, job: JobRecord, how: Move, now: int, reason: str | None, at_ns: int) -> None:
        """Move *job* to a final state and free what it held."""
        job.state = state = move(job.state, how)
        job.finished_at_ns = at_ns
        job.reason = reason
        if state in _FAILED_ENDS:
            job.failures += 1
        if not job.zombie:
            job.owner = job.lease_until_ns = None
            if job.overlap_key is not None:
                self.free_key(job, now)
        if job.options.unique is not None:
            self.unique.forget(job)
            self.free_chains(now)
        if job.origin is not None:
            self._tell_schedule(job, job.origin, now)
        self.record(job, now)

    def bury(self, job: JobRecord, now: int) -> None:
        """The body of *job*, which outlived its outcome, is over."""
        job.zombie = False
        job.owner = job.lease_until_ns = None
        if job.overlap_key is not None:
            self.free_key(job, now)
        row = self.schedules.get(job.origin.schedule_id) if job.origin is not None else None
        if row is not None and self.chains.ended(row, job, now):
            self.tell(Hint.SCHEDULES, (row.id,))

    def free_key(self, job: JobRecord, now: int) -> None:
        """Open the job's overlap key: the next one that waits for it may start."""
        following = self.keys.close(job)
        if following is not None:
            self.give_turn(following)
            self.tell(Hint.JOBS)
        self.free_chains(now)

    def free_chains(self, now: int) -> None:
        """Let the schedules go on that wait for room, if there is some now."""
        if self.chains.held_up:
            armed = self.chains.free(now)
            if armed:
                self.tell(Hint.SCHEDULES, armed)

    def _tell_schedule(self, job: JobRecord, origin: Origin, now: int) -> None:
        if job.is_backfill:  # how days gone by went says nothing of how its schedule does
            return
        row = self.schedules.get(origin.schedule_id)
        if row is None:
            return
        state = job.state
        if state is not _SKIPPED and state is not _MISSED:
            row.last_job_id, row.last_state, row.last_finished_ns = job.id, state, job.finished_at_ns
            if state in _BAD_ENDS:
                self._count_failure(row, job, now)
            else:
                row.failures_in_a_row = 0
        if row.next_nominal_ns is None and not job.zombie and self.chains.ended(row, job, now):
            self.tell(Hint.SCHEDULES, (row.id,))

    def _count_failure(self, row: Schedule, job: JobRecord, now: int) -> None:
        row.failures_in_a_row += 1
        most = row.payload.pause_on_failure
        if most is not None and row.failures_in_a_row >= most and row.paused_at_ns is None:
            row.paused_at_ns = now
            row.pause_note = f"{row.failures_in_a_row} failures in a row; the last one: {job.id}"
            self.tell(Hint.PAUSED, (row.id,))


def _gives_way(holder: JobRecord, job: JobRecord) -> bool:
    """Say whether the holder of *job*'s unique key is to be replaced by it: it asks for that, and the other waits."""
    unique = job.options.unique
    return unique is not None and unique.on_conflict == "replace" and holder.state is _SUBMITTED
