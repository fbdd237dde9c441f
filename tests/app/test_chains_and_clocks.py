"""Schedules that run again after their job's end, while the wall clock is set: one chain that never tears."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from quarterjack import FixedDelay, Forever, JobState, Quarterjack, Trigger
from quarterjack.testing import virtual_time
from tests.app.kit import START

HOUR = 3_600
chains = pytest.mark.parametrize("trigger", [Forever(pause=60), FixedDelay(minutes=1), Forever()], ids=str)
steps = pytest.mark.parametrize("step", [-30, -HOUR, -30 * HOUR, HOUR, 30 * HOUR])


def pause_of(trigger: Trigger) -> float:
    return (trigger.after_finish_ns or 0) / 1e9


@chains
@steps
@pytest.mark.parametrize("when", [15, 75], ids=["body", "pause"])
async def test_chain_goes_on_however_the_clock_is_set(trigger: Trigger, step: int, when: int) -> None:
    """Its next run comes one pause of real time after the last has ended, and none is missed.

    The bug: where the clock was set back, the next run came before the last one by the
    clock, and was taken for one that had passed before its schedule was put.
    """
    app = Quarterjack()
    begun: list[float] = []

    @app.task(trigger)
    async def body() -> None:
        begun.append(asyncio.get_running_loop().time())
        await asyncio.sleep(30)

    async with virtual_time(app, start=START) as world:
        await world.run_for(5 * 90 + when)
        await world.step_clock(step)
        await world.run_for(10 * 90)
        assert world.jobs(state=JobState.MISSED) == []
        gaps = {round(later - earlier, 6) for earlier, later in pairwise(begun)}
        assert max(gaps) == 30 + pause_of(trigger), "a step back loses no time"
        assert len(begun) >= 15 * 90 // (30 + pause_of(trigger)) - 1
