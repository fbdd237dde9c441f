"""Tasks with states, timestamps and callbacks, after async_scheduler.

Quick and slow tasks in one event loop, a blocking one in a thread, urgent ones
on an event loop of their own in a thread of its own, where a slow task of the
main loop cannot delay them. Every move is stamped; a slow task times out, one
is cancelled, the slowest are listed.

    python examples/async_scheduler_states.py
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

from quarterjack import Job, JobError, LoopThread, Quarterjack, current_job

app = Quarterjack()
urgent = LoopThread("urgent")


@app.task
async def fetch(name: str, seconds: float) -> str:
    """Wait as if for the network."""
    await asyncio.sleep(seconds)
    return f"{name} after {seconds} s"


@app.task
def crunch(n: int) -> int:
    """Block, in a thread, and say how far it is."""
    total = 0
    for i in range(n):
        total += i
        if i % (n // 4) == 0:
            current_job().progress(i, n, "adding")
        if current_job().cancel_requested:
            break
    return total


@app.task(executor=urgent)
async def alarm(text: str) -> str:
    """Answer at once, whatever the main loop does."""
    await asyncio.sleep(0.02)
    return f"{text} on {threading.current_thread().name}"


@app.task(timeout=0.3)
async def too_slow() -> None:
    """Run into its timeout."""
    await asyncio.sleep(10)


@fetch.on_submit
def submitted(job: Job[Any]) -> None:
    """Callbacks hang on states."""
    print(f"  {job.id} {job.task}: submitted")


@fetch.on_done
async def done(job: Job[str]) -> None:
    """They may be coroutine functions."""
    print(f"  {job.id} {job.task}: {job.result()} (lag {(job.lag or 0) * 1e3:.2f} ms, took {job.duration:.3f} s)")


@too_slow.on_timeout
def timed_out(job: Job[Any]) -> None:
    """One callback per state."""
    print(f"  {job.id} {job.task}: {job.reason}")


async def main() -> None:
    """Submit, block the loop, cancel, look."""
    async with app:
        jobs: list[Job[Any]] = [
            await app.submit(fetch, "quick", 0.05),
            await app.submit(fetch, "slow", 0.4),
            await app.submit(crunch, 200_000),
            await app.submit(too_slow),
        ]
        bells = [await app.submit(alarm, f"alarm {n}") for n in range(3)]
        await asyncio.sleep(0.01)
        time.sleep(0.1)  # noqa: ASYNC251  # the main loop is blocked, the urgent one is not
        for bell in bells:
            print(" ", await bell, f"- took {(bell.duration or 0) * 1e3:.0f} ms while the main loop was blocked")
        forgotten = await app.submit(fetch, "forgotten", 60)
        print("  cancelled:", await forgotten.cancel(), forgotten.state.value)
        for job in jobs:
            try:
                await job
            except JobError as error:
                print(f"  {type(error).__name__}: {error}")
        print("the slowest:", ", ".join(f"{job.task} {job.duration or 0:.2f} s" for job in await app.slowest(3)))
        print(await app.dump())


if __name__ == "__main__":
    asyncio.run(main())
