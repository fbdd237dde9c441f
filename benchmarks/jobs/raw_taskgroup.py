"""A TaskGroup whose tasks share a Semaphore of 100, what most programs write by hand."""

from __future__ import annotations

import asyncio

from measure import Meter, answer, options, run

args = options(n=100_000, body="noop")


async def noop() -> None: ...


async def once() -> None:
    await asyncio.sleep(0)


async def submit(n: int) -> None:
    body, limit = once if args.body == "once" else noop, asyncio.Semaphore(100)

    async def limited() -> None:
        async with limit:
            await body()

    async with asyncio.TaskGroup() as group:
        for _ in range(n):
            group.create_task(limited())


async def main() -> None:
    meter = Meter()
    await submit(1000)
    meter.start()
    await submit(args.n)
    meter.stop()
    answer(args, meter.per(args.n), "at most 100 at once")


run(main, args)
