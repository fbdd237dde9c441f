"""A gate that belongs to another loop: whoever is refused for it has bound none of the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from quarterjack import ConcurrencyLimit, Flow, Quarterjack, SlidingWindow, TaskManager, WrongLoop


@pytest.fixture(name="foreign")
def gate_of_another_loop() -> Iterator[ConcurrencyLimit]:
    """A gate in use on a loop that is still open."""
    gate = ConcurrencyLimit(1, name="foreign")
    loop = asyncio.new_event_loop()

    async def use() -> None:
        async with gate:
            pass

    loop.run_until_complete(use())
    yield gate
    loop.close()


def manager(*gates: Any) -> AbstractAsyncContextManager[Any]:
    """Gates of a manager."""
    return TaskManager(*gates)


def permit(*gates: Any) -> AbstractAsyncContextManager[Any]:
    """Gates of a bare pass."""
    return Flow(*gates).permit(tenant="acme")


def task(*gates: Any) -> AbstractAsyncContextManager[Any]:
    """Gates of an app's tasks, one each."""
    app = Quarterjack()
    for number, gate in enumerate(gates):
        app.task(name=f"task {number}", flow=gate)(asyncio.sleep)
    return app


def queue(*gates: Any) -> AbstractAsyncContextManager[Any]:
    """Gates of an app's queues, one each."""
    app = Quarterjack()
    for number, gate in enumerate(gates):
        app.queue(f"queue {number}", flow=gate)
    return app


def batch(*gates: Any) -> AbstractAsyncContextManager[Any]:
    """Gates of an app's batches."""
    app = Quarterjack()

    @app.batch(max_size=2, flow=Flow(*gates))
    async def insert(items: list[int]) -> list[int]:
        return items

    return app


@pytest.mark.parametrize("users", [manager, permit, task, queue, batch])
def test_what_is_refused_for_one_gate_has_bound_none(
    users: Callable[..., AbstractAsyncContextManager[Any]], foreign: ConcurrencyLimit
) -> None:
    """The error says to use it elsewhere; the others would have been lost to a loop that never used them."""
    mine = [ConcurrencyLimit(1), SlidingWindow(5, per=1), ConcurrencyLimit(1, by=lambda _: 1)]

    async def enter() -> None:
        async with users(*mine, foreign, *mine[:1]):
            pytest.fail("it holds a gate of another loop")

    with asyncio.Runner() as other:
        with pytest.raises(WrongLoop, match="foreign"):
            other.run(enter())

        async def use() -> None:
            async with asyncio.timeout(5), TaskManager(*mine) as here:
                await here.submit(asyncio.sleep, 0)

        asyncio.run(use())  # while the loop on which it was refused is open


def test_a_flow_without_gates_serves_every_loop() -> None:
    """It has nothing that belongs to one."""
    flow = Flow()

    async def use() -> None:
        async with flow.permit():
            pass

    with asyncio.Runner() as other:
        other.run(use())
        asyncio.run(use())
        other.run(use())
