"""aioclock: one loop per task that sleeps for a period after each run."""

from __future__ import annotations

import asyncio
import logging
import time

from aioclock import AioClock, Every

from grid import Periodic
from measure import SECOND, run

logging.basicConfig(level=logging.WARNING)
case = Periodic.from_options(own_origin=True)


def register(app: AioClock, task: int) -> None:
    @app.task(trigger=Every(seconds=case.args.period, first_run_strategy="immediate"))
    async def body() -> None:
        await case.body(task)


async def serve(app: AioClock) -> None:
    await asyncio.sleep((case.origin_ns - time.time_ns()) / SECOND)
    await app.serve()


async def main() -> None:
    app = AioClock()
    for task in range(case.args.tasks):
        register(app, task)
    serving = asyncio.create_task(serve(app))
    await case.watch()
    serving.cancel()


run(main, case.args)
case.report("no grid of its own: lag is counted from each task's first start, so a burst at start-up does not show")
