"""quarterjack over a PostgreSQL server on this machine: enqueued by one process, drained by it, or timed job by job."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from measure import Meter, answer, options, percentile, run
from postgres import OwnServer, server, server_cpu_us
from quarterjack import Quarterjack
from quarterjack._app_base import Role
from quarterjack.task import AsyncTask

args = options(n=20_000, how="drain", concurrency=100, lot=1_000, tasks=1)
METER = Meter()


def application(url: str, role: Role) -> tuple[Quarterjack, AsyncTask[[], None]]:
    app = Quarterjack(url, role=role, concurrency=args.concurrency)

    @app.task(store_result=False)
    async def noop() -> None: ...

    return app, noop


async def fill(app: Quarterjack, noop: AsyncTask[[], None]) -> None:
    for _ in range(0, args.n, args.lot):
        await app.submit_many(noop.bind() for _ in range(args.lot))


async def enqueue(app: Quarterjack, noop: AsyncTask[[], None], one: OwnServer) -> float:
    async def some(n: int) -> None:
        for _ in range(n):
            await app.submit(noop)

    async with app:
        await some(1)
        before = server_cpu_us(one)
        METER.start()
        if args.how == "one":
            await asyncio.gather(*(some(args.n // args.tasks) for _ in range(args.tasks)))
        else:
            await fill(app, noop)
        METER.stop()
        return server_cpu_us(one) - before


async def drain(app: Quarterjack, one: OwnServer) -> float:
    connection = await asyncpg.connect(one.url)
    before = server_cpu_us(one)
    METER.start()
    async with app:
        while await connection.fetchval("SELECT count(*) FROM quarterjack.job_history") < args.n:
            await asyncio.sleep(0.02)
        METER.stop()
        cpu = server_cpu_us(one) - before  # before its connections end, and take what they have used with them
    await connection.close()
    return cpu


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
            await asyncio.sleep(0.005)  # the worker is idle again
    return sorted(lags)


async def main() -> None:
    with server() as one:
        if args.how == "latency":
            lags = await latency(application(one.url, "both")[0])
            metrics = {"p50_ms": percentile(lags, 0.5), "p99_ms": percentile(lags, 0.99), "n": args.n}
            answer(args, metrics, "from before the submit to the body's first line, in one process")
            return
        app, noop = application(one.url, "client")
        if args.how == "drain":
            async with app:
                await fill(app, noop)
            app, _ = application(one.url, "worker")
        cpu = await (drain(app, one) if args.how == "drain" else enqueue(app, noop, one))
    metrics = METER.per(args.n) | {"per_s": args.n / METER.wall_s, "server_us_per_job": cpu / args.n}
    answer(args, metrics, f"{args.concurrency} at once; leases, fencing, outcomes and history kept; fsync on")


run(main, args)
