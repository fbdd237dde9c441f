"""quarterjack's `TaskManager`: no store, a hundred at once, awaited by its own ``gather``."""

from __future__ import annotations

import asyncio

from measure import Meter, answer, options, run
from quarterjack import ConcurrencyLimit, TaskManager, gather

args = options(n=100_000, body="noop", concurrency=100, keys=0)


async def noop() -> None: ...


async def once() -> None:
    await asyncio.sleep(0)


async def of_tenant(tenant: int) -> None: ...


async def submit(n: int) -> None:
    limit = ConcurrencyLimit(args.concurrency, by="tenant" if args.keys else None)
    async with TaskManager(limit) as manager:
        if args.keys:
            await gather([manager.submit(of_tenant, number % args.keys) for number in range(n)])
        else:
            body = once if args.body == "once" else noop
            await gather([manager.submit(body) for _ in range(n)])


async def main() -> None:
    meter = Meter()
    await submit(1000)
    meter.start()
    await submit(args.n)
    meter.stop()
    answer(args, meter.per(args.n), f"at most {args.concurrency} at once" + (", of each key" if args.keys else ""))


run(main, args)
