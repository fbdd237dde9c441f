"""The ways to do something every T seconds, after schedule-periodic-task, each in quarterjack's words.

Seven loops that one would write by hand, or take from another library, and what they
become. None of them drifts: fire times come from the rule and the fire time before,
never from "now". ``qj lab drift`` measures the loops beside it.

    python examples/periodic_ways.py
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from quarterjack import Every, FixedDelay, Job, Quarterjack, ticks

T = Every(milliseconds=200)
LENGTH_S = 2.0

app = Quarterjack()
runs: Counter[str] = Counter()
worst_ms: dict[str, float] = {}


def note(way: str, lag_s: float) -> None:
    runs[way] += 1
    worst_ms[way] = max(worst_ms.get(way, 0.0), lag_s * 1e3)


# A thread with a grid of its own, or threading.Timer: a plain function runs in a thread, the grid is the app's.
@app.task(T)
def in_a_thread() -> None:
    time.sleep(0.05)  # blocks that thread, and no tick


# A grid with a new process for each body: a pool of processes, for work that computes. They load this file; the first
# run is late by the time that a process takes to start.
@app.task(T, executor="process")
def in_a_process() -> None:
    sum(range(100_000))


# while True: body(); await asyncio.sleep(T): a coroutine runs on the loop.
@app.task(T)
async def on_the_loop() -> None:
    await asyncio.sleep(0.05)  # the next tick does not wait for it


# sched, one by one: the same when a run takes longer than the period. Ticks in between are skipped, and recorded.
@app.task(T)
async def longer_than_the_period() -> None:
    await asyncio.sleep(0.3)


# A sleep loop that is meant: a pause after each run, not a grid. It has its own name, for it does drift.
@app.task(FixedDelay(seconds=0.2))
async def pause_in_between() -> None:
    await asyncio.sleep(0.05)


@in_a_thread.on_done
@in_a_process.on_done
@on_the_loop.on_done
@longer_than_the_period.on_done
@pause_in_between.on_done
async def note_job(job: Job[None]) -> None:
    """Note a run that is over: its job knows when it was due and when it began."""
    note(job.task, job.lag or 0.0)


async def in_place() -> None:
    """A deadline loop written by hand: the rule as an iterator, in the middle of a program."""
    async for tick in ticks(T):
        note("in_place", tick.lag)
        if tick.index == 5:
            break


async def main() -> None:
    """Let them run side by side, then look."""
    async with app:
        # sched, in advance, or a schedule library's .do(body): a schedule that is made, and removed, at run time.
        made = await app.schedule(on_the_loop.bind(), T, id="made at run time", max_runs=4)
        await asyncio.gather(in_place(), asyncio.sleep(LENGTH_S))
        await app.unschedule(made)
    for way, count in sorted(runs.items()):
        print(f"{way:22} {count:2} runs, at most {worst_ms[way]:6.2f} ms late")


if __name__ == "__main__":
    asyncio.run(main())
