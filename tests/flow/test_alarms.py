"""The dispatcher's timer: it rings when something is due, and neither earlier nor again and again."""

from __future__ import annotations

import asyncio

import pytest

from quarterjack.flow.alarms import Alarms
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.testing import virtual_loop


async def test_an_instant_too_close_to_tell_from_now_rings_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part of a nanosecond ahead is not yet due, and no timer can be set for it: this made the loop spin for ever."""
    with virtual_loop() as clock:
        dispatcher = Dispatcher.of(asyncio.get_running_loop())
        rung: list[float] = []
        turns = 0

        def on_timer(alarms: Alarms) -> None:
            nonlocal turns
            turns += 1
            assert turns < 100, "the timer is set again and again"
            whole(alarms)

        whole = Alarms._on_timer
        monkeypatch.setattr(Alarms, "_on_timer", on_timer)
        now = clock.monotonic()
        dispatcher.call_at(now + now * 2**-52, lambda: rung.append(clock.monotonic()))
        await asyncio.sleep(1)
        assert len(rung) == 1
        assert 0 < rung[0] - now < 1e-5
