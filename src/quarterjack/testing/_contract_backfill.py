"""The part of the store contract's suite that is about backfills."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

from datetime import timedelta

from quarterjack.backfill import Backfill
from quarterjack.errors import MissingExtra
from quarterjack.model import (
    FinishKind,
    JobFilter,
    JobRecord,
    JobState,
    Origin,
    Overlap,
    RunOptions,
    SubmittedBy,
    Unique,
)
from quarterjack.policies.overlap import OverlapMode

from ._bench import Bench

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the store contract suite", "testing") from error

__all__ = ["BackfillContract"]


class BackfillContract:
    """What ``schedules_backfill`` promises, a case for each."""

    async def test_backfill_inserts_a_job_for_each_fire_time(self, b: Bench) -> None:
        """They are the schedule's jobs, run last and however long they waited; the schedule itself is not touched."""
        options = RunOptions(priority=1, timeout_s=7, start_deadline_s=5, queue="q")
        before = (await b.schedule(options=options, args=(1,), kwargs={"k": 2}, max_runs=1)).copy()
        by = SubmittedBy("me", "s")
        done = await b.store.schedules_backfill(Backfill("s", 1, (10, 20)), by)
        assert done is not None
        now = await b.store.now_ns()
        for row, nominal in zip(done.rows, (10, 20), strict=True):
            assert row.origin == Origin("s", 1, nominal, trigger="backfill")
            assert (row.state, row.run_at_ns, row.submitted_at_ns) == (JobState.SUBMITTED, now, now)
            assert (row.task, row.args, row.kwargs, row.submitted_by) == ("a", (1,), {"k": 2}, by)
            assert (row.priority, row.queue, row.options.timeout_s) == (4, "q", 7)
            assert row.options.start_deadline_s is None
        assert done.new == {row.id for row in done.rows}
        after = await b.store.schedules_get("s")
        assert after is not None
        facts = ("cursor_ns", "next_nominal_ns", "runs", "last_nominal_ns", "generation", "revision")
        assert [getattr(after, fact) for fact in facts] == [getattr(before, fact) for fact in facts]

    async def test_backfill_makes_each_occurrence_once(self, b: Bench) -> None:
        """Whoever asks twice, or for more, gets what there is, in whatever state, and only what is missing is made."""
        await b.schedule()
        first = await b.store.schedules_backfill(Backfill("s", 1, (10, 20)))
        assert first is not None
        await b.finish((await b.claim(1))[0].fence, FinishKind.FAILED)
        more = await b.store.schedules_backfill(Backfill("s", 1, (10, 15, 20)))
        assert more is not None
        assert [row.id for row in more.rows][::2] == [row.id for row in first.rows]
        assert more.new == {more.rows[1].id}
        assert len((await b.store.jobs_list(JobFilter())).jobs) == 3

    async def test_backfill_makes_an_occurrence_once_though_its_row_was_purged(self, b: Bench) -> None:
        """Retention deletes rows, it makes no work; a schedule of the same id that comes later is another one."""
        await b.schedule()
        await b.store.schedules_backfill(Backfill("s", 1, (10,)))
        await b.finish((await b.claim(1))[0].fence)
        await b.advance(100)
        assert await b.store.jobs_purge(timedelta(0)) == 1
        again = await b.store.schedules_backfill(Backfill("s", 1, (10, 20)))
        assert again is not None
        assert ([row.origin for row in again.rows], again.gone) == ([Origin("s", 1, 20, trigger="backfill")], (10,))
        await b.store.schedules_remove(["s"])
        await b.schedule()
        anew = await b.store.schedules_backfill(Backfill("s", 1, (10,)))
        assert anew is not None
        assert len(anew.new) == 1

    async def test_backfill_has_keys_of_its_own(self, b: Bench) -> None:
        """A fire time that the schedule ran itself, or an operator, is run once more."""
        await b.schedule(overlap=Overlap("allow"))
        await b.advance(60)
        plan = await b.plan()
        await b.store.schedules_fire([plan])
        by_hand = JobRecord(b.ids(), "a", (), {}, RunOptions(), None, Origin("s", 1, 7, trigger="manual"))
        await b.store.schedules_trigger("s", by_hand)
        done = await b.store.schedules_backfill(Backfill("s", 1, (7, *plan.nominals)))
        assert done is not None
        assert len(done.new) == 2

    async def test_backfill_of_a_schedule_that_is_another_one_by_now_inserts_nothing(self, b: Bench) -> None:
        """Its fire times are others."""
        await b.schedule()
        await b.schedule(every_s=30)
        assert await b.store.schedules_backfill(Backfill("s", 1, (10,))) is None
        assert await b.store.schedules_backfill(Backfill("none", 1, (10,))) is None
        assert (await b.store.jobs_list(JobFilter())).jobs == []

    async def test_backfill_runs_in_order_and_one_at_a_time_or_side_by_side(self, b: Bench) -> None:
        """It was asked for as a series; its oldest fire time is the first of it."""
        await b.schedule("line")
        await b.schedule("crowd")
        await b.store.schedules_backfill(Backfill("line", 1, (10, 20, 30)))
        served: list[int] = []
        for _ in range(3):
            (row,) = await b.claim()
            served.append(row.origin.nominal_ns if row.origin else 0)
            await b.finish(row.fence)
        assert served == [10, 20, 30]
        await b.store.schedules_backfill(Backfill("crowd", 1, (10, 20, 30), "allow"))
        assert len(await b.claim()) == 3

    @pytest.mark.parametrize("mode", ["skip", "queue_one", "queue_latest", "queue_all", "cancel_previous"])
    async def test_fire_time_is_not_left_out_for_a_backfill_and_goes_before_its_rest(
        self, b: Bench, mode: OverlapMode
    ) -> None:
        """What is due today comes first; two of a schedule that must not overlap still never run at once."""
        await b.schedule(overlap=Overlap(mode))
        await b.store.schedules_backfill(Backfill("s", 1, (10, 20, 30)))
        (running,) = await b.claim(lease_s=None)
        await b.advance(60)
        (fired,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert await b.states([running, fired]) == ["scheduled", "submitted"]
        assert not (await b.get(running.id)).cancel_requested
        assert await b.claim(lease_s=None) == [], "they take turns"
        await b.finish(running.fence)
        (held,) = await b.claim(lease_s=None)
        assert held.id == fired.id
        assert await b.claim(lease_s=None) == []
        await b.finish(held.fence)
        (second,) = await b.claim(lease_s=None)
        assert second.origin == Origin("s", 1, 20, trigger="backfill")

    async def test_due_run_in_line_goes_before_a_backfill_that_has_waited_longer(self, b: Bench) -> None:
        """Aging lets old work pass new work of another kind; between a schedule's runs it does not."""
        await b.schedule(overlap=Overlap("queue_all"))
        await b.store.schedules_backfill(Backfill("s", 1, (10,)))
        await b.advance(60)
        (fired,) = (await b.store.schedules_fire([await b.plan()])).rows
        (today,) = await b.claim(lease_s=None)
        assert today.id == fired.id
        await b.finish(today.fence)
        assert len(await b.claim(lease_s=None)) == 1

    @pytest.mark.parametrize("mode", ["skip", "queue_all"])
    async def test_backfill_waits_for_the_run_that_is_under_way(self, b: Bench, mode: OverlapMode) -> None:
        """A shared key is shared with it as well, whatever the policy that admitted the other."""
        await b.schedule("s", overlap=Overlap(mode), overlap_key="k")
        await b.schedule("other", overlap_key="k")
        await b.advance(60)
        await b.store.schedules_fire([await b.plan()])
        (running,) = await b.claim(lease_s=None)
        await b.store.schedules_backfill(Backfill("other", 1, (10,)))
        assert await b.claim(lease_s=None) == []
        await b.finish(running.fence)
        assert len(await b.claim(lease_s=None)) == 1

    async def test_backfill_whose_unique_key_is_taken_is_left_out(self, b: Bench) -> None:
        """A schedule's jobs are jobs of their task, these too."""
        await b.schedule(options=RunOptions(unique=Unique("k")))
        holder = await b.put(unique=Unique("k"))
        done = await b.store.schedules_backfill(Backfill("s", 1, (10,)))
        assert done is not None
        assert (done.rows[0].state, done.rows[0].reason) == (
            JobState.SKIPPED,
            f"job {holder.id} holds its unique key 'k'",
        )

    async def test_end_of_a_backfill_says_nothing_of_its_schedule(self, b: Bench) -> None:
        """Ten failures of last year's figures are no reason to pause this year's."""
        await b.schedule(pause_on_failure=1)
        await b.store.schedules_backfill(Backfill("s", 1, (10,)))
        await b.finish((await b.claim())[0].fence, FinishKind.FAILED)
        (row,) = await b.store.schedules_list()
        assert (row.paused_at_ns, row.failures_in_a_row, row.last_job_id) == (None, 0, None)

    async def test_repeated_backfill_waits_its_turn_again(self, b: Bench) -> None:
        """Run again, it is as patient as it was."""
        await b.schedule()
        await b.store.schedules_backfill(Backfill("s", 1, (10,)))
        await b.finish((await b.claim())[0].fence, FinishKind.FAILED)
        await b.advance(60)
        await b.store.schedules_fire([await b.plan()])
        (running,) = await b.claim(lease_s=None)
        await b.store.jobs_retry(JobFilter(states=frozenset({JobState.FAILED})))
        assert await b.claim(lease_s=None) == []
        await b.advance(60)
        (left_out,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert (left_out.reason or "").startswith(f"job {running.id} of the same schedule")
        await b.finish(running.fence)
        assert len(await b.claim(lease_s=None)) == 1
