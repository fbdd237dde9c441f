"""pgqueuer over a PostgreSQL server on this machine, in batches of 100."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from pgqueuer import QueueManager
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from measure import options, run
from pinned import pinned
from postgres import server
from queues import Queue, play

logging.disable(logging.CRITICAL)
args = options(n=20_000, how="drain", batch=100, lot=1_000, tasks=1, backlog=0, pinned=0)


class PgQueuer(Queue):
    def __init__(self, queries: Any, manager: QueueManager) -> None:
        super().__init__()
        self._queries, self._manager = queries, manager

        @manager.entrypoint("noop")
        async def noop(_: Any) -> None:
            await self.noop()

        @manager.entrypoint("stamp")
        async def stamp(_: Any) -> None:
            await self.stamp()

    async def put(self, name: str = "noop") -> None:
        await self._queries.enqueue(name, None)

    async def put_lot(self, n: int) -> None:
        await self._queries.enqueue(["noop"] * n, [None] * n, [0] * n)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        work = asyncio.create_task(self._manager.run(batch_size=args.batch))
        yield
        self._manager.shutdown.set()
        await asyncio.wait([work], timeout=5)
        work.cancel()


async def main() -> None:
    with server() as one:
        mine, its = await asyncpg.connect(one.url), await asyncpg.connect(one.url)
        queries = Queries(AsyncpgDriver(mine))
        await queries.install()
        queue = PgQueuer(queries, QueueManager(Queries(AsyncpgDriver(its))))
        async with pinned(one.url, args.pinned):
            await play(args, queue, one.cpu_us, f"batches of {args.batch}; done jobs leave a line in its log; fsync on")
        await mine.close()
        await its.close()


run(main, args)
