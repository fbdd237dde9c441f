"""Servers that crash in the middle of whatever they do, and connections that are open and dead."""

from __future__ import annotations

from pathlib import Path
from random import Random

from tests.chaos.arena import MARKS, arena
from tests.chaos.blows import crash
from tests.chaos.ground import Ground

pytestmark = MARKS


async def test_server_that_crashes_in_mid_commit_loses_nothing_it_has_answered(on: Ground, tmp_path: Path) -> None:
    """Jobs, outcomes and fires are under way at each moment: each has happened or not, and is asked again if not."""
    async with arena(on.url, tmp_path) as place:
        await place.start("both", "both")
        for _ in range(2):
            await place.submit(place.chaos.short.bind(n) for n in range(1_000))
            await place.until(lambda: place.begun("short") % 1_000 > 200)
            await crash(place, on, Random(1))
        evidence = await place.judge()
        assert len(evidence.by_job) > 2_000


async def test_half_open_connections_cost_no_lease_and_no_tick(on: Ground, tmp_path: Path) -> None:
    """What comes over the old connections is swallowed for good: the body runs on, and only once; ticks go on."""
    assert on.proxy is not None
    async with arena(on.url, tmp_path, crew_url=on.crew_url, lease_s=6.0) as place:
        await place.start("both", "both")
        await place.submit(place.chaos.long.bind(8.0) for _ in range(2))
        await place.until(lambda: place.begun("long") == 2)
        place.cut_off()
        on.proxy.forget()
        place.connected()
        ticks = place.begun("tick")
        await place.until(lambda: place.ended("long") == 2)
        assert place.begun("tick") > ticks + 8, "fires and claims have found new connections long before"
        evidence = await place.judge()
        assert [body.attempt for body in evidence.bodies if body.task == "long"] == [1, 1]
