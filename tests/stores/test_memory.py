"""The memory store keeps the contract of every store, and what it promises beyond."""

from __future__ import annotations

from hypothesis import settings

from quarterjack import MemoryStore
from quarterjack._durations import NS_PER_S
from quarterjack.model import JobFilter
from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine


class TestMemoryStore(StoreContract):
    """The contract, case by case."""

    def bench(self) -> Bench:
        return Bench(MemoryStore())


async def opened(**options: int) -> Bench:
    bench = Bench(MemoryStore(**options))
    await bench.store.open(bench.clock, bench.ids)
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


async def test_delays_and_leases_shift_with_a_clock_that_was_set() -> None:
    """They count elapsed time; a fixed instant stays."""
    b = await opened()
    now = await b.store.now_ns()
    held = await b.put("b")
    await b.claim(lease_s=30)
    delayed, fixed = await b.put(delay_ns=60 * NS_PER_S), await b.put(run_at_ns=now + 60 * NS_PER_S)
    b.clock.step_clock(3600)
    assert [row.id for row in await b.claim(lease_s=None)] == [fixed.id]
    await b.advance(30)
    assert [row.id for row in await b.claim(lease_s=None)] == [held.id]
    await b.advance(30)
    assert [row.id for row in await b.claim(lease_s=None)] == [delayed.id]


TestMemoryStoreBesideItsModel = store_machine(lambda: Bench(MemoryStore())).TestCase
TestMemoryStoreBesideItsModel.settings = settings(max_examples=60, stateful_step_count=40)
