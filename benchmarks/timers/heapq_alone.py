"""A bare ``heapq`` of (due, number, callback): the floor under every timer structure."""

from __future__ import annotations

import heapq
import random
import time

from measure import SECOND, Meter, answer, options, run

args = options(n=100_000)


def noop() -> None: ...


async def main() -> None:
    base, draws = time.time_ns() + 3600 * SECOND, random.Random(1)
    dues = [base + draws.randrange(SECOND) for _ in range(args.n)]
    heap: list[tuple[int, int, object]] = []
    push, pop = Meter(), Meter()
    push.start()
    for number, due in enumerate(dues):
        heapq.heappush(heap, (due, number, noop))
    push.stop()
    pop.start()
    while heap:
        heapq.heappop(heap)
    pop.stop()
    answer(
        args,
        {"push_us": push.cpu_s / args.n * 1e6, "pop_us": pop.cpu_s / args.n * 1e6, "n": args.n},
        "pop alone, nothing is called",
    )


run(main, args)
