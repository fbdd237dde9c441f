"""quarterjack: ``executor="process"`` on the memory store: a job with its whole record, in a child."""

from __future__ import annotations

import asyncio
from time import perf_counter

from measure import SECOND, Meter, answer, batches, options, percentile, run
from quarterjack import Every, ProcessExecutor, Quarterjack, current_job, gather

args = options(n=2_000, how="serial", workers=2, seconds=10.0)
pool = ProcessExecutor(args.workers)
app = Quarterjack(concurrency=200)
lags: list[float] = []


@app.task(executor=pool)
def noop() -> None: ...


@app.task(executor=pool, cancel_grace=0)
def spin() -> None:
    while True:
        pass


async def serial(n: int) -> None:
    for _ in range(n):
        await (await app.submit(noop))


async def burst(n: int) -> None:
    for _ in range(n // 100):
        await gather([await app.submit(noop) for _ in range(100)])


async def lag(how: str) -> dict[str, float]:
    """Return how late ticks are while nothing runs, or while every child spins."""

    async def tick() -> None:
        nominal = current_job().nominal
        if nominal is not None:
            lags.append(app.clock.now_ns() / SECOND - nominal.timestamp())

    app.task(Every(seconds=0.1), overlap="allow")(tick)
    async with app:
        jobs = [await app.submit(spin) for _ in range(args.workers if how == "lag-busy" else 0)]
        await asyncio.sleep(1.0)
        lags.clear()
        await asyncio.sleep(args.seconds)
        found = sorted(1e3 * one for one in lags)
        for job in jobs:
            await job.cancel()
    return {"p50_ms": percentile(found, 0.5), "p99_ms": percentile(found, 0.99), "n": len(found)}


async def main() -> None:
    if args.how.startswith("lag"):
        answer(args, await lag(args.how), f"{args.workers} children")
        return
    meter, play = Meter(), serial if args.how == "serial" else burst
    async with app:
        began = perf_counter()
        await (await app.submit(noop))
        first_ms = 1e3 * (perf_counter() - began)
        await burst(100 * args.workers)  # so that every child has begun
        meter.start()
        best_us = await batches(play, args.n)
        meter.stop()
    answer(args, {**meter.per(args.n), "best_us": best_us, "first_ms": first_ms}, "full records; JSON there and back")


run(main, args)
