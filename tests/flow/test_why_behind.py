"""What is told to who waits for nothing but its turn: somebody before it waits for a gate."""

from __future__ import annotations

import asyncio

from quarterjack import ConcurrencyLimit, Flow, Quarterjack, TaskManager
from quarterjack.testing import virtual_loop, virtual_time

BEHIND = "ConcurrencyLimit lets a job in first that came before it and costs 2"


async def stay() -> None:
    """Hold a slot."""
    await asyncio.sleep(5)


async def test_who_waits_behind_a_heavier_job_is_told_so() -> None:
    """A slot is free for it, and still it is not about to begin."""
    with virtual_loop():
        async with TaskManager(ConcurrencyLimit(2)) as manager:
            manager.submit(stay)
            heavy = manager.options(cost=2).submit(stay)
            light = manager.submit(stay)
            await asyncio.sleep(1)
            assert manager.why_waiting(heavy) == "ConcurrencyLimit is full, and opens when somebody leaves"
            assert manager.why_waiting(light) == BEHIND


async def test_who_waits_behind_a_heavier_job_of_another_flow_at_the_same_gate_is_told_so() -> None:
    """They stand in different rooms, and meet at the gate alone."""
    limit = ConcurrencyLimit(2)
    with virtual_loop():
        async with TaskManager(limit) as heavy_ones, TaskManager(limit) as light_ones:
            heavy_ones.submit(stay)
            heavy_ones.options(cost=2).submit(stay)
            await asyncio.sleep(0.5)
            light = light_ones.submit(stay)
            await asyncio.sleep(0.5)
            assert light_ones.why_waiting(light) == BEHIND


async def test_who_waits_behind_a_heavier_job_of_an_app_is_told_so() -> None:
    """The command and the dashboard ask the same."""
    app = Quarterjack()
    task = app.task(flow=Flow(ConcurrencyLimit(2)))(stay)
    async with virtual_time(app) as world:
        await app.submit(task)
        await app.submit(task.options(cost=2))
        light = await app.submit(task)
        await world.run_for(1)
        assert f"it waits in its flow: {BEHIND}" in str(await app.why_waiting(light))
