"""Plain tasks that wait for an event: what a pending job costs when nothing keeps a record of it."""

from __future__ import annotations

import asyncio

from measure import Memory, answer, options, run

args = options(n=50_000, meter="resident")


async def main() -> None:
    memory, go = Memory(args.meter), asyncio.Event()
    memory.start()
    tasks = [asyncio.create_task(go.wait()) for _ in range(args.n)]
    await asyncio.sleep(0)
    answer(args, memory.per(args.n), "tasks suspended in Event.wait")
    go.set()
    await asyncio.gather(*tasks)


run(main, args)
