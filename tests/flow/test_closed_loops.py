"""Loops that are closed under those who hold gates: nothing of them counts in the next one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from quarterjack import ConcurrencyLimit

Enter = Callable[[ConcurrencyLimit], Any]


async def hold(gate: ConcurrencyLimit, enter: Enter) -> None:
    async with enter(gate):
        await asyncio.sleep(3600)


def leave_behind(gate: ConcurrencyLimit, enter: Enter, count: int) -> list[asyncio.Task[None]]:
    """Close a loop under *count* tasks that hold *gate*, or wait for it."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it says that pending tasks are destroyed, as they are to be
    tasks = [loop.create_task(hold(gate, enter)) for _ in range(count)]
    for _ in range(3):
        loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    return tasks


@pytest.mark.parametrize("enter", [lambda gate: gate, lambda gate: gate.permit()], ids=["gate", "permit"])
@pytest.mark.parametrize("count", [1, 3], ids=["holding", "waiting too"])
def test_what_a_closed_loop_left_behind_frees_no_slot_of_the_next(enter: Enter, count: int) -> None:
    """Python closes those coroutines at any moment, long after somebody else has taken the slot."""
    gate = ConcurrencyLimit(1)
    tasks = leave_behind(gate, enter, count)

    async def use_it() -> None:
        async with enter(gate):
            tasks.clear()
            gc.collect()
            assert gate.used == 1
            second = asyncio.create_task(hold(gate, enter))
            await asyncio.sleep(0.01)
            assert gate.used == 1
        await asyncio.sleep(0.01)
        assert gate.used == 1
        second.cancel()
        await asyncio.wait([second])
        assert gate.used == 0

    asyncio.run(use_it())


@pytest.mark.parametrize("enter", [lambda gate: gate, lambda gate: gate.permit()], ids=["gate", "permit"])
def test_a_block_that_is_closed_by_hand_gives_its_slot_back(enter: Enter) -> None:
    """It is left there, whatever an earlier loop left behind."""
    gate = ConcurrencyLimit(1)
    leave_behind(gate, enter, 1).clear()
    gc.collect()

    async def use_it() -> None:
        for _ in range(2):
            block = hold(gate, enter)
            block.send(None)
            assert gate.used == 1
            block.close()
            assert gate.used == 0

    asyncio.run(use_it())
