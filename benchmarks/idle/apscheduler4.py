"""APScheduler 4 (pre-release) with a thousand hourly schedules, the first an hour away."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from apscheduler import AsyncScheduler
from apscheduler.datastores.memory import MemoryDataStore
from apscheduler.eventbrokers.local import LocalEventBroker
from apscheduler.triggers.interval import IntervalTrigger

from measure import Wakes, answer, options, run

logging.basicConfig(level=logging.WARNING)
args = options(schedules=1_000, seconds=65.0)


async def noop() -> None: ...


async def main() -> None:
    wakes = Wakes()
    async with AsyncScheduler(MemoryDataStore(), LocalEventBroker(), cleanup_interval=None) as scheduler:
        await scheduler.configure_task("noop", func=noop, job_executor="async")
        later = datetime.now(UTC) + timedelta(hours=1)
        for number in range(args.schedules):
            await scheduler.add_schedule("noop", IntervalTrigger(hours=1, start_time=later), id=str(number))
        await scheduler.start_in_background()
        await asyncio.sleep(1)
        answer(args, await wakes.during(args.seconds))
        await scheduler.stop()


run(main, args)
