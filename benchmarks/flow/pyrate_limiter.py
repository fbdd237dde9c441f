"""pyrate-limiter: ``await limiter.try_acquire_async(…)`` on its in-memory bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate

from measure import options, run
from passes import at_a_rate, in_a_row, one_task_each

args = options(n=50_000, what="passes", rate=100)


async def passes(n: int) -> None:
    limiter = Limiter(InMemoryBucket([Rate(1_000, 1)]))
    for _ in range(n):
        if not await limiter.try_acquire_async("key"):
            raise AssertionError("the limit was met")


async def jobs(body: Callable[[int], Awaitable[None]], n: int) -> None:
    limiter = Limiter(InMemoryBucket([Rate(args.rate, Duration.SECOND)]))

    async def through(number: int, body: Callable[[int], Awaitable[None]]) -> None:
        await limiter.try_acquire_async("key")
        await body(number)

    await one_task_each(through, body, n)


async def main() -> None:
    if args.what == "rate":
        await at_a_rate(args, jobs, "one task per job")
    else:
        await in_a_row(args, passes, "a bucket of 1,000 per millisecond")


run(main, args)
