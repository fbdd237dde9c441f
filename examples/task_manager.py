"""Not all at once, after async_task_manager: its README's program, and each line of its roadmap.

Time is virtual, so that fifteen minutes of somebody's quota take none; take the
`virtual_loop` away and the same happens in real time.

    python examples/task_manager.py
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable

from quarterjack import (
    AdaptiveLimit,
    Between,
    CircuitBreaker,
    CircuitOpen,
    ConcurrencyLimit,
    Delay,
    FixedWindow,
    Priority,
    Resource,
    Retry,
    SlidingWindow,
    TaskManager,
    TimeWindow,
    WeightedRoundRobin,
    current_job,
)
from quarterjack.testing import virtual_loop


def now() -> float:
    """Return the loop's time, in seconds."""
    return asyncio.get_running_loop().time()


# -- the README's program ------------------------------------------------------------------------


async def sample_task(name: str, delay: float) -> str:
    """Take its time and say so."""
    await asyncio.sleep(delay)
    print(f"Task {name} completed after {delay}s")
    return f"Result from {name}"


async def readme() -> None:
    """Eight tasks, three at once."""
    began = now()
    async with TaskManager(ConcurrencyLimit(max_concurrent=3)) as manager:
        jobs = [manager.submit(sample_task, f"task-{i}", 1.0) for i in range(8)]
        await manager.idle()
        print(f"Idle after {now() - began:.0f} s. {await jobs[-1]}")
        print("Stopping the manager...")
        await manager.stop()
    print("Manager stopped.")


# -- the strategies it had ----------------------------------------------------------------------------


async def starts(manager: TaskManager, count: int, seconds: float = 0.0) -> list[float]:
    """Run so many jobs and return when they began."""
    began = now()
    found: list[float] = []

    async def work() -> None:
        found.append(round(now() - began, 1))
        await asyncio.sleep(seconds)

    async with manager:
        for _ in range(count):
            manager.submit(work)
    return found


async def delayed() -> None:
    """Each backup waits 30 seconds after the one before."""
    print("Delay:", await starts(TaskManager(Delay(30)), 3, seconds=10))


async def fixed_window() -> None:
    """300 requests in 15 minutes."""
    quota = FixedWindow(max_requests=300, window_seconds=900, anchor="first")
    print("FixedWindow:", dict(Counter(await starts(TaskManager(quota), 700))))


# -- its roadmap ------------------------------------------------------------------------------------------


async def retry() -> None:
    """Exponential backoff, so many attempts, on these failures."""
    began = now()
    tries: list[float] = []

    async def flaky() -> str:
        tries.append(round(now() - began, 1))
        if len(tries) < 4:
            raise ConnectionError("no route")
        return "an answer"

    async with TaskManager(Retry(on=ConnectionError, attempts=5, base=1, jitter="none")) as manager:
        print("Retry:", await manager.submit(flaky), "at", tries)


async def priority_queue() -> None:
    """Levels, and nobody starves: 10 s of waiting are worth a level."""
    order: list[str] = []

    async def work(name: str) -> None:
        order.append(name)
        await asyncio.sleep(8)

    async with TaskManager(ConcurrencyLimit(1), Priority(levels=5, aging=10)) as manager:
        manager.options(priority=3).submit(work, "low, early")
        manager.options(priority=3).submit(work, "low")
        for n in range(4):
            manager.options(priority=1).submit(work, f"high {n}")
            await asyncio.sleep(8)
    print("Priority:", order)


async def sliding_window() -> None:
    """At most three in any second, wherever one begins to count; or evenly."""
    print("SlidingWindow:", await starts(TaskManager(SlidingWindow(3, per=1.0)), 7))
    print("SlidingWindow, smooth:", await starts(TaskManager(SlidingWindow(5, per=1.0, smooth=True)), 7))


async def adaptive() -> None:
    """A service that slows down beyond eight at once finds its limit."""
    limit = AdaptiveLimit(initial=2, min=1, max=100, target_latency=0.15)
    inside = 0

    async def call() -> None:
        nonlocal inside
        inside += 1
        await asyncio.sleep(0.1 if inside <= 8 else 0.1 * inside / 8)
        inside -= 1

    async with TaskManager(limit) as manager:
        for _ in range(2000):
            manager.submit(call)
        await asyncio.sleep(10)
        limit_found = limit.stats()["limit"]
        await manager.stop(drain=False)
    print("AdaptiveLimit: between 4 and 16:", 4 <= limit_found <= 16)


async def bulk() -> None:
    """Many items, one call; an item that fails does so alone."""
    sizes: list[int] = []

    async def insert(rows: list[str]) -> list[str | Exception]:
        sizes.append(len(rows))
        return [ValueError("empty row") if not row else row.upper() for row in rows]

    async with TaskManager(ConcurrencyLimit(1)) as manager:
        put = manager.batch(insert, max_size=4, max_wait=0.05)
        jobs = [manager.submit(put, row) for row in ("a", "b", "", "d", "e")]
    print("Batch:", sizes, [job.result() if job.state == "done" else str(job.reason) for job in jobs])


async def circuit_breaker() -> None:
    """Fail fast while the service is down; come back by a probe."""
    is_down = True

    async def call() -> str:
        if is_down:
            raise ConnectionError("no route")
        return "an answer"

    async with TaskManager(CircuitBreaker(min_calls=3, open_for=30, jitter=0)) as manager:
        said: list[str] = []
        for _ in range(5):
            try:
                await manager.submit(call)
            except (ConnectionError, CircuitOpen) as error:
                said.append(type(error).__name__)
        is_down = False
        await asyncio.sleep(30)
        print("CircuitBreaker:", dict(Counter(said)), await manager.submit(call))


async def weighted_round_robin() -> None:
    """Twice as many to the large server as to each small one."""
    servers = WeightedRoundRobin(Resource("large", weight=2), Resource("small-1"), Resource("small-2"))
    took: list[str] = []

    async def call() -> None:
        took.append(current_job().resource.name)

    async with TaskManager(servers) as manager:
        for _ in range(8):
            manager.submit(call)
    print("WeightedRoundRobin:", dict(sorted(Counter(took).items())))


async def time_based() -> None:
    """Maintenance at night, in a zone; schedules by cron or interval are triggers of an app."""
    async with TaskManager(TimeWindow(Between("22:00", "04:00"), "Europe/Rome")) as manager:
        job = manager.submit(asyncio.sleep, 0)
        why = manager.why_waiting(job) is not None
        await job
    print("TimeWindow:", "waited," if why else "at once,", f"{job.timestamps.running_at:%H:%M} UTC")


EXAMPLES: tuple[Callable[[], Awaitable[None]], ...] = (
    readme,
    delayed,
    fixed_window,
    retry,
    priority_queue,
    sliding_window,
    adaptive,
    bulk,
    circuit_breaker,
    weighted_round_robin,
    time_based,
)


async def main() -> None:
    """Run them one after the other."""
    with virtual_loop(start="2026-03-02T09:00Z"):
        for example in EXAMPLES:
            await example()


if __name__ == "__main__":
    logging.getLogger("quarterjack").setLevel(logging.CRITICAL)  # some fail on purpose
    asyncio.run(main())
