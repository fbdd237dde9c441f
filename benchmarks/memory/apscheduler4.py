"""APScheduler 4 (pre-release): jobs that wait in its memory store, for no scheduler is started to take them."""

from __future__ import annotations

import logging

from apscheduler import AsyncScheduler
from apscheduler.datastores.memory import MemoryDataStore
from apscheduler.eventbrokers.local import LocalEventBroker

from measure import Memory, answer, options, run

logging.basicConfig(level=logging.WARNING)
args = options(n=10_000, meter="resident")


async def noop() -> None: ...


async def main() -> None:
    async with AsyncScheduler(MemoryDataStore(), LocalEventBroker(), cleanup_interval=None) as scheduler:
        await scheduler.configure_task("noop", func=noop, job_executor="async")
        await scheduler.add_job("noop")
        memory = Memory(args.meter)
        memory.start()
        jobs = [await scheduler.add_job("noop") for _ in range(args.n)]
        answer(args, memory.per(args.n), "queued in the data store, scheduler not started; only ids are held")
        del jobs


run(main, args)
