"""What the scripts of job queues over a server share: enqueue, drain and latency, the same for every contender.

Standard library only, as `measure`. A script gives a `Queue`, and `play` measures it.
Jobs are enqueued and worked off by one process; what its server costs is quoted beside it."""

from __future__ import annotations

import argparse
import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Final

from measure import Meter, answer, percentile

__all__ = ["Queue", "play"]

LOOK_S: Final = 0.02
"""How often a drain asks whether all is done."""
IDLE_S: Final = 0.005
"""Between two jobs of the latency case, so that the worker is idle again."""


class Queue(ABC):
    """A contender: how it takes jobs, how it works them off, and how many it has done."""

    def __init__(self) -> None:
        self.done = 0
        self.began: asyncio.Queue[int] = asyncio.Queue()

    async def noop(self) -> None:
        """Be the job of all cases but the latency's: do nothing, and be counted."""
        self.done += 1

    async def stamp(self) -> None:
        """Be the job of the latency case: say when it began."""
        self.began.put_nowait(time.perf_counter_ns())

    @abstractmethod
    async def put(self, name: str = "noop") -> None:
        """Enqueue one job."""

    async def put_lot(self, n: int) -> None:
        """Enqueue *n* no-op jobs in the way that its documentation recommends for many."""
        for _ in range(n):
            await self.put()

    @abstractmethod
    def working(self) -> AbstractAsyncContextManager[object]:
        """Have a worker at work for the length of a block."""

    async def count(self) -> int:
        """Return how many jobs are done; those whose outcome is written down, where it keeps outcomes."""
        return self.done


async def play(args: argparse.Namespace, queue: Queue, server_cpu_us: Callable[[], float], note: str = "") -> None:
    """Measure what ``--how`` asks for: ``one``, ``bulk``, ``drain`` or ``latency``; and print the answer."""
    if args.how == "latency":
        lags = await _latency(queue, args.n)
        metrics = {"p50_ms": percentile(lags, 0.5), "p99_ms": percentile(lags, 0.99), "n": args.n}
    else:
        meter = Meter()
        cpu_us = await (_drain if args.how == "drain" else _enqueue)(args, queue, meter, server_cpu_us)
        metrics = meter.per(args.n) | {"per_s": args.n / meter.wall_s, "server_us_per_job": cpu_us / args.n}
    answer(args, metrics, note)


async def _enqueue(args: argparse.Namespace, queue: Queue, meter: Meter, server_cpu_us: Callable[[], float]) -> float:
    await queue.put()  # what the first call sets up is no part of it
    before = server_cpu_us()
    meter.start()
    if args.how == "one":
        await asyncio.gather(*(_one_by_one(queue, args.n // args.tasks) for _ in range(args.tasks)))
    else:
        await _fill(queue, args.n, args.lot)
    meter.stop()
    return server_cpu_us() - before


async def _one_by_one(queue: Queue, n: int) -> None:
    for _ in range(n):
        await queue.put()


async def _fill(queue: Queue, n: int, lot: int) -> None:
    for _ in range(0, n, lot):
        await queue.put_lot(lot)


async def _drain(args: argparse.Namespace, queue: Queue, meter: Meter, server_cpu_us: Callable[[], float]) -> float:
    await _fill(queue, args.n + args.backlog, args.lot)  # a backlog is there, too, and still there at the end
    before = server_cpu_us()
    meter.start()
    async with queue.working():
        while await queue.count() < args.n:
            await asyncio.sleep(LOOK_S)
        meter.stop()
        return server_cpu_us() - before  # before its connections end, and take what they have used with them


async def _latency(queue: Queue, n: int) -> list[float]:
    """Return the milliseconds from before the enqueueing to the body's first line, sorted."""
    lags: list[float] = []
    async with queue.working():
        await asyncio.sleep(0.5)  # the worker is up, and waits
        for _ in range(n):
            before = time.perf_counter_ns()
            await queue.put("stamp")
            lags.append((await queue.began.get() - before) / 1e6)
            await asyncio.sleep(IDLE_S)
    return sorted(lags)
