"""Fire times that are caught up together: what becomes of one does not depend on what fires beside it."""

from __future__ import annotations

import asyncio

import pytest

from quarterjack import Every, Overlap, Quarterjack
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
