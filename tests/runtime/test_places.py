"""The executors of one process: their common end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Literal, cast

import pytest

from quarterjack import Quarterjack
from quarterjack.executors import Executor, Home, LoopExecutor
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


class Remote(LoopExecutor):
    """Counts how often it was made ready."""

    is_remote = True
    starts = 0

    async def start(self, home: Home) -> None:
        self.starts += 1
        await super().start(home)


@pytest.mark.parametrize(("role", "starts"), [("client", 0), ("scheduler", 0), ("worker", 1), ("both", 1)])
async def test_only_who_runs_bodies_connects_to_where_they_run(
    role: Literal["client", "scheduler", "worker", "both"], starts: int, tmp_path: Path
) -> None:
    """The bug: `qj submit` and `qj show` listened to Celery, and told at length that it was away."""
    remote = Remote()
    app = Quarterjack(f"sqlite:///{tmp_path / 'jobs.db'}", role=role)

    @app.task(executor=remote)
    async def work() -> None: ...

    async with app.as_client() if role == "client" else app:
        await app.submit(work.options(delay=3600))
    assert remote.starts == starts
