"""quarterjack on the memory store, bodies on a Celery worker: our own in there, or a task of theirs by its name."""

from __future__ import annotations

from time import perf_counter
from typing import Any

from clusters.theirs import celery, working
from measure import Meter, answer, options, percentile, run
from quarterjack import Quarterjack, gather
from quarterjack.executors.celery import CeleryExecutor, CeleryTask

app = Quarterjack(concurrency=200)
"""The worker's processes import it for its bodies."""


@app.task
def noop() -> None: ...


async def serial(task: Any, n: int) -> list[float]:
    """Return the milliseconds that each took."""
    times: list[float] = []
    for _ in range(n):
        began = perf_counter()
        await (await app.submit(task))
        times.append(1e3 * (perf_counter() - began))
    return sorted(times)


async def burst(task: Any, n: int) -> list[float]:
    """Submit a hundred, await a hundred."""
    for _ in range(n // 100):
        await gather([await app.submit(task) for _ in range(100)])
    return []


async def main() -> None:
    meter, play = Meter(), serial if args.how == "serial" else burst
    with working("clusters.both"):
        executor = CeleryTask("bench.noop", celery) if args.whose == "theirs" else CeleryExecutor(celery)
        async with app:
            task = noop.options(executor=executor)
            await play(task, 200)
            meter.start()
            times = await play(task, args.n)
            meter.stop()
    more = {"p50_ms": percentile(times, 0.5), "p99_ms": percentile(times, 0.99)} if times else {}
    answer(args, {**meter.per(args.n), **more}, "full records" + ("" if args.whose == "theirs" else "; fence, start"))


if __name__ == "__main__":
    args = options(n=1_000, how="serial", whose="ours")
    run(main, args)
