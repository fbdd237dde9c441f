"""arq over a Valkey server on this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from arq import create_pool, func
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker

from measure import options, run
from queues import Queue, play
from valkey import server

logging.disable(logging.CRITICAL)
args = options(n=20_000, how="drain", concurrency=100, lot=1_000, tasks=1, backlog=0)


class Arq(Queue):
    """Its own jobs, without results as ours; it looks for jobs twice a second, which is its default."""

    def __init__(self, pool: ArqRedis, settings: RedisSettings) -> None:
        super().__init__()
        self._pool, self._settings = pool, settings

    async def put(self, name: str = "noop") -> None:
        await self._pool.enqueue_job(name)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async def noop(_: Any) -> None:
            await self.noop()

        async def stamp(_: Any) -> None:
            await self.stamp()

        functions = [func(noop, name="noop", keep_result=0), func(stamp, name="stamp", keep_result=0)]
        worker = Worker(
            functions, redis_settings=self._settings, max_jobs=args.concurrency, handle_signals=False, keep_result=0
        )
        work = asyncio.create_task(worker.async_run())
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        await worker.close()


async def main() -> None:
    with server() as one:
        settings = RedisSettings(port=one.port)
        pool = await create_pool(settings)
        await play(args, Arq(pool, settings), one.cpu_us, f"{args.concurrency} at once; results not kept")
        await pool.aclose()


run(main, args)
