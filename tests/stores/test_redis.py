"""The Redis store keeps the promises of every store, and its keys stay in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from quarterjack._durations import NS_PER_S
from quarterjack.backfill import Backfill
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import Conflict, InvalidOption, StoreError, StoreUnavailable
from quarterjack.model import (
    Finish,
    FinishKind,
    JobIds,
    JobRecord,
    JobState,
    Overlap,
    Payload,
    RunOptions,
    Schedule,
    Timing,
    Unique,
    WorkerInfo,
    lanes_of,
)
from quarterjack.stores import _redis_scripts
from quarterjack.stores._needs import Needs
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import CancelAnswer, Claim, Hint, Renewal, Renewed, Want
from quarterjack.stores.redis import RedisStore
from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine
from quarterjack.triggers import Every, Forever
from tests.servers.proxy import Proxy
from tests.servers.running import OwnServer
from tests.stores.redis_kit import RedisBench, cluster_options

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


async def opened(url: str) -> AsyncIterator[RedisBench]:
    """Yield an open store on a prefix of its own; look at every key it leaves."""
    bench = RedisBench(url)
    await bench.open()
    yield bench
    await bench.store.close()
    bench.end()


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


class TestHints:
    async def test_other_processes_hear_and_ones_own_is_told_once(self, redis_server: str, b: RedisBench) -> None:
        """What one store puts wakes the workers of all; telling again before anybody claims says nothing new."""
        other = type(b.store).from_url(f"{redis_server}?prefix={b.root[1:-2]}")
        await other.open(b.clock, JobIds(), Encoding())
        try:
            assert other._hints is not None
            await other._hints.listening.wait()
            here, there = Heard(b.store), Heard(other)
            for _ in range(20):
                await b.put()
            assert here.hints == [Hint.JOBS] * 20
            await b.schedule()
            await there.until(Hint.SCHEDULES, ("s",))
            assert there.hints.count(Hint.JOBS) < 20
            (job,) = await b.claim(1)
            await b.finish(job.fence)
            await there.until(Hint.ENDED, (job.id,))
            told = there.hints.count(Hint.JOBS)
            await b.put()
            await there.until(Hint.JOBS, times=told + 1)
            await other.wake(Hint.CANCELS)
            await here.until(Hint.CANCELS)
            assert there.hints.count(Hint.CANCELS) == 1
        finally:
            await other.close()

    async def test_line_that_was_cut_is_made_anew_and_everybody_looks_at_everything(
        self, redis_server: str, b: RedisBench
    ) -> None:
        """What was said meanwhile nobody knows."""
        port = int(redis_server.rpartition(":")[2].partition("/")[0])
        async with Proxy("127.0.0.1", port) as proxy:
            store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0", prefix=b.root[1:-2])
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
            assert store._hints is not None
            await store._hints.listening.wait()
            heard = Heard(store)
            proxy.cut()
            await heard.until(Hint.JOBS)
            await heard.until(Hint.ENDED)
            assert {Hint.JOBS, Hint.SCHEDULES, Hint.CANCELS, Hint.ENDED, Hint.PAUSED, Hint.LIMITS} == set(heard.hints)
            await store.close()

    async def test_what_a_stranger_says_ends_no_listening(self, b: RedisBench) -> None:
        """Anybody may publish; whatever it means, everybody looks at everything, and hears what comes after."""
        assert b.store._hints is not None
        await b.store._hints.listening.wait()
        heard = Heard(b.store)
        async with asyncio.timeout(10):
            b.client.publish(b.root + "hints", "nonsense")
            await heard.until(Hint.LIMITS)
            assert {Hint.JOBS, Hint.SCHEDULES, Hint.CANCELS, Hint.ENDED, Hint.PAUSED, Hint.LIMITS} == set(heard.hints)
            b.client.publish(b.root + "hints", "somebody ended 1")
            await heard.until(Hint.ENDED, ("1",))

    async def test_listener_that_raises_ends_no_listening(
        self, b: RedisBench, caplog: pytest.LogCaptureFixture
    ) -> None:
        """One hint is lost, and made up for by a look at everything; silence until a restart would be worse."""
        assert b.store._hints is not None
        await b.store._hints.listening.wait()
        faults = [ValueError("a listener's own")]

        def stumble(hint: Hint, ids: Sequence[str]) -> None:
            if faults:
                raise faults.pop()

        b.store.listen(stumble)
        heard = Heard(b.store)
        async with asyncio.timeout(10):
            b.client.publish(b.root + "hints", "somebody ended 1")
            await heard.until(Hint.LIMITS)
            b.client.publish(b.root + "hints", "somebody ended 2")
            await heard.until(Hint.ENDED, ("2",))
        assert "a listener's own" in caplog.text


class Heard:
    """The hints that a store tells."""

    def __init__(self, store: RedisStore) -> None:
        self.hints: list[Hint] = []
        self._ids: list[tuple[Hint, tuple[str, ...]]] = []
        self._more = asyncio.Event()
        store.listen(self._hear)

    def _hear(self, hint: Hint, ids: Sequence[str]) -> None:
        self.hints.append(hint)
        self._ids.append((hint, tuple(ids)))
        self._more.set()

    async def until(self, hint: Hint, ids: tuple[str, ...] = (), times: int = 1) -> None:
        """Wait for a hint."""
        while self._ids.count((hint, ids)) < times:
            self._more.clear()
            await self._more.wait()


class TestLife:
    async def test_keys_of_a_newer_version_are_refused(self, b: RedisBench, redis_server: str) -> None:
        """It may keep what this one would not understand."""
        b.client.set(f"{b.root}layout", "99 1")
        added_to = RedisStore.from_url(f"{redis_server}?prefix={b.root[1:-2]}")
        await added_to.open(SYSTEM_CLOCK, JobIds(), Encoding())  # it says that this one can live with it
        await added_to.close()
        b.client.set(f"{b.root}layout", 99)
        store = RedisStore.from_url(f"{redis_server}?prefix={b.root[1:-2]}")
        with pytest.raises(StoreError, match="of layout 99, and this version of quarterjack knows up to 1; upgrade"):
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())

    async def test_store_serves_one_app_at_a_time_and_says_when_it_is_not_open(self, b: RedisBench) -> None:
        """Two apps on one object would close each other's connection."""
        with pytest.raises(Conflict, match="one store per app"):
            await b.store.open(b.clock, JobIds(), Encoding())
        await b.store.close()
        views = (b.store.jobs_get(["x"]), b.store.stats(), b.store.schedules_list(), b.store.workers_list())
        calls = (b.store.now_ns(), b.store.jobs_put([b.job()]), b.store.jobs_request_cancel(["x"]))
        for call in (*calls, *views, b.store.jobs_renew("w", [Renewal("x", 1)], 30)):
            with pytest.raises(StoreUnavailable, match="not open"):
                await call
        assert b.store._scripts.link._line is None, "nothing has connected anew"
        await b.open()

    async def test_server_that_throws_keys_away_is_refused(self, own_redis: OwnRedis) -> None:
        """Jobs are no cache."""
        server = own_redis("--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru")
        with pytest.raises(StoreError, match="CONFIG SET maxmemory-policy noeviction"):
            await RedisStore(server.url).open(SYSTEM_CLOCK, JobIds(), Encoding())

    async def test_full_memory_refuses_new_work_and_lets_what_runs_end(self, own_redis: OwnRedis) -> None:
        """An end that could not be recorded would be a second run; and only what ends can be deleted."""
        store = RedisStore(own_redis().url)
        await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
        claim = Claim("w", [Want(("default",), lanes_of(["a"]), 1)], 30)
        await store.jobs_put([JobRecord(name, "a", (), {}, RunOptions()) for name in ("one", "two")])
        (held,) = (await store.jobs_claim(claim)).jobs
        await filled(store)
        with pytest.raises(StoreUnavailable, match="raise its maxmemory"):
            await store.jobs_put([JobRecord("three", "a", (), {}, RunOptions())])
        with pytest.raises(StoreUnavailable, match="raise its maxmemory"):
            await store.jobs_claim(claim)
        finish = Finish(*held.fence, FinishKind.DONE, await store.now_ns(), result="x" * 1_000)
        assert await store.jobs_finish([finish]) == [JobState.DONE]
        assert await store.jobs_purge(timedelta(0)) == 1
        assert (await store.stats()).states == {JobState.SUBMITTED: 1}
        await store.close()

    async def test_full_memory_stops_no_sign_of_life(self, own_redis: OwnRedis) -> None:
        """A lease that is not renewed is a second run beside the first, as soon as there is memory again."""
        store = RedisStore(own_redis().url)
        await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
        await store.jobs_put([JobRecord("one", "a", (), {}, RunOptions())])
        (held,) = (await store.jobs_claim(Claim("w", [Want(("default",), lanes_of(["a"]), 1)], 30))).jobs
        assert (await store.limit_acquire("limit", ["w"], maximum=1, ttl_s=30)).taken
        await filled(store)
        renewal = Renewal("one", held.attempt, running_at_ns=await store.now_ns())
        assert await store.jobs_renew("w", [renewal], 60) == Renewed([], [])
        (row,) = await store.jobs_get(["one"])
        assert row is not None
        assert row.state is JobState.RUNNING
        assert (row.lease_until_ns or 0) > await store.now_ns() + 50 * NS_PER_S
        assert await store.limit_renew("limit", ["w"], 60) == []
        assert await store.workers_put(WorkerInfo("w", "host", 1, "both", ("default",), 0, 0, "1", 1, 0)) is None
        await store.close()

    @pytest.mark.parametrize("kind", ["plain", "unique", "of a schedule"])
    async def test_full_memory_lets_jobs_move_on_whatever_hangs_on_them(self, own_redis: OwnRedis, kind: str) -> None:
        """Ends that free a key or move a schedule on are ends: who is refused them would run the job again."""
        bench = RedisBench(own_redis().url)
        await bench.open()
        store = bench.store
        await store.schedules_put([Schedule("s", Timing(trigger=Every(hours=1)), Payload(task="a"))])
        ways = ("finish", "release", "retry", "cancel", "rescue")
        for name in ways:
            unique = Unique(name) if kind == "unique" else None
            job = JobRecord(name, "a", (), {}, RunOptions(unique=unique, delay_ns=NS_PER_S if name == "cancel" else 0))
            await (store.schedules_trigger("s", job, "allow") if kind == "of a schedule" else store.jobs_put([job]))
        wants = [Want(("default",), lanes_of(["a"]), 4 if kind != "of a schedule" else 5)]
        held = {job.id: job for job in (await store.jobs_claim(Claim("w", wants, 30))).jobs}
        await store.jobs_renew("w", [Renewal("rescue", held["rescue"].attempt)], 1)
        await bench.advance(2)
        now = await store.now_ns()
        await filled(store)
        assert await store.jobs_finish([Finish(*held["finish"].fence, FinishKind.DONE, now, result=5)]) == [
            JobState.DONE
        ]
        await store.jobs_release([held["release"].fence])
        retry = Finish(*held["retry"].fence, FinishKind.RETRY, now, delay_ns=NS_PER_S)
        assert await store.jobs_finish([retry]) == [JobState.SUBMITTED]
        answer = CancelAnswer.REQUESTED if kind == "of a schedule" else CancelAnswer.CANCELLED
        assert await store.jobs_request_cancel(["cancel"]) == [answer]
        with pytest.raises(StoreUnavailable):  # nothing is claimed, but what ran out is taken back
            await store.jobs_claim(Claim("other", wants, 30))
        rows = {row.id: row for row in await store.jobs_get(ways) if row is not None}
        assert (rows["finish"].result, rows["release"].state, rows["rescue"].rescues) == (5, JobState.SUBMITTED, 1)
        await store._scripts.link.call("testing", "CONFIG", "SET", "maxmemory", "0")
        await store.close()
        bench.end()

    async def test_unreachable_server_is_told_with_its_address_and_without_the_password(self) -> None:
        """At the start, not at the first job."""
        store = RedisStore.from_url("redis://me:secret@127.0.0.1:1/0?timeout=2")
        with pytest.raises(StoreUnavailable, match=r"redis://me:\*\*\*@127.0.0.1:1/0.*is the server running") as caught:
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
        assert "secret" not in str(caught.value)

    @pytest.mark.slow
    async def test_cluster_of_one_node_will_do(self, own_redis: OwnRedis) -> None:
        """All keys are in one slot, and none is touched that has not the store's hash tag."""
        server = own_redis(*cluster_options())
        store = RedisStore(server.url)
        link = store._scripts.link
        await link.call("testing", "CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        await until_ok(link)
        await link.close()
        await works(store)

    async def test_user_with_the_documented_rights_and_no_others(self, own_redis: OwnRedis) -> None:
        """What the page says is enough: scripts, keys and channel of the prefix; those of others are not to be had."""
        server = own_redis()
        rights = "on >secret ~{shop}:* &{shop}:* +@all -@admin -@dangerous +info"
        owner = RedisStore(server.url)._scripts.link
        await owner.call("testing", "ACL", "SETUSER", "jobs", *rights.split())
        await owner.close()
        url = f"redis://jobs:secret@127.0.0.1:{server.port}/0?prefix="
        await works(RedisStore.from_url(f"{url}shop"))
        with pytest.raises(StoreError, match=r"it needs `~\{prefix\}:\*"):
            await works(RedisStore.from_url(f"{url}other"))

    async def test_server_at_a_socket(self, own_redis: OwnRedis) -> None:
        """No port, no network; a path may hold a space."""
        server = own_redis("--unixsocket", "valkey server.sock", "--unixsocketperm", "777")
        (path,) = server.folder.rglob("*.sock")
        await works(RedisStore.from_url(f"unix://{quote(str(path))}?prefix=shop"))

    @pytest.mark.parametrize("url", ["redis://host?prefix=a b", "redis://host?timeout=x", "redis://host?prefx=a"])
    def test_url_with_a_mistake_is_refused(self, url: str) -> None:
        """A typo must not become a default."""
        with pytest.raises(InvalidOption):
            RedisStore.from_url(url)

    async def test_lease_without_a_link_is_renewed_after_the_server_was_away(self, own_redis: OwnRedis) -> None:
        """The thread that renews finds the server again by itself."""
        server = own_redis("--appendonly", "yes")
        store = RedisStore(server.url)
        await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
        link = store.lease_link()
        await link.open()
        server.stop()
        with pytest.raises(StoreUnavailable):
            await link.open()
        server.start()
        await link.open()
        await link.close()
        await link.close()
        await store.close()

    async def test_half_open_line_of_the_lease_link_is_given_up_with_the_call(self, own_redis: OwnRedis) -> None:
        """The renewal is given up long before the line's own deadline, and must not ask a dead line again and again."""
        server = own_redis()
        async with Proxy("127.0.0.1", server.port) as proxy:
            store = RedisStore(f"redis://127.0.0.1:{proxy.port}/0")
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
            link = store.lease_link()
            await link.open()
            proxy.forget()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await link.jobs_renew("w", [], 6.0)
            assert await link.jobs_renew("w", [], 6.0) == Renewed([], [])
            await link.close()
            await store.close()


async def works(store: RedisStore) -> None:
    """Put a job, claim it, finish it, and listen to others."""
    await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
    assert store._hints is not None
    try:
        await store.jobs_put([JobRecord("one", "a", (), {}, RunOptions(unique=Unique("k")))])
        await store._hints.listening.wait()
        (held,) = (await store.jobs_claim(Claim("w", [Want(("default",), lanes_of(["a"]), 5)], 30))).jobs
        finish = Finish(*held.fence, FinishKind.DONE, await store.now_ns())
        assert await store.jobs_finish([finish]) == [JobState.DONE]
    finally:
        await store.close()


async def filled(store: RedisStore) -> None:
    """Let the server of *store* have no memory left."""
    await store._scripts.link.call("testing", "CONFIG", "SET", "maxmemory", "1")


async def until_ok(link: Any) -> None:
    """Wait until a cluster has taken up its slots."""
    while "cluster_state:ok" not in await link.call("testing", "CLUSTER", "INFO"):
        await asyncio.sleep(0.05)


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
