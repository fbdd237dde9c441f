"""Batches before a room that is full: ``overflow="block"`` has items wait for it, and turns no batch away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quarterjack import ConcurrencyLimit, Flow, JobState, Quarterjack, QueueFull, TaskManager, gather
from quarterjack.testing import virtual_loop, virtual_time


def blocking(**more: Any) -> Flow:
    """A flow of one slot, before which one may wait."""
    return Flow(ConcurrencyLimit(1), max_queue=1, overflow="block", **more)


async def slow(items: list[int]) -> list[int]:
    """A body that takes a second."""
    await asyncio.sleep(1)
    return items


async def test_items_wait_for_room_where_single_jobs_would() -> None:
    """Nobody is turned away, and no more wait inside than there is room for."""
    with virtual_loop() as clock:
        began = clock.monotonic()
        async with TaskManager(blocking()) as manager:
            insert = manager.batch(slow, max_size=2, max_wait=0.1)
            jobs = await asyncio.gather(*(manager.submit_wait(insert, n) for n in range(10)))
            assert manager.stats()["waiting"] <= 4
            assert await gather(jobs) == [*range(10)]
            assert await asyncio.gather(*(insert(n) for n in range(10))) == [*range(10)]
        assert clock.monotonic() - began == pytest.approx(10, abs=0.5)


async def test_an_item_that_cannot_wait_is_told_when_it_comes() -> None:
    """A submit that is not awaited has no other way, and an item that was taken is not refused afterwards."""
    with virtual_loop():
        async with TaskManager(blocking()) as manager:
            insert = manager.batch(slow, max_size=1)
            jobs = [manager.submit(insert, n) for n in range(2)]
            with pytest.raises(QueueFull):
                manager.submit(insert, 2)
            assert await gather(jobs) == [0, 1]


async def test_batches_that_are_full_before_a_full_room_wait_outside() -> None:
    """Items of several keys gather at once; each has its turn, and one that is cancelled out there runs nowhere."""
    ran: list[int] = []

    async def body(items: list[int]) -> list[int]:
        ran.extend(items)
        return await slow(items)

    with virtual_loop():
        flow = blocking()
        async with TaskManager(flow) as manager:
            insert = manager.batch(body, max_size=9, max_wait=0.1)
            jobs = [manager.options(key={"tenant": n}).submit(insert, n) for n in range(6)]
            await asyncio.sleep(0.5)
            assert await jobs[4].cancel()
            assert await gather([*jobs[:4], jobs[5]]) == [0, 1, 2, 3, 5]
            left = [manager.options(key={"tenant": n}).submit(insert, n) for n in range(6)]
            await asyncio.sleep(0.5)
            await manager.stop(drain=False)
            assert {job.state for job in left} == {JobState.CANCELLED}
        assert ran == [0, 1, 2, 3, 5, 0]
        assert [gate.stats()["used"] for gate in flow.gates] == [0]


async def test_batches_of_an_app_wait_for_room_too() -> None:
    """Their items have been claimed: to turn them away would fail jobs that did nothing wrong."""
    app = Quarterjack()
    insert = app.batch(max_size=2, max_wait=0.1, flow=blocking())(slow)
    async with virtual_time(app):
        jobs = [await app.submit(insert, n) for n in range(9)]
        assert await gather(jobs) == [*range(9)]
