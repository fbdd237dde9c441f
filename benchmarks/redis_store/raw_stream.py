"""The floor: a stream and a consumer group by the driver alone, which is what the quick task queues stand on."""

from __future__ import annotations

import asyncio
import time

import redis.asyncio

from measure import Meter, answer, options, percentile, run
from valkey import server, server_cpu_us

args = options(n=20_000, how="drain", lot=1_000, batch=100)
METER = Meter()


async def noop() -> None: ...


async def fill(client: redis.asyncio.Redis) -> None:
    for _ in range(0, args.n, args.lot):
        lot = client.pipeline(transaction=False)
        for _ in range(args.lot):
            lot.xadd("s", {"task": "noop"})
        await lot.execute()


async def enqueue(client: redis.asyncio.Redis) -> None:
    METER.start()
    if args.how == "one":
        for _ in range(args.n):
            await client.xadd("s", {"task": "noop"})
    else:
        await fill(client)
    METER.stop()


async def drain(client: redis.asyncio.Redis) -> None:
    left = args.n
    METER.start()
    while left:
        ((_, entries),) = await client.xreadgroup("g", "me", {"s": ">"}, count=args.batch)
        for _ in entries:
            await noop()
        ids = [entry for entry, _ in entries]
        done = client.pipeline(transaction=False)
        done.xack("s", "g", *ids)
        done.xdel("s", *ids)
        await done.execute()
        left -= len(ids)
    METER.stop()


async def latency(client: redis.asyncio.Redis, other: redis.asyncio.Redis) -> list[float]:
    """Return the milliseconds from before the XADD to the entry's arrival at a reader that waits for it."""
    arrived: asyncio.Queue[int] = asyncio.Queue()

    async def read() -> None:
        for _ in range(args.n):
            await other.xreadgroup("g", "me", {"s": ">"}, count=1, block=5_000)
            arrived.put_nowait(time.perf_counter_ns())

    reader = asyncio.create_task(read())
    lags: list[float] = []
    for _ in range(args.n):
        await asyncio.sleep(0.002)
        before = time.perf_counter_ns()
        await client.xadd("s", {"task": "noop"})
        lags.append((await arrived.get() - before) / 1e6)
    await reader
    return sorted(lags)


async def main() -> None:
    with server() as port:
        async with redis.asyncio.Redis(port=port) as client, redis.asyncio.Redis(port=port) as other:
            await client.xgroup_create("s", "g", mkstream=True)
            if args.how == "latency":
                lags = await latency(client, other)
                answer(args, {"p50_ms": percentile(lags, 0.5), "p99_ms": percentile(lags, 0.99), "n": args.n})
                return
            if args.how == "drain":
                await fill(client)
            before = server_cpu_us(await client.info("cpu"))
            await (drain(client) if args.how == "drain" else enqueue(client))
            cpu = server_cpu_us(await client.info("cpu")) - before
    answer(args, METER.per(args.n) | {"per_s": args.n / METER.wall_s, "server_us_per_job": cpu / args.n})


run(main, args)
