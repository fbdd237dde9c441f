"""Slots that are kept for the runs of schedules: where those go, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

from quarterjack import Every, Job, JobState, LoopThread, Quarterjack
from tests.real_time import LONG_S

HELD = (JobState.SCHEDULED, JobState.RUNNING)


class Disk:
    """An app with a place of two slots, and bodies that stay there."""

    def __init__(self) -> None:
        self.app = Quarterjack(shutdown_grace=0)
        self.place = disk = LoopThread("disk", slots=2)

        @self.app.task(executor=disk)
        async def stay() -> None:
            await asyncio.sleep(LONG_S)

        @self.app.task(executor=disk)
        async def sweep() -> None: ...

        @self.app.task
        async def look() -> None: ...

        self.stay, self.sweep, self.look = stay, sweep, look

    async def two(self) -> list[Job[Any]]:
        """Submit two that stay."""
        return [await self.app.submit(self.stay) for _ in range(2)]

    async def taken(self, jobs: list[Job[Any]]) -> int:
        """Return how many of *jobs* were taken, once a job was that came after them."""
        await (await self.app.submit(self.look))
        return sum([(await job.refresh()).state in HELD for job in jobs])


async def test_slot_is_kept_where_a_schedule_sends_its_runs_and_nowhere_else() -> None:
    """The bug: one hourly tick on the loop left each pool of two processes with one for all submitted jobs."""
    disk = Disk()
    disk.app.task(Every(hours=1), name="elsewhere")(disk.look.__wrapped__)
    async with disk.app:
        assert await disk.taken(await disk.two()) == 2
    disk = Disk()
    disk.app.task(Every(hours=1), name="there", executor=disk.place)(disk.look.__wrapped__)
    async with disk.app:
        jobs = await disk.two()
        assert await disk.taken(jobs) == 1
        assert "kept for schedules" in str(await disk.app.why_waiting(jobs[1]))


async def test_slot_is_kept_as_long_as_there_is_a_schedule_that_needs_it() -> None:
    """It is declared, sent elsewhere and taken away while the app runs."""
    disk = Disk()
    async with disk.app as app:
        await app.schedule(disk.sweep, Every(hours=1), id="hourly")
        await app.schedule(disk.look, Every(hours=1), id="another")
        jobs = await disk.two()
        assert await disk.taken(jobs) == 1
        await app.schedule(disk.look, Every(hours=1), id="hourly")
        async with asyncio.timeout(LONG_S):
            while await disk.taken(jobs) < 2:
                await asyncio.sleep(0.01)
        for job in jobs:
            await job.cancel()
        await app.schedule(disk.sweep, Every(hours=2), id="hourly")
        jobs = await disk.two()
        assert await disk.taken(jobs) == 1
        await app.unschedule("hourly")
        async with asyncio.timeout(LONG_S):
            while await disk.taken(jobs) < 2:
                await asyncio.sleep(0.01)
