"""Workers and schedulers that are killed once a second."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Final

from tests.chaos.arena import MARKS, Arena
from tests.chaos.crew import Member
from tests.chaos.oracle import take_ups

pytestmark = MARKS

JOBS: Final = 7_000
"""On each store; more than 20,000 on all of them."""


async def killed_each_second(place: Arena, kills: int, rng: Random) -> None:
    """Once a second kill one and start another in its place: now one that runs a long job, now any."""
    for turn in range(kills):
        await asyncio.sleep(1.0)
        await place.until(lambda: len(place.upright) > 2)
        victims = place.upright if turn % 2 else await holders(place)
        place.crew.replace(rng.choice(victims))


async def holders(place: Arena) -> list[Member]:
    """Return those who run a long job."""
    await place.submit(place.chaos.long.options(priority=0).bind(4.0) for _ in range(4))
    await place.until(lambda: any(place.holds(member, "long") for member in place.upright))
    return [member for member in place.upright if place.holds(member, "long")]


async def test_kill_9_once_a_second_loses_no_job_and_no_tick(place: Arena) -> None:
    """A crash is no event in the life of a job: all run, none beside itself or beyond a limit."""
    await place.submit(place.chaos.short.bind(n) for n in range(JOBS))
    await place.submit(place.chaos.limited.bind(0.2) for _ in range(40))
    await place.start("scheduler", "both", "both", "worker")
    await killed_each_second(place, 4, Random(1))
    evidence = await place.judge()
    assert len(evidence.by_job) > JOBS
    assert list(take_ups(evidence)), "some died with a job in their hands"
