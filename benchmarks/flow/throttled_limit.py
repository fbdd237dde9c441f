"""throttled-py: ``await throttle.limit(…)`` on its memory store; at a rate with a timeout, so that it waits."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from throttled.asyncio import MemoryStore, Throttled, per_sec

from measure import options, run
from passes import at_a_rate, in_a_row, one_task_each

args = options(n=50_000, what="passes", strategy="gcra", rate=100)


async def passes(n: int) -> None:
    throttle = Throttled(using=args.strategy, quota=per_sec(10_000_000, burst=10_000_000), store=MemoryStore())
    for _ in range(n):
        if (await throttle.limit("key")).limited:
            raise AssertionError("the limit was met")


async def jobs(body: Callable[[int], Awaitable[None]], n: int) -> None:
    throttle = Throttled(
        using=args.strategy, quota=per_sec(args.rate, burst=args.rate), store=MemoryStore(), timeout=60
    )

    async def through(number: int, body: Callable[[int], Awaitable[None]]) -> None:
        while (await throttle.limit("key")).limited:
            pass
        await body(number)

    await one_task_each(through, body, n)


async def main() -> None:
    if args.what == "rate":
        await at_a_rate(args, jobs, f"{args.strategy}; one task per job")
    else:
        await in_a_row(args, passes, args.strategy)


run(main, args)
