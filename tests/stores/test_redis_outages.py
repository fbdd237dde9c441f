"""An app on a Redis store whose server goes away, forgets its scripts or falls silent: nothing is lost, all goes on."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import redis

from quarterjack import Every, JobState, Quarterjack
from quarterjack.errors import StoreUnavailable
from quarterjack.model import FINISHED, JobFilter
from quarterjack.stores.redis import RedisStore
from tests.servers.proxy import Proxy
from tests.servers.running import OwnServer
from tests.stores.redis_kit import broken_keys
from tests.stores.replicas import Seen, again, replica, replicas_share_and_serve

OwnRedis = Callable[..., OwnServer]
JOBS = 60


class Runs:
    """An app whose jobs note that they ran, and pause half-way until they are told to go on."""

    def __init__(self, url: str, timeout: float, lease: float) -> None:
        self.app = Quarterjack(RedisStore(url, timeout=timeout), concurrency=10, shutdown_grace=5, lease=lease)
        self.ran: Counter[int] = Counter()
        self.half = asyncio.Event()
        self.go = asyncio.Event()
        self.ticks = 0

        @self.app.task
        async def note(n: int) -> int:
            self.ran[n] += 1
            if len(self.ran) > JOBS // 2:
                self.half.set()
                await self.go.wait()
            return n

        @self.app.task(Every(seconds=0.2))
        async def tick() -> None:
            self.ticks += 1

        self.note = note

    async def submit(self) -> None:
        await self.app.submit_many(self.note.bind(n) for n in range(JOBS))

    async def finished(self) -> None:
        """Wait until every job has ended, by asking until the server answers."""
        store = self.app.store
        while True:
            try:
                page = await store.jobs_list(JobFilter(states=FINISHED, task="note"), limit=1_000)
            except Exception:  # it is away
                page = None
            if page is not None and len(page.jobs) == JOBS:
                assert {job.state for job in page.jobs} == {JobState.DONE}
                assert sorted(job.result for job in page.jobs) == list(range(JOBS))
                return
            await asyncio.sleep(0.05)


@asynccontextmanager
async def half_done(url: str, timeout: float = 5.0, lease: float = 30.0) -> AsyncIterator[Runs]:
    """Yield an app half of whose jobs have run, while others are running."""
    runs = Runs(url, timeout, lease)
    async with runs.app:
        await runs.submit()
        await runs.half.wait()
        yield runs
        runs.go.set()
        await runs.finished()
        assert set(runs.ran) == set(range(JOBS)), "none is lost"
        before = runs.ticks
        while runs.ticks == before:  # its schedules go on as well
            await asyncio.sleep(0.05)


async def test_server_that_restarts_in_mid_run(own_redis: OwnRedis) -> None:
    """Workers finish what they run, keep the outcomes, and record them when it is back: nothing runs twice."""
    server = own_redis("--appendonly", "yes", "--appendfsync", "always")
    async with half_done(server.url) as runs:
        server.stop()
        runs.go.set()
        await asyncio.sleep(0.1)
        server.start()
    assert set(runs.ran.values()) == {1}
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert not broken_keys(client, "{qj}:")


async def test_server_that_forgets_its_scripts_again_and_again(own_redis: OwnRedis) -> None:
    """SCRIPT FLUSH, or a failover to a replica that never had them."""
    server = own_redis()
    with redis.Redis.from_url(server.url) as client:
        async with half_done(server.url) as runs:
            for _ in range(20):
                client.script_flush()
                runs.go.set()
                await asyncio.sleep(0.01)
    assert set(runs.ran.values()) == {1}


@pytest.mark.parametrize("how", ["cut", "hold"])
async def test_network_that_fails_in_mid_run(own_redis: OwnRedis, how: str) -> None:
    """Reset lines are noticed at once, silent ones at the deadline; jobs run again only where a reply was lost."""
    server = own_redis()
    async with (
        Proxy("127.0.0.1", server.port) as proxy,
        half_done(f"redis://127.0.0.1:{proxy.port}/0", timeout=0.5, lease=2.0) as runs,
    ):
        if how == "hold":
            proxy.hold()
            runs.go.set()
            await asyncio.sleep(0.6)
            proxy.cut()
            proxy.release()
        else:
            for _ in range(3):
                proxy.cut()
                runs.go.set()
                await asyncio.sleep(0.02)
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert not broken_keys(client, "{qj}:")


@pytest.mark.slow
async def test_replicas_share_ticks_and_serve_a_client(redis_url: str) -> None:
    """One job per tick however many fire, and who asks need not be who works."""
    await replicas_share_and_serve(redis_url)


@pytest.mark.slow
async def test_outage_of_the_server_stops_no_replica(own_redis: OwnRedis) -> None:
    """When the server is back all goes on by itself, and what was missed is not made up for twice."""
    server = own_redis("--appendonly", "yes", "--appendfsync", "always")
    seen = Seen()
    one, two = replica(server.url, seen), replica(server.url, seen)
    async with one.app, two.app:
        await seen.more(2)
        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreUnavailable):
            await one.app.submit(one.add, 1, 1)
        await asyncio.to_thread(server.start)
        await seen.more(3)
        assert await (await again(one.app.submit, one.add, 5, 6)) == 11
    assert set(seen.ticks.values()) == {1}
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        assert not broken_keys(client, "{qj}:")
