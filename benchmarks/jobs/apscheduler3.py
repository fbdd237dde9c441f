"""APScheduler 3: a job without a trigger runs at once. It keeps no results, so its own events are counted."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC

from apscheduler.events import EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.asyncio import AsyncIOExecutor
from apscheduler.jobstores.memory import MemoryJobStore
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from measure import Meter, answer, options, run

logging.basicConfig(level=logging.WARNING)
args = options(n=10_000, body="noop", batch=200)


async def noop() -> None: ...


async def once() -> None:
    await asyncio.sleep(0)


class Countdown:
    """Resolves when as many jobs have run as were asked for."""

    def __init__(self) -> None:
        self.left = 0
        self.done = asyncio.Event()

    def on_executed(self, _event: JobExecutionEvent) -> None:
        self.left -= 1
        if not self.left:
            self.done.set()


async def submit(scheduler: AsyncIOScheduler, countdown: Countdown, n: int) -> None:
    body = once if args.body == "once" else noop
    # Its store is a sorted list: a long queue costs it more per job, so it gets the jobs in batches.
    while n > 0:
        batch = min(n, args.batch)
        countdown.left = batch
        countdown.done.clear()
        for _ in range(batch):
            scheduler.add_job(body)
        await countdown.done.wait()
        n -= batch


async def main() -> None:
    meter, countdown = Meter(), Countdown()
    scheduler = AsyncIOScheduler(
        jobstores={"default": MemoryJobStore()},
        executors={"default": AsyncIOExecutor()},
        job_defaults={"misfire_grace_time": None},
        timezone=UTC,
    )
    scheduler.add_listener(countdown.on_executed, EVENT_JOB_EXECUTED)
    scheduler.start()
    await submit(scheduler, countdown, 1_000)
    meter.start()
    await submit(scheduler, countdown, args.n)
    meter.stop()
    scheduler.shutdown(wait=False)
    answer(args, meter.per(args.n), f"scaled from {args.n:,} jobs in batches of {args.batch:,}; results are not kept")


run(main, args)
