"""The peers, awaited from asyncio as their users do: ProcessPoolExecutor, pebble and loky."""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import Executor, ProcessPoolExecutor
from time import perf_counter
from typing import Any

from measure import Meter, answer, batches, options, run

args = options(n=2_000, how="serial", workers=2, pool="stdlib")


def noop() -> None: ...


def make() -> Any:
    if args.pool == "pebble":
        from pebble import ProcessPool  # noqa: PLC0415  # its environment alone has it

        return ProcessPool(max_workers=args.workers, context=multiprocessing.get_context("forkserver"))
    if args.pool == "loky":
        from loky import get_reusable_executor  # noqa: PLC0415  # likewise

        return get_reusable_executor(max_workers=args.workers)
    return ProcessPoolExecutor(args.workers, mp_context=multiprocessing.get_context("forkserver"))


async def main() -> None:
    loop, pool, meter = asyncio.get_running_loop(), make(), Meter()

    def one() -> asyncio.Future[Any]:
        if isinstance(pool, Executor):
            return loop.run_in_executor(pool, noop)
        return asyncio.wrap_future(pool.schedule(noop))

    async def serial(n: int) -> None:
        for _ in range(n):
            await one()

    async def burst(n: int) -> None:
        for _ in range(n // 100):
            await asyncio.gather(*[one() for _ in range(100)])

    began = perf_counter()
    await one()
    first_ms = 1e3 * (perf_counter() - began)
    await burst(100 * args.workers)
    meter.start()
    best_us = await batches(serial if args.how == "serial" else burst, args.n)
    meter.stop()
    answer(
        args,
        {**meter.per(args.n), "best_us": best_us, "first_ms": first_ms},
        "no record, no start, no progress; pickles",
    )
    if isinstance(pool, Executor):
        pool.shutdown()
    else:
        pool.close()
        pool.join()


if __name__ == "__main__":
    run(main, args)
