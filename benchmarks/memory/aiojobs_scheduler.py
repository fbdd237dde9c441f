"""aiojobs with a limit of one: the others wait in its queue."""

from __future__ import annotations

import asyncio

import aiojobs

from measure import Memory, answer, options, run

args = options(n=50_000, meter="resident")


async def main() -> None:
    scheduler = aiojobs.Scheduler(limit=1, pending_limit=0)
    go = asyncio.Event()
    await scheduler.spawn(asyncio.sleep(0))
    memory = Memory(args.meter)
    memory.start()
    jobs = [await scheduler.spawn(go.wait()) for _ in range(args.n)]
    await asyncio.sleep(0)
    answer(args, memory.per(args.n), "coroutines queued behind a limit of 1")
    go.set()
    for job in jobs:
        await job.wait()
    await scheduler.close()


run(main, args)
