"""Hints of a Redis store: other processes hear, and nothing that is said ends the listening."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.model import (
    JobIds,
)
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Hint
from quarterjack.stores.redis import RedisStore
from tests.servers.proxy import Proxy
from tests.stores.redis_kit import RedisBench, opened


@pytest.fixture
async def b(redis_server: str) -> AsyncIterator[RedisBench]:
    """A store on a clock that the test moves."""
    async for bench in opened(redis_server):
        yield bench


class TestHints:
    async def test_other_processes_hear_and_ones_own_is_told_once(self, redis_server: str, b: RedisBench) -> None:
        """What one store puts wakes the workers of all; telling again before anybody claims says nothing new."""
        other = type(b.store).from_url(f"{redis_server}?prefix={b.root[1:-2]}")
        await other.open(b.clock, JobIds(), Encoding())
        try:
            assert other._hints is not None
            await other._hints.listening.wait()
            here, there = Heard(b.store), Heard(other)
            for _ in range(20):
                await b.put()
            assert here.hints == [Hint.JOBS] * 20
            await b.schedule()
            await there.until(Hint.SCHEDULES, ("s",))
            assert there.hints.count(Hint.JOBS) < 20
            (job,) = await b.claim(1)
            await b.finish(job.fence)
            await there.until(Hint.ENDED, (job.id,))
            told = there.hints.count(Hint.JOBS)
            await b.put()
            await there.until(Hint.JOBS, times=told + 1)
            await other.wake(Hint.CANCELS)
            await here.until(Hint.CANCELS)
            assert there.hints.count(Hint.CANCELS) == 1
        finally:
            await other.close()

    async def test_line_that_was_cut_is_made_anew_and_everybody_looks_at_everything(
        self, redis_server: str, b: RedisBench
    ) -> None:
        """What was said meanwhile nobody knows."""
        port = int(redis_server.rpartition(":")[2].partition("/")[0])
        async with Proxy("127.0.0.1", port) as proxy:
            store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", prefix=b.root[1:-2])
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
            assert store._hints is not None
            await store._hints.listening.wait()
            heard = Heard(store)
            proxy.cut()
            await heard.until(Hint.JOBS)
            await heard.until(Hint.ENDED)
            assert {Hint.JOBS, Hint.SCHEDULES, Hint.CANCELS, Hint.ENDED, Hint.PAUSED, Hint.LIMITS} == set(heard.hints)
            await store.close()

    async def test_what_a_stranger_says_ends_no_listening(self, b: RedisBench) -> None:
        """Anybody may publish; whatever it means, everybody looks at everything, and hears what comes after."""
        assert b.store._hints is not None
        await b.store._hints.listening.wait()
        heard = Heard(b.store)
        async with asyncio.timeout(10):
            b.client.publish(b.root + "hints", "nonsense")
            await heard.until(Hint.LIMITS)
            assert {Hint.JOBS, Hint.SCHEDULES, Hint.CANCELS, Hint.ENDED, Hint.PAUSED, Hint.LIMITS} == set(heard.hints)
            b.client.publish(b.root + "hints", "somebody ended 1")
            await heard.until(Hint.ENDED, ("1",))

    async def test_listener_that_raises_ends_no_listening(
        self, b: RedisBench, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One hint is lost, and made up for by a look at everything; silence until a restart would be worse."""
        assert b.store._hints is not None
        await b.store._hints.listening.wait()
        faults = [ValueError("a listener's own")]

        def stumble(hint: Hint, ids: Sequence[str]) -> None:
            if faults:
                raise faults.pop()

        b.store.listen(stumble)
        heard = Heard(b.store)
        async with asyncio.timeout(10):
            b.client.publish(b.root + "hints", "somebody ended 1")
            await heard.until(Hint.LIMITS)
            b.client.publish(b.root + "hints", "somebody ended 2")
            await heard.until(Hint.ENDED, ("2",))
        assert "a listener's own" in caplog.text


class Heard:
    """The hints that a store tells."""

    def __init__(self, store: RedisStore) -> None:
        self.hints: list[Hint] = []
        self._ids: list[tuple[Hint, tuple[str, ...]]] = []
        self._more = asyncio.Event()
        store.listen(self._hear)

    def _hear(self, hint: Hint, ids: Sequence[str]) -> None:
        self.hints.append(hint)
        self._ids.append((hint, tuple(ids)))
        self._more.set()

    async def until(self, hint: Hint, ids: tuple[str, ...] = (), times: int = 1) -> None:
        """Wait for a hint."""
        while self._ids.count((hint, ids)) < times:
            self._more.clear()
            await self._more.wait()
