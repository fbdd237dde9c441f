"""What the pages promise of flows and managers as a whole, and no strategy's own tests hold to account."""

from __future__ import annotations

import asyncio
import threading
from itertools import permutations
from typing import Any

import pytest

import quarterjack
from quarterjack import (
    ConcurrencyLimit,
    Deadline,
    Dedupe,
    Delay,
    Fallback,
    Flow,
    Gate,
    Hedge,
    InvalidOption,
    JobState,
    LoopThread,
    Order,
    Priority,
    Quarterjack,
    Retry,
    TaskManager,
    Timeout,
    Wrap,
    WrongLoop,
    gather,
)
from quarterjack.testing import virtual_loop


def test_a_flow_shows_the_order_in_which_it_acts_however_it_was_written() -> None:
    """The wrong order is a trap, so nobody gets to choose it."""
    parts: list[Any] = [Timeout(1), Hedge(after=0.5), ConcurrencyLimit(1), Retry(on=OSError), Fallback(0), Deadline(9)]
    shown = {repr(Flow(*some, Dedupe(by="n"), Priority())) for some in permutations(parts)}
    (words,) = shown
    places = [
        words.index(name) for name in ("Dedupe", "Deadline", "Fallback", "Retry", "[order Priority", "Conc", "Hedge")
    ]
    assert places == sorted(places)
    assert words.endswith("→ Timeout(seconds=1.0) → body)")


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ((Priority(), Priority()), "one Order, .* two Orders cannot both say who is next"),
        ((Retry(on=OSError), Retry(on=OSError)), "one Retry, .* two retries would multiply their attempts"),
        ((Timeout(1), Timeout(2)), "one Timeout"),
        ((Fallback(1), Fallback(2)), "one Fallback"),
        ((Timeout(5), Deadline(1)), r"Timeout\(5\) of an attempt is above Deadline\(1\)"),
        ((ConcurrencyLimit,), "the class; make an object of it"),
        (("5/s",), "a Flow is made of gates"),
    ],
)
def test_strategies_that_cannot_work_together_are_refused_when_the_flow_is_built(parts: Any, said: str) -> None:
    """Not when the first job fails of it."""
    with pytest.raises(InvalidOption, match=said):
        Flow(*parts)


async def test_a_limit_that_shrinks_withholds_and_one_that_grows_lets_in_at_once() -> None:
    """What runs is never interrupted by a setting."""
    limit = ConcurrencyLimit(3)
    with virtual_loop():
        async with TaskManager(limit) as manager:
            jobs = [manager.submit(asyncio.sleep, 1) for _ in range(6)]
            await asyncio.sleep(0.5)
            limit.update(max_concurrent=1)
            await asyncio.sleep(0.4)
            assert [job.state for job in jobs].count(JobState.RUNNING) == 3
            await asyncio.sleep(0.4)
            assert [job.state for job in jobs].count(JobState.RUNNING) == 1
            limit.update(max_concurrent=3)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert [job.state for job in jobs].count(JobState.RUNNING) == 3
        assert {job.state for job in jobs} == {JobState.DONE}
    assert limit.used == 0


async def test_idle_waits_for_all_jobs_and_closes_nothing() -> None:
    """More may come while it waits, and afterwards."""
    with virtual_loop() as clock:
        began = clock.monotonic()
        async with TaskManager(ConcurrencyLimit(1)) as manager:

            async def more() -> None:
                manager.submit(asyncio.sleep, 1)

            manager.submit(more)
            await manager.idle()
            assert clock.monotonic() - began == pytest.approx(1)
            assert await manager.submit(asyncio.sleep, 0, "again") == "again"


async def test_submit_from_other_threads_is_taken_waited_for_and_refused_there() -> None:
    """Whoever called it hears of it: the job, its result, what was wrong."""
    loop_thread, seen = threading.get_ident(), []

    async def where(n: int) -> int:
        seen.append(threading.get_ident())
        return n

    def elsewhere() -> list[int]:
        jobs = [manager.submit_threadsafe(where, n) for n in range(20)]
        with pytest.raises(InvalidOption, match="cannot be called like that"):
            manager.submit_threadsafe(where)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # the case
        return [job.wait_sync(5) for job in jobs]

    async with TaskManager(ConcurrencyLimit(2)) as manager:
        assert await asyncio.gather(*(asyncio.to_thread(elsewhere) for _ in range(3))) == [list(range(20))] * 3
        with pytest.raises(WrongLoop, match="would block the manager's own event loop"):
            manager.submit_threadsafe(where, 1)
    assert set(seen) == {loop_thread}


async def test_a_loop_thread_s_tasks_pass_the_gates_of_the_app_s_loop() -> None:
    """One limit for bodies on both loops: it belongs to one, and nobody need know."""
    app = Quarterjack()
    limit = ConcurrencyLimit(1)
    inside, most = 0, 0
    lock = threading.Lock()

    async def work() -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        await asyncio.sleep(0.002)
        with lock:
            inside -= 1

    here = app.task(name="here", flow=limit)(work)
    there = app.task(name="there", flow=limit, executor=LoopThread("own"))(work)
    async with app:
        jobs = [await app.submit(task) for _ in range(5) for task in (here, there)]
        await gather(jobs)
    assert (most, inside, limit.used) == (1, 0, 0)


def test_each_strategy_says_what_it_costs() -> None:
    """Time and space per job, in the docstring: who chooses among them must be able to compare."""
    kinds = [one for one in vars(quarterjack).values() if isinstance(one, type)]
    strategies = [one for one in kinds if issubclass(one, Gate | Order | Wrap) and "_is_contract" not in vars(one)]
    stages = [quarterjack.Timeout, Deadline, Fallback, Dedupe, Retry, quarterjack.RetryBudget, quarterjack.Batch]
    assert len(strategies) >= 10
    assert Delay in strategies
    silent = [one.__name__ for one in (*strategies, *stages) if one is not Wrap and "O(" not in (one.__doc__ or "")]
    assert silent == []
