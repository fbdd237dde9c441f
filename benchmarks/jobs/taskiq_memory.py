"""taskiq with its in-memory broker: kick every job, wait for all, read each result."""

from __future__ import annotations

import asyncio
import logging

from taskiq import InMemoryBroker

from measure import Meter, answer, options, run

logging.basicConfig(level=logging.WARNING)
args = options(n=100_000, body="noop")
broker = InMemoryBroker(max_stored_results=-1, cast_types=False)


@broker.task
async def noop() -> None: ...


@broker.task
async def once() -> None:
    await asyncio.sleep(0)


async def submit(n: int) -> None:
    body = once if args.body == "once" else noop
    jobs = [await body.kiq() for _ in range(n)]
    await broker.wait_all()
    for job in jobs:
        (await job.get_result()).raise_for_error()


async def main() -> None:
    meter = Meter()
    await broker.startup()
    await submit(1000)
    meter.start()
    await submit(args.n)
    meter.stop()
    await broker.shutdown()
    answer(args, meter.per(args.n), "all results kept, argument casting off")


run(main, args)
