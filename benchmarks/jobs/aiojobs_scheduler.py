"""aiojobs: spawn every job, then wait for each."""

from __future__ import annotations

import asyncio

import aiojobs

from measure import Meter, answer, options, run

args = options(n=100_000, body="noop")


async def noop() -> None: ...


async def once() -> None:
    await asyncio.sleep(0)


async def submit(scheduler: aiojobs.Scheduler, n: int) -> None:
    body = once if args.body == "once" else noop
    jobs = [await scheduler.spawn(body()) for _ in range(n)]
    for job in jobs:
        await job.wait()


async def main() -> None:
    meter = Meter()
    async with aiojobs.Scheduler(limit=None) as scheduler:
        await submit(scheduler, 1000)
        meter.start()
        await submit(scheduler, args.n)
        meter.stop()
    answer(args, meter.per(args.n), "no limit; a job is a handle, no record")


run(main, args)
