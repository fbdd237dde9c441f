"""taskiq on a Redis stream, over a Valkey server on this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from taskiq.api import run_receiver_task
from taskiq_redis import RedisStreamBroker

from measure import options, run
from queues import Queue, play
from valkey import server

logging.disable(logging.CRITICAL)
args = options(n=20_000, how="drain", concurrency=100, lot=1_000, tasks=1, backlog=0)


class Taskiq(Queue):
    """A stream with acknowledgements and no result backend, which is its default."""

    def __init__(self, broker: RedisStreamBroker) -> None:
        super().__init__()
        self._broker = broker

        @broker.task(task_name="noop")
        async def noop() -> None:
            await self.noop()

        @broker.task(task_name="stamp")
        async def stamp() -> None:
            await self.stamp()

        self._tasks = {"noop": noop, "stamp": stamp}

    async def put(self, name: str = "noop") -> None:
        await self._tasks[name].kiq()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        work = asyncio.create_task(
            run_receiver_task(self._broker, max_async_tasks=args.concurrency, max_prefetch=args.concurrency)
        )
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def main() -> None:
    with server() as one:
        broker = RedisStreamBroker(one.url)
        await broker.startup()
        await play(args, Taskiq(broker), one.cpu_us, f"{args.concurrency} at once, as many ahead; outcomes not kept")
        await broker.shutdown()


run(main, args)
