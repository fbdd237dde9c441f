"""The wall clock is set, the machine sleeps: what runs, what does not run twice, and who is told."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quarterjack import At, Cron, Every, Forever, JobState, Quarterjack
from quarterjack.events import ClockJumped
from quarterjack.testing import World, virtual_time
from tests.app.kit import START

HOUR = 3600


def app_with(trigger: Any, **policies: Any) -> Quarterjack:
    app = Quarterjack()

    async def job() -> None: ...

    app.task(trigger, **policies)(job)
    return app


def hours(world: World) -> list[str]:
    return [run[11:16] for run in world.runs("job")]


async def test_clock_set_back_an_hour_runs_no_time_of_day_twice() -> None:
    """The nightly report must not go out twice because somebody corrected the clock."""
    async with virtual_time(app_with(At("09:30") | At("11:00")), start=START) as world:
        await world.run_for("45m")
        await world.step_clock(-HOUR)
        assert world.now.isoformat()[11:16] == "08:45"
        await world.run_until("2026-03-02T12:00")
        assert hours(world) == ["09:30", "11:00"]


async def test_clock_set_back_an_hour_goes_on_with_elapsed_time_at_once() -> None:
    """What runs every ten minutes must not pause for an hour because the clock was corrected."""
    async with virtual_time(app_with(Every(minutes=10)), start=START) as world:
        await world.run_for("15m")
        await world.step_clock(-HOUR)
        await world.run_for("20m")
        assert hours(world) == ["09:10", "08:20", "08:30"]


async def test_clock_set_back_a_day_starts_every_rule_anew() -> None:
    """A clock that was a day ahead was wrong, and nobody wants to wait a day for it."""
    async with virtual_time(app_with(Cron("0 10 * * *")), start=START) as world:
        await world.run_until("2026-03-02T10:30")
        await world.step_clock(-25 * HOUR)
        await world.run_until("2026-03-01T11:00")
        assert world.runs("job") == ["2026-03-02T10:00+00:00", "2026-03-01T10:00+00:00"]


async def test_clock_set_forward_a_day_runs_the_latest_and_records_the_rest() -> None:
    """A day that never was is a day that nobody served: once, and on record."""
    async with virtual_time(app_with(Every(hours=1)), start=START) as world:
        await world.run_for("90m")
        await world.step_clock(24 * HOUR)
        assert world.runs("job") == ["2026-03-02T10:00+00:00", "2026-03-03T10:00+00:00"]
        (row,) = world.jobs(state=JobState.MISSED)
        assert row.missed_count == 23
        await world.run_for("1h")
        assert world.runs("job")[-1] == "2026-03-03T11:00+00:00"


async def test_forever_goes_on_after_the_clock_was_set_back() -> None:
    """A loop with a pause counts elapsed time: it must not sleep through the correction."""
    async with virtual_time(app_with(Forever(pause=60)), start=START) as world:
        await world.run_for("150s")
        before = len(world.jobs(state=JobState.DONE))
        await world.step_clock(-HOUR)
        await world.run_for("120s")
        assert len(world.jobs(state=JobState.DONE)) == before + 2


@pytest.mark.parametrize(("delta", "kind"), [(-HOUR, "step"), (24 * HOUR, "step"), (2 * HOUR, "suspend")])
async def test_jump_is_told_as_what_it_was(delta: int, kind: str) -> None:
    """Who looks at strange lateness later needs to see that the clock did it."""
    async with virtual_time(app_with(Every(minutes=10)), start=START) as world:
        await world.run_for("15m")
        await (world.suspend(delta) if kind == "suspend" else world.step_clock(delta))
        (event,) = [event for event in world.events if isinstance(event, ClockJumped)]
        assert (event.kind, round(event.delta_s)) == (kind, delta)


async def test_suspend_stops_no_timeout_clock() -> None:
    """A body's timeout is working time: a night in sleep must not end it."""
    app = Quarterjack()

    @app.task(timeout=60)
    async def body() -> str:
        await asyncio.sleep(50)
        return "ok"

    async with virtual_time(app, start=START) as world:
        job = await app.submit(body)
        await world.run_for(10)
        await world.suspend("8h")
        assert await job == "ok"
        assert job.duration == 50, "durations are elapsed time, sleep excepted"


async def test_stamps_are_never_negative_however_the_clock_is_set() -> None:
    """Metrics of durations and waits must not go mad on the day the clock is corrected."""
    app = Quarterjack(concurrency=1)

    @app.task
    async def body() -> None:
        await asyncio.sleep(100)

    async with virtual_time(app, start=START) as world:
        jobs = [await app.submit(body) for _ in range(3)]
        await world.run_for(50)
        await world.step_clock(-HOUR)
        await world.run_for(100)
        await world.step_clock(2 * HOUR)
        for job in jobs:
            await job
            assert job.duration == 100
            assert (job.lag or 0) >= 0


async def test_short_steps_fire_nothing_early_and_nothing_twice() -> None:
    """Time servers nudge the clock all day long."""
    async with virtual_time(app_with(Every(seconds=10)), start=START) as world:
        for step in (-0.4, 0.3, -0.9, 0.9, -0.2) * 20:
            await world.run_for(7)
            await world.step_clock(step)
        runs = world.runs("job")
        assert len(runs) == len(set(runs))
        assert all((job.lag or 0) >= 0 for job in world.jobs())
        assert sorted(runs) == runs


async def test_the_run_before_an_error_takes_place() -> None:
    """A rule that fails to name its next fire time parks its schedule; the run that is due has its time already."""
    app = Quarterjack()

    @app.task(At("02:30", tz="Europe/Rome", gap="error"))
    async def report() -> None: ...

    async with virtual_time(app, start="2026-03-27T12:00", tz="Europe/Rome") as world:
        await world.run_until("2026-03-30T12:00")
        assert world.runs(report) == ["2026-03-28T02:30+01:00"]
        (view,) = await app.schedules()
        assert "does not exist" in (view.parked_reason or "")
