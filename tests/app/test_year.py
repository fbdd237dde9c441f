"""Long runs on virtual time: a year of hourly ticks, fifty thousand fires, each accounted for."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from quarterjack import At, Cron, Every, Forever, JobState, Overlap, Quarterjack, current_job
from quarterjack.testing import virtual_time


async def test_virtual_year_of_hourly_runs_accounts_for_every_hour() -> None:
    """What a schedule does for a year is known in a second, and no hour is missing, double, early or late."""
    app = Quarterjack()
    told: list[datetime | None] = []

    @app.task(Every(hours=1))
    async def hourly() -> None:
        told.append(current_job().nominal)

    @app.task(Cron("30 2 * * *", tz="Europe/Rome"))
    async def nightly() -> None: ...

    async with virtual_time(app, start="2026-01-01T00:00", record_events=False) as world:
        await world.run_until("2027-01-01T00:00")
        first = datetime(2026, 1, 1, tzinfo=UTC)
        assert told == [first + timedelta(hours=n) for n in range(1, 8761)]
        assert len(world.runs(hourly)) == 8760
        assert {job.lag for job in world.jobs(hourly)} == {0.0}
        assert world.jobs(state=JobState.MISSED) == []
        nights = world.runs(nightly)
        assert len({night[:10] for night in nights}) == len(nights) == 365


async def test_fifty_thousand_fires_of_a_thousand_schedules_are_each_run_once() -> None:
    """Many at one instant are fired in chunks; the chunks must neither drop nor double."""
    app = Quarterjack()

    @app.task
    async def tick(n: int) -> None: ...

    async with virtual_time(app, start="2026-01-01T00:00", record_events=False, strict=False) as world:
        for n in range(1000):
            await app.schedule(tick.bind(n), Every(minutes=10), id=f"s{n}")
        await world.run_for(50 * 600)
        jobs = world.jobs(tick)
        assert len(jobs) == 50_000
        assert set(Counter((job.args, job.nominal) for job in jobs).values()) == {1}
        assert {job.state for job in jobs} == {JobState.DONE}
        assert {job.lag for job in jobs} == {0.0}


@pytest.mark.parametrize("mode", ["skip", "queue_one", "queue_latest", "queue_all", "cancel_previous", "allow"])
async def test_every_fire_time_has_exactly_one_row_in_every_overlap_mode(mode: str) -> None:
    """Run, skipped or cancelled: an hour without a row would be a hole that nobody sees."""
    app = Quarterjack()
    running = most = 0

    @app.task(Every(minutes=10), overlap=Overlap(mode))  # type: ignore[arg-type]
    async def slow() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(60 * (3 + 7 * (current_job().nominal or datetime.now(UTC)).minute // 10 % 23))
        finally:
            running -= 1

    async with virtual_time(app, start="2026-01-01T00:00") as world:
        await world.run_for("10d")
        rows = Counter(job.nominal for job in world.jobs(slow))
        first = datetime(2026, 1, 1, tzinfo=UTC)
        assert rows == {first + timedelta(minutes=10 * n): 1 for n in range(1, 1441)}
        assert mode == "allow" or most == 1


async def test_calendar_of_a_year_in_rome_knows_its_two_odd_days() -> None:
    """Each trigger keeps to its rule across both changes of the clock."""
    app = Quarterjack()

    @app.task(At("02:30", tz="Europe/Rome"))
    async def fixed() -> None: ...

    @app.task(Cron("*/30 * * * *", tz="Europe/Rome"))
    async def elapsed() -> None: ...

    async with virtual_time(app, start="2026-03-28T12:00", tz="Europe/Rome") as world:
        await world.run_for("1d")
        assert world.runs(fixed) == ["2026-03-29T03:00+02:00"]
        assert len(world.runs(elapsed)) == 48
    async with virtual_time(app, start="2026-10-24T12:00", tz="Europe/Rome") as world:
        await world.run_for("25h")
        assert world.runs(fixed) == ["2026-10-25T02:30+02:00"]
        assert len(world.runs(elapsed)) == 50


async def test_forever_accounts_for_a_day() -> None:
    """A chain that re-arms itself never tears."""
    app = Quarterjack()

    @app.task(Forever(pause=3))
    async def loop() -> None:
        await asyncio.sleep(7)

    async with virtual_time(app) as world:
        await world.run_for("1d")
        assert len(world.runs(loop)) == 8640 + 1
