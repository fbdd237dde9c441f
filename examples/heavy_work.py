"""Heavy work in processes, with a progress bar for each job: the loop stays free, and a crash hurts one job.

Two children count primes, each in a processor of its own. The third job crashes
on purpose in its first attempt; it goes on in a fresh child from where it had
got to. A program needs no `if __name__ == "__main__":` for that.

    python examples/heavy_work.py [limit]
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from quarterjack import Job, ProcessExecutor, Quarterjack, current_job
from quarterjack.events import Event, JobEvent

PARTS = 20
app = Quarterjack(executor=ProcessExecutor(workers=2))
logging.getLogger("quarterjack").setLevel(logging.CRITICAL)


@app.task(timeout=300, retry=2)
def primes(limit: int, crash_at: int = -1) -> int:
    me = current_job()
    part, found = me.last_checkpoint or (0, 0)
    while part < PARTS:
        if part == crash_at and me.attempt == 1:
            os._exit(1)
        low, high = limit * part // PARTS, limit * (part + 1) // PARTS
        found += sum(is_prime(n) for n in range(low, high))
        part += 1
        me.checkpoint((part, found))
        me.progress(part, PARTS, f"{found} primes below {high}")
    return int(found)


def is_prime(n: int) -> bool:
    return n > 1 and all(n % d for d in range(2, int(n**0.5) + 1))


async def show(jobs: list[Job[Any]], events: AsyncIterator[Event]) -> None:
    """Draw a bar for each job, as its progress comes, until all are done."""
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[words]}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar_of = {job: bars.add_task(f"job {n}", total=PARTS, words="") for n, job in enumerate(jobs, 1)}
        async for event in events:
            if isinstance(event, JobEvent):
                for job, bar in bar_of.items():
                    if job.id == event.job_id and job.progress is not None:
                        bars.update(bar, completed=job.progress.done, words=job.progress.text)
            if all(job.state.is_finished for job in jobs):
                return


async def main(limit: int) -> None:
    events = app.events()
    async with app:
        jobs: list[Job[Any]] = [await app.submit(primes, limit), await app.submit(primes, 2 * limit)]
        jobs.append(await app.submit(primes, limit, crash_at=PARTS // 2))
        await show(jobs, events)
        for job in jobs:
            print(f"{await job} primes in {job.attempt} attempt{'s' if job.attempt > 1 else ''}")
    events.close()


asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000))
