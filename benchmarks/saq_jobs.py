"""SAQ as a contender of `queues`, over either of its stores."""

from __future__ import annotations

import argparse
import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from saq import Queue as SaqQueue
from saq import Worker

from measure import Server
from queues import Queue, play

__all__ = ["play_saq"]


class Saq(Queue):
    def __init__(self, queue: Any, concurrency: int) -> None:
        super().__init__()
        self._queue, self._concurrency = queue, concurrency

    async def put(self, name: str = "noop") -> None:
        await self._queue.enqueue(name)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async def noop(_: Any) -> None:
            await self.noop()

        async def stamp(_: Any) -> None:
            await self.stamp()

        worker = Worker(self._queue, [("noop", noop), ("stamp", stamp)], concurrency=self._concurrency)
        work = asyncio.create_task(worker.start())
        yield
        await worker.stop()
        await asyncio.wait([work])


async def play_saq(args: argparse.Namespace, one: Server, **more: Any) -> None:
    """Measure SAQ on the server *one*; *more* goes to its queue."""
    logging.disable(logging.CRITICAL)
    queue = SaqQueue.from_url(one.url, **more)
    await queue.connect()
    await play(
        args, Saq(queue, args.concurrency), one.cpu_us, f"{args.concurrency} at once; outcomes kept as by default"
    )
    await queue.disconnect()
