"""What the scripts about gates share: uncontended passes in a row, and a thousand jobs at a rate while the loop stalls.

Standard library only, as `measure`."""

from __future__ import annotations

import argparse
import asyncio
import time
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from typing import Final

from measure import Meter, answer

__all__ = ["Starts", "at_a_rate", "in_a_row", "one_task_each"]

STALL_S: Final = 0.030
"""For so long the loop is blocked now and then: an ordinary parse, an ordinary collection."""
BETWEEN_STALLS_S: Final = 0.170


async def in_a_row(args: argparse.Namespace, passes: Callable[[int], Awaitable[object]], note: str = "") -> None:
    """Measure ``await passes(n)``, which goes through the gate *n* times, one after another, and never waits."""
    await passes(1_000)
    meter = Meter()
    meter.start()
    await passes(args.n)
    meter.stop()
    answer(args, meter.per(args.n, "pass"), note)


class Starts:
    """When which job began."""

    def __init__(self) -> None:
        self._moments: list[float] = []
        self._numbers: list[int] = []

    async def body(self, number: int) -> None:
        """Be a job: write down that it begins."""
        self._moments.append(time.perf_counter())
        self._numbers.append(number)

    def metrics(self, cpu_s: float) -> dict[str, float]:
        """Return how long it took, how many began in the fullest second, and how many began before an earlier one."""
        moments, numbers = self._moments, self._numbers
        fullest = max(bisect_left(moments, moment + 1.0) - at for at, moment in enumerate(moments))
        highest, overtaken = -1, 0
        for number in numbers:
            overtaken += number < highest
            highest = max(highest, number)
        return {
            "seconds": moments[-1] - moments[0],
            "fullest": fullest,
            "inversions": overtaken,
            "cpu_ms": cpu_s * 1e3,
            "n": len(moments),
        }


async def at_a_rate(
    args: argparse.Namespace,
    run_all: Callable[[Callable[[int], Awaitable[None]], int], Awaitable[object]],
    note: str = "",
) -> None:
    """Measure ``await run_all(body, n)``, which has ``body(0)`` to ``body(n - 1)`` run at ``--rate`` a second."""
    starts, meter = Starts(), Meter()
    stalling = asyncio.create_task(_stall())
    meter.start()
    await run_all(starts.body, args.n)
    meter.stop()
    stalling.cancel()
    answer(args, starts.metrics(meter.cpu_s), note)


async def _stall() -> None:
    while True:
        await asyncio.sleep(BETWEEN_STALLS_S)
        time.sleep(STALL_S)  # to block the loop is what it is for


async def one_task_each(
    through: Callable[[int, Callable[[int], Awaitable[None]]], Awaitable[None]],
    body: Callable[[int], Awaitable[None]],
    n: int,
) -> None:
    """Start a task for each job, which passes the limiter in ``through``: how peers without a queue do it."""
    await asyncio.gather(*[asyncio.create_task(_as_coroutine(through, number, body)) for number in range(n)])


async def _as_coroutine(
    through: Callable[[int, Callable[[int], Awaitable[None]]], Awaitable[None]],
    number: int,
    body: Callable[[int], Awaitable[None]],
) -> None:
    await through(number, body)
