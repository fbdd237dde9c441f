"""Flows on both event loops, in real time: what the other tests hold on virtual time, uvloop keeps as well.

Virtual time needs asyncio's own loop, so these few go through every part once: a manager, its
batches, retries and deadlocks, rates (uvloop's timers ring up to 0.3 ms early), bare passes, an app."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest
import uvloop

from quarterjack import (
    CircuitBreaker,
    ConcurrencyLimit,
    Delay,
    FixedWindow,
    Flow,
    Gate,
    JobFailed,
    JobState,
    Priority,
    Quarterjack,
    QueueFull,
    Retry,
    SlidingWindow,
    TaskManager,
    Timeout,
    TokenBucket,
    WouldDeadlock,
    gather,
)

Run = Callable[[Coroutine[Any, Any, None]], None]
both_loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@both_loops
def test_a_manager_keeps_its_limit_and_leaves_nothing_taken(run: Run) -> None:
    """Whatever returns, raises, is cancelled or takes too long."""
    limit = ConcurrencyLimit(3)
    running = most = 0

    async def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(3600 if n % 5 == 3 else 0.001)
        finally:
            running -= 1
        if n % 5 == 4:
            raise OSError(n)
        return n

    async def main() -> None:
        async with TaskManager(Flow(limit, Timeout(0.1), Priority())) as manager:
            jobs = [manager.options(priority=n % 3).submit(work, n) for n in range(40)]
            await asyncio.sleep(0.005)
            await asyncio.gather(*(job.cancel() for job in jobs[::7]))
            await manager.idle()
            assert manager.stats()["running"] == 0
        assert {job.state for job in jobs} == {
            JobState.DONE,
            JobState.FAILED,
            JobState.TIMED_OUT,
            JobState.CANCELLED,
        }

    run(main())
    assert most == 3
    assert limit.used == 0


ROUNDING_S = 1e-6
RATES = [
    lambda: SlidingWindow(10, per=0.05),
    lambda: SlidingWindow(10, per=0.05, smooth=True),
    lambda: TokenBucket(200, burst=10),
    lambda: FixedWindow(10, per=0.05, anchor="first"),
    lambda: Delay(0.005, after="start", slack=0),
]


@both_loops
@pytest.mark.parametrize("make", RATES)
def test_a_rate_is_kept_and_none_is_overtaken(run: Run, make: Callable[[], Gate]) -> None:
    """Timers that ring early must start nothing early."""
    gate = make()
    began: list[int] = []
    jobs: list[Any] = []

    async def work(n: int) -> None:
        began.append(n)

    async def main() -> None:
        async with TaskManager(gate) as manager:
            jobs.extend(manager.submit(work, n) for n in range(30))

    run(main())
    assert began == [*range(30)]
    at = [job._record.started_at for job in jobs]  # as its dispatcher's clock had it: a body reads one a little later
    if isinstance(gate, SlidingWindow):
        assert all(late - early >= 0.05 - ROUNDING_S for early, late in zip(at, at[10:], strict=False))
    if isinstance(gate, Delay):
        assert all(late - early >= 0.005 - ROUNDING_S for early, late in pairwise(at))
    assert at[-1] - at[0] >= 0.095


@both_loops
def test_retries_batches_breakers_and_deadlocks(run: Run) -> None:
    """The stages around a job, and what holds it up."""
    tries: list[float] = []
    manager = TaskManager()

    async def flaky() -> str:
        tries.append(monotonic())
        if len(tries) < 3:
            raise OSError
        return "fine"

    async def body(items: list[int]) -> list[int]:
        return [len(items)] * len(items)

    async def child() -> None: ...

    async def parent() -> None:
        await manager.submit(child)

    async def main() -> None:
        nonlocal manager
        limit = ConcurrencyLimit(1)
        retry = Retry(on=OSError, base=0.01, mult=1, jitter="none")
        async with TaskManager(
            Flow(limit, retry, CircuitBreaker(min_calls=50), max_queue=2, overflow="block")
        ) as manager:
            assert await manager.submit(flaky) == "fine"
            assert all(late - early >= 0.01 - 1e-4 for early, late in pairwise(tries))
            batch = manager.batch(body, max_size=4, max_wait=0.01)
            assert await gather([await manager.submit_wait(batch, n) for n in range(5)]) == [4, 4, 4, 4, 1]
            with pytest.raises(WouldDeadlock):
                await manager.submit(parent)
        assert limit.used == 0

    run(main())


@both_loops
def test_bare_passes_and_an_app(run: Run) -> None:
    """The same gates, one loop after the other: what one left is forgotten by the next."""
    app = Quarterjack()
    limit = ConcurrencyLimit(2, by="tenant")

    @app.task(flow=Flow(limit))
    async def call(tenant: str, seconds: float = 0.002) -> str:
        await asyncio.sleep(seconds)
        return tenant

    @app.task(flow=Flow(limit))
    def in_a_thread(tenant: str) -> str:
        return tenant

    @app.task(flow=ConcurrencyLimit(1))
    async def awaits_itself() -> None:
        await (await app.submit(awaits_itself))

    async def main() -> None:
        narrow = Flow(ConcurrencyLimit(1), max_queue=1)
        async with narrow.permit():
            waiting = asyncio.create_task(narrow.permit().__aenter__())
            await asyncio.sleep(0)
            with pytest.raises(QueueFull):
                await narrow.permit().__aenter__()
        await waiting
        async with app:
            jobs = [await app.submit(task, tenant) for task in (call, in_a_thread) for tenant in ("a", "b", "a", "a")]
            assert await gather(jobs) == ["a", "b", "a", "a"] * 2
            with pytest.raises(JobFailed, match="WouldDeadlock"):
                await (await app.submit(awaits_itself))
        assert all(stats["used"] == 0 for stats in limit.stats_by_key().values())

    run(main())
