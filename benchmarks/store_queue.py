"""quarterjack over a shared store as a contender of `queues`: a client that enqueues, a worker that drains."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from quarterjack import Quarterjack
from queues import Queue

__all__ = ["StoreQueue"]


class StoreQueue(Queue):
    """Two apps on one store; *recorded* asks it how many jobs are written down as done."""

    def __init__(self, url: str, concurrency: int, recorded: Callable[[], Awaitable[int]]) -> None:
        super().__init__()
        self._recorded = recorded
        self._client = Quarterjack(url, role="client")
        self._worker = Quarterjack(url, role="worker", concurrency=concurrency)
        bodies = {"noop": self.noop, "stamp": self.stamp}
        self._tasks = {name: self._client.task(name=name, store_result=False)(body) for name, body in bodies.items()}
        for name, body in bodies.items():
            self._worker.task(name=name, store_result=False)(body)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[StoreQueue]:
        async with self._client:
            yield self

    async def put(self, name: str = "noop") -> None:
        await self._client.submit(self._tasks[name])

    async def put_lot(self, n: int) -> None:
        await self._client.submit_many(self._tasks["noop"].bind() for _ in range(n))

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        async with self._worker:
            yield

    async def count(self) -> int:
        return await self._recorded()
