"""What becomes of jobs: put, finish, release, renew, cancel, repeat, rescue. Half of `_book`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from quarterjack._durations import NS_PER_S
from quarterjack.errors import UniqueConflict
from quarterjack.lifecycle import Move, move
from quarterjack.model import Fenced, Finish, FinishKind, JobRecord, JobState

from ._book_base import BookBase
from .base import NO_CHECKPOINT, CancelAnswer, Claim, Hint, Renewal, Renewed

__all__ = ["BookJobs"]

_NEW, _SUBMITTED, _SCHEDULED = JobState.NEW, JobState.SUBMITTED, JobState.SCHEDULED
_RUNNING = JobState.RUNNING
_FINAL_MOVES: Final = {
    FinishKind.DONE: Move.RETURNED,
    FinishKind.FAILED: Move.RAISED,
    FinishKind.TIMED_OUT: Move.TIMED_OUT,
    FinishKind.CANCELLED: Move.CANCELLED,
    FinishKind.MISSED: Move.MISSED,
}
_BACK_MOVES: Final = {FinishKind.RETRY: Move.RETRIED, FinishKind.SNOOZE: Move.SNOOZED}


class BookJobs(BookBase):
    """The calls that are about jobs; each is one of the contract's, where that says what it promises."""

    # -- in --------------------------------------------------------------------------

    def put(self, jobs: Sequence[JobRecord], now: int) -> list[JobRecord]:
        """Store new jobs; return, for each, the row that stands for it."""
        rows: list[JobRecord] = []
        for job in jobs:
            if job.options.unique is not None:
                self._refuse_conflicts(jobs, now)
                return [self.taken_by(job, now) or self._put(job, now) for job in jobs]
        for job in jobs:
            rows.append(self._put(job, now))  # noqa: PERF401  # as a comprehension it costs a frame per call
        return rows

    def _put(self, job: JobRecord, now: int) -> JobRecord:
        options = job.options
        job.submitted_at_ns = now
        if options.run_at_ns is not None:
            job.run_at_ns = options.run_at_ns
        elif options.delay_ns:
            job.run_at_ns = now + options.delay_ns
            job.delay_born = True
        else:
            job.run_at_ns = now
        job.state = _SUBMITTED if job.state is _NEW else move(job.state, Move.SUBMITTED)
        self.jobs[job.id] = job
        self.enqueue(job, now)
        if options.unique is not None:
            self.unique.take(job, now)
        return job

    def _refuse_conflicts(self, jobs: Sequence[JobRecord], now: int) -> None:
        """Raise for the first job whose key is taken, by a stored job or by one before it in *jobs*."""
        before: dict[tuple[str, str], str] = {}
        for job in jobs:
            unique = job.options.unique
            if unique is None:
                continue
            if unique.on_conflict == "raise":
                holder = self.unique.holder(job.task, unique, now)
                taken_by = before.get((job.task, unique.key)) if holder is None else holder.id
                if taken_by is not None:
                    raise UniqueConflict(unique.key, taken_by)
            before.setdefault((job.task, unique.key), job.id)

    # -- held ------------------------------------------------------------------------

    def lease(self, job: JobRecord, claim: Claim, now: int) -> None:
        """Let the claimer hold a waiting job."""
        job.state = _SCHEDULED if job.state is _SUBMITTED else move(job.state, Move.LEASED)
        job.attempt += 1
        job.owner = claim.owner
        job.scheduled_at_ns = now
        job.order_at_ns = 0  # it waits no more; a number less to keep
        job.started_at_ns = job.running_at_ns = None
        job.reason = None
        if claim.lease_s is not None:
            self.extend(job, now + round(claim.lease_s * NS_PER_S))

    def release(self, fences: Iterable[Fenced], now: int, delay_ns: int, reason: str | None) -> None:
        """Give jobs back unrun."""
        for fence in fences:
            job = self.jobs.get(fence.job_id)
            if job is not None and job.attempt == fence.attempt and job.owner == fence.owner and job.state.is_held:
                self.back(job, Move.RELEASED, now, delay_ns, reason)
        self.tell(Hint.JOBS)

    def renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None, now: int) -> Renewed:
        """Extend leases; a body that outlived its outcome still has one."""
        lost: list[str] = []
        cancelled: list[str] = []
        for renewal in renewals:
            job = self.jobs.get(renewal.job_id)
            if job is None or job.attempt != renewal.attempt or job.owner != owner:
                lost.append(renewal.job_id)
                continue
            if renewal.progress is not None:
                job.progress = renewal.progress
            if renewal.checkpoint is not None:
                job.checkpoint = None if renewal.checkpoint is NO_CHECKPOINT else renewal.checkpoint
            self._moved_on(job, renewal)
            if lease_s is not None:
                self.extend(job, now + round(lease_s * NS_PER_S))
            if job.cancel_requested:
                cancelled.append(job.id)
        return Renewed(lost, cancelled)

    @staticmethod
    def _moved_on(job: JobRecord, renewal: Renewal) -> None:
        """Let others see how far a held job is."""
        began, accepted = renewal.running_at_ns, renewal.started_at_ns
        if began is not None and job.state.is_held and job.state is not _RUNNING:
            job.state = move(job.state, Move.BEGAN)
            job.running_at_ns = began
            job.started_at_ns = job.started_at_ns or accepted or began
        elif accepted is not None and job.state is JobState.SCHEDULED:
            job.state = move(job.state, Move.ACCEPTED)
            job.started_at_ns = accepted

    def rescue(self, job: JobRecord, now: int) -> None:
        """Take back a job whose lease ran out: its worker is gone."""
        if job.zombie:
            self.bury(job, now)
            return
        if not job.state.is_held:
            return
        job.rescues += 1
        if job.rescues > job.options.max_rescues:
            times = "once" if job.rescues == 1 else f"{job.rescues} times"
            reason = f"its worker died, or lost its body, {times} (max_rescues={job.options.max_rescues})"
            self.end_here(job, Move.LOST, now, reason)
        elif job.cancel_requested:
            self.end_here(job, Move.CANCELLED, now, f"{job.reason or 'cancelled'}; its worker died")
        else:
            self.back(job, Move.LEASE_EXPIRED, now, 0, "its worker's lease ran out")

    # -- out -------------------------------------------------------------------------

    def finish(self, finishes: Sequence[Finish], now: int) -> list[JobState | None]:
        """Record how attempts ended; return the state each job has now, None where its lease had moved on."""
        states: list[JobState | None] = []
        back = False
        jobs, answer = self.jobs, states.append
        for finish in finishes:
            # All at once: reading twelve fields of a named tuple by name costs half a microsecond.
            job_id, attempt, owner, kind, at_ns, started_ns, running_ns, result, error, reason, _, zombie = finish
            job = jobs.get(job_id)
            if job is None or job.attempt != attempt or job.owner != owner or not job.state.is_held:
                answer(None)
                continue
            job.started_at_ns, job.running_at_ns = started_ns, running_ns
            if job.state is not _RUNNING and (running_ns is not None or kind is FinishKind.DONE):
                job.state = _RUNNING  # only now does its holder tell that it began
            how = _FINAL_MOVES.get(kind)
            if how is None:
                self._again(job, finish, now)
                back = True
            else:
                job.result, job.error = result, error
                job.zombie = zombie
                self.end(job, how, now, reason, at_ns)
            answer(job.state)
        if back:
            self.tell(Hint.JOBS)
        return states

    def _again(self, job: JobRecord, finish: Finish, now: int) -> None:
        job.error = finish.error
        if finish.kind is FinishKind.RETRY:
            if not job.failures:
                job.first_due_ns = job.run_at_ns
            job.failures += 1
        if job.cancel_requested:
            self.end(job, Move.CANCELLED, now, finish.reason, finish.at_ns)
        else:
            self.back(job, _BACK_MOVES[finish.kind], now, finish.delay_ns, finish.reason)

    def ended(self, fences: Iterable[Fenced], now: int) -> None:
        """Free what bodies that outlived their outcome still kept; a schedule may have waited for that."""
        for fence in fences:
            job = self.jobs.get(fence.job_id)
            if job is not None and job.zombie and job.attempt == fence.attempt and job.owner == fence.owner:
                self.bury(job, now)

    # -- by request ------------------------------------------------------------------

    def request_cancel(self, job_ids: Sequence[str], reason: str, now: int) -> list[CancelAnswer]:
        """Cancel waiting jobs at once and ask the workers of held ones."""
        answers = [self.cancel_one(job_id, reason, now) for job_id in job_ids]
        asked = [job_id for job_id, a in zip(job_ids, answers, strict=True) if a is CancelAnswer.REQUESTED]
        if asked:
            self.tell(Hint.CANCELS, asked)
        return answers

    def cancel_one(self, job_id: str, reason: str, now: int) -> CancelAnswer:
        """Cancel one job, and leave it to the caller to tell its worker."""
        job = self.jobs.get(job_id)
        if job is None:
            return CancelAnswer.GONE
        if job.state.is_finished:
            return CancelAnswer.FINISHED
        if job.state is _SUBMITTED:
            job.cancel_requested = True
            self.end_here(job, Move.CANCELLED, now, reason or None)
            return CancelAnswer.CANCELLED
        if not job.cancel_requested:  # who asked first is why it ends
            job.cancel_requested = True
            job.reason = reason or None  # its worker, wherever that is, reads it here
        return CancelAnswer.REQUESTED

    def repeat(self, jobs: Iterable[JobRecord], now: int) -> list[str]:
        """Run finished jobs again from the start, those whose unique key is free; return their ids."""
        again: list[str] = []
        for job in jobs:
            if not job.state.is_finished or job.zombie or not self.unique.retake(job, now):
                continue
            again.append(job.id)
            job.state = move(job.state, Move.REPEATED)
            job.failures = job.rescues = 0
            job.cancel_requested = job.delay_born = False
            job.finished_at_ns = job.started_at_ns = job.running_at_ns = None
            job.result = job.error = job.reason = None
            job.run_at_ns = now
            if job.overlap_key is not None:
                self.keys.add(job.overlap_key, job)
            self.enqueue(job, now)
        if again:
            self.tell(Hint.JOBS)
        return again
