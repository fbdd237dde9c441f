"""What a body may ask of the manager that runs it: room for more jobs, and not that all of them end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quarterjack import ConcurrencyLimit, Flow, Job, JobState, Priority, QueueFull, TaskManager, UsageError, gather
from quarterjack.testing import virtual_loop


@pytest.mark.parametrize("strategies", [(), (Priority(),)], ids=["fifo", "priority"])
@pytest.mark.parametrize("waits_first", [False, True], ids=["at once", "after a turn"])
async def test_a_body_that_submits_to_open_gates_fills_no_room(strategies: Any, waits_first: bool) -> None:
    """Who has a free slot does not wait, whether the body begins in the turn that starts its job or later."""
    limit = ConcurrencyLimit(20)
    begun: list[int] = []

    async def child(n: int) -> int:
        begun.append(n)
        await asyncio.sleep(1)
        return n

    async def parent() -> list[int]:
        if waits_first:
            await asyncio.sleep(0)
        return await gather([manager.submit(child, n) for n in range(5)])

    with virtual_loop():
        async with TaskManager(Flow(limit, *strategies, max_queue=1)) as manager:
            jobs = [manager.submit(parent) for _ in range(2)]  # the second waits in the lane of the first
            assert await gather(jobs) == [[0, 1, 2, 3, 4]] * 2 if waits_first else await jobs[0] == [0, 1, 2, 3, 4]
            await manager.idle()
    assert sorted(begun) == sorted([*range(5)] * 2)
    assert limit.used == 0


async def test_a_body_still_finds_a_room_full_that_is() -> None:
    """What the gates hold back counts, and the order of those who wait stays theirs."""
    done: list[str] = []

    async def child(name: str) -> None:
        done.append(name)
        await asyncio.sleep(1)

    async def parent() -> None:
        manager.submit(child, "first")
        manager.submit(child, "second")
        with pytest.raises(QueueFull):
            manager.submit(child, "third")

    with virtual_loop():
        async with TaskManager(Flow(ConcurrencyLimit(2), max_queue=1)) as manager:
            await manager.submit(parent)
    assert done == ["first", "second"]


async def test_bodies_begin_in_the_order_in_which_their_jobs_were_let_in() -> None:
    """Also where a full room had some of them let in before the dispatcher's own turn of the loop."""
    begun: list[int] = []

    async def body(n: int) -> None:
        begun.append(n)
        await asyncio.sleep(0)

    async def parent() -> None:
        for n in range(5, 10):
            manager.submit(body, n)

    async with TaskManager(Flow(ConcurrencyLimit(20), max_queue=1)) as manager:
        for n in range(5):
            manager.submit(body, n)
        await asyncio.sleep(0.01)
        await manager.submit(parent)
        await manager.idle()
    assert begun == [*range(10)]


async def test_a_tree_of_bodies_that_settle_a_full_room_begins_without_end_of_stack() -> None:
    """Each body makes room for the next one: a thousand of them must not stand in each other."""
    depth = 0

    async def node(n: int) -> None:
        nonlocal depth
        depth = max(depth, n)
        if n < 1000:
            manager.submit(node, n + 1)
            if n % 10 == 0:
                manager.submit(asyncio.sleep, 0)

    async with TaskManager(Flow(ConcurrencyLimit(5000), max_queue=2)) as manager:
        manager.submit(node, 0)
        await manager.idle()
    assert depth == 1000


@pytest.mark.parametrize("what", ["stop", "idle"])
@pytest.mark.parametrize("in_a_batch", [False, True], ids=["job", "batch"])
async def test_a_body_that_would_wait_for_itself_is_told(what: str, in_a_batch: bool) -> None:
    """It waits for all jobs of the manager, and is one of them."""

    async def body(*items: Any) -> list[str]:
        with pytest.raises(UsageError, match=rf"{what}\(\) in the body of a job of this TaskManager") as caught:
            await getattr(manager, what)()
        return [str(caught.value)]

    async with asyncio.timeout(5), TaskManager(ConcurrencyLimit(2)) as manager:
        job: Job[Any] = manager.submit(manager.batch(body, max_size=1), 1) if in_a_batch else manager.submit(body)
        assert await job
        assert await manager.submit(asyncio.sleep, 0, "it goes on") == "it goes on"


async def test_a_task_that_a_body_leaves_behind_may_stop_the_manager() -> None:
    """Nobody waits for it, so it waits for nobody who waits for it."""
    left: list[asyncio.Task[None]] = []

    async def body() -> None:
        left.append(asyncio.create_task(manager.stop()))

    async with asyncio.timeout(5), TaskManager() as manager:
        job = manager.submit(body)
        await job
        await left[0]
    assert job.state is JobState.DONE


async def test_a_body_may_cancel_all_jobs_its_own_among_them() -> None:
    """Without a drain nobody is waited for who does not end at once."""

    async def body() -> None:
        await manager.stop(drain=False)
        pytest.fail("it was cancelled with the others")

    async with asyncio.timeout(5), TaskManager() as manager:
        other, own = manager.submit(asyncio.sleep, 3600), manager.submit(body)
        await gather([other, own], return_exceptions=True)
    assert [other.state, own.state] == [JobState.CANCELLED] * 2
