"""Flows mean the same on every store, and in an app the same as in a `TaskManager`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from quarterjack import ConcurrencyLimit, Flow, Order, Quarterjack, TaskManager, Waiting
from quarterjack.stores import MemoryStore
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing import VirtualClock, virtual_loop

Apps = Callable[[], Quarterjack]
Seen = tuple[tuple[Any, ...], Mapping[str, Any]]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock("2026-03-02T09:00Z")


@pytest.fixture(params=["memory", "strict", "sqlite"])
def new_app(request: pytest.FixtureRequest, tmp_path: Path, clock: VirtualClock) -> Apps:
    """Return what makes an app on each kind of store: one keeps objects, one checks them, one keeps JSON."""

    def make() -> Quarterjack:
        is_file = request.param == "sqlite"
        store = SQLiteStore(tmp_path / "jobs.db", synchronous="off") if is_file else MemoryStore()
        app = Quarterjack(store, strict=request.param == "strict")
        app.clock = clock
        return app

    return make


class Watched(Order):
    """Notes the arguments that it sees, and goes by one of them."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def rank(self, job: Waiting, now: float) -> float:
        self.seen.append((job.args, dict(job.kwargs)))
        return float(job.kwargs.get("due", 0))


CALLS: list[Seen] = [((1,), {"due": -10}), ((2, -20), {}), ((), {"due": -30, "n": 3})]


async def test_strategies_see_arguments_as_they_were_written_on_every_store(new_app: Apps, clock: VirtualClock) -> None:
    """A rule that reads `kwargs` and passes its tests on memory would be another one in production, in silence."""
    watched, ran = Watched(), list[int]()
    app = new_app()

    async def work(n: int, due: int = 0) -> None:
        ran.append(n)

    task = app.task(flow=Flow(ConcurrencyLimit(1, by=lambda job: str(sorted(job.kwargs))), watched))(work)
    with virtual_loop(clock):
        async with app:
            for args, kwargs in CALLS:
                await (await app.submit(task, *args, **kwargs))
            in_apps, watched.seen = watched.seen, []
        async with TaskManager(watched) as manager:
            for args, kwargs in CALLS:
                await manager.submit(work, *args, **kwargs)
    assert ran == [1, 2, 3, 1, 2, 3]
    for call in CALLS:
        assert call in in_apps
        assert call in watched.seen
    assert all(seen in CALLS for seen in in_apps)


async def test_an_order_that_goes_by_a_name_keeps_its_order_on_every_store(new_app: Apps, clock: VirtualClock) -> None:
    """The latest of these is the most urgent one; whether a store wrote them down makes no difference."""
    app, ran = new_app(), list[int]()

    @app.task(flow=Flow(ConcurrencyLimit(1), Watched()))
    async def work(n: int, due: int = 0) -> None:
        ran.append(n)

    with virtual_loop(clock):
        async with app:
            jobs = await app.submit_many([work.bind(n, due=-n) for n in range(4)])
            for job in jobs:
                await job
    assert ran == [3, 2, 1, 0]
