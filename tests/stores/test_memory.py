"""The memory store keeps the contract of every store, and what it promises beyond."""

from __future__ import annotations

from datetime import timedelta
from weakref import WeakSet

import pytest
from hypothesis import settings

from quarterjack import MemoryStore
from quarterjack._durations import NS_PER_S
from quarterjack.model import JobFilter, JobRecord, Origin, Overlap, RunOptions, Unique
from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine


class TestMemoryStore(StoreContract):
    """The contract, case by case."""

    def bench(self) -> Bench:
        return Bench(MemoryStore())


async def opened(**options: int) -> Bench:
    bench = Bench(MemoryStore(**options))
    await bench.open()
    return bench


async def test_rows_are_the_callers_records() -> None:
    """States are visible the moment they change."""
    b = await opened()
    job = b.job()
    (row,) = await b.store.jobs_put([job])
    assert row is job


async def test_newest_finished_jobs_are_kept_and_the_waiting_ones_all() -> None:
    """Memory must not grow with history."""
    b = await opened(keep_finished=3)
    waiting = await b.put("b")
    jobs = [await b.put() for _ in range(5)]
    for row in await b.claim(tasks=frozenset({"a"})):
        await b.finish(row.fence)
    assert await b.states([waiting, *jobs]) == ["submitted", "gone", "gone", "done", "done", "done"]
    assert len((await b.store.jobs_list(JobFilter())).jobs) == 4


async def test_job_that_ended_again_is_kept_as_the_newest() -> None:
    """The end that counts is its last one.

    The bug: a repeated job stood among the finished ones twice, and its older place
    made it go when it had only just ended.
    """
    b = await opened(keep_finished=3)
    again = await b.put()
    others = [await b.put("b") for _ in range(2)]
    for row in await b.claim():
        await b.finish(row.fence)
    await b.store.jobs_retry(JobFilter(task="a"))
    await b.finish((await b.claim())[0].fence)
    assert await b.states([*others, again]) == ["done", "done", "done"]
    await b.put("b")
    await b.finish((await b.claim())[0].fence)
    assert await b.states([*others, again]) == ["gone", "done", "done"]


async def test_unique_keys_of_periods_that_are_over_are_forgotten() -> None:
    """A key per customer and hour must not keep every job there ever was, also when none comes in any more."""
    b = await opened(keep_finished=10)
    rows: WeakSet[Watched] = WeakSet()

    async def run(key: str) -> None:
        job = Watched(b.ids(), "a", (), {}, RunOptions(unique=Unique(key, scope=timedelta(seconds=30))))
        rows.add(job)
        await b.store.jobs_put([job])
        await b.finish((await b.claim())[0].fence)

    for n in range(100):
        await run(str(n))
    assert len(rows) == 100, "while the period goes on, its job is the answer"
    await b.advance(31)
    await run("last")
    assert len(rows) <= 11
    for n in range(100):
        await run(f"again {n}")
    await b.advance(61)
    for _ in range(12):
        await b.put()
        await b.finish((await b.claim())[0].fence)
    assert len(rows) == 0


class Watched(JobRecord):
    """A row whose end can be seen."""

    __slots__ = ("__weakref__",)


@pytest.mark.parametrize("where", ["delayed", "behind a waiting one", "in line for an overlap key"])
async def test_jobs_that_were_cancelled_while_they_waited_are_let_go(where: str) -> None:
    """Debouncing cancels thousands of waiting jobs; none may stay until its place in the queue comes up.

    The bug: each was kept, arguments and all, until the day it would have been due.
    """
    b = await opened(keep_finished=10)
    rows: WeakSet[Watched] = WeakSet()
    in_line = where == "in line for an overlap key"
    await b.schedule(overlap=Overlap("queue_all"))
    head = await b.put(delay_ns=NS_PER_S if where == "delayed" else 0)

    async def put(n: int) -> None:
        origin = Origin("s", 1, n, trigger="manual") if in_line else None
        delay_ns = 86_400 * NS_PER_S if where == "delayed" else 0
        job = Watched(b.ids(), "a", (), {}, RunOptions(delay_ns=delay_ns), None, origin)
        rows.add(job)
        await (b.store.schedules_trigger("s", job) if in_line else b.store.jobs_put([job]))
        if in_line:
            await b.claim(lease_s=None)
        if n:
            await b.store.jobs_request_cancel([job.id])

    for n in range(2_000):
        await put(n)
    assert len(rows) < 200
    assert await b.states([head]) == ["scheduled" if in_line else "submitted"]


async def test_limits_that_say_nothing_more_are_forgotten() -> None:
    """There may be one for each customer, or for each window."""
    b = await opened()
    for n in range(1_500):
        await b.store.limit_acquire(f"l{n}", ["a"], maximum=0, ttl_s=1, waiter="w")
        await b.store.limit_take(f"t{n}", 1, rate=1, burst=1)
        await b.advance(0.1)
    assert isinstance(b.store, MemoryStore)
    limits = b.store._limits
    assert max(len(limits._slots), len(limits._waiters), len(limits._arrivals)) < 1_200


TestMemoryStoreBesideItsModel = store_machine(lambda: Bench(MemoryStore())).TestCase
TestMemoryStoreBesideItsModel.settings = settings(max_examples=60, stateful_step_count=40)
