"""Fairness: floods, slots and lending, counted in turns of the loop rather than in milliseconds."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from quarterjack import Every, Job, JobState, Quarterjack, gather
from quarterjack.testing import virtual_time
from tests.app.kit import START, sleeper

TURNS = 4
"""Turns of the loop that a tick may wait beside a flood: its alarm, its body, and whoever was before it."""


class Turns:
    """Counts the turns of the running loop."""

    count = 0


@contextmanager
def counted_turns() -> Iterator[Turns]:
    turns, loop, on = Turns(), asyncio.get_running_loop(), [True]

    def turn() -> None:
        turns.count += 1
        if on:
            loop.call_soon(turn)

    turn()
    try:
        yield turns
    finally:
        on.clear()


async def test_flood_of_submits_delays_a_tick_by_a_few_turns_only() -> None:
    """A program that submits in a tight loop must not cost the schedules their punctuality."""
    app = Quarterjack(concurrency=20)
    began: list[int] = []
    due: list[int] = []
    with_turns: list[Turns] = []

    @app.task(Every(seconds=1))
    async def tick() -> None:
        began.append(with_turns[0].count)

    @app.task
    async def noop() -> None: ...

    async with app:
        with counted_turns() as turns:
            with_turns.append(turns)
            app.event_stream.listen(lambda e: due.append(turns.count) if getattr(e, "kind", "") == "fired" else None)
            loop = asyncio.get_running_loop()
            end = loop.time() + 2.1
            jobs: list[Job[None]] = []
            while loop.time() < end:
                jobs.append(await app.submit(noop))
        await gather(jobs)
    assert len(began) >= 2
    assert all(start - fired <= TURNS for start, fired in zip(began, due, strict=True))
    assert {job.state for job in jobs} == {JobState.DONE}


async def test_flood_lets_the_loop_turn() -> None:
    """`submit` awaits nothing on memory, so it has to give way by itself."""
    app = Quarterjack()

    @app.task
    async def noop() -> None: ...

    async with app:
        with counted_turns() as turns:
            for _ in range(3_000):
                await app.submit(noop)
            assert turns.count > 3_000 / 100
        await app.drain()


async def test_long_jobs_in_every_slot_leave_room_for_ticks() -> None:
    """A tenth of the slots is kept: submitted jobs that take hours must not stop the clock."""
    app = Quarterjack(concurrency=20)
    task = sleeper(app)

    @app.task(Every(minutes=1))
    async def tick() -> None: ...

    async with virtual_time(app, start=START) as world:
        jobs = await app.submit_many(task.bind(3600.0) for _ in range(100))
        await world.run_for("10m")
        assert len(world.runs(tick)) == 10
        assert {job.lag for job in world.jobs(tick)} == {0.0}
        assert sum(job.state is JobState.RUNNING for job in jobs) == 18


async def test_without_schedules_every_slot_takes_submitted_jobs() -> None:
    """`concurrency=2` means two at once."""
    app = Quarterjack(concurrency=2)
    task = sleeper(app)
    async with virtual_time(app):
        assert {job.lag for job in await started(app, task, 4)} == {0.0, 1.0}


async def started(app: Quarterjack, task: Any, n: int) -> list[Job[Any]]:
    jobs = await app.submit_many(task.bind(1.0) for _ in range(n))
    await gather(jobs)
    return list(jobs)


@pytest.mark.parametrize("concurrency", [1, 2, 3])
async def test_body_that_awaits_its_children_lends_them_its_slot(concurrency: int) -> None:
    """Parents that wait in every slot would otherwise starve their own children for ever."""
    app = Quarterjack(concurrency=concurrency)

    @app.task
    async def tree(depth: int) -> int:
        if not depth:
            await asyncio.sleep(1)
            return 1
        children = await app.submit_many([tree.bind(depth - 1), tree.bind(depth - 1)])
        return sum(await gather(children)) + await (await app.submit(tree, 0))

    async with virtual_time(app):
        assert await (await app.submit(tree, 4)) == 16 + 15
        jobs = await started(app, app_sleeper(app, tree), concurrency)
        assert len(jobs) == concurrency


def app_sleeper(app: Quarterjack, tree: Any) -> Any:
    """Return a task whose `bind(1.0)` takes a second: the slots are whole again."""

    class OneSecond:
        def bind(self, _: float) -> Any:
            return tree.bind(0)

    return OneSecond()


async def test_cancelling_a_body_that_waits_gives_the_slot_back_once() -> None:
    """A lent slot must neither be lost nor doubled when the lender is cancelled."""
    app = Quarterjack(concurrency=1)
    task = sleeper(app)

    @app.task
    async def parent() -> float:
        return await (await app.submit(task, 100))

    async with virtual_time(app) as world:
        job = await app.submit(parent)
        await world.run_for(10)
        assert await job.cancel()
        jobs = [await app.submit(task, 1) for _ in range(2)]
        await world.run_for(200)
        assert sorted(job.lag for job in jobs if job.lag is not None) == [90, 91], "one at a time, after the child"


async def test_queues_are_all_served() -> None:
    """A flood in one queue must not starve the others."""
    app = Quarterjack(concurrency=1)
    task = sleeper(app)
    async with virtual_time(app) as world:
        await app.submit_many(task.options(queue="big").bind(1.0) for _ in range(100))
        small = await app.submit(task.options(queue="small"), 1)
        await small
        assert (small.lag or 0) < 5
        del world


async def test_queue_that_this_process_does_not_serve_is_left_alone() -> None:
    """`queues=[…]` is a promise about what is taken."""
    app = Quarterjack(queues=["mine"])
    task = sleeper(app)
    async with virtual_time(app) as world:
        mine = await app.submit(task.options(queue="mine"), 1)
        other = await app.submit(task.options(queue="theirs"), 1)
        await app.drain()
        await world.run_for(60)
        assert (mine.state, other.state) == (JobState.DONE, JobState.SUBMITTED)


@pytest.mark.parametrize("role", ["scheduler", "worker", "client"])
async def test_roles_do_their_part_only(role: Any) -> None:
    """Fleets are put together from parts."""
    app = Quarterjack(role=role)
    task = sleeper(app)

    @app.task(Every(minutes=1))
    async def tick() -> None: ...

    async with virtual_time(app, start=START) as world:
        job = await app.submit(task, 1)
        await world.run_for("2m")
        assert job.state is (JobState.DONE if role == "worker" else JobState.SUBMITTED)
        assert world.outcomes(tick) == (["submitted", "skipped"] if role == "scheduler" else [])
