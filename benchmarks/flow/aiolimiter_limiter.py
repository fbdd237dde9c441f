"""aiolimiter: ``async with AsyncLimiter``, a leaky bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiolimiter import AsyncLimiter

from measure import options, run
from passes import at_a_rate, in_a_row, one_task_each

args = options(n=200_000, what="passes", rate=100)


async def passes(n: int) -> None:
    one = AsyncLimiter(1e9, 1)
    for _ in range(n):
        async with one:
            pass


async def threefold(n: int) -> None:
    one, two, three = AsyncLimiter(1e9, 1), AsyncLimiter(1e9, 1), AsyncLimiter(1e9, 1)
    for _ in range(n):
        async with one, two, three:
            pass


async def jobs(body: Callable[[int], Awaitable[None]], n: int) -> None:
    limiter = AsyncLimiter(args.rate, 1)

    async def through(number: int, body: Callable[[int], Awaitable[None]]) -> None:
        async with limiter:
            await body(number)

    await one_task_each(through, body, n)


async def main() -> None:
    if args.what == "rate":
        await at_a_rate(args, jobs, "one task per job")
    else:
        await in_a_row(args, threefold if args.what == "threefold" else passes)


run(main, args)
