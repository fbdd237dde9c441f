"""Tasks of ours that somebody else cancels before their first step, as ``for task in asyncio.all_tasks(): …`` does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from quarterjack import ConcurrencyLimit, JobCancelled, JobState, Quarterjack, Retry, TaskManager
from quarterjack.executors._fresh import UNBEGUN
from quarterjack.testing import virtual_loop


def own_factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    """Make a task as a loop does."""
    return asyncio.Task(coroutine, loop=loop, **options)


def cancel_new_tasks_soon() -> None:
    """Cancel what is made in this turn, at its end: what was to begin in it was given a task, and no step."""
    spared = asyncio.all_tasks()

    def cancel() -> None:
        for task in asyncio.all_tasks() - spared:
            task.cancel()

    asyncio.get_running_loop().call_soon(cancel)


@pytest.mark.parametrize("factory", [None, own_factory])
@pytest.mark.parametrize("retry", [None, Retry(on=Exception, attempts=3)])
async def test_job_of_a_manager_whose_task_was_cancelled_before_it_began_is_over(
    factory: Callable[..., Any] | None, retry: Retry | None
) -> None:
    """Its coroutine is never entered, so nobody gave its slot back, and whoever awaited it waited for ever."""
    asyncio.get_running_loop().set_task_factory(factory)
    begins_eagerly = sys.version_info >= (3, 12) and factory is None

    async def body(n: int) -> int:
        await asyncio.sleep(0)
        return n

    with virtual_loop():
        limit = ConcurrencyLimit(1)
        async with TaskManager(limit, *([] if retry is None else [retry])) as manager:
            job = manager.submit(body, 1)
            cancel_new_tasks_soon()
            async with asyncio.timeout(5):
                with pytest.raises(JobCancelled):
                    await job
                assert (limit.used, job.state) == (0, JobState.CANCELLED)
                assert await manager.submit(body, 2) == 2
            assert job.reason == ("the body raised CancelledError" if begins_eagerly else UNBEGUN)


async def test_batch_whose_task_was_cancelled_before_it_began_is_over() -> None:
    """Its items waited for ever, and its gates were held."""
    done: list[int] = []

    async def save(items: list[int]) -> list[int]:
        done.extend(items)
        return items

    with virtual_loop():
        limit = ConcurrencyLimit(1)
        async with TaskManager(limit) as manager:
            batch = manager.batch(save, max_size=2, max_wait=10)
            jobs = [manager.submit(batch, n) for n in (1, 2)]
            cancel_new_tasks_soon()
            async with asyncio.timeout(5):
                for job in jobs:
                    with pytest.raises(JobCancelled):
                        await job
                assert limit.used == 0
    assert not done


@pytest.mark.parametrize("factory", [None, own_factory])
async def test_job_of_an_app_whose_task_was_cancelled_before_it_began_is_over(
    factory: Callable[..., Any] | None,
) -> None:
    """Its lease was renewed for ever, and a stop waited out its whole grace."""
    asyncio.get_running_loop().set_task_factory(factory)
    app = Quarterjack()

    @app.task
    async def body() -> int:
        await asyncio.sleep(0)
        return 1

    async with app:
        spared = asyncio.all_tasks()
        job = await app.submit(body)
        while not (made := {task for task in asyncio.all_tasks() - spared if task.get_name() == job.id}):
            await asyncio.sleep(0)
        for task in made:
            task.cancel()
        async with asyncio.timeout(5):
            with pytest.raises(JobCancelled):
                await job
            assert await (await app.submit(body)) == 1
