"""The floor: a stream and a consumer group by the driver alone, which is what the quick task queues stand on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import redis.asyncio

from measure import options, run
from queues import Queue, play
from valkey import server

args = options(n=20_000, how="drain", lot=1_000, batch=100, tasks=1, backlog=0)


class Stream(Queue):
    def __init__(self, client: redis.asyncio.Redis, other: redis.asyncio.Redis) -> None:
        super().__init__()
        self._client, self._other = client, other

    async def put(self, name: str = "noop") -> None:
        await self._client.xadd("s", {"task": name})

    async def put_lot(self, n: int) -> None:
        lot = self._client.pipeline(transaction=False)
        for _ in range(n):
            lot.xadd("s", {"task": "noop"})
        await lot.execute()

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        worker = asyncio.create_task(self._work())
        yield
        worker.cancel()
        await asyncio.wait([worker])

    async def _work(self) -> None:
        while True:
            for _, entries in await self._other.xreadgroup("g", "me", {"s": ">"}, count=args.batch, block=5_000):
                for _, fields in entries:
                    await (self.stamp if fields[b"task"] == b"stamp" else self.noop)()
                ids = [entry for entry, _ in entries]
                done = self._other.pipeline(transaction=False)
                done.xack("s", "g", *ids)
                done.xdel("s", *ids)
                await done.execute()


async def main() -> None:
    with server() as one:
        async with redis.asyncio.Redis(port=one.port) as client, redis.asyncio.Redis(port=one.port) as other:
            await client.xgroup_create("s", "g", mkstream=True)
            await play(args, Stream(client, other), one.cpu_us, "no rows, no outcomes, no leases")


run(main, args)
