"""quarterjack: one schedule per task on the epoch's grid, memory store."""

from __future__ import annotations

from grid import Periodic
from measure import run
from quarterjack import Every, Quarterjack

case = Periodic.from_options(concurrency=0)
app = Quarterjack(concurrency=case.args.concurrency or max(100, case.args.tasks))


@app.task
async def body(task: int) -> None:
    await case.body(task)


async def main() -> None:
    async with app:
        every = Every(milliseconds=case.period_ns // 1_000_000)
        for task in range(case.args.tasks):
            await app.schedule(body.bind(task), every, id=str(task))
        await case.watch()


run(main, case.args)
case.report()
