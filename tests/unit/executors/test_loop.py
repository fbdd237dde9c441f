"""Bodies on the app's own loop: what is special about them."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.executors import Home, LoopExecutor
from quarterjack.model import OutcomeKind
from tests.unit.executors.kit import LOOPS, FakeCall, Listener, on_each_loop, outcome_of, started


async def forever() -> None:
    await asyncio.Event().wait()


def lazy(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    options.pop("eager_start", None)
    return asyncio.Task(coroutine, loop=loop, **options)


@on_each_loop
async def test_each_body_is_a_task_named_after_its_job() -> None:
    """User code looks at `current_task`, and whoever looks at a list of tasks wants to know whose they are."""

    async def body() -> asyncio.Task[Any] | None:
        await asyncio.sleep(0)
        return asyncio.current_task()

    async with started(LoopExecutor(2)) as executor:
        call, listener = FakeCall(body), Listener()
        executor.submit(call, listener)
        first = (await listener.end()).result
        second = (await outcome_of(executor, body)).result
    assert first.get_name() == call.job_id
    assert first is not second
    assert asyncio.current_task() not in {first, second}


@on_each_loop
async def test_a_call_cancelled_before_its_first_step_never_enters_its_body() -> None:
    """Asyncio drops such a task without a word: the executor has to report it, or the slot leaks."""
    asyncio.get_running_loop().set_task_factory(lazy)  # Python 3.12 would begin at once
    ran: list[int] = []

    async def body() -> None:
        ran.append(1)

    executor = LoopExecutor(1)
    async with started(executor):
        for _ in range(3):
            listener = Listener()
            executor.submit(FakeCall(body), listener).cancel("never mind")
            assert listener.log == ["finished"]
            assert listener.outcome is not None
            assert listener.outcome[:5] == (OutcomeKind.CANCELLED, None, None, "never mind", True)
            assert executor.free == 1
            await asyncio.sleep(0)
            listener.check()
    assert ran == []


@pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_loop_closed_under_a_body_is_no_outcome(make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """A GeneratorExit of the garbage collector must not be taken for a body's, and end another app."""
    loop = make()
    loop.set_exception_handler(lambda *_: None)  # "Task was destroyed but it is pending!" is asyncio's to say
    listeners: list[Listener] = []

    async def main() -> None:
        executor = LoopExecutor(1)
        await executor.start(Home(SYSTEM_CLOCK))
        listeners.append(Listener())
        executor.submit(FakeCall(asyncio.sleep, 3600.0), listeners[0])
        await listeners[0].has_begun.wait()
        await asyncio.sleep(0)

    loop.run_until_complete(main())
    loop.close()
    gc.collect()
    assert listeners[0].log == ["began"]
