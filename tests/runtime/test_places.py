"""The executors of one process: their common end."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from quarterjack.executors import Executor, LoopExecutor
from quarterjack.runtime.places import Places
from quarterjack.testing import virtual_loop


class Slow(LoopExecutor):
    """Has a body that takes all the time it is given; may raise in the end."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.is_stopped = False

    async def stop(self, grace_s: float) -> None:
        await asyncio.sleep(grace_s)
        self.is_stopped = True
        if self.error is not None:
            raise self.error


async def test_executors_are_stopped_side_by_side() -> None:
    """An app with four places would take four times its grace to end, and be killed in the middle of it."""
    with virtual_loop() as clock:
        places = Places(cast("Any", None), 1, lambda: None)
        slow = [Slow(), Slow(ValueError("in the way")), Slow()]
        places.executors = cast("set[Executor]", set(slow))
        began = clock.monotonic()
        await places.stop(30)
        assert clock.monotonic() - began < 31
    assert all(one.is_stopped for one in slow)
    assert not places.executors
