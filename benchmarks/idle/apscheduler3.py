"""APScheduler 3 with a thousand hourly jobs, the first an hour away."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from measure import Wakes, answer, options, run

logging.basicConfig(level=logging.WARNING)
args = options(schedules=1_000, seconds=65.0)


async def noop() -> None: ...


async def main() -> None:
    wakes = Wakes()
    scheduler = AsyncIOScheduler(
        jobstores={"default": MemoryJobStore()}, executors={"default": AsyncIOExecutor()}, timezone=UTC
    )
    for _ in range(args.schedules):
        scheduler.add_job(noop, "interval", hours=1)
    scheduler.start()
    await asyncio.sleep(1)
    answer(args, await wakes.during(args.seconds))
    scheduler.shutdown(wait=False)


run(main, args)
