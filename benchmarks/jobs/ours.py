"""quarterjack: ``app.submit`` (or ``submit_many``) and the memory store, awaited by its own ``gather``."""

from __future__ import annotations

import asyncio

from measure import Meter, answer, options, run
from quarterjack import Quarterjack, gather

args = options(n=100_000, body="noop", how="submit", concurrency=100)
app = Quarterjack(concurrency=args.concurrency)


@app.task
async def noop() -> None: ...


@app.task
async def once() -> None:
    await asyncio.sleep(0)


async def submit(n: int) -> None:
    body = once if args.body == "once" else noop
    if args.how == "submit_many":
        jobs = await app.submit_many(body.bind() for _ in range(n))
    else:
        jobs = [await app.submit(body) for _ in range(n)]
    await gather(jobs)


async def main() -> None:
    meter = Meter()
    async with app:
        await submit(1000)
        meter.start()
        await submit(args.n)
        meter.stop()
    answer(args, meter.per(args.n), f"full records; at most {args.concurrency} at once")


run(main, args)
