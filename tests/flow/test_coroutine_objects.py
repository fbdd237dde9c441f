"""Coroutine objects in place of functions: taken for one attempt, and closed wherever they are refused."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Dedupe,
    Flow,
    InvalidArguments,
    InvalidOption,
    NotRunning,
    QueueFull,
    Retry,
    TaskManager,
    WrongLoop,
)
from quarterjack.testing import virtual_loop


async def body() -> str:
    return "ran"


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """Python complains of a coroutine that nobody awaited when it is collected."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(one.message) for one in told if "never awaited" in str(one.message)] == []


@asynccontextmanager
async def full(**flow: Any) -> AsyncIterator[Any]:
    """Enter a manager whose one slot is taken and in whose queue there is no room."""
    manager = TaskManager(Flow(ConcurrencyLimit(1), max_queue=1, **flow))
    with virtual_loop():
        async with manager:
            for _ in range(2):
                manager.submit(asyncio.sleep, 60)
                await asyncio.sleep(0.1)
            yield manager
            await manager.stop(drain=False)


async def _in_thread(submit: Callable[[Any], Any], coroutine: Any) -> None:
    await asyncio.to_thread(submit, coroutine)


async def refused(submit: Callable[[Any], Any], coroutine: Any, error: type[Exception]) -> None:
    """Submit *coroutine*, and see it refused and closed."""

    async def asked() -> None:
        answer = submit(coroutine)
        if inspect.isawaitable(answer):
            await answer

    with pytest.raises(error):
        await asked()
    assert inspect.getcoroutinestate(coroutine) == inspect.CORO_CLOSED


REFUSED: dict[str, tuple[Callable[[], TaskManager], Callable[[Any], Any], type[Exception]]] = {
    "heavy": (lambda: TaskManager(ConcurrencyLimit(1)), lambda manager: manager.options(cost=2).submit, InvalidOption),
    "no key": (lambda: TaskManager(ConcurrencyLimit(1, by="tenant")), lambda manager: manager.submit, InvalidOption),
    "with arguments": (TaskManager, lambda manager: lambda one: manager.submit(one, 1), InvalidArguments),
    "with retries": (lambda: TaskManager(Retry(on=OSError)), lambda manager: manager.submit, InvalidArguments),
    "single flight": (lambda: TaskManager(Dedupe(by=lambda _: 0)), lambda manager: manager.submit, InvalidArguments),
    "another thread": (
        TaskManager,
        lambda manager: lambda one: _in_thread(manager.submit, one),
        WrongLoop,
    ),
    "own loop": (TaskManager, lambda manager: manager.submit_threadsafe, WrongLoop),
    "retries, in another thread": (
        TaskManager,
        lambda manager: lambda one: _in_thread(manager.options(retry=2).submit_threadsafe, one),
        InvalidArguments,
    ),
    "single flight, where there is room": (
        lambda: TaskManager(Flow(Dedupe(by=lambda _: 0), max_queue=1, overflow="block")),
        lambda manager: manager.submit_wait,
        InvalidArguments,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_refused_is_closed(case: str) -> None:
    """Whoever handles the error has done all there is to do; a warning would come later, of another place."""
    make, way, error = REFUSED[case]
    async with make() as manager:
        await refused(way(manager), body(), error)
        assert manager.stats()["waiting"] == 0


@pytest.mark.parametrize("way", ["submit", "submit_wait"])
async def test_what_finds_no_room_is_closed(way: str) -> None:
    """The commonest refusal of all."""
    async with full() as manager:
        await refused(getattr(manager, way), body(), QueueFull)


async def test_what_nobody_waits_to_submit_any_more_is_closed() -> None:
    """The request was dropped while it waited for room."""
    async with full(overflow="block") as manager:
        asking = asyncio.create_task(manager.submit_wait(body()))
        await asyncio.sleep(0.1)
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()


@pytest.mark.parametrize("way", ["submit_wait", "submit_threadsafe"])
async def test_what_comes_before_the_block_to_a_submit_that_needs_it_is_closed(way: str) -> None:
    """Only `submit` takes jobs that early."""
    await refused(getattr(TaskManager(), way), body(), NotRunning)


@pytest.mark.parametrize("is_entered", [False, True])
async def test_what_comes_after_the_end_is_closed(is_entered: bool) -> None:
    """It is told what a function is told: that the manager takes no more."""
    manager: Any = TaskManager()
    if is_entered:
        async with manager:
            pass
    await manager.stop()
    await refused(manager.submit, body(), NotRunning)


def test_what_comes_after_the_loop_is_closed() -> None:
    """A thread may outlive the program's loop."""
    manager: Any = TaskManager()

    async def main() -> None:
        async with manager:
            pass

    asyncio.run(main())
    with pytest.raises(RuntimeError, match="closed"):
        manager.submit_threadsafe(body())


async def test_what_is_taken_runs_and_stays_open_until_it_does() -> None:
    """The others are closed, and it waits for its slot all the same."""
    async with full(overflow="block") as manager:
        job = await manager.submit_wait(body())
        assert await job == "ran"
        assert await (await asyncio.to_thread(manager.submit_threadsafe, body())) == "ran"
