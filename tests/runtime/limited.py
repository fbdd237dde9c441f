"""A process of `test_fleet_limits`: works under a limit of four, in rounds or for ever, and writes down when."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from quarterjack import ConcurrencyLimit, TaskManager, fleet, gather

LIMIT = 4


async def rounds(url: str, log: Path, n: int) -> None:
    """Use slots in *n* rounds, in between none; after each job write when it began and ended."""
    limit = ConcurrencyLimit(LIMIT, scope="fleet", name="rounds", batch=1)
    with log.open("a", buffering=1) as file:

        async def use() -> None:
            began = time.monotonic_ns()
            await asyncio.sleep(random.uniform(0.0, 0.004))
            file.write(f"{began} {time.monotonic_ns()} {os.getpid()}\n")

        async with TaskManager(limit, store=url) as manager:
            print("ready", flush=True)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            for _ in range(n):
                await gather([manager.submit(use) for _ in range(random.randint(1, LIMIT))])


async def for_ever(url: str) -> None:
    """Take all slots and keep them."""
    limit = ConcurrencyLimit(LIMIT, scope="fleet", name="kept")
    inside = 0

    async def keep() -> None:
        nonlocal inside
        inside += 1
        if inside == LIMIT:
            print("ready", flush=True)
        await asyncio.Event().wait()

    async with fleet(url, limit, lease=2), TaskManager(limit) as manager:
        for _ in range(LIMIT):
            manager.submit(keep)


if __name__ == "__main__":
    what, at, *rest = sys.argv[1:]
    asyncio.run(rounds(at, Path(rest[0]), int(rest[1])) if what == "rounds" else for_ever(at))
