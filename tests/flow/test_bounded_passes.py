"""Passes through a flow or a gate that are bounded: by cost, by the room before it, by how long one may wait there."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from quarterjack import (
    AdaptiveLimit,
    ConcurrencyLimit,
    FixedWindow,
    Flow,
    Gate,
    InvalidOption,
    QueueFull,
    Resource,
    SlidingWindow,
    TaskManager,
    TokenBucket,
    WaitedTooLong,
    WeightedRoundRobin,
)
from quarterjack.testing import virtual_loop

WEIGHING: list[Any] = [
    lambda: ConcurrencyLimit(2),
    lambda: AdaptiveLimit(2, 1, 2, pressure=None),
    lambda: SlidingWindow(2, per=1),
    lambda: SlidingWindow(2, per=1, smooth=True),
    lambda: FixedWindow(2, per=1),
    lambda: TokenBucket(2, burst=2),
    lambda: WeightedRoundRobin(Resource("a", 1, limit=ConcurrencyLimit(2))),
]


async def too_heavy(manager: TaskManager, gate: Gate, way: str) -> None:
    """Ask for more than there is."""
    if way == "manager":
        await manager.options(cost=3).submit(asyncio.sleep, 0)
    async with (Flow(gate) if way == "flow" else gate).permit(cost=3):
        pass


@pytest.mark.parametrize("make", WEIGHING)
@pytest.mark.parametrize("is_busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("way", ["gate", "keyed", "flow", "manager"])
async def test_what_costs_more_than_there_ever_is_is_refused(make: Any, is_busy: bool, way: str) -> None:
    """Whether or not anything runs: a rule that depends on the traffic shows in production only."""
    gate: Gate = make()
    if way == "keyed":
        gate.by = lambda _: 1
    with virtual_loop():
        async with TaskManager(gate) as manager:
            if is_busy:
                manager.submit(asyncio.sleep, 10)
                await asyncio.sleep(0.1)
            with pytest.raises(InvalidOption, match="cost=3"):
                await asyncio.wait_for(too_heavy(manager, gate, way), 5)
            async with asyncio.timeout(20), gate.permit(cost=2):
                pass


async def test_a_waiting_job_above_a_maximum_that_shrank_is_refused() -> None:
    """It could never start, nor could anybody behind it."""
    limit = AdaptiveLimit(1, 1, 3, pressure=None)
    with virtual_loop():
        async with TaskManager(limit) as manager:
            manager.submit(asyncio.sleep, 1)
            wide, narrow = manager.options(cost=3).submit(asyncio.sleep, 0), manager.submit(asyncio.sleep, 0)
            await asyncio.sleep(0.5)
            limit.update(max=2)
            with pytest.raises(InvalidOption, match="cost=3 is above max=2"):
                await wide
            await narrow


async def passed(flow: Flow, seconds: float, log: list[str], name: str) -> None:
    """Pass *flow*, and stay."""
    async with flow.permit():
        log.append(name)
        await asyncio.sleep(seconds)


@pytest.mark.parametrize(
    ("overflow", "expected", "refused"),
    [
        ("reject", ["0", "1", "late"], ["2", "3"]),
        ("drop_oldest", ["0", "3", "late"], ["1", "2"]),
        ("block", ["0", "1", "2", "3", "late"], []),
    ],
)
async def test_passes_of_a_flow_wait_in_its_bounded_room(
    overflow: Any, expected: list[str], refused: list[str]
) -> None:
    """`max_queue` says how many may wait, and `overflow` what becomes of one more, as for jobs."""
    limit = ConcurrencyLimit(1)
    flow = Flow(limit, max_queue=1, overflow=overflow)
    log: list[str] = []
    with virtual_loop():
        tasks = [asyncio.create_task(passed(flow, 1, log, str(n)), name=str(n)) for n in range(4)]
        await asyncio.wait(tasks)
        assert [task.get_name() for task in tasks if isinstance(task.exception(), QueueFull)] == refused
        await passed(flow, 1, log, "late")
    assert log == expected
    assert limit.used == 0


async def test_a_pass_that_is_cancelled_while_it_waits_for_room_leaves_it_to_the_next() -> None:
    """And one that has waited too long for its gates ends as a job would."""
    limit = ConcurrencyLimit(1)
    flow = Flow(limit, max_queue=1, overflow="block", max_wait=30)
    log: list[str] = []
    with virtual_loop():
        tasks = [asyncio.create_task(passed(flow, 10, log, str(n))) for n in range(5)]
        await asyncio.sleep(1)
        tasks[2].cancel()
        await asyncio.wait(tasks)
        assert log == ["0", "1", "3", "4"]
        long = asyncio.create_task(passed(flow, 100, log, "long"))
        await asyncio.sleep(1)
        with pytest.raises(WaitedTooLong):
            await passed(flow, 1, log, "never")
        await long
    assert limit.used == 0
