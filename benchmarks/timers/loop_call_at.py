"""``loop.call_at``: dues in random order within a millisecond, popped and called by the loop when it comes."""

from __future__ import annotations

import asyncio
import random

from measure import Meter, answer, options, run

args = options(n=100_000, lead=3.0)


def noop() -> None: ...


async def main() -> None:
    loop, draws, push, pop = asyncio.get_running_loop(), random.Random(1), Meter(), Meter()
    base = loop.time() + args.lead
    dues = [base + draws.random() / 1000 for _ in range(args.n)]
    done = loop.create_future()
    push.start()
    for due in dues:
        loop.call_at(due, noop)
    push.stop()
    loop.call_at(base + 0.01, done.set_result, None)
    pop.start()
    await done
    pop.stop()
    answer(
        args, {"push_us": push.cpu_s / args.n * 1e6, "pop_us": pop.cpu_s / args.n * 1e6, "n": args.n}, "pop and call"
    )


run(main, args)
