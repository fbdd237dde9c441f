"""procrastinate over a PostgreSQL server on this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from procrastinate import App, PsycopgConnector

from measure import options, run
from postgres import server
from queues import Queue, play

logging.disable(logging.CRITICAL)
args = options(n=20_000, how="drain", concurrency=100, lot=1_000, tasks=1, backlog=0)


class Procrastinate(Queue):
    def __init__(self, app: App) -> None:
        super().__init__()
        self._app = app
        self._tasks = {"noop": app.task(name="noop")(self.noop), "stamp": app.task(name="stamp")(self.stamp)}

    async def put(self, name: str = "noop") -> None:
        await self._tasks[name].defer_async()

    async def put_lot(self, n: int) -> None:
        await self._tasks["noop"].batch_defer_async(*({} for _ in range(n)))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        work = asyncio.create_task(
            self._app.run_worker_async(concurrency=args.concurrency, install_signal_handlers=False)
        )
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work


async def main() -> None:
    with server() as one:
        app = App(connector=PsycopgConnector(conninfo=one.url, max_size=20))
        async with app.open_async():
            await app.schema_manager.apply_schema_async()
            await play(
                args,
                Procrastinate(app),
                one.cpu_us,
                f"{args.concurrency} at once; done jobs stay in the table; fsync on",
            )


run(main, args)
