"""The loop everybody writes first: run, then sleep for a whole period."""

from __future__ import annotations

import asyncio
import time

from grid import Periodic
from measure import SECOND, run

case = Periodic.from_options(own_origin=True)


async def repeat(task: int) -> None:
    await asyncio.sleep((case.origin_ns - time.time_ns()) / SECOND)
    while True:
        await case.body(task)
        await asyncio.sleep(case.args.period)


async def main() -> None:
    loops = [asyncio.create_task(repeat(task)) for task in range(case.args.tasks)]
    await case.watch()
    for loop in loops:
        loop.cancel()


run(main, case.args)
case.report()
