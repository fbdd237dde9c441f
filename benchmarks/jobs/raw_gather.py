"""The reference: one ``create_task`` per job, all awaited by ``asyncio.gather``."""

from __future__ import annotations

import asyncio

from measure import Meter, answer, options, run

args = options(n=100_000, body="noop")


async def noop() -> None: ...


async def once() -> None:
    await asyncio.sleep(0)


async def submit(n: int) -> None:
    body = once if args.body == "once" else noop
    await asyncio.gather(*[asyncio.create_task(body()) for _ in range(n)])


async def main() -> None:
    meter = Meter()
    await submit(1000)
    meter.start()
    await submit(args.n)
    meter.stop()
    answer(args, meter.per(args.n))


run(main, args)
