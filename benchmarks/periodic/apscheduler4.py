"""APScheduler 4 (pre-release) on asyncio, memory data store, coroutine jobs."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from apscheduler import AsyncScheduler, CoalescePolicy
from apscheduler.datastores.memory import MemoryDataStore
from apscheduler.eventbrokers.local import LocalEventBroker
from apscheduler.triggers.interval import IntervalTrigger

from grid import Periodic
from measure import SECOND, run

logging.basicConfig(level=logging.WARNING)
case = Periodic.from_options()


async def body(task: int) -> None:
    await case.body(task)


async def main() -> None:
    start = datetime.fromtimestamp(case.origin_ns / SECOND, UTC)
    room = max(100, case.args.tasks)
    scheduler = AsyncScheduler(
        MemoryDataStore(), LocalEventBroker(), max_concurrent_jobs=room, cleanup_interval=None, lease_duration=60
    )
    async with scheduler:
        await scheduler.configure_task("body", func=body, job_executor="async", max_running_jobs=room)
        for task in range(case.args.tasks):
            trigger = IntervalTrigger(microseconds=case.period_ns // 1000, start_time=start)
            await scheduler.add_schedule("body", trigger, id=str(task), args=[task], coalesce=CoalescePolicy.all)
        await scheduler.start_in_background()
        await case.watch()
        await scheduler.stop()


run(main, case.args)
case.report()
