"""APScheduler 3 on asyncio, memory job store, coroutine jobs."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from grid import Periodic
from measure import SECOND, run

logging.basicConfig(level=logging.WARNING)
case = Periodic.from_options()


async def main() -> None:
    scheduler = AsyncIOScheduler(
        jobstores={"default": MemoryJobStore()},
        executors={"default": AsyncIOExecutor()},
        job_defaults={"misfire_grace_time": None, "coalesce": False, "max_instances": 3},
        timezone=UTC,
    )
    start = datetime.fromtimestamp(case.origin_ns / SECOND, UTC)
    trigger = IntervalTrigger(seconds=case.args.period, start_date=start, timezone=UTC)
    for task in range(case.args.tasks):
        scheduler.add_job(case.body, trigger, args=[task])
    scheduler.start()
    await case.watch()
    scheduler.shutdown(wait=False)


run(main, case.args)
case.report()
