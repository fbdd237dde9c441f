"""quarterjack: one gate in a row, three gates in one pass, or jobs at a rate through a `TaskManager`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from measure import options, run
from passes import at_a_rate, in_a_row
from quarterjack import ConcurrencyLimit, Flow, SlidingWindow, TaskManager, TokenBucket, gather
from quarterjack.flow.base import Gate

args = options(n=200_000, what="passes", gate="concurrency", rate=100)


def gate() -> Gate:
    """Return a gate that never closes here."""
    if args.gate == "window":
        return SlidingWindow(1_000, per=1e-4)
    return TokenBucket(rate=1e8, burst=1e8) if args.gate == "bucket" else ConcurrencyLimit(10)


async def passes(n: int) -> None:
    one = gate()
    for _ in range(n):
        async with one:
            pass


async def threefold(n: int) -> None:
    flow = Flow(ConcurrencyLimit(10), ConcurrencyLimit(20), ConcurrencyLimit(30))
    for _ in range(n):
        async with flow.permit():
            pass


async def jobs(body: Callable[[int], Awaitable[None]], n: int) -> None:
    async with TaskManager(SlidingWindow(args.rate, per=1.0)) as manager:
        await gather([manager.submit(body, number) for number in range(n)])  # type: ignore[arg-type]  # a coroutine


async def main() -> None:
    if args.what == "rate":
        await at_a_rate(args, jobs, "TaskManager(SlidingWindow)")
    elif args.what == "threefold":
        await in_a_row(args, threefold, "Flow.permit: taken in one step")
    else:
        await in_a_row(args, passes, f"{args.gate}; the body's start and end are stamped")


run(main, args)
