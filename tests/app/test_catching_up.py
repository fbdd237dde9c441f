"""Fire times that are caught up together: what becomes of one does not depend on what fires beside it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from types import FrameType

import pytest

from quarterjack import Every, MemoryStore, Overlap, Quarterjack
from quarterjack.planner import Plan
from quarterjack.stores.base import Claim, Fired
from quarterjack.testing import virtual_time


@pytest.mark.parametrize("neighbours", [0, 1, 40])
async def test_caught_up_runs_find_the_slots_that_are_free(neighbours: int) -> None:
    """The first of several runs at once and the next waits behind it, whatever other schedules are due.

    The bug: one slot was leased per schedule, so a neighbour that caught up side by side took
    those of all, and a first run that found none stood in the way of its own second.
    """
    app = Quarterjack(concurrency=1_000)

    @app.task
    async def work() -> None:
        await asyncio.sleep(1)

    async with virtual_time(app, start="2026-03-02T08:30") as world:
        for number in range(neighbours):
            await app.schedule(work, Every(hours=1), id=f"beside-{number}", missed="all", overlap="allow")
        await app.schedule(work, Every(hours=1), id="bounded", missed="all", overlap=Overlap("queue_all", 1))
        await world.suspend("3h")
        await world.run_for(5)
        assert world.outcomes("bounded") == ["done", "done", "skipped"]


async def test_many_runs_are_caught_up_in_linear_time() -> None:
    """The bug: each fire time counted all open jobs before it, and the loop stood still for seconds."""
    asked = 0

    class Counted(MemoryStore):
        async def schedules_fire(self, plans: Sequence[Plan], claim: Claim | None = None) -> Fired:
            nonlocal asked
            calls = 0

            def count(frame: FrameType, event: str, _: object) -> None:
                nonlocal calls
                calls += event == "call"

            sys.setprofile(count)
            try:
                return await super().schedules_fire(plans, claim)
            finally:
                sys.setprofile(None)
                asked = max(asked, calls)

    app = Quarterjack(Counted())

    @app.task
    async def work() -> None: ...

    async with virtual_time(app, start="2026-03-02T08:30") as world:
        await app.schedule(work, Every(seconds=1), missed="all", max_catchup=1_000, overlap="queue_all")
        await world.suspend("16m40s")
        await world.settle()
        assert len(world.jobs("work")) >= 1_000
        assert asked < 100 * 1_000
