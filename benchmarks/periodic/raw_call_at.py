"""The careful loop: sleep until an absolute deadline with ``loop.call_at``, start the body, take the next."""

from __future__ import annotations

import asyncio

from grid import Periodic
from measure import run

case = Periodic.from_options()


async def repeat(task: int) -> None:
    loop = asyncio.get_running_loop()
    due, bodies = case.monotonic_origin(loop.time()), set[asyncio.Task[None]]()
    while True:
        turn = loop.create_future()
        loop.call_at(due, turn.set_result, None)
        await turn
        if case.args.body:  # a body of its own task, so that a slow one does not hold up the next tick
            body = loop.create_task(case.body(task))
            bodies.add(body)
            body.add_done_callback(bodies.discard)
        else:
            case.hit(task)
        due += case.args.period


async def main() -> None:
    loops = [asyncio.create_task(repeat(task)) for task in range(case.args.tasks)]
    await case.watch()
    for loop in loops:
        loop.cancel()


run(main, case.args)
case.report()
