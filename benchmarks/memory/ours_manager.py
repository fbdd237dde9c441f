"""quarterjack's `TaskManager`: jobs behind one that runs. The handles are kept, as the peers' are."""

from __future__ import annotations

import asyncio

from measure import Memory, answer, options, run
from quarterjack import ConcurrencyLimit, TaskManager

args = options(n=50_000, meter="resident")


async def noop() -> None: ...


async def main() -> None:
    async with TaskManager(ConcurrencyLimit(1)) as manager:
        held = manager.submit(asyncio.sleep, 3600)
        await asyncio.sleep(0.01)
        manager.submit(noop)
        memory = Memory(args.meter)
        memory.start()
        jobs = [manager.submit(noop) for _ in range(args.n)]
        answer(args, memory.per(args.n), "queued behind a running job")
        await held.cancel()
        del jobs


run(main, args)
