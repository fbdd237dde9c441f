"""Context variables of a `TaskManager`'s jobs, and bodies that act on their own job before they first await."""

from __future__ import annotations

import asyncio
import gc
from contextvars import ContextVar
from typing import Any
from weakref import ref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import ConcurrencyLimit, Job, JobState, TaskManager, current_job, gather
from quarterjack.runtime._snapshots import Snapshots

VARIABLES = [ContextVar[Any](f"test_{n}") for n in range(12)]


class Thing:
    """Something that can be seen to be gone."""


async def seen(variable: ContextVar[Any]) -> Any:
    return variable.get(None)


async def test_body_sees_the_values_of_its_own_submission() -> None:
    """Also where two values are equal: they are not the same, and one of them may be changed."""
    values: list[list[int]] = [[], [], []]
    jobs: list[Job[Any]] = []
    async with TaskManager(ConcurrencyLimit(1)) as manager:
        for value in (*values, values[0]):
            VARIABLES[0].set(value)
            jobs += [manager.submit(seen, VARIABLES[0]), manager.submit(seen, VARIABLES[0])]
        found = await gather(jobs)
    assert [id(one) for one in found] == [id(value) for value in (*values, values[0]) for _ in range(2)]


async def test_what_a_body_sets_no_other_job_sees() -> None:
    """Jobs that were submitted in one context each run in a copy of it."""

    async def body(n: int) -> tuple[Any, int]:
        before = VARIABLES[1].get(None)
        VARIABLES[1].set(n)
        await asyncio.sleep(0)
        return before, VARIABLES[1].get()

    async with TaskManager() as manager:
        assert await gather([manager.submit(body, n) for n in range(5)]) == [(None, n) for n in range(5)]
    assert VARIABLES[1].get(None) is None


@given(st.lists(st.tuples(st.integers(0, 11), st.sampled_from([0, 1, 1.0, True, "x", None])), max_size=30))
def test_one_snapshot_serves_for_as_long_as_nothing_changes(moves: list[tuple[int, Any]]) -> None:
    """It shows what was set at that moment, by identity: ``1``, ``1.0`` and ``True`` are equal, and not the same."""
    take = Snapshots().take

    async def play() -> None:
        kept = [take()]  # some job waits with it
        for n, value in moves:
            VARIABLES[n].set(value)
            kept.append(take())
            assert all(kept[-1].get(variable) is variable.get(None) for variable in VARIABLES)
            if len(kept[-1]) <= 8:
                assert take() is kept[-1]

    asyncio.run(play())


async def test_nothing_is_kept_alive_by_a_context_whose_jobs_are_over() -> None:
    """A request that set a variable to itself is gone with its jobs, though no other one comes."""

    async def request(manager: TaskManager) -> ref[Thing]:
        value = Thing()
        VARIABLES[2].set(value)
        await manager.submit(asyncio.sleep, 0)
        return ref(value)

    async with TaskManager(ConcurrencyLimit(1)) as manager:
        gone = await asyncio.create_task(request(manager))
        await asyncio.sleep(0)
        gc.collect()
        assert gone() is None


async def test_waiting_jobs_of_one_context_hold_one_snapshot() -> None:
    """A hundred thousand of them would else be a hundred thousand more objects for the collector to walk."""
    VARIABLES[3].set("here")
    async with TaskManager(ConcurrencyLimit(1)) as manager:
        jobs: list[Any] = [manager.submit(seen, VARIABLES[3]) for _ in range(10)]
        assert len({id(job._record.context) for job in jobs}) == 1


@pytest.mark.parametrize("how", ["stop", "other"])
async def test_job_is_interrupted_also_in_the_first_part_of_its_body(how: str) -> None:
    """Where bodies begin eagerly nobody has been told yet which task runs it."""
    ended: list[str] = []

    async def body(manager: TaskManager) -> None:
        me = jobs[0]

        async def other() -> None:
            await me.cancel(0)

        try:
            if how == "stop":
                manager._jobs.running().cancel(me._record, "the manager was stopped")  # type: ignore[arg-type]  # a run
            else:
                asyncio.get_running_loop().call_soon(asyncio.ensure_future, other())
            await asyncio.sleep(60)
        finally:
            ended.append(current_job().task)

    async with TaskManager() as manager:
        jobs = [manager.submit(body, manager)]
        await asyncio.wait([asyncio.ensure_future(jobs[0].wait(5))])
        assert ended == [body.__qualname__]
        assert jobs[0].state is JobState.CANCELLED
