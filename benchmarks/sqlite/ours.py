"""quarterjack on an SQLite file: drain a backlog, submit from many tasks or one by one, latency of a single job."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

from measure import Meter, answer, options, percentile, run
from quarterjack import Quarterjack

args = options(n=20_000, what="drain", tasks=100, synchronous="full", concurrency=100)


def app_on(folder: str, **more: str) -> Quarterjack:
    url = f"sqlite:///{Path(folder) / 'jobs.db'}?synchronous={args.synchronous}"
    return Quarterjack(url, concurrency=args.concurrency, **more)  # type: ignore[arg-type]  # a role


async def drain(folder: str, meter: Meter) -> None:
    """Store all, then start a worker: from its start to the last recorded outcome."""
    client = app_on(folder, role="client")

    @client.task
    async def noop() -> None: ...

    async with client:
        for start in range(0, args.n, 1_000):
            await client.submit_many(noop.bind() for _ in range(start, min(start + 1_000, args.n)))
    worker, done, left = app_on(folder, role="worker"), asyncio.Event(), args.n

    @worker.task(name="noop")
    async def count() -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    meter.start()
    async with worker:
        await done.wait()
    meter.stop()


async def submit(folder: str, meter: Meter) -> None:
    """Submit from as many tasks as asked for, each one job after the other."""
    client = app_on(folder, role="client")

    @client.task
    async def noop() -> None: ...

    async def some(n: int) -> None:
        for _ in range(n):
            await client.submit(noop)

    async with client:
        await some(100)
        meter.start()
        await asyncio.gather(*(some(args.n // args.tasks) for _ in range(args.tasks)))
        meter.stop()


async def latency(folder: str) -> dict[str, float]:
    """Submit one job at a time to an idle app: until its body begins."""
    app = app_on(folder)
    waits: list[float] = []

    @app.task
    async def note(begun: float) -> None:
        waits.append((time.perf_counter() - begun) * 1e3)

    async with app:
        for _ in range(args.n):
            await (await app.submit(note, time.perf_counter()))
            await asyncio.sleep(0.005)
    waits.sort()
    return {"p50_ms": percentile(waits, 0.5), "p99_ms": percentile(waits, 0.99), "max_ms": waits[-1]}


async def main() -> None:
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        note = f"synchronous={args.synchronous}; leases, fencing, outcomes kept"
        if args.what == "latency":
            answer(args, await latency(folder), note)
            return
        await (drain if args.what == "drain" else submit)(folder, meter)
    answer(args, {**meter.per(args.n), "per_second": args.n / meter.wall_s}, note)


run(main, args)
