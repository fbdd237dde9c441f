"""The part of the store contract's suite that is about schedules and their fire times."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

from datetime import datetime, timedelta
from typing import ClassVar

from quarterjack import planner
from quarterjack._durations import NS_PER_S
from quarterjack.errors import MissingExtra
from quarterjack.model import (
    FinishKind,
    JobFilter,
    JobRecord,
    JobState,
    Origin,
    Overlap,
    RunOptions,
    Unique,
    as_datetime,
    lanes_of,
)
from quarterjack.stores.base import Claim, Want
from quarterjack.triggers import Once, Trigger

from ._bench import TASKS, Bench

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the store contract suite", "testing") from error

__all__ = ["ScheduleContract"]


class _Broken(Trigger):
    """A rule of a user's own that raises."""

    def next(self, after: datetime) -> datetime | None:
        del after
        raise ZeroDivisionError("broken")


class _Fickle(Trigger):
    """A rule of a user's own whose code is broken, and mended, while its fields stay as they are."""

    is_broken: ClassVar[bool] = False

    def next(self, after: datetime) -> datetime | None:
        if self.is_broken:
            raise ZeroDivisionError("fickle")
        return after + timedelta(seconds=60)


class ScheduleContract:
    """What the calls about schedules promise, a case for each."""

    async def test_put_schedule_twice_changes_nothing(self, b: Bench) -> None:
        """A restart with the same code is no change."""
        first = (await b.schedule()).copy()
        await b.advance(10)
        again = await b.schedule()
        facts = ("generation", "revision", "cursor_ns", "next_nominal_ns")
        assert [getattr(first, f) for f in facts] == [getattr(again, f) for f in facts]
        changed = await b.schedule(every_s=30)
        assert (changed.generation, changed.revision) == (2, 1)
        payload = await b.schedule(every_s=30, args=(1,))
        assert (payload.generation, payload.revision) == (2, 2)

    async def test_due_returns_what_falls_due_within_the_horizon(self, b: Bench) -> None:
        """Earliest first, paused ones left out."""
        for name, every_s in (("late", 300.0), ("soon", 20.0), ("paused", 10.0), ("mid", 60.0)):
            await b.schedule(name, every_s=every_s)
        await b.store.schedules_pause("paused", None, None)
        assert [row.id for row in await b.store.schedules_due(100 * NS_PER_S)] == ["soon", "mid"]
        assert [row.id for row in await b.store.schedules_due(100 * NS_PER_S, limit=1)] == ["soon"]

    async def test_fire_moves_the_cursor_and_inserts_one_job(self, b: Bench) -> None:
        """An occurrence is one job, ever: the same plan twice loses."""
        await b.schedule()
        await b.advance(60)
        plan = await b.plan()
        fired = await b.store.schedules_fire([plan])
        (job,) = fired.rows
        assert job.origin == Origin("s", 1, plan.nominals[0])
        (row,) = fired.schedules
        assert row is not None
        assert (row.cursor_ns, row.next_nominal_ns) == (plan.cursor_ns, plan.next_nominal_ns)
        again = await b.store.schedules_fire([plan])
        assert (again.schedules, again.rows) == ([None], [])

    async def test_fire_with_a_claim_leases_what_it_inserts(self, b: Bench) -> None:
        """It saves the round trip, and the rest waits."""
        for name in ("s1", "s2"):
            await b.schedule(name)
        await b.advance(60)
        claim = Claim("w1", [Want(("default",), lanes_of(TASKS), 1)], 30.0)
        fired = await b.store.schedules_fire([await b.plan("s1"), await b.plan("s2")], claim)
        assert [job.owner for job in fired.jobs] == ["w1"]
        assert len(fired.rows) == 2
        assert len(await b.claim(owner="w2")) == 1

    async def test_fire_refuses_a_plan_that_comes_early_and_says_how_long(self, b: Bench) -> None:
        """A scheduler whose clock is ahead waits; nothing fires before its time."""
        await b.schedule()
        row = await b.store.schedules_get("s")
        assert row is not None
        assert row.next_due_ns is not None
        plan = planner.plan(row, row.next_due_ns)
        assert plan is not None
        fired = await b.store.schedules_fire([plan])
        assert (fired.schedules, fired.rows) == ([None], [])
        assert fired.wait_ns == row.next_due_ns - await b.store.now_ns()

    async def test_fire_of_a_paused_changed_or_removed_schedule_loses(self, b: Bench) -> None:
        """The plan was made from a row that is no more."""
        for change in ("pause", "trigger", "remove"):
            await b.schedule(change)
        await b.advance(60)
        plans = [await b.plan(name) for name in ("pause", "trigger", "remove")]
        await b.store.schedules_pause("pause", "why", None)
        await b.schedule("trigger", every_s=7)
        assert await b.store.schedules_remove(["remove", "none"]) == 1
        fired = await b.store.schedules_fire(plans)
        assert (fired.schedules, fired.rows) == ([None] * 3, [])

    @pytest.mark.parametrize(
        ("overlap", "expected"),
        [
            (Overlap("skip"), ["scheduled", "skipped", "skipped"]),
            (Overlap("queue_one"), ["scheduled", "submitted", "skipped"]),
            (Overlap("queue_latest"), ["scheduled", "skipped", "submitted"]),
            (Overlap("queue_all"), ["scheduled", "submitted", "submitted"]),
            (Overlap("queue_all", 1), ["scheduled", "submitted", "skipped"]),
            (Overlap("allow"), ["scheduled", "scheduled", "scheduled"]),
            (Overlap("allow", 2), ["scheduled", "scheduled", "skipped"]),
            (Overlap("cancel_previous"), ["scheduled", "cancelled", "submitted"]),
        ],
        ids=str,
    )
    async def test_fire_decides_overlap(self, b: Bench, overlap: Overlap, expected: list[str]) -> None:
        """Against the open jobs of the key, in the same step; serial ones start one at a time."""
        await b.schedule(overlap=overlap)
        for _ in range(3):
            await b.advance(60)
            await b.store.schedules_fire([await b.plan()])
            await b.claim(lease_s=None)
        rows = list(reversed((await b.store.jobs_list(JobFilter())).jobs))
        assert [row.state.value for row in rows] == expected
        assert rows[0].cancel_requested is (overlap.mode == "cancel_previous")

    async def test_next_in_line_has_its_turn_if_the_one_before_is_cancelled(self, b: Bench) -> None:
        """Its turn had come and nobody had claimed it yet: the line must not stand still behind it."""
        await b.schedule(overlap=Overlap("queue_all"))
        for _ in range(3):
            await b.advance(60)
            await b.store.schedules_fire([await b.plan()])
        (first,) = [row.fence for row in await b.claim(lease_s=None)]
        third, second, _ = (await b.store.jobs_list(JobFilter())).jobs
        await b.finish(first)
        await b.store.jobs_request_cancel([second.id])
        assert [row.id for row in await b.claim(lease_s=None)] == [third.id]

    async def test_run_that_fires_as_another_ends_does_not_overtake_those_in_line(self, b: Bench) -> None:
        """The key is free for a moment, but the turn is that of the run that has waited longest."""
        await b.schedule(overlap=Overlap("queue_all"))
        claim = Claim("w1", [Want(("default",), lanes_of(TASKS), 1)], None)
        rows: list[JobRecord] = []
        for _ in range(3):
            await b.advance(60)
            rows += (await b.store.schedules_fire([await b.plan()], claim)).rows
        await b.finish(rows[0].fence)
        await b.advance(60)
        fired = await b.store.schedules_fire([await b.plan()], claim)
        assert fired.jobs == []
        rows += fired.rows
        for row in rows[1:]:
            assert [held.id for held in await b.claim(1, lease_s=None)] == [row.id]
            await b.finish((await b.get(row.id)).fence)

    async def test_left_out_run_says_whose_job_is_in_its_way(self, b: Bench) -> None:
        """With a shared key it need not be one of its own."""
        for name in ("one", "two"):
            await b.schedule(name, overlap_key="shared")
        await b.advance(60)
        (blocker,) = (await b.store.schedules_fire([await b.plan("one")])).rows
        (other,) = (await b.store.schedules_fire([await b.plan("two")])).rows
        await b.advance(60)
        (own,) = (await b.store.schedules_fire([await b.plan("one")])).rows
        assert own.reason == f"job {blocker.id} of the same schedule is still submitted"
        assert other.reason == f"job {blocker.id} of schedule one (overlap_key='shared') is still submitted"

    async def test_schedule_goes_by_the_overlap_key_that_it_has_now(self, b: Bench) -> None:
        """What a store knows of the last fire may save it a look, and must not stand in for one."""
        await b.schedule("one", overlap_key="first")
        await b.schedule("two", overlap_key="second")
        await b.advance(60)
        for name in ("one", "two"):
            await b.store.schedules_fire([await b.plan(name)])
        await b.finish((await b.claim(1))[0].fence)
        await b.schedule("one", overlap_key="second")
        await b.advance(60)
        (row,) = (await b.store.schedules_fire([await b.plan("one")])).rows
        assert (row.state, row.overlap_key) == (JobState.SKIPPED, "second")

    async def test_fired_job_takes_its_unique_key_or_is_left_out(self, b: Bench) -> None:
        """A schedule's jobs are jobs of their task: one unfinished job with the key, whoever asks for the next."""
        unique = Unique("k")
        await b.schedule(options=RunOptions(unique=unique), overlap=Overlap("allow"))
        await b.advance(60)
        (first,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert (await b.put(unique=unique)).id == first.id
        await b.advance(60)
        (second,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert (second.state, second.reason) == (JobState.SKIPPED, f"job {first.id} holds its unique key 'k'")
        await b.finish((await b.claim())[0].fence)
        submitted = await b.put(unique=unique)
        assert submitted.id != first.id
        extra = JobRecord(b.ids(), "a", (), {}, RunOptions(unique=unique), None, Origin("s", 1, 1, trigger="manual"))
        row = await b.store.schedules_trigger("s", extra)
        assert row is not None
        assert (row.state, row.reason) == (JobState.SKIPPED, f"job {submitted.id} holds its unique key 'k'")

    async def test_fired_job_replaces_the_waiting_holder_of_its_key_if_it_says_so(self, b: Bench) -> None:
        """``on_conflict`` means the same for a fire time as for a submit; there is nobody to raise to."""
        unique = Unique("k", on_conflict="replace")
        await b.schedule(options=RunOptions(unique=unique), overlap=Overlap("allow"))
        waiting = await b.put(unique=unique)
        await b.advance(60)
        (fired,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert await b.states([waiting, fired]) == ["cancelled", "submitted"]

    async def test_missed_fire_times_are_one_row(self, b: Bench) -> None:
        """An outage is on record with its size."""
        await b.schedule()
        await b.advance(60 * 5 + 30)
        fired = await b.store.schedules_fire([await b.plan()])
        states = {row.state: row.origin.missed_count for row in fired.rows if row.origin}
        assert states == {JobState.MISSED: 4, JobState.SUBMITTED: 4}
        assert [row.reason for row in fired.rows] == ["4 fire times passed unserved (missed='latest')", None]

    async def test_row_for_missed_fire_times_is_run_again_beside_the_run_of_the_same_instant(self, b: Bench) -> None:
        """The newest of them ran; who wants the others made up for runs the row that stands for them."""
        await b.schedule(overlap=Overlap("allow"))
        await b.advance(60 * 3 + 30)
        fired = await b.store.schedules_fire([await b.plan()])
        missed = next(row for row in fired.rows if row.state is JobState.MISSED)
        assert await b.store.jobs_retry(JobFilter(states=frozenset({JobState.MISSED}))) == [missed.id]
        assert {row.id for row in await b.claim(lease_s=None)} == {row.id for row in fired.rows}

    async def test_fire_time_that_came_too_late_says_which_bound_it_missed(self, b: Bench) -> None:
        """Who wonders why it did not run must not look at the wrong policy."""
        await b.schedule(max_lateness_ns=10 * NS_PER_S)
        await b.advance(60 + 15)
        (row,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert (row.state, row.reason) == (JobState.MISSED, "1 fire time passed unserved (max_lateness=10)")

    async def test_schedule_that_was_over_when_it_was_put_is_one_missed_row(self, b: Bench) -> None:
        """A reminder that came too late is on record, once, and under its own fire time."""
        now = await b.store.now_ns()
        at = as_datetime(now - 60 * NS_PER_S)
        await b.schedule(trigger=Once(at))
        plan = await b.plan()
        (row,) = (await b.store.schedules_fire([plan])).rows
        assert row.origin is not None
        assert (row.state, as_datetime(row.origin.nominal_ns)) == (JobState.MISSED, at)
        assert "was 0:01:00 before the schedule was put" in (row.reason or "")
        assert (await b.store.schedules_fire([plan])).rows == []
        await b.schedule(trigger=Once(at))
        assert await b.store.schedules_due(NS_PER_S) == []

    async def test_resume_goes_on_from_now_or_from_the_cursor(self, b: Bench) -> None:
        """Two meanings of a pause's end."""
        for name in ("now", "cursor"):
            await b.schedule(name)
            await b.store.schedules_pause(name, "note", None)
        await b.advance(200)
        fresh = await b.store.schedules_resume("now", catch_up=False)
        caught = await b.store.schedules_resume("cursor", catch_up=True)
        assert fresh is not None
        assert caught is not None
        now = await b.store.now_ns()
        assert (fresh.next_nominal_ns or 0) > now >= (caught.next_nominal_ns or 0)
        assert await b.store.schedules_resume("none", catch_up=False) is None
        assert await b.store.schedules_pause("none", None, None) is None

    async def test_parked_schedule_fires_no_more(self, b: Bench) -> None:
        """A broken rule is kept with its reason."""
        await b.schedule()
        await b.store.schedules_park("s", "broken")
        await b.advance(60)
        assert await b.store.schedules_due(10**12) == []
        (row,) = await b.store.schedules_list()
        assert row.parked_reason == "broken"

    async def test_rule_that_raises_when_put_parks_its_row_and_keeps_the_history(self, b: Bench) -> None:
        """What ran stays on record, and a better rule goes on where the good one was left."""
        await b.schedule()
        await b.advance(60)
        await b.store.schedules_fire([await b.plan()])
        before = (await b.store.schedules_list())[0]
        broken = await b.schedule(trigger=_Broken())
        assert broken.parked_reason == "its trigger raised ZeroDivisionError: broken"
        assert (broken.next_due_ns, broken.generation) == (None, 2)
        for row in (broken, await b.schedule()):
            facts = ("runs", "cursor_ns", "last_nominal_ns", "created_at_ns")
            assert [getattr(row, f) for f in facts] == [getattr(before, f) for f in facts]
        (mended,) = await b.store.schedules_list()
        assert (mended.parked_reason, mended.generation) == (None, 3)
        assert mended.next_due_ns == await b.store.now_ns() + 60 * NS_PER_S

    async def test_parked_schedule_goes_on_from_now_when_it_is_put_again(self, b: Bench) -> None:
        """Mended code may look the same in every field; what passed while it was broken is not made up for."""
        await b.schedule()
        await b.advance(60)
        await b.store.schedules_fire([await b.plan()])
        await b.store.schedules_park("s", "broken")
        await b.advance(90)
        row = await b.schedule()
        assert (row.parked_reason, row.generation, row.revision) == (None, 1, 1)
        assert (row.next_due_ns or 0) - await b.store.now_ns() == 30 * NS_PER_S

    async def test_rule_that_was_mended_fires_after_a_restart(self, b: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        """A restart puts the same declaration: it stays parked while its code raises, and goes on when it does not."""
        monkeypatch.setattr(_Fickle, "is_broken", True)
        for _ in range(2):
            row = await b.schedule(trigger=_Fickle())
            assert (row.parked_reason, row.generation) == ("its trigger raised ZeroDivisionError: fickle", 1)
        monkeypatch.setattr(_Fickle, "is_broken", False)
        mended = await b.schedule(trigger=_Fickle())
        assert (mended.parked_reason, mended.generation) == (None, 1)
        assert mended.next_due_ns == await b.store.now_ns() + 60 * NS_PER_S

    async def test_trigger_obeys_overlap_and_moves_no_cursor(self, b: Bench) -> None:
        """An extra run is a run."""
        before = (await b.schedule()).cursor_ns
        now = await b.store.now_ns()
        rows: list[JobRecord | None] = []
        for overlap in (None, None, "allow"):
            job = JobRecord(b.ids(), "a", (), {}, RunOptions(), None, Origin("s", 1, now, trigger="manual"))
            rows.append(await b.store.schedules_trigger("s", job, overlap))
        assert [row.state.value for row in rows if row] == ["submitted", "skipped", "submitted"]
        after = await b.store.schedules_get("s")
        assert after is not None
        assert after.cursor_ns == before
        assert await b.store.schedules_trigger("none", b.job(), None) is None

    async def test_failures_in_a_row_pause_a_schedule_that_asks_for_it(self, b: Bench) -> None:
        """In the step that records the last one."""
        await b.schedule(pause_on_failure=2)
        for kind in (FinishKind.FAILED, FinishKind.TIMED_OUT):
            await b.advance(60)
            await b.store.schedules_fire([await b.plan()])
            await b.finish((await b.claim())[0].fence, kind)
        (row,) = await b.store.schedules_list()
        assert (row.paused_at_ns, row.failures_in_a_row) == (await b.store.now_ns(), 2)
