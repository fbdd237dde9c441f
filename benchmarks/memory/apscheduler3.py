"""APScheduler 3: jobs dated an hour from now in its memory store."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from measure import Memory, answer, options, run

logging.basicConfig(level=logging.WARNING)
args = options(n=10_000, meter="resident")


async def noop() -> None: ...


async def main() -> None:
    scheduler = AsyncIOScheduler(
        jobstores={"default": MemoryJobStore()}, executors={"default": AsyncIOExecutor()}, timezone=UTC
    )
    scheduler.start()
    scheduler.add_job(noop, "date", run_date=datetime.now(UTC) + timedelta(hours=1))
    memory = Memory(args.meter)
    memory.start()
    later = datetime.now(UTC) + timedelta(hours=1)
    jobs = [scheduler.add_job(noop, "date", run_date=later) for _ in range(args.n)]
    answer(args, memory.per(args.n), "dated an hour ahead")
    del jobs
    scheduler.shutdown(wait=False)


run(main, args)
