"""quarterjack with a thousand hourly schedules, the first an hour away; memory store."""

from __future__ import annotations

import asyncio

from measure import Wakes, answer, options, run
from quarterjack import Every, Quarterjack

args = options(schedules=1_000, seconds=65.0)
app = Quarterjack()


@app.task
async def noop() -> None: ...


async def main() -> None:
    wakes = Wakes()
    async with app:
        for number in range(args.schedules):
            await app.schedule(noop.bind(), Every(hours=1, anchor="start"), id=str(number))
        await asyncio.sleep(1)
        answer(args, await wakes.during(args.seconds), "the clock is looked at every 30 s")


run(main, args)
