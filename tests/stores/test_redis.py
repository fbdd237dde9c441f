"""The Redis store keeps the promises of every store, and its keys stay in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from quarterjack._durations import NS_PER_S
from quarterjack.backfill import Backfill
from quarterjack.model import (
    JobState,
    Overlap,
    RunOptions,
    Unique,
    lanes_of,
)
from quarterjack.stores import _redis_scripts
from quarterjack.stores._needs import Needs
from quarterjack.stores.base import Claim, Want
from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine
from quarterjack.triggers import Forever
from tests.servers.running import OwnServer
from tests.stores.redis_kit import RedisBench, opened

OwnRedis = Callable[..., OwnServer]


class TestContract(StoreContract):
    """Each promise, on a real server."""

    @pytest.fixture(autouse=True)
    def _server(self, redis_server: str) -> None:
        self.url = redis_server

    def bench(self) -> RedisBench:
        return RedisBench(self.url)

    @pytest.fixture
    async def b(self) -> AsyncIterator[Bench]:
        """Open a new store for the case, close it, and look at every key it leaves."""
        async for bench in opened(self.url):
            yield bench


@pytest.fixture
async def b(redis_server: str) -> AsyncIterator[RedisBench]:
    """A store on a clock that the test moves."""
    async for bench in opened(redis_server):
        yield bench


@pytest.mark.slow
def test_state_machine(redis_server: str) -> None:
    """Any order of calls, with leases that run out: the store shows what the model shows, and every key is in order."""

    class Machine(store_machine(lambda: RedisBench(redis_server))):  # type: ignore[misc]  # made by a call
        bench: RedisBench

        @invariant()
        def keys_are_in_order(self) -> None:
            if hasattr(self, "bench"):
                self.bench.check()

        def teardown(self) -> None:
            super().teardown()
            if hasattr(self, "bench"):
                self.bench.end()

    run_state_machine_as_test(Machine, settings=settings(max_examples=30, stateful_step_count=25, deadline=None))


class TestExactness:
    """Numbers of Lua are doubles: instants in nanoseconds do not fit, and must come out as they went in."""

    async def test_order_goes_by_nanoseconds(self, b: RedisBench) -> None:
        """Within one microsecond, too; equals come in the order they were put."""
        now = await b.store.now_ns()
        jobs = [b.job(run_at_ns=now - 5_000 + rest) for rest in (999, 1, 2_000, 0, 1_000, 1)]
        await b.store.jobs_put(jobs)
        got = await b.claim()
        assert [job.run_at_ns - now + 5_000 for job in got] == [0, 1, 1, 999, 1_000, 2_000]
        assert [got[1].id, got[2].id] == [jobs[1].id, jobs[5].id]

    async def test_nothing_is_claimed_a_nanosecond_early(self, b: RedisBench) -> None:
        """The server's clock ticks in microseconds: what is due within one waits for its end."""
        now = await b.store.now_ns()
        (row,) = await b.store.jobs_put([b.job(run_at_ns=now + 1)])
        claimed = await b.claimed()
        assert (claimed.jobs, claimed.next_run_at_ns) == ([], now + 1)
        await b.advance(0.000_001)
        assert [job.run_at_ns for job in await b.claim()] == [now + 1]
        assert row.run_at_ns == now + 1

    async def test_schedule_is_due_to_the_nanosecond(self, b: RedisBench) -> None:
        """A horizon ends where it was said to end."""
        await b.schedule(every_s=60)
        assert await b.store.schedules_due(60 * NS_PER_S - 1) == []
        assert len(await b.store.schedules_due(60 * NS_PER_S)) == 1

    async def test_fencing_token_stays_exact(self, b: RedisBench) -> None:
        """Beyond what a double tells apart it would let a stale holder in; no job is tried so often."""
        job = await b.put()
        b.client.hset(f"{b.root}j:{job.id}", "attempt", 2**53 - 2)
        (row,) = await b.claim()
        assert row.attempt == 2**53 - 1
        assert not await b.finish(row.fence._replace(attempt=2**53))
        assert not await b.finish(row.fence._replace(attempt=2**53 - 2))
        assert await b.finish(row.fence)

    async def test_names_may_hold_anything(self, b: RedisBench) -> None:
        """Names of queues and keys are users'; those of two parts must not run into each other."""
        odd = "a:b {c} \x1f\n*ä\U0001f600"
        one = await b.put(queue=odd)
        two = await b.put(odd, queue="q", unique=Unique(odd))
        assert (await b.put(odd, queue="q", unique=Unique(odd))).id == two.id
        claim = Claim("w", [Want((odd, "q"), lanes_of(["a", odd]), 5)], 30)
        assert [job.id for job in (await b.store.jobs_claim(claim)).jobs] == [one.id, two.id]
        await b.schedule(odd, trigger=Forever(), overlap_key=odd * 2, options=RunOptions(unique=Unique(odd * 3)))
        await b.store.schedules_backfill(Backfill(odd, 1, (10,)))
        (first,) = await b.claim()
        (skipped,) = (await b.store.schedules_fire([await b.plan(odd)])).rows
        assert skipped.state is JobState.SKIPPED, "its unique key is taken: the schedule waits for it"
        await b.finish(first.fence)
        assert [row.id for row in await b.store.schedules_due(NS_PER_S)] == [odd]
        assert await b.store.schedules_remove([odd]) == 1
        stats = await b.store.stats()
        assert stats.waiting == {}


class TestBounds:
    async def test_long_line_is_parked_a_part_at_a_time(self, b: RedisBench) -> None:
        """The server does nothing else while a script runs; a claim that was cut short asks to be made again."""
        await b.schedule()
        await b.store.schedules_backfill(Backfill("s", 1, tuple(range(1_200))))
        await b.advance(60)
        behind = await b.put(priority=4)
        first = await b.claimed()
        assert len(first.jobs) == 1
        assert first.next_run_at_ns == await b.store.now_ns()
        second = await b.claimed()
        assert [job.id for job in second.jobs] == [behind.id]
        assert second.next_run_at_ns is None

    async def test_backfill_behind_a_backlog_costs_one_look_at_it(self, own_redis: OwnRedis) -> None:
        """The server does nothing else meanwhile: it must not read all who wait for a key again for each of them."""
        b = RedisBench(own_redis().url)
        await b.open()
        await b.schedule(every_s=60, overlap=Overlap("queue_all"))
        begun_ns = await b.store.now_ns()
        await b.advance(60 * 60)
        for _ in range(30):
            await b.store.schedules_trigger("s", b.job())
        nominals = tuple(begun_ns + n * 60 * NS_PER_S for n in range(1, 41))
        plan = Backfill("s", 1, nominals)
        assert await b.store.schedules_backfill(plan) is not None
        for slots in (1, 50):  # somebody else has the turn, or nobody
            b.client.config_resetstat()
            await b.claim(slots)
            assert b.client.info("commandstats")["cmdstat_zrange"]["calls"] < 20
        await b.store.close()
        b.end()

    async def test_delays_that_end_together_are_taken_up_a_part_at_a_time(self, b: RedisBench) -> None:
        """None is forgotten: what is left says that it is due."""
        await b.store.jobs_put([b.job(delay_ns=NS_PER_S) for _ in range(1_500)])
        await b.advance(2)
        got = 0
        for _ in range(2):
            claimed = await b.claimed(2_000)
            got += len(claimed.jobs)
            assert got == 1_500 or (claimed.next_run_at_ns or 0) <= await b.store.now_ns()
        assert got == 1_500

    async def test_stray_lease_is_put_right_and_holds_nobody_up(self, b: RedisBench) -> None:
        """A server that threw keys away, or got a part of them back, must not keep all workers of a fleet from work."""
        dead, alive = await b.put(), await b.put()
        await b.claim(1)
        await b.advance(29)
        assert [job.id for job in await b.claim(1)] == [alive.id]
        await b.advance(2)
        b.client.zadd(b.root + "leases", {"gone": 1, alive.id: 1})
        claimed = await asyncio.wait_for(b.claimed(), 5)
        assert [(job.id, job.rescues) for job in claimed.jobs] == [(dead.id, 1)]

    async def test_claim_ends_where_nothing_can_be_taken_back(
        self, b: RedisBench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Asking for ever at full speed would burden the server, and nobody would hear why no job begins."""
        job = await b.put()
        await b.claim()
        await b.advance(60)
        with monkeypatch.context() as broken:
            broken.setattr("quarterjack.stores._durable.taking_back", lambda _ids: (Needs(), lambda _part, _now: None))
            assert await asyncio.wait_for(b.claim(), 5) == []
        assert job.id in caplog.text
        assert len(await b.claim()) == 1


BROKEN = {
    "a finish without a fence": ("finish", "j[1] ~= attempt or j[2] ~= owner or", ""),
    "a renewal without a fence": ("renew", "j[1] ~= attempt or j[2] ~= owner", "not j[1]"),
    "delays that are due at once": ("put", "if due > now then", "if false then"),
    "leases that never run out": ("claim", "'leases', '-inf', now,", "'leases', '-inf', 0,"),
    "a purge of whatever has ended": ("purge", "'(' .. whole(now - age)", "'+inf'"),
    "keys that stay taken": ("commit", "call('ZREM', P .. 'open:' .. before.overlap_key, id)", "id = id"),
    "turns that are not passed on": ("turns", "if member then", "if false then"),
}
CASES = {
    "a finish without a fence": ("test_stale_holder_writes_nothing", "finish"),
    "a renewal without a fence": ("test_stale_renewal_makes_nothing_running",),
    "delays that are due at once": ("test_claim_says_when_the_next_waiting_job_is_due",),
    "leases that never run out": ("test_lease_that_ran_out_is_rescued_by_the_next_claim",),
    "a purge of whatever has ended": ("test_purge_deletes_old_finished_jobs_only",),
    "keys that stay taken": ("test_chain_whose_run_was_left_out_goes_on_when_there_is_room", "skip"),
    "turns that are not passed on": ("test_backfill_runs_in_order_and_one_at_a_time_or_side_by_side",),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_broken_script_is_found(redis_server: str, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A suite that a store without the mechanism would pass says nothing about the mechanism."""
    name, right, wrong = BROKEN[what]
    source = _redis_scripts._source
    assert right in source(name), "the mechanism has moved: break it where it is now"
    broken = source(name).replace(right, wrong)
    monkeypatch.setattr(_redis_scripts, "_source", lambda asked: broken if asked == name else source(asked))
    case, *arguments = CASES[what]
    bench = RedisBench(redis_server)
    await bench.open()
    with pytest.raises((AssertionError, ValueError)):
        await getattr(StoreContract(), case)(bench, *arguments)
    await bench.store.close()
    bench.remove()
