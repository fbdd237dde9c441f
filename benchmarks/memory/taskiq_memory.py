"""taskiq in memory: its broker starts a task per job at once, and here each waits for an event."""

from __future__ import annotations

import asyncio

from taskiq import InMemoryBroker

from measure import Memory, answer, options, run

args = options(n=20_000, meter="resident")
broker = InMemoryBroker(max_stored_results=-1, cast_types=False)
go: asyncio.Event


@broker.task
async def wait() -> None:
    await go.wait()


async def main() -> None:
    global go  # noqa: PLW0603  # the event must belong to the running loop, the task stands at module level
    go = asyncio.Event()
    await broker.startup()
    memory = Memory(args.meter)
    memory.start()
    jobs = [await wait.kiq() for _ in range(args.n)]
    await asyncio.sleep(0)
    answer(args, memory.per(args.n), "begun at once, suspended in Event.wait")
    go.set()
    await broker.wait_all()
    del jobs
    await broker.shutdown()


run(main, args)
