"""Fires over PostgreSQL: each statement is a way to the server and back, and a tick waits for all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from quarterjack.stores._postgres_transact import Transaction
from tests.stores.postgres_kit import CLAIM, MovedBench, schema_on_test_time


@pytest.fixture(scope="module")
def url(postgres_server: str) -> Iterator[str]:
    with schema_on_test_time(postgres_server) as url:
        yield url


def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the names of the statements of decisions from now on."""
    names: list[str] = []

    def noting(ask: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def note(self: Transaction[Any], name: str, *arguments: Any) -> Any:
            names.append(name)
            return await ask(self, name, *arguments)

        return note

    for method in ("_value", "_fetch"):
        monkeypatch.setattr(Transaction, method, noting(getattr(Transaction, method)))
    return names


async def test_schedule_that_fires_again_asks_for_all_it_needs_at_once(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It needs what it needed the last time; what it writes are its jobs and itself."""
    bench = MovedBench(url)
    await bench.open()
    await bench.schedule()
    names, seen = told(monkeypatch), list[str]()
    for _ in range(2):
        await bench.advance(60)
        plan = await bench.plan()
        names.clear()
        (job,) = (await bench.store.schedules_fire([plan], CLAIM)).jobs
        seen = list(names)
        await bench.finish(job.fence)
    await bench.store.close()
    assert seen == ["lock", "load_lines", "load_schedules", "load_held_up", "fire"]
