"""A computation on a Dask cluster: pi, added up in parts, each a job with its own retries, timeout and progress.

The second part crashes in its first attempt: nobody else is hurt, and it goes on
from its checkpoint. The last one would take for ever: it is cancelled.

Needs ``pip install "quarterjack[dask]"``. Without an address it starts a cluster of its own on this machine:

    python examples/dask_computation.py [tcp://scheduler:8786]
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Any

import distributed

from quarterjack import JobCancelled, Quarterjack, current_job
from quarterjack.executors.dask import DaskExecutor

PARTS = 4
CHUNKS = 10
app = Quarterjack()
logging.getLogger("quarterjack").setLevel(logging.CRITICAL)


@app.task(timeout=300, retry=2)
def area(part: int, steps: int, crash_at: int = -1) -> tuple[float, int]:
    """Return a part of the area under 4 / (1 + x * x), and in which process it was added up."""
    me = current_job()
    chunk, total = me.last_checkpoint or (0, 0.0)
    while chunk < CHUNKS:
        if chunk == crash_at and me.attempt == 1:
            os._exit(1)
        low = (part * CHUNKS + chunk) * steps // (PARTS * CHUNKS)
        high = (part * CHUNKS + chunk + 1) * steps // (PARTS * CHUNKS)
        total += sum(4 / (1 + ((n + 0.5) / steps) ** 2) for n in range(low, high)) / steps
        chunk += 1
        me.checkpoint((chunk, total))
        me.progress(chunk, CHUNKS, f"part {part}")
    return float(total), os.getpid()


@app.task
def endless() -> None:
    while True:
        pass


async def main(address: str, steps: int = 400_000) -> None:
    dask = DaskExecutor(address)
    on_dask = area.options(executor=dask)
    async with app:
        jobs = [await app.submit(on_dask, part, steps, CHUNKS // 2 if part == 1 else -1) for part in range(PARTS)]
        unwanted = await app.submit(endless.options(executor=dask))
        results = [await job for job in jobs]
        for part, job in enumerate(jobs):
            attempts = "1 attempt" if job.attempt == 1 else f"{job.attempt} attempts"
            print(f"part {part}: {attempts}, {job.progress}")
        print(f"pi is {sum(total for total, _ in results):.9f}")
        print(f"none of it in this process: {os.getpid() not in {process for _, process in results}}")
        await unwanted.cancel()
        try:
            await unwanted
        except JobCancelled:
            print("the endless one was cancelled")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(sys.argv[1]))
    else:
        cluster: Any = distributed.LocalCluster
        with cluster(n_workers=1, threads_per_worker=5, dashboard_address=":0") as here:
            asyncio.run(main(here.scheduler_address))
