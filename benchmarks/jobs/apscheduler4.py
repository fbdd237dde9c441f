"""APScheduler 4 (pre-release): add every job, count its release events, which carry the outcome."""

from __future__ import annotations

import asyncio
import logging

from apscheduler import AsyncScheduler, JobReleased
from apscheduler.datastores.memory import MemoryDataStore
from apscheduler.eventbrokers.local import LocalEventBroker

from measure import Meter, answer, options, run

logging.basicConfig(level=logging.WARNING)
args = options(n=10_000, body="noop", batch=100)


async def noop() -> None: ...


async def once() -> None:
    await asyncio.sleep(0)


class Countdown:
    """Resolves when as many jobs have been released as were asked for."""

    def __init__(self) -> None:
        self.left = 0
        self.done = asyncio.Event()

    async def on_released(self, _event: JobReleased) -> None:
        self.left -= 1
        if not self.left:
            self.done.set()


async def submit(scheduler: AsyncScheduler, countdown: Countdown, n: int) -> None:
    while n > 0:
        batch = min(n, args.batch)
        countdown.left = batch
        countdown.done.clear()
        for _ in range(batch):
            await scheduler.add_job("body")
        await countdown.done.wait()
        n -= batch


async def main() -> None:
    meter, countdown = Meter(), Countdown()
    scheduler = AsyncScheduler(
        MemoryDataStore(), LocalEventBroker(), max_concurrent_jobs=args.batch, cleanup_interval=None, lease_duration=60
    )
    async with scheduler:
        body = once if args.body == "once" else noop
        await scheduler.configure_task("body", func=body, job_executor="async", max_running_jobs=args.batch)
        with scheduler.subscribe(countdown.on_released, {JobReleased}):
            await scheduler.start_in_background()
            await submit(scheduler, countdown, 1_000)
            meter.start()
            await submit(scheduler, countdown, args.n)
            meter.stop()
            await scheduler.stop()
    answer(args, meter.per(args.n), f"scaled from {args.n:,} jobs in batches of {args.batch:,}; results are not kept")


run(main, args)
