"""taskiq's scheduler with a thousand tasks an hour away: it looks at all of them every second."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from taskiq import InMemoryBroker, ScheduledTask, ScheduleSource, TaskiqScheduler
from taskiq.cli.scheduler.run import SchedulerLoop

from measure import Wakes, answer, options, run

logging.basicConfig(level=logging.WARNING)
args = options(schedules=1_000, seconds=65.0)
broker = InMemoryBroker()


@broker.task(task_name="noop")
async def noop() -> None: ...


class Listed(ScheduleSource):
    """The schedules of this case, from memory."""

    def __init__(self) -> None:
        later = datetime.now(UTC) + timedelta(hours=1)
        self.listed = [
            ScheduledTask(task_name="noop", labels={}, args=[], kwargs={}, time=later) for _ in range(args.schedules)
        ]

    async def get_schedules(self) -> list[ScheduledTask]:
        return self.listed


async def main() -> None:
    wakes, scheduler = Wakes(), TaskiqScheduler(broker, [Listed()])
    await broker.startup()
    await scheduler.startup()
    firing = asyncio.create_task(SchedulerLoop(scheduler).run())
    await asyncio.sleep(1)
    answer(args, await wakes.during(args.seconds), "loop interval 1 s, its default")
    firing.cancel()
    await broker.shutdown()


run(main, args)
