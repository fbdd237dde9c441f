"""A `Flow` in a `Flow` or a `TaskManager` counts as its strategies, and its bounds come with them."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Delay,
    Fallback,
    Flow,
    InvalidOption,
    Quarterjack,
    QueueFull,
    TaskManager,
    Timeout,
    WaitedTooLong,
)
from quarterjack.testing import virtual_loop


@pytest.mark.parametrize(
    "make",
    [
        lambda gate: TaskManager(Flow(gate, max_queue=1), Timeout(50)),
        lambda gate: TaskManager(Flow(Flow(gate, max_queue=1), Timeout(50))),
        lambda gate: TaskManager(Flow(Flow(gate), Timeout(50), max_queue=1)),
        lambda gate: TaskManager(Flow(Flow(Flow(gate, max_queue=1), Fallback([])), Flow(Timeout(50)))),
    ],
)
async def test_the_bound_of_a_flow_inside_holds(make: Any) -> None:
    """The bug: beside another strategy it was lost without a word, and any number of jobs was taken."""
    with virtual_loop():
        async with make(ConcurrencyLimit(1)) as manager:
            manager.submit(asyncio.sleep, 1)
            await asyncio.sleep(0)
            manager.submit(asyncio.sleep, 1)
            with pytest.raises(QueueFull):
                manager.submit(asyncio.sleep, 1)


async def test_how_long_a_job_may_wait_comes_along() -> None:
    """As the bound in number, whichever flow says the one and which the other."""
    with virtual_loop():
        async with TaskManager(Flow(ConcurrencyLimit(1), max_wait=3), Flow(Timeout(50), max_queue=5)) as manager:
            jobs = [manager.submit(asyncio.sleep, 10) for _ in range(2)]
            with pytest.raises(WaitedTooLong):
                await jobs[1]
            assert (manager.flow.max_queue, manager.flow.max_wait_s) == (5, 3.0)


async def test_room_for_blocks_and_for_jobs_is_counted_apart() -> None:
    """Gates that both pass are shared; who waits for them by ``async with`` takes no job's place."""
    with virtual_loop():
        gates = Flow(ConcurrencyLimit(1), max_queue=1)

        async def block() -> None:
            async with gates:
                await asyncio.sleep(1)

        async with TaskManager(gates, Timeout(50)) as manager, asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(block())
            await asyncio.sleep(0)
            manager.submit(asyncio.sleep, 0)
            with pytest.raises(QueueFull):
                manager.submit(asyncio.sleep, 0)
            with pytest.raises(QueueFull):
                await block()


def test_a_flow_shows_the_bounds_it_took_over() -> None:
    """What is printed is what holds."""
    inner = Flow(ConcurrencyLimit(1), max_queue=3, overflow="block", max_wait=2)
    outer = Flow(inner, Timeout(5), inner)
    assert repr(outer).endswith("body, max_queue=3, overflow='block', max_wait=2.0)")
    assert (outer.max_queue, outer.overflow, outer.max_wait_s) == (3, "block", 2.0)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Flow(Flow(Delay(1), max_queue=3), max_queue=5), "max_queue=5 and max_queue=3: "),
        (lambda: Flow(Flow(Delay(1), max_queue=3), Flow(max_queue=3)), "max_queue=3 and max_queue=3: "),
        (lambda: TaskManager(Flow(Delay(1), max_wait=3), Flow(max_wait=0.5)), "max_wait=3 and max_wait=0.5: "),
    ],
)
def test_two_bounds_of_one_kind_are_refused(make: Any, said: str) -> None:
    """Their jobs wait in one room: neither of the two would mean what it says."""
    with pytest.raises(InvalidOption, match=f"{re.escape(said)}.*say it once, .* by their gates: Flow"):
        make()


async def test_an_app_bounds_a_task_by_the_flow_inside_its_flow() -> None:
    """Apps count what waits by themselves, and go by the same bound."""
    app = Quarterjack()
    gate = ConcurrencyLimit(1)

    @app.task(flow=Flow(Flow(gate, max_queue=1), Timeout(50)))
    async def work() -> None:
        await asyncio.sleep(0)

    async with app, gate:
        await app.submit(work)
        with pytest.raises(QueueFull):
            await app.submit(work)
