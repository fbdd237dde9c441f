"""The reference: ``asyncio.Semaphore``, one or three within each other; it limits no rate."""

from __future__ import annotations

import asyncio

from measure import options, run
from passes import in_a_row

args = options(n=200_000, what="passes")


async def passes(n: int) -> None:
    one = asyncio.Semaphore(10)
    for _ in range(n):
        async with one:
            pass


async def threefold(n: int) -> None:
    one, two, three = asyncio.Semaphore(10), asyncio.Semaphore(20), asyncio.Semaphore(30)
    for _ in range(n):
        async with one, two, three:
            pass


async def main() -> None:
    await in_a_row(args, threefold if args.what == "threefold" else passes)


run(main, args)
