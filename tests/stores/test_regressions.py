"""What users of other systems suffer from, by name: each a test here, on every durable store that it can happen to.

Most ask a store on a clock that the test moves; what takes an app runs one in real time."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from quarterjack import Every, Quarterjack, current_job
from quarterjack._durations import NS_PER_S
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.declared import Verdict
from quarterjack.model import (
    JobFilter,
    JobIds,
    JobRecord,
    JobState,
    Overlap,
    Payload,
    RunOptions,
    Schedule,
    Timing,
    lanes_of,
)
from quarterjack.runtime.claiming import FETCH_MOST
from quarterjack.stores import store_from
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Claim, Renewal, Store, Want
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing.store_contract import Bench
from tests.servers.fixtures import with_option
from tests.servers.proxy import Proxy
from tests.servers.running import OwnServer
from tests.stores.postgres_kit import MovedBench, schema_on_test_time
from tests.stores.redis_kit import RedisBench
from tests.stores.replicas import again, replicas_share_and_serve

DAY_S = 86_400.0
MOST_COUNTED = 1_000
"""A run tells of so many fire times that it stands for."""


@pytest.fixture(scope="module")
def on_test_time(store_kind: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where stores of the kind are made whose clock a test moves."""
    if store_kind == "postgres":
        with schema_on_test_time(request.getfixturevalue("postgres_server")) as url:
            yield url
    else:
        yield "" if store_kind == "sqlite" else request.getfixturevalue("redis_server")


@pytest.fixture
async def b(store_kind: str, on_test_time: str, tmp_path: Path) -> AsyncIterator[Bench]:
    """A store on a clock that the test moves."""
    if store_kind == "sqlite":
        bench = Bench(SQLiteStore(tmp_path / "jobs.db", synchronous="off"))
    else:
        bench = MovedBench(on_test_time) if store_kind == "postgres" else RedisBench(on_test_time)
    await bench.open()
    yield bench
    await bench.store.close()
    if isinstance(bench, RedisBench):
        bench.end()


# -- workers that die, stand still or live long ---------------------------------------------


async def test_job_of_a_crashed_worker_waits_no_longer_than_its_lease(b: Bench) -> None:
    """Elsewhere it waits for an hour, or four: somebody's guess of how long a job may take."""
    job = await b.put()
    await b.claim(owner="dead", lease_s=30)
    await b.advance(29.5)
    waits = await b.claimed(owner="w2")
    assert waits.jobs == []
    await b.advance(0.5)
    (row,) = await b.claim(owner="w2")
    assert (row.id, row.attempt, row.rescues) == (job.id, 2, 1)


async def test_long_job_of_a_living_worker_is_not_run_twice(b: Bench) -> None:
    """A rescue that goes by the time a job has taken cannot tell the slow from the dead; signs of life can."""
    await b.put()
    (row,) = await b.claim(owner="w1", lease_s=30)
    for _ in range(60):
        await b.advance(600 / 30)
        assert await b.store.jobs_renew("w1", [Renewal(row.id, row.attempt)], 30) == ([], [])
        assert await b.claim(owner="w2") == []
    assert await b.finish(row.fence)


async def test_stale_worker_overwrites_no_newer_attempt(b: Bench) -> None:
    """Stopped past its lease and let go on, it still believes that the job is its own."""
    job = await b.put()
    (stale,) = await b.claim(owner="w1", lease_s=30)
    await b.advance(31)
    (fresh,) = await b.claim(owner="w2", lease_s=30)
    assert not await b.finish(stale.fence, result="stale")
    await b.store.jobs_release([stale.fence])
    assert (await b.store.jobs_renew("w1", [Renewal(stale.id, stale.attempt)], 3_600)).lost == [job.id]
    assert await b.finish(fresh.fence, result="fresh")
    assert not await b.finish(stale.fence, result="stale")
    assert (await b.get(job.id)).result == "fresh"


async def test_reused_owner_name_hides_no_orphan(b: Bench) -> None:
    """A pod that comes back under its old name must not make its dead self's jobs look alive."""
    job = await b.put()
    await b.claim(owner="pod-0", lease_s=30)
    await b.advance(31)
    (row,) = await b.claim(owner="pod-0", lease_s=30)
    assert (row.id, row.attempt, row.rescues) == (job.id, 2, 1)


def test_owner_names_are_never_those_of_a_process_before() -> None:
    """Nor are they asked of the host: they are drawn anew at each start."""
    assert len({JobIds().process for _ in range(1_000)}) == 1_000


async def test_slots_of_a_killed_process_come_back(b: Bench) -> None:
    """A counter that only its holder can lower stays up for ever after a kill."""
    assert (await b.store.limit_acquire("api", ["a", "b"], maximum=2, ttl_s=30)).taken == ("a", "b")
    assert (await b.store.limit_acquire("api", ["c"], maximum=2, ttl_s=30)).taken == ()
    await b.advance(31)
    assert (await b.store.limit_acquire("api", ["c"], maximum=2, ttl_s=30)).taken == ("c",)


async def test_fleet_limit_is_not_exceeded(b: Bench) -> None:
    """Who asks at the same moment must not each find the last slot free."""
    asked = [b.store.limit_acquire("api", [f"{n}"], maximum=3, ttl_s=30) for n in range(20)]
    taken = [holder for answer in await asyncio.gather(*asked) for holder in answer.taken]
    assert len(taken) == 3
    await b.store.limit_release("api", taken[:1])
    asked = [b.store.limit_acquire("api", [f"late {n}"], maximum=3, ttl_s=30) for n in range(20)]
    assert sum(len(answer.taken) for answer in await asyncio.gather(*asked)) == 1


async def test_saturated_task_starves_no_other(b: Bench) -> None:
    """What has no room is left out before jobs are counted, not after: else a page of them hides all the rest."""
    await b.store.jobs_put([b.job("a") for _ in range(FETCH_MOST + 100)])
    other = await b.put("b")
    assert [row.id for row in await b.claim(slots=10, tasks=frozenset({"b"}))] == [other.id]


# -- schedules ------------------------------------------------------------------------------


async def test_two_schedulers_make_one_job_of_each_tick(b: Bench) -> None:
    """Without a leader, and without a lock that somebody might hold: whoever moves the cursor has the tick."""
    await b.schedule(every_s=60)
    for _ in range(5):
        await b.advance(60)
        plan = await b.plan()
        answers = await asyncio.gather(*(b.store.schedules_fire([plan]) for _ in range(4)))
        assert sum(len(answer.rows) for answer in answers) == 1


async def test_tick_is_not_lost_with_the_scheduler_that_was_to_fire_it(b: Bench) -> None:
    """There is no leader to hand over: who looks next finds it due, and nobody had it before."""
    await b.schedule(every_s=60, overlap=Overlap("allow"))
    fired: list[int] = []
    for turn in range(6):
        await b.advance(60)
        plan = await b.plan()
        if turn % 2:  # else its scheduler dies with the plan in its hands
            rows = (await b.store.schedules_fire([plan])).rows
            fired += [
                row.origin.nominal_ns for row in rows if row.origin is not None and row.state is not JobState.MISSED
            ]
    row = await b.store.schedules_get("s")
    assert row is not None
    assert len(fired) == 3, "the newest of each two, by missed='latest'"
    assert row.next_nominal_ns == fired[-1] + 60 * NS_PER_S


async def test_interval_longer_than_the_deploy_cadence_fires(b: Bench) -> None:
    """An hour that begins anew with each deploy is never over where deploys are frequent."""
    put = await b.schedule(every_s=3_600)
    due = put.next_due_ns
    assert due is not None
    for _ in range(7):
        await b.advance(600)
        assert (await b.schedule(every_s=3_600)).next_due_ns in {due, due + 3_600 * NS_PER_S}
    assert len((await b.store.schedules_fire([await b.plan()])).rows) == 1


async def test_dead_peer_keeps_no_due_schedule_to_itself(b: Bench) -> None:
    """It took the tick in the call that fired it, and died; nothing else happens on the store that would tell."""
    await b.schedule(every_s=3_600)
    await b.advance(3_600)
    claim = Claim("dead", [Want(("default",), lanes_of({"a"}), 1)], 30.0)
    (job,) = (await b.store.schedules_fire([await b.plan()], claim)).jobs
    await b.advance(30)
    (row,) = await b.claim(owner="w2")
    assert (row.id, row.rescues) == (job.id, 1)
    assert await b.finish(row.fence)
    await b.advance(3_600)
    assert len((await b.store.schedules_fire([await b.plan()])).rows) == 1, "and the next one fires as well"


async def test_workers_down_for_a_day_find_one_job(b: Bench) -> None:
    """Under overlap="skip" what waits is one run, not all that were left out while it did."""
    await b.schedule(every_s=1_800, overlap=Overlap("skip"))
    for _ in range(round(DAY_S / 1_800)):
        await b.advance(1_800)
        await b.store.schedules_fire([await b.plan()])
    assert len(await b.claim(slots=100)) == 1


async def test_everybody_down_for_a_day_misses_no_more_than_one_run(b: Bench) -> None:
    """Of 86,400 fire times that have passed one is made up for, and says that there were more."""
    await b.schedule(every_s=1)
    await b.advance(DAY_S)
    rows = (await b.store.schedules_fire([await b.plan()])).rows
    (row,) = (row for row in rows if row.state is not JobState.MISSED)
    assert row.origin is not None
    assert row.origin.missed_count == MOST_COUNTED
    assert len(await b.claim(slots=100)) == 1


async def test_mixed_versions_do_not_undo_each_other(b: Bench) -> None:
    """In a rolling deploy old processes restart after new ones, and put what they always put."""

    async def declare(every_s: float, version: str) -> Verdict:
        trigger = Every(seconds=every_s)
        schedule = Schedule("s", Timing(trigger=trigger), Payload(task="a"), in_code=True, version=version)
        schedule.code_hash = f"every {every_s:g}"
        (put,) = await b.store.schedules_put([schedule])
        return put.verdict

    assert [await declare(60, "1"), await declare(30, "2")] == [Verdict.NEW, Verdict.CHANGED]
    for _ in range(3):
        assert await declare(60, "1") is Verdict.OLDER
        assert await declare(30, "2") is Verdict.SAME
    row = await b.store.schedules_get("s")
    assert row is not None
    assert row.generation == 2


async def test_job_whose_function_was_renamed_is_kept(b: Bench) -> None:
    """A task nobody knows is a deploy under way or a mistake of today: the job waits for whoever knows it."""
    job = await b.put("renamed")
    await b.advance(30 * DAY_S)
    assert await b.claim() == []
    await b.store.jobs_purge(timedelta(seconds=0))
    assert (await b.get(job.id)).state is JobState.SUBMITTED
    assert [row.id for row in await b.claim(tasks=frozenset({"renamed"}))] == [job.id]


# -- apps and servers -----------------------------------------------------------------------


@pytest.mark.slow
async def test_memory_of_a_worker_does_not_grow_with_the_backlog(store_url: str) -> None:
    """It takes what it has slots for; the rest stays where it is."""
    client = await opened(store_url, AsyncExitStack())
    ids = JobIds()
    await client.jobs_put([JobRecord(ids(), "work", (n,), {}, RunOptions()) for n in range(3_000)])
    await client.close()
    app = Quarterjack(store_url, concurrency=20)
    counted: list[int] = []
    over = asyncio.Event()

    def is_held(it: object) -> bool:
        """Of the backlog, for other tests of the process have rows, too; and not over, for that is history."""
        if type(it) is not JobRecord or not getattr(it, "id", "").startswith(f"{ids.process}-"):  # without: half made
            return False
        return not getattr(it, "state", JobState.NEW).is_finished

    @app.task
    async def work(n: int) -> None:
        if n % 500 == 250:
            counted.append(sum(map(is_held, gc.get_objects())))
        if n == 2_999:
            over.set()

    async with app, asyncio.timeout(50):
        await over.wait()
    assert min(counted) > 0
    assert max(counted) < 1_000, "of 3,000 that waited"


async def opened(url: str, stack: AsyncExitStack) -> Store:
    """Return an open store, which is closed with *stack*."""
    store = store_from(url)
    await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
    stack.push_async_callback(store.close)
    return store


async def test_many_writers_of_a_sqlite_file_hear_of_no_lock(tmp_path: Path) -> None:
    """They wait for each other; elsewhere "database is locked" is the first that one meets on a shared file."""
    async with AsyncExitStack() as stack:
        stores = [await opened(f"sqlite:///{tmp_path}/jobs.db", stack) for _ in range(4)]

        async def write(store: Store, ids: JobIds) -> None:
            for _ in range(25):
                await store.jobs_put([JobRecord(ids(), "a", (), {}, RunOptions())])

        await asyncio.gather(*(write(store, JobIds()) for store in stores))
        assert len((await stores[0].jobs_list(JobFilter(), limit=1_000)).jobs) == 100


@pytest.mark.slow
async def test_replicas_behind_pgbouncer_in_transaction_mode(postgres_url: str) -> None:
    """Each transaction may come over another connection: nothing that a session would have to remember is used."""
    await replicas_share_and_serve(with_option(postgres_url, "pgbouncer=true"))


class Echo:
    """An app behind a proxy that answers, and counts who asked."""

    def __init__(self, url: str) -> None:
        self.app = Quarterjack(with_option(url, "timeout=1"), lease=2, shutdown_grace=2)

        @self.app.task
        async def echo(word: str) -> str:
            assert current_job().attempt
            return word

        self.echo = echo

    async def answers(self, word: str) -> None:
        """Fail unless a job is run within seconds."""
        async with asyncio.timeout(20):
            assert await (await again(self.app.submit, self.echo, word)) == word


async def is_heard_again(server: OwnServer, break_it: Callable[[Proxy], None]) -> None:
    """Run an app, break its way to the server, and see that it serves on."""
    parts = urlsplit(server.url)
    assert parts.port is not None
    async with Proxy("127.0.0.1", parts.port) as proxy:
        netloc = parts.netloc.replace(f":{parts.port}", f":{proxy.port}")
        echo = Echo(parts._replace(netloc=netloc).geturl())
        async with echo.app:
            await echo.answers("before")
            break_it(proxy)
            await echo.answers("after")


@pytest.mark.slow
@pytest.mark.parametrize("own", ["own_postgres", "own_redis"])
@pytest.mark.parametrize("how", ["restart", "half-open", "reset"])
@pytest.mark.needs_postgres
@pytest.mark.needs_redis
async def test_worker_is_not_alive_and_silent_after_its_server_or_network_was_gone(
    own: str, how: str, request: pytest.FixtureRequest
) -> None:
    """Its process lives, its probes are green, and it takes no job any more: for hours, until somebody looks."""
    server: OwnServer = request.getfixturevalue(own)()
    broken: dict[str, Callable[[Proxy], None]] = {
        "restart": lambda _: server.restart(),
        "half-open": Proxy.forget,
        "reset": Proxy.cut,
    }
    await is_heard_again(server, broken[how])
