"""Stores that go by this machine's clock, when that is set: what counts elapsed time shifts with it."""

from __future__ import annotations

import pytest

from quarterjack import MemoryStore
from quarterjack._durations import NS_PER_S
from quarterjack.backfill import Backfill
from quarterjack.testing.store_contract import Bench
from tests.stores.sqlite_kit import Computer


@pytest.fixture(params=["memory", "sqlite"])
async def b(request: pytest.FixtureRequest, computer: Computer) -> Bench:
    """A store of each kind whose clock is that of the machine."""
    if request.param == "sqlite":
        return await computer.store()
    bench = Bench(MemoryStore())
    await bench.open()
    return bench


async def test_delays_and_leases_shift_with_a_clock_that_was_set(b: Bench) -> None:
    """They count elapsed time; a fixed instant stays."""
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


@pytest.mark.parametrize("hours", [1, -1])
async def test_slots_and_tokens_shift_with_a_clock_that_was_set(b: Bench, hours: int) -> None:
    """Nobody has lost a slot, nor kept one, because the clock was set."""
    take = b.store.limit_acquire
    assert (await take("l", ["a"], maximum=1, ttl_s=30)).taken
    assert await b.store.limit_take("t", 1, rate=0.1, burst=1) == 0
    b.clock.step_clock(3600 * hours)
    assert not (await take("l", ["b"], maximum=1, ttl_s=30)).taken
    assert await b.store.limit_take("t", 1, rate=0.1, burst=1) == pytest.approx(10)
    await b.advance(30)
    assert (await take("l", ["b"], maximum=1, ttl_s=30)).taken
    assert await b.store.limit_take("t", 1, rate=0.1, burst=1) == 0


async def test_backfill_that_waits_is_no_later_for_a_clock_that_was_set(b: Bench) -> None:
    """It was due at once, as a submitted job is: its lag counts from then, in elapsed time."""
    await b.schedule()
    await b.store.schedules_backfill(Backfill("s", 1, (10,)))
    b.clock.step_clock(3600)
    (row,) = await b.claim(lease_s=None)
    assert row.run_at_ns == await b.store.now_ns()
