"""A client and a worker on every shared store, each on its own loop, in real time: what the runtime asks of engines."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from quarterjack import Every, JobFailed, JobState, Quarterjack, current_job, gather

pytestmark = pytest.mark.slow


async def add(x: int, y: int = 1) -> int:
    return x + y


async def fail() -> None:
    raise ValueError("no good")


async def long(seconds: float) -> str:
    job = current_job()
    for part in range(round(seconds * 10)):
        job.progress(part, text="at work")
        job.checkpoint({"at": part})
        await asyncio.sleep(0.1)
    return "done"


async def blocks(seconds: float) -> int:
    time.sleep(seconds)
    return current_job().attempt


ticked: list[float] = []


async def tick() -> None:
    nominal = current_job().nominal
    assert nominal is not None
    ticked.append(nominal.timestamp())


async def play(url: str) -> None:
    """Results, errors, progress, cancels, leases beyond a blocked loop, and ticks that two processes fire once."""
    ticked.clear()
    client, worker, other = Quarterjack(url, role="client"), Quarterjack(url, lease=2), Quarterjack(url, lease=2)
    adds, fails, longs, block = client.task(add), client.task(fail), client.task(long), client.task(blocks)
    for app in (worker, other):
        app.task(add)
        app.task(fail)
        app.task(long)
        app.task(Every(seconds=1), overlap="allow")(tick)
    other.task(blocks)
    async with client:
        with worker.in_thread(), other.in_thread():
            assert await (await client.submit(adds, 1, y=2)) == 3
            blocked = await client.submit(block, 2.6)
            jobs = await client.submit_many(adds.bind(n) for n in range(200))
            assert await gather(jobs) == [n + 1 for n in range(200)]
            with pytest.raises(JobFailed, match="no good"):
                await (await client.submit(fails))
            running = await client.submit(longs, 30.0)
            deadline = time.monotonic() + 10
            while running.progress is None and time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                await running.refresh()
            assert (running.state, running.progress and running.progress.text) == (JobState.RUNNING, "at work")
            assert await running.cancel() is True
            assert await blocked == 1
            assert client.health().is_ready
            workers = await client._running().store.workers_list()
            assert len(workers) == 2
        ticks = await client.jobs(task="tick")  # one that the blocked loop had taken waits again for the next worker
    fired = sorted(job.nominal.timestamp() for job in ticks if job.nominal is not None)
    done = [job.nominal.timestamp() for job in ticks if job.nominal is not None and job.state is JobState.DONE]
    assert fired == [min(fired) + n for n in range(len(ticks))]
    assert sorted(ticked) == sorted(done)
    assert len(done) >= 2


async def test_several_processes_on_sqlite(tmp_path: Path) -> None:
    """One file, three processes."""
    await play(f"sqlite:///{tmp_path / 'jobs.db'}")


async def test_several_processes_on_postgresql(postgres_url: str) -> None:
    """One server, three processes."""
    await play(postgres_url)


async def test_several_processes_on_redis(redis_url: str) -> None:
    """One server, three processes."""
    await play(redis_url)
