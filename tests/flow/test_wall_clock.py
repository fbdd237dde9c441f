"""Gates that go by the wall clock: when the dispatcher asks them again."""

from __future__ import annotations

import asyncio
import math

import pytest

from quarterjack import Gate, Waiting
from quarterjack.testing import virtual_loop


class Noon(Gate):
    """Open from noon on."""

    follows_wall_clock = True

    def eta(self, job: Waiting, now: float) -> float:
        left = 12 - self.clock.now().hour
        return now if left <= 0 else now + left * 3600 - self.clock.now().minute * 60


class Elsewhere(Gate):
    """Goes by something that it does not tell of."""

    follows_wall_clock = True
    is_open = False

    def eta(self, job: Waiting, now: float) -> float:
        return now if self.is_open else math.inf


@pytest.mark.parametrize(("step", "hour"), [("2h", 12), ("-2h", 12), ("5h", 15)])
async def test_instant_is_the_wall_clocks_however_that_is_set(step: str, hour: int) -> None:
    """A clock that is set back makes those wait who would have come; one set forward lets them go."""
    with virtual_loop(start="2026-03-02T09:00Z") as clock:
        waiting = asyncio.create_task(Noon().__aenter__())
        await asyncio.sleep(3600)
        clock.step_clock(step)
        await waiting
        assert (clock.now().hour, clock.now().minute) == (hour, 0)


async def test_machine_that_slept_past_the_instant_goes_on_at_once() -> None:
    """The monotonic clock knows nothing of it."""
    with virtual_loop(start="2026-03-02T09:00Z") as clock:
        waiting = asyncio.create_task(Noon().__aenter__())
        await asyncio.sleep(60)
        clock.suspend("8h")
        await waiting
        assert (clock.now().hour, clock.now().minute) == (17, 1)


async def test_gate_that_names_no_instant_is_asked_every_half_minute() -> None:
    """What it goes by may have changed."""
    gate = Elsewhere()
    with virtual_loop() as clock:
        began = clock.monotonic()
        waiting = asyncio.create_task(gate.__aenter__())
        await asyncio.sleep(70)
        gate.is_open = True
        await waiting
        assert clock.monotonic() - began == pytest.approx(90, abs=0.01)


async def test_who_gives_up_leaves_no_alarm() -> None:
    """The timer is kept open by those who wait, and by nobody else; on the system's clock it is a file."""
    gate = Noon()
    with virtual_loop(start="2026-03-02T09:00Z"):
        waiting = asyncio.create_task(gate.__aenter__())
        await asyncio.sleep(1)
        assert gate._post is not None
        assert gate._post.wall is not None
        waiting.cancel()
        await asyncio.wait([waiting])
        await asyncio.sleep(0)
        assert gate._post.wall is None


async def test_instant_between_two_nanoseconds_is_reached() -> None:
    """The bug: such an alarm rang at once and found nothing due, again and again, and virtual time stood still."""

    class Hair(Gate):
        follows_wall_clock = True
        opens_at = math.inf

        def eta(self, job: Waiting, now: float) -> float:
            return self.opens_at

    with virtual_loop() as clock:
        gate = Hair()
        gate.opens_at = math.nextafter(clock.monotonic() + 0.35, math.inf)
        async with asyncio.timeout(1):
            async with gate:
                assert clock.monotonic() >= gate.opens_at
