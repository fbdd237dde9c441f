"""aiometer: ``run_on_each`` over a list; it has no gate to pass alone, so a pass here is a whole job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import aiometer

from measure import options, run
from passes import at_a_rate, in_a_row

args = options(n=20_000, what="passes", rate=100)


async def noop(number: int) -> None: ...


async def passes(n: int) -> None:
    await aiometer.run_on_each(noop, range(n), max_at_once=10)


async def jobs(body: Callable[[int], Awaitable[None]], n: int) -> None:
    await aiometer.run_on_each(body, range(n), max_per_second=args.rate)


async def main() -> None:
    if args.what == "rate":
        await at_a_rate(args, jobs)
    else:
        await in_a_row(args, passes, "a task per job, at most ten at once")


run(main, args)
