"""An app as each of its processes makes it, and what all of them have done, for tests on real servers."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from quarterjack import AsyncTask, Every, Quarterjack, current_job
from quarterjack.errors import StoreUnavailable
from quarterjack.runtime.service import Role

__all__ = ["Replica", "Seen", "again", "replica", "replicas_share_and_serve"]


class Replica(NamedTuple):
    """An app as each of its processes makes it."""

    app: Quarterjack
    add: AsyncTask[[int, int], int]
    wait: AsyncTask[[], None]
    flaky: AsyncTask[[], int]


class Seen:
    """What the bodies of all replicas have told."""

    def __init__(self) -> None:
        self.ticks: Counter[datetime | None] = Counter()
        self._more = asyncio.Event()

    def tick(self) -> None:
        self.ticks[current_job().nominal] += 1
        self._more.set()

    async def more(self, ticks: int) -> None:
        """Wait for so many new ticks."""
        enough = len(self.ticks) + ticks
        async with asyncio.timeout(40):
            while len(self.ticks) < enough:
                self._more.clear()
                await self._more.wait()


def replica(url: str, seen: Seen, role: Role = "both") -> Replica:
    app = Quarterjack(url, role=role)

    @app.task(Every(seconds=0.25))
    async def tick() -> None:
        seen.tick()

    @app.task
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task
    async def wait() -> None:
        await asyncio.sleep(60)

    @app.task(retry=3)
    async def flaky() -> int:
        if current_job().attempt < 2:
            raise OSError("not yet")
        return current_job().attempt

    return Replica(app, add, wait, flaky)


async def replicas_share_and_serve(url: str) -> None:
    """One job per tick however many fire, and who asks need not be who works."""
    seen = Seen()
    one, two, client = (replica(url, seen), replica(url, seen), replica(url, seen, "client"))
    async with one.app, two.app, client.app:
        assert await (await client.app.submit(client.add, 1, 2)) == 3
        many = await client.app.submit_many(client.add.bind(n, n) for n in range(200))
        assert [await job for job in many] == [2 * n for n in range(200)]
        assert await (await client.app.submit(client.flaky)) == 2
        long = await client.app.submit(client.wait)
        async with asyncio.timeout(20):
            while not (await client.app.job(long.id)).state.is_held:
                await asyncio.sleep(0.01)
        assert await long.cancel(wait=20)
        await seen.more(3)
    assert set(seen.ticks.values()) == {1}


async def again(call: Any, *arguments: Any) -> Any:
    """Call until the app has found its server again."""
    async with asyncio.timeout(30):
        while True:
            with suppress(StoreUnavailable):
                return await call(*arguments)
            await asyncio.sleep(0.05)
