"""`FixedDelay`: a pause between runs, in an app."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from quarterjack import Every, FixedDelay, InvalidTrigger, JobState, NotPeriodic, Quarterjack, Retry
from quarterjack.testing import virtual_time
from tests.app.kit import START, Boom


async def test_each_run_begins_a_delay_after_the_last_ones_end() -> None:
    """Never two at once, never a burst: what `while True: work(); sleep(300)` means, but it survives failures."""
    app = Quarterjack()
    took = iter([60, 0, 600, 30])

    @app.task(FixedDelay(minutes=5))
    async def poll() -> None:
        await asyncio.sleep(next(took))

    async with virtual_time(app, start=START) as world:
        await world.run_for("30m")
    assert [run[11:16] for run in world.runs(poll)] == ["09:05", "09:11", "09:16"]


async def test_the_chain_goes_on_after_failures_retries_and_timeouts() -> None:
    """Only the final outcome counts, whatever it is."""
    app = Quarterjack()
    runs: list[str] = []

    @app.task(FixedDelay(minutes=5), retry=Retry(on=Exception, attempts=2, base=60, jitter="none"), timeout=30)
    async def poll() -> None:
        runs.append(f"{app.clock.now():%H:%M:%S}")
        if len(runs) <= 2:
            raise Boom
        await asyncio.sleep(3600)

    async with virtual_time(app, start=START) as world:
        await world.run_for("13m")
        assert world.outcomes(poll)[0] == "failed"
        assert runs[:3] == ["09:05:00", "09:06:00", "09:11:00"]


async def test_pause_resume_start_end_and_run_now_keep_one_chain() -> None:
    """It is steered like any schedule."""
    app = Quarterjack()

    @app.task
    async def poll() -> None: ...

    async with virtual_time(app, start=START) as world:
        now = app.clock.now()
        await app.schedule(poll, FixedDelay(minutes=5), id="bounded", start=now + timedelta(minutes=12), max_runs=2)
        await app.schedule(poll, FixedDelay(minutes=5), id="paused")
        await app.pause("paused")
        await world.run_for("7m")
        await app.resume("paused")
        await world.run_for("1s")
        assert [run[11:16] for run in world.runs("paused")] == ["09:07"], "the first run was due and waited"
        await world.run_for("2m")
        await app.trigger_now("paused")
        await world.run_for("4m")
        assert [run[11:16] for run in world.runs("paused")] == ["09:07", "09:09", "09:12"], "an extra run is extra"
        await world.run_for("20m")
        assert [run[11:16] for run in world.runs("bounded")] == ["09:12", "09:17"]


async def test_a_change_of_the_delay_begins_anew() -> None:
    """Another trigger is another generation; the run under way of the old one makes no second chain."""
    app = Quarterjack()

    @app.task
    async def poll() -> None:
        await asyncio.sleep(60)

    async with virtual_time(app, start=START) as world:
        await app.schedule(poll, FixedDelay(minutes=5), id="p")
        await world.run_for("5m 30s")
        await app.update_schedule("p", trigger=FixedDelay(minutes=2))
        await world.run_for("10m")
    assert [run[11:16] for run in world.runs("p")] == ["09:05", "09:07", "09:10", "09:13"]


def test_it_has_no_fire_times_to_list() -> None:
    """When it runs depends on how the last run ended."""
    rule = FixedDelay(minutes=5)
    at = datetime(2026, 1, 1, tzinfo=UTC)
    for ask in (lambda: rule.next(at), lambda: rule.prev(at), lambda: rule.count(at, at + timedelta(hours=1))):
        with pytest.raises(NotPeriodic):
            ask()
    with pytest.raises(InvalidTrigger, match="cannot be combined"):
        _ = rule | Every(hours=1)
    assert rule.explain() == "5 minutes after the last run has ended"
    assert FixedDelay.from_json(rule.to_json()) == rule
    for wrong in ({}, {"seconds": -1}, {"weeks": 20_000}, {"minutes": float("nan")}):
        with pytest.raises(InvalidTrigger):
            FixedDelay(**wrong)


async def test_a_suspended_machine_runs_it_once() -> None:
    """Nothing was missed: the next run depends on the last, and comes as soon as it can."""
    app = Quarterjack()

    @app.task(FixedDelay(hours=1))
    async def poll() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("90m")
        await world.suspend("10h")
        await world.run_for("90m")
        jobs = world.jobs(poll)
    assert [job.state for job in jobs] == [JobState.DONE] * 3
    assert [job.missed_count for job in jobs] == [0, 0, 0]
