"""Chains: schedules that run again after their job's end.

A chain is always in one of three places: *armed* (its row has a next fire time),
*running* (the job of its newest fire time is open, or its body is), or *held up*
(that job was left out, because others have its overlap key or its unique key).
Each way out is an event of the store: the scheduler fires it, its body ends, or
what holds it up goes away. So it never stops by itself, and never turns on the
spot: between two runs that are left out another job has ended, or was leased."""

from __future__ import annotations

from quarterjack import planner
from quarterjack.model import JobRecord, JobState, Schedule
from quarterjack.policies.overlap import has_room

from ._overlap import OverlapKeys
from ._unique import UniqueKeys

__all__ = ["Chains"]


class Chains:
    """Which chains are held up; `Schedule.held_up_ns` says since which run of theirs."""

    __slots__ = ("_jobs", "_keys", "_schedules", "_unique", "held_up")

    def __init__(
        self, jobs: dict[str, JobRecord], schedules: dict[str, Schedule], keys: OverlapKeys, unique: UniqueKeys
    ) -> None:
        self._jobs = jobs
        self._schedules = schedules
        self._keys = keys
        self._unique = unique
        self.held_up: dict[str, None] = {}
        """Their ids, the longest held up first."""

    def ended(self, row: Schedule, job: JobRecord, now: int) -> bool:
        """The body of *job* has ended, or will never begin; say whether that armed its schedule.

        A job that no worker ever had has not run: it was replaced or cancelled
        where it waited, and what it waited for may still be there.
        """
        origin = job.origin
        if row.next_nominal_ns is not None or origin is None or not planner.is_newest(row, origin):
            return False
        if job.attempt and job.state is not JobState.SKIPPED:
            return self._arm(row, now)
        return self._wait_or_arm(row, now)

    def free(self, now: int) -> list[str]:
        """Something may have made room: arm the chains that have it; return their ids."""
        armed: list[str] = []
        for schedule_id in list(self.held_up):
            del self.held_up[schedule_id]
            row = self._schedules.get(schedule_id)
            if row is None:
                continue
            since, row.held_up_ns = row.held_up_ns, None
            if row.next_nominal_ns is not None or since is None or row.last_nominal_ns != since:
                continue
            if self._wait_or_arm(row, now):
                armed.append(schedule_id)
        return armed

    def revive(self, row: Schedule, now: int) -> bool:
        """A schedule was put anew: go on if it had come to its end, or was parked, and is not running."""
        if row.next_nominal_ns is not None or row.trigger.after_finish_ns is None or row.last_nominal_ns is None:
            row.held_up_ns = None  # it may have waited for room as what it was before
            return False
        return not self._is_open(row) and self._wait_or_arm(row, now)

    def _is_open(self, row: Schedule) -> bool:
        """Say whether the job of its newest fire time is open, or its body is."""
        job = None if row.newest_job_id is None else self._jobs.get(row.newest_job_id)
        if job is None or job.origin is None or not planner.is_newest(row, job.origin):
            return False
        return job.zombie or not job.state.is_finished

    def _wait_or_arm(self, row: Schedule, now: int) -> bool:
        payload = row.payload
        unique = payload.options.unique
        if self._unique.holder(payload.task, unique, now) is not None:
            until = self._unique.until(payload.task, unique)
            if until is not None:
                return self._arm(row, until)
        elif self._has_room(row):
            return self._arm(row, now)
        if row.trigger.after_finish_ns is not None and row.last_nominal_ns is not None:
            self.held_up[row.id] = None
            row.held_up_ns = row.last_nominal_ns
        return False

    def _has_room(self, row: Schedule) -> bool:
        policy = row.payload.overlap
        if policy.mode == "allow" and policy.maximum is None:
            return True
        others = self._keys.open(row.overlap_key)
        waiting = sum(other.state is JobState.SUBMITTED for other in others)
        return has_room(policy.mode, policy.maximum, running=len(others) - waiting, waiting=waiting)

    def _arm(self, row: Schedule, now: int) -> bool:
        row.held_up_ns = None
        try:
            row.next_nominal_ns = row.next_due_ns = planner.rearmed(row, now)
        except Exception as error:  # a user's trigger runs here; it parks its own schedule and no other
            self._schedules[row.id] = planner.parked(row, error)
            return True
        return row.next_due_ns is not None
