"""``loop.call_later``: the least that asyncio keeps for something that is to happen in an hour."""

from __future__ import annotations

import asyncio

from measure import Memory, answer, options, run

args = options(n=50_000, meter="resident")


def noop() -> None: ...


async def main() -> None:
    memory, loop = Memory(args.meter), asyncio.get_running_loop()
    memory.start()
    handles = [loop.call_later(3600, noop) for _ in range(args.n)]
    answer(args, memory.per(args.n), "timer handles, held in a list")
    del handles


run(main, args)
