"""aioclock with a thousand hourly tasks: a thousand sleeping coroutines."""

from __future__ import annotations

import asyncio
import logging

from aioclock import AioClock, Every

from measure import Wakes, answer, options, run

logging.basicConfig(level=logging.WARNING)
args = options(schedules=1_000, seconds=65.0)


async def noop() -> None: ...


async def main() -> None:
    wakes, app = Wakes(), AioClock()
    for _ in range(args.schedules):
        app.task(trigger=Every(hours=1))(noop)
    serving = asyncio.create_task(app.serve())
    await asyncio.sleep(1)
    answer(args, await wakes.during(args.seconds))
    serving.cancel()


run(main, args)
