"""quarterjack's timer: dues in random order within a millisecond, popped and called when it comes."""

from __future__ import annotations

import asyncio
import random

from measure import SECOND, Meter, answer, options, run
from quarterjack.clock import SystemClock
from quarterjack.timer import Timer

args = options(n=100_000, lead=3.0)


def noop() -> None: ...


async def main() -> None:
    clock, draws, push, pop = SystemClock(), random.Random(1), Meter(), Meter()
    timer, done = Timer.shared(clock), asyncio.get_running_loop().create_future()
    base = clock.now_ns() + int(args.lead * SECOND)
    dues = [base + draws.randrange(1_000_000) for _ in range(args.n)]
    push.start()
    for due in dues:
        timer.call_at(due, noop)
    push.stop()
    timer.call_at(base + 10_000_000, lambda: done.set_result(None))
    pop.start()
    await done
    pop.stop()
    timer.release()
    answer(
        args, {"push_us": push.cpu_s / args.n * 1e6, "pop_us": pop.cpu_s / args.n * 1e6, "n": args.n}, "pop and call"
    )


run(main, args)
