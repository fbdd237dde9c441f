"""The part of the store contract's suite that is about chains: schedules that run again after their job's end."""

# ruff: noqa: S101  # assert is how a suite of tests speaks
from __future__ import annotations

from datetime import timedelta
from typing import Any

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
)
from quarterjack.stores.base import Renewal
from quarterjack.triggers import Forever

from ._bench import Bench

try:
    import pytest
except ImportError as error:
    raise MissingExtra("the store contract suite", "testing") from error

__all__ = ["ChainContract"]


class ChainContract:
    """A chain never stops by itself, and never turns on the spot."""

    async def test_schedule_that_runs_after_its_end_is_armed_by_the_outcome(self, b: Bench) -> None:
        """The chain survives any death: finish and re-arm are one step, LOST included."""
        await b.schedule(trigger=Forever(pause=10), options=RunOptions(max_rescues=0))
        for outcome in ("done", "lost"):
            plan = await b.plan()
            assert plan.next_due_ns is None
            await b.store.schedules_fire([plan])
            (row,) = await b.claim(lease_s=30)
            if outcome == "done":
                await b.finish(row.fence)
            else:
                await b.advance(31)
                await b.claim()
            now = await b.store.now_ns()
            (due,) = await b.store.schedules_due(10**12)
            assert due.next_due_ns == now + 10 * NS_PER_S
            await b.advance(10)

    @pytest.mark.parametrize("way", ["ended", "rescued", "forgotten"])
    async def test_chain_waits_for_a_body_that_outlived_its_outcome(self, b: Bench, way: str) -> None:
        """One run after the other means bodies: the next one comes when this one has ended, or its worker died."""
        await b.schedule(trigger=Forever())
        await b.store.schedules_fire([await b.plan()])
        (fence,) = [row.fence for row in await b.claim(lease_s=30)]
        await b.finish(fence, FinishKind.TIMED_OUT, zombie=True)
        assert await b.store.schedules_due(10**12) == []
        await b.advance(1 if way == "forgotten" else 30)
        if way == "ended":
            await b.store.jobs_ended([fence])
        else:
            if way == "forgotten":
                await b.store.jobs_renew(fence.owner, [Renewal(fence.job_id, fence.attempt)], 0.0)
            await b.claim(owner="w2")
        (due,) = await b.store.schedules_due(0)
        assert due.next_due_ns == await b.store.now_ns()

    @pytest.mark.parametrize("mode", ["skip", "queue_one", "queue_latest", "queue_all", "cancel_previous", "allow"])
    async def test_chain_whose_run_was_left_out_goes_on_when_there_is_room(self, b: Bench, mode: Any) -> None:
        """It neither stops for good nor tries again at once, thousands of times a second."""
        await b.schedule(trigger=Forever(), overlap=Overlap(mode, 1 if mode in {"allow", "queue_all"} else None))
        for n in range(2):
            extra = JobRecord(b.ids(), "a", (), {}, RunOptions(), None, Origin("s", 1, n, trigger="manual"))
            await b.store.schedules_trigger("s", extra, "allow")
        ran: list[str] = []
        for _ in range(6):
            await b.advance(1)
            fired = 0
            while await b.store.schedules_due(0):
                await b.store.schedules_fire([await b.plan()])
                fired += 1
                assert fired == 1, "no more than one run between two ends"
            for row in await b.claim(1, lease_s=None):
                ran.append(row.origin.trigger if row.origin is not None else "")
                await b.finish(row.fence)
        assert ran.count("schedule") >= 3, "it has not stopped"

    async def test_chain_whose_unique_key_is_taken_goes_on_when_it_is_free(self, b: Bench) -> None:
        """A submitted job with the key is in its way as well; a period's end is known beforehand."""
        await b.schedule(trigger=Forever(), options=RunOptions(unique=Unique("k")))
        await b.put(unique=Unique("k"))
        (row,) = (await b.store.schedules_fire([await b.plan()])).rows
        assert row.state is JobState.SKIPPED
        assert await b.store.schedules_due(10**12) == []
        await b.finish((await b.claim())[0].fence)
        assert [row.id for row in await b.store.schedules_due(1)] == ["s"]
        until = await b.store.now_ns() + 600 * NS_PER_S
        hourly = Unique("h", scope=timedelta(minutes=10))
        await b.put(unique=hourly)
        await b.schedule("t", trigger=Forever(), options=RunOptions(unique=hourly))
        await b.store.schedules_fire([await b.plan("t")])
        assert [row.next_due_ns for row in await b.store.schedules_due(10**15) if row.id == "t"] == [until]

    async def test_old_run_that_is_repeated_begins_no_second_chain(self, b: Bench) -> None:
        """Only the end of the newest occurrence makes the next one."""
        await b.schedule(trigger=Forever(), overlap=Overlap("allow"))
        await b.store.schedules_fire([await b.plan()])
        (old,) = await b.claim(lease_s=None)
        await b.finish(old.fence, FinishKind.FAILED)
        await b.advance(1)
        await b.store.schedules_fire([await b.plan()])
        (newest,) = await b.claim(lease_s=None)
        await b.store.jobs_retry(JobFilter(states=frozenset({JobState.FAILED})))
        (again,) = await b.claim(lease_s=None)
        await b.finish(again.fence)
        assert await b.store.schedules_due(10**12) == []
        await b.finish(newest.fence)
        assert len(await b.store.schedules_due(10**12)) == 1

    async def test_chain_put_anew_is_not_armed_by_the_runs_of_the_old_one(self, b: Bench) -> None:
        """The id is the same, the schedule is not."""
        await b.schedule(trigger=Forever(), overlap=Overlap("allow"))
        await b.store.schedules_fire([await b.plan()])
        (old,) = await b.claim(lease_s=None)
        await b.advance(1)
        await b.store.schedules_remove(["s"])
        await b.schedule(trigger=Forever(), overlap=Overlap("allow"))
        await b.store.schedules_fire([await b.plan()])
        await b.finish(old.fence)
        assert await b.store.schedules_due(10**12) == []
        await b.finish((await b.claim(lease_s=None))[0].fence)
        assert len(await b.store.schedules_due(10**12)) == 1

    @pytest.mark.parametrize("mode", ["queue_latest", "cancel_previous"])
    async def test_chains_that_replace_each_other_do_not_turn_on_the_spot(self, b: Bench, mode: Any) -> None:
        """A run that was replaced before it began comes back when the key has room, not at once."""
        names = ["one", "two", "three"]
        for name in names:
            await b.schedule(name, trigger=Forever(), overlap=Overlap(mode), overlap_key="shared")
        fired = 0
        while (due := await b.store.schedules_due(0)) and fired < 20:
            fired += 1
            await b.store.schedules_fire([await b.plan(due[0].id)])
        assert fired == 3
        for _ in range(5):
            await b.advance(1)
            for job in await b.claim(lease_s=None):
                await b.finish(job.fence)
            await b.advance(1)
            due = await b.store.schedules_due(0)
            assert {row.id for row in due} == set(names), "none has stopped"
            for row in due:
                await b.store.schedules_fire([await b.plan(row.id)])

    async def test_chain_that_had_come_to_its_end_goes_on_when_it_is_given_more(self, b: Bench) -> None:
        """There is no end of a run left to arm it."""
        for runs in (1, 2, 3):
            await b.schedule(trigger=Forever(), max_runs=runs)
            assert len(await b.store.schedules_due(0)) == 1
            await b.store.schedules_fire([await b.plan()])
            await b.schedule(trigger=Forever(), max_runs=runs)
            assert await b.store.schedules_due(0) == [], "it runs"
            await b.finish((await b.claim(lease_s=None))[0].fence)
            assert await b.store.schedules_due(10**12) == []
            await b.advance(1)

    async def test_parked_chain_is_not_armed_by_its_last_run(self, b: Bench) -> None:
        """Parked is parked, until somebody changes it."""
        await b.schedule(trigger=Forever())
        await b.store.schedules_fire([await b.plan()])
        await b.store.schedules_park("s", "broken")
        await b.finish((await b.claim(lease_s=None))[0].fence)
        assert await b.store.schedules_due(10**12) == []
        await b.schedule(trigger=Forever(), args=(1,))
        assert len(await b.store.schedules_due(1)) == 1
