"""An event loop with a thousand timers an hour away and nothing to do."""

from __future__ import annotations

import asyncio

from measure import Wakes, answer, options, run

args = options(schedules=1_000, seconds=65.0)


def noop() -> None: ...


async def main() -> None:
    loop = asyncio.get_running_loop()
    handles = [loop.call_later(3600, noop) for _ in range(args.schedules)]
    answer(args, await Wakes().during(args.seconds))
    for handle in handles:
        handle.cancel()


run(main, args)
