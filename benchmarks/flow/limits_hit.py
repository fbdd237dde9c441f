"""limits: ``await limiter.hit(…)`` on its memory storage. It answers at once and has no way to wait."""

from __future__ import annotations

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import STRATEGIES

from measure import options, run
from passes import in_a_row

args = options(n=50_000, what="passes", how="moving-window")


async def passes(n: int) -> None:
    limiter = STRATEGIES[args.how](MemoryStorage())
    item = RateLimitItemPerSecond(1_000_000_000 if args.how != "moving-window" else 1_000_000)
    for _ in range(n):
        if not await limiter.hit(item, "key"):
            raise AssertionError("the limit was met")


async def main() -> None:
    await in_a_row(args, passes, args.how)


run(main, args)
