"""The book: all that a store decides, written once for every store.

What a call of the contract *decides* (overlap, unique keys, turns, chains that
re-arm, rescues, counters, rows that are SKIPPED or MISSED, pauses, counts, hints)
stands here, synchronous and pure over rows in memory, with *now* as an argument.
The memory store's book holds every row (`_memory_book`); that of a durable store
holds the few that a call concerns, and writes what has changed (`_part`).

Jobs are in `_book_jobs`, the steps of both halves in `_book_base`; here are schedules."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

from quarterjack import planner
from quarterjack.backfill import Backfill
from quarterjack.declared import Put, judged
from quarterjack.model import JobRecord, Overlap, Schedule, SubmittedBy
from quarterjack.planner import Plan
from quarterjack.policies.overlap import OverlapMode

from ._book_jobs import BookJobs
from ._firing import Firing
from .base import Backfilled, Claim, Fired, Hint

__all__ = ["Book"]


class Book(BookJobs):
    """Jobs and schedules, and every transition of theirs; each call is one of the contract's."""

    def put_schedules(self, schedules: Iterable[Schedule], now: int) -> list[Put]:
        """Insert or update by id; a trigger that raises parks its own row."""
        puts: list[Put] = []
        for schedule in schedules:
            old = self.schedules.get(schedule.id)
            verdict = judged(old, schedule)
            try:
                row = planner.upserted(old, schedule, now)
            except Exception as error:  # a user's trigger runs here; it parks its own schedule and no other
                row = planner.upserted_parked(old, schedule, now, error)
            self.schedules[row.id] = row
            self.chains.revive(row, now)
            puts.append(Put(self.schedules[row.id], verdict))
        self.tell(Hint.SCHEDULES, [put.row.id for put in puts])
        return puts

    def remove_schedules(self, schedule_ids: Sequence[str]) -> int:
        """Delete rows; their jobs stay."""
        removed = [key for key in schedule_ids if self.schedules.pop(key, None) is not None]
        for schedule_id in removed:
            self.forget_occurrences(schedule_id)
        self.tell(Hint.SCHEDULES, removed)
        return len(removed)

    def fire(self, plans: Sequence[Plan], claim: Claim | None, now: int) -> Fired:
        """Make plans true."""
        firing = Firing(self, now, claim)
        rows = [firing.fire(plan) for plan in plans]
        self.free_chains(now)
        if firing.waiting:
            self.tell(Hint.JOBS)
        return Fired(rows, firing.rows, firing.jobs, firing.cancelled, firing.wait_ns)

    def trigger(self, schedule_id: str, job: JobRecord, overlap: str | None, now: int) -> JobRecord | None:
        """Insert one extra job of a schedule under its overlap policy, or *overlap*."""
        row = self.schedules.get(schedule_id)
        if row is None:
            return None
        policy = row.payload.overlap if overlap is None else Overlap(cast("OverlapMode", overlap))
        job.submitted_at_ns = job.run_at_ns = now
        Firing(self, now, None).admit(row, job, policy)
        self.tell(Hint.JOBS)
        return job

    def backfill(self, plan: Backfill, by: SubmittedBy | None, now: int) -> Backfilled | None:
        """Insert the jobs of fire times that have passed, those never made yet."""
        row = self.schedules.get(plan.schedule_id)
        if row is None or row.generation != plan.generation:
            return None
        done = Firing(self, now, None).backfill(row, plan, by)
        self.tell(Hint.JOBS)
        return done

    def pause(self, schedule_id: str, note: str | None, until_ns: int | None, now: int) -> Schedule | None:
        """Stop firing; the cursor stands still."""
        row = self.schedules.get(schedule_id)
        if row is not None:
            row.paused_at_ns = now
            row.pause_note, row.paused_until_ns = note, until_ns
            self.tell(Hint.SCHEDULES, (schedule_id,))
        return row

    def resume(self, schedule_id: str, now: int, *, catch_up: bool) -> Schedule | None:
        """Fire again, from now on or from the cursor. A schedule that is not paused stays as it is."""
        row = self.schedules.get(schedule_id)
        if row is None or row.paused_at_ns is None:
            return row
        row = self.schedules[schedule_id] = planner.resumed(row, now, catch_up=catch_up)
        self.tell(Hint.SCHEDULES, (schedule_id,))
        return row

    def park(self, schedule_id: str, reason: str) -> None:
        """Stop a schedule whose rule is broken, and keep the reason."""
        row = self.schedules.get(schedule_id)
        if row is not None:
            row.parked_reason = reason
            row.next_nominal_ns = row.next_due_ns = None

    def rebase(self, rows: Iterable[Schedule], step_ns: int, now: int) -> None:
        """Put schedules right after the wall clock was set back by *step_ns* (positive)."""
        for row in rows:
            try:
                moved = planner.rebased(row, now, step_ns)
            except Exception as error:  # a user's trigger runs here; it parks its own schedule and no other
                moved = planner.parked(row, error)
            if moved is not None:
                self.schedules[row.id] = moved
