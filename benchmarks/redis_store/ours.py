"""quarterjack over a Valkey server on this machine: enqueued by one process, drained by it, or timed job by job."""

from __future__ import annotations

import asyncio
import time

import redis

from measure import Meter, answer, options, percentile, run
from quarterjack import Quarterjack
from quarterjack._app_base import Role
from quarterjack.task import AsyncTask
from valkey import server, server_cpu_us

args = options(n=20_000, how="drain", concurrency=100, lot=1_000)


def application(port: int, role: Role) -> tuple[Quarterjack, AsyncTask[[], None]]:
    app = Quarterjack(f"redis://127.0.0.1:{port}/0", role=role, concurrency=args.concurrency)

    @app.task(store_result=False)
    async def noop() -> None: ...

    return app, noop


async def fill(app: Quarterjack, noop: AsyncTask[[], None]) -> None:
    for _ in range(0, args.n, args.lot):
        await app.submit_many(noop.bind() for _ in range(args.lot))


async def enqueue(app: Quarterjack, noop: AsyncTask[[], None]) -> None:
    async with app:
        await app.submit(noop)
        METER.start()
        if args.how == "one":
            for _ in range(args.n):
                await app.submit(noop)
        else:
            await fill(app, noop)
        METER.stop()


async def drain(app: Quarterjack, client: redis.Redis) -> None:
    METER.start()
    async with app:
        while client.zcard("{qj}:done") < args.n:
            await asyncio.sleep(0.005)
    METER.stop()


async def latency(app: Quarterjack) -> list[float]:
    """Return the milliseconds from the submit to the body's begin, one job at a time."""
    began: asyncio.Queue[int] = asyncio.Queue()

    @app.task(store_result=False)
    async def stamp() -> None:
        began.put_nowait(time.perf_counter_ns())

    lags: list[float] = []
    async with app:
        for _ in range(args.n):
            before = time.perf_counter_ns()
            await app.submit(stamp)
            lags.append((await began.get() - before) / 1e6)
            await asyncio.sleep(0.002)  # the worker is idle again
    return sorted(lags)


METER = Meter()


async def main() -> None:
    with server() as port, redis.Redis(port=port) as client:
        if args.how == "latency":
            lags = await latency(application(port, "both")[0])
            metrics = {"p50_ms": percentile(lags, 0.5), "p99_ms": percentile(lags, 0.99), "n": args.n}
            answer(args, metrics, "from before the submit to the body's first line, in one process")
            return
        app, noop = application(port, "client")
        if args.how == "drain":
            async with app:
                await fill(app, noop)
            app, _ = application(port, "worker")
        before = server_cpu_us(client.info("cpu"))
        await (drain(app, client) if args.how == "drain" else enqueue(app, noop))
        cpu = server_cpu_us(client.info("cpu")) - before
    metrics = METER.per(args.n) | {"per_s": args.n / METER.wall_s, "server_us_per_job": cpu / args.n}
    answer(args, metrics, f"{args.concurrency} at once; leases, fencing, outcomes and counts kept")


run(main, args)
