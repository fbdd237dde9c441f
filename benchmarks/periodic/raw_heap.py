"""A hand-written scheduler: one heap of dues, one ``loop.call_at`` for the earliest, a task per start."""

from __future__ import annotations

import asyncio
import heapq

from grid import Periodic
from measure import run

case = Periodic.from_options()


class Heap:
    """What ours is compared with: nothing is recorded, nothing is limited, nothing can be cancelled."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        first = case.monotonic_origin(loop.time())
        self.dues = [(first, task) for task in range(case.args.tasks)]
        self.running: set[asyncio.Task[None]] = set()
        self.timer = loop.call_at(first, self.fire)

    def fire(self) -> None:
        now, dues, loop = self.loop.time(), self.dues, self.loop
        while dues[0][0] <= now:
            due, task = dues[0]
            heapq.heapreplace(dues, (due + case.args.period, task))
            body = loop.create_task(case.body(task))
            self.running.add(body)
            body.add_done_callback(self.running.discard)
        self.timer = loop.call_at(dues[0][0], self.fire)


async def main() -> None:
    heap = Heap(asyncio.get_running_loop())
    await case.watch()
    heap.timer.cancel()


run(main, case.args)
case.report()
