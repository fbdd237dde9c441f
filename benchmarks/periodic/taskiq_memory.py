"""taskiq's scheduler and broker in one process. Its intervals are whole seconds, one at least."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from taskiq import InMemoryBroker, ScheduledTask, ScheduleSource, TaskiqScheduler
from taskiq.cli.scheduler.run import SchedulerLoop

from grid import Periodic
from measure import run

logging.basicConfig(level=logging.WARNING)
case = Periodic.from_options()
broker = InMemoryBroker(max_async_tasks=max(100, case.args.tasks))


@broker.task(task_name="body")
async def body(task: int) -> None:
    await case.body(task)


class Listed(ScheduleSource):
    """The schedules of this case, from memory."""

    def __init__(self) -> None:
        every = timedelta(seconds=case.args.period)
        self.listed = [
            ScheduledTask(task_name="body", labels={}, args=[task], kwargs={}, schedule_id=str(task), interval=every)
            for task in range(case.args.tasks)
        ]

    async def get_schedules(self) -> list[ScheduledTask]:
        return self.listed


async def main() -> None:
    scheduler = TaskiqScheduler(broker, [Listed()])
    await broker.startup()
    await scheduler.startup()
    # Its first look is at the next whole second, whatever the grid: what fires before the origin is not counted.
    firing = asyncio.create_task(SchedulerLoop(scheduler).run(loop_interval=timedelta(seconds=case.args.period)))
    await case.watch()
    firing.cancel()
    await broker.shutdown()


run(main, case.args)
case.report("its intervals are whole seconds, so it is not in A1")
