"""A flow with `max_queue` in an app: who is refused, who waits for room, who makes way; one by one and many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Flow,
    InvalidOption,
    Job,
    JobCancelled,
    JobState,
    Quarterjack,
    QueueFull,
)
from quarterjack.model import lanes_of
from quarterjack.stores import MemoryStore, Store
from quarterjack.stores.base import Claim, Want
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing import VirtualClock, virtual_time
from tests.runtime.fleet import Server, fleet

from .kit import Shared, sleeper, spawn, states

# -- one by one ------------------------------------------------------------------------


async def test_submit_is_refused_when_the_queue_is_full() -> None:
    """Whoever submits hears of it at once; what runs does not count, nor what waits for its time."""
    app = Quarterjack()
    task = sleeper(app, flow=Flow(ConcurrencyLimit(1), max_queue=2))
    async with virtual_time(app) as world:
        await app.submit(task.options(delay=100), 1.0)
        first = await app.submit(task, 5.0)
        await world.run_for(1)
        jobs = [await app.submit(task, 5.0) for _ in range(2)]
        with pytest.raises(QueueFull, match="max_queue=2"):
            await app.submit(task, 5.0)
        assert await jobs[0].cancel()
        jobs.append(await app.submit(task, 5.0))
        await world.run_for(5)
        assert first.state is JobState.DONE
        await app.submit(task, 5.0)
        with pytest.raises(QueueFull):
            await app.submit_many([task.bind(1.0)])


@pytest.mark.parametrize("store", [MemoryStore, Shared])
async def test_submit_waits_for_room_in_order(store: type[MemoryStore]) -> None:
    """Back-pressure: whoever submits goes as fast as the flow, and nobody overtakes."""
    app = Quarterjack(store())
    task = sleeper(app, flow=Flow(ConcurrencyLimit(1), max_queue=2, overflow="block"))
    stored: list[int] = []

    async def submit(n: int) -> Job[float]:
        job = await app.submit(task, 10.0)
        stored.append(n)
        return job

    async with virtual_time(app) as world:
        submitters = [spawn(submit(n)) for n in range(6)]
        await world.run_for(5)
        assert stored == [0, 1, 2]
        submitters[4].cancel()
        await world.run_for(20)
        assert stored == [0, 1, 2, 3, 5]
        many = spawn(app.submit_many(task.bind(1.0) for _ in range(5)))
        await world.run_for(60)
        assert states(await many) == {"done": 5}


async def test_a_cancelled_job_makes_room_for_who_waits_to_submit() -> None:
    """Nobody here runs them: the store alone knows that one waits no more."""
    app = Quarterjack(role="client")
    task = sleeper(app, flow=Flow(max_queue=1, overflow="block"))
    async with virtual_time(app) as world:
        first = await app.submit(task, 1.0)
        second = spawn(app.submit(task, 1.0))
        await world.run_for(5)
        assert not second.done()
        assert await first.cancel()
        await world.run_for(1)
        assert second.done()


async def test_a_job_that_another_process_began_makes_room() -> None:
    """It is looked up when the room seems full."""
    app = Quarterjack(Shared(), role="client")
    task = sleeper(app, flow=Flow(max_queue=1))
    async with virtual_time(app):
        first = await app.submit(task, 1.0)
        with pytest.raises(QueueFull):
            await app.submit(task, 1.0)
        await app.store.jobs_claim(Claim("other", [Want(("default",), lanes_of(["sleeper"]), 1)], 30))
        with pytest.raises(QueueFull):  # it waits in its flow there
            await app.submit(task, 1.0)
        first._record.state = JobState.RUNNING
        await app.submit(task, 1.0)


async def test_the_oldest_gives_way_if_the_flow_says_so() -> None:
    """Newer is worth more: the one that waits longest ends as cancelled, with the reason."""
    app = Quarterjack()
    task = sleeper(app, flow=Flow(ConcurrencyLimit(1), max_queue=2, overflow="drop_oldest"))
    async with virtual_time(app) as world:
        first = await app.submit(task, 5.0)
        await world.run_for(1)
        jobs = [await app.submit(task, 5.0) for _ in range(5)]
        await world.run_for(1)
        assert states([first, *jobs]) == {"running": 1, "cancelled": 3, "scheduled": 2}
        assert jobs[0].reason == "a newer one came while max_queue=2 jobs waited"
        with pytest.raises(JobCancelled):
            await jobs[2]
        await world.run_for(20)
        assert states(jobs[3:]) == {"done": 2}


# -- on every store -------------------------------------------------------------------

STORES = ["memory", "sqlite", "server"]


@asynccontextmanager
async def bounded(
    kind: str, path: Path, role: Literal["both", "client"] = "both", **bound: Any
) -> AsyncIterator[tuple[Any, Any, Any]]:
    """Run an app on a store of this *kind*; yield it, a task whose flow has the *bound*, and the clock."""
    clock = VirtualClock()
    server = Server(clock)
    stores: dict[str, Callable[[], Store]] = {
        "memory": MemoryStore,
        "sqlite": lambda: SQLiteStore(path / "jobs.db", synchronous="off"),
        "server": server.connect,
    }
    app = Quarterjack(stores[kind](), role=role)
    task = sleeper(app, flow=Flow(ConcurrencyLimit(1), **bound))
    async with fleet(server, app):
        yield app, task, clock


@pytest.mark.parametrize("kind", STORES)
async def test_who_made_way_says_so_on_every_store(kind: str, tmp_path: Path) -> None:
    """The bug: a store that keeps no objects lost the reason of a job that a worker had claimed already."""
    async with bounded(kind, tmp_path, max_queue=2, overflow="drop_oldest") as (app, task, clock):
        await app.submit(task, 50.0)
        await clock.run_for(1)
        jobs = [await app.submit(task, 50.0) for _ in range(2)]
        await clock.run_for(1)
        assert (await app.job(jobs[0].id)).state is JobState.SCHEDULED
        jobs.append(await app.submit(task, 50.0))
        await clock.run_for(2)
        assert [(await app.job(job.id)).state.value for job in jobs] == ["cancelled", "scheduled", "scheduled"]
        with pytest.raises(JobCancelled, match="a newer one came while max_queue=2 jobs waited"):
            await jobs[0]
        assert (await app.job(jobs[0].id)).reason == "a newer one came while max_queue=2 jobs waited"


@pytest.mark.parametrize("kind", STORES)
async def test_many_at_once_are_taken_whole_or_not_at_all(kind: str, tmp_path: Path) -> None:
    """Who was refused tries the lot again, and must not double a part of it that nobody has a handle of."""
    async with bounded(kind, tmp_path, max_queue=2) as (app, task, clock):
        with pytest.raises(QueueFull, match="no room for 3 more at once, only for 2; none of them was stored"):
            await app.submit_many(task.bind(1.0) for _ in range(3))
        assert await app.jobs() == []
        assert len(await app.submit_many(task.bind(5.0) for _ in range(2))) == 2
        await clock.run_for(1)
        with pytest.raises(QueueFull, match="only for 1"):
            await app.submit_many(task.bind(5.0) for _ in range(2))
        assert len(await app.submit_many([task.bind(5.0)])) == 1
        assert len(await app.jobs()) == 3
        await clock.run_for(20)
        assert states(await app.jobs()) == {"done": 3}


@pytest.mark.parametrize("kind", STORES)
async def test_submitters_side_by_side_never_pass_the_bound(kind: str, tmp_path: Path) -> None:
    """The bug: a job on its way to the store was taken for one that had left, and made room for another."""
    async with bounded(kind, tmp_path, role="client", max_queue=3) as (app, task, _):
        one = [app.submit(task, 1.0) for _ in range(4)]
        many = [app.submit_many([task.bind(1.0)] * 2) for _ in range(2)]
        found = await asyncio.gather(*one, *many, return_exceptions=True)
        assert sum(isinstance(answer, QueueFull) for answer in found) == 3
        assert len(await app.jobs()) == 3


@pytest.mark.parametrize("kind", STORES)
async def test_the_newest_of_many_remain_where_the_oldest_make_way(kind: str, tmp_path: Path) -> None:
    """Nobody is refused: as if they had come one by one."""
    async with bounded(kind, tmp_path, role="client", max_queue=2, overflow="drop_oldest") as (app, task, clock):
        side = [spawn(app.submit(task, 1.0)) for _ in range(5)]
        await clock.run_for(0.5)
        assert len(await app.jobs(state=JobState.SUBMITTED)) == 2
        jobs = await app.submit_many(task.bind(1.0) for _ in range(4))
        await asyncio.gather(*side)
        for job in jobs:
            await job.refresh()
        assert [job.state.value for job in jobs] == ["cancelled", "cancelled", "submitted", "submitted"]


async def test_many_for_a_queue_that_refuses_and_a_task_that_waits() -> None:
    """The queue's flow is asked for all before the first is stored; what never came gives its place back."""
    app = Quarterjack()
    app.queue("narrow", flow=Flow(max_queue=4))
    task = sleeper(app, queue="narrow", flow=Flow(ConcurrencyLimit(1), max_queue=1, overflow="block"))
    async with virtual_time(app) as world:
        with pytest.raises(QueueFull, match="no room for 5 more at once, only for 4"):
            await app.submit_many(task.bind(10.0) for _ in range(5))
        many = spawn(app.submit_many(task.bind(10.0) for _ in range(3)))
        one = spawn(app.submit(task, 10.0))
        await world.run_for(1)
        assert len(await app.jobs()) == 2
        one.cancel()
        await asyncio.wait({one})
        many.cancel()
        await asyncio.wait({many})
        assert len(await app.jobs()) == 2
        await world.run_for(15)
        jobs = await app.submit_many(task.bind(1.0) for _ in range(4))
        await world.run_for(20)
        assert states(jobs) == {"done": 4}


async def test_a_job_that_was_there_before_takes_no_room_of_those_after_it() -> None:
    """Its place is given back at once, or the next of the lot would wait for ever."""
    app = Quarterjack(role="client")
    task = sleeper(app, flow=Flow(max_queue=2, overflow="block"))
    async with virtual_time(app) as world:
        first = await app.submit(task.options(unique="x"), 1.0)
        again = [task.options(unique="x").bind(1.0)] * 2
        many = spawn(app.submit_many([*again, task.bind(1.0)]))
        await world.run_for(1)
        jobs: list[Job[float]] = many.result()
        assert [job.id == first.id for job in jobs] == [True, True, False]
        assert [job.is_duplicate for job in jobs] == [True, True, False]


async def test_many_are_all_refused_if_a_gate_can_never_let_one_through() -> None:
    """Checked for all before the first is stored, and no room is taken."""
    app = Quarterjack()
    task = sleeper(app, flow=Flow(ConcurrencyLimit(1), max_queue=2))
    async with virtual_time(app):
        with pytest.raises(InvalidOption, match="cost=2"):
            await app.submit_many([task.bind(1.0), task.options(cost=2).bind(1.0)])
        assert await app.jobs() == []
        assert len(await app.submit_many([task.bind(1.0)] * 2)) == 2
