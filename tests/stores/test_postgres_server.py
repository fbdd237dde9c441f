"""The PostgreSQL store and its server: hints, restarts, a network that fails, plans, and errors that say what to do."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import Conflict, InvalidOption, StoreError, StoreUnavailable, UniqueConflict
from quarterjack.model import Finish, FinishKind, JobIds, JobRecord, JobState, RunOptions, Unique, lanes_of
from quarterjack.stores import _postgres_hints, _postgres_schema
from quarterjack.stores._needs import Needs
from quarterjack.stores._postgres_pool import Connection
from quarterjack.stores._postgres_transact import InTheWay
from quarterjack.stores._postgres_url import parse
from quarterjack.stores._rows import Encoding
from quarterjack.stores._schema import migrations
from quarterjack.stores.base import Claim, Hint, Renewed, Want
from quarterjack.stores.postgres import PostgresStore
from quarterjack.testing.store_contract import Bench
from tests.servers.fixtures import with_option
from tests.servers.proxy import Proxy
from tests.servers.running import OwnServer
from tests.stores.later import later_step, lives
from tests.stores.postgres_kit import TABLES

CLAIM = Claim("w", [Want(("default",), lanes_of(["a"]), 10)], 30.0)
NEW = JobIds()


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresStore]:
    store = PostgresStore.from_url(url)
    await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
    try:
        yield store
    finally:
        await store.close()


def job(**options: object) -> JobRecord:
    return JobRecord(NEW(), "a", (), {}, RunOptions(**options))  # type: ignore[arg-type]  # options by name


class Heard:
    """What a listener was told, and a way to wait for it."""

    def __init__(self, store: PostgresStore) -> None:
        self.hints: list[tuple[Hint, tuple[str, ...]]] = []
        self._came = asyncio.Event()
        store.listen(self.hear)

    def hear(self, hint: Hint, ids: Sequence[str]) -> None:
        self.hints.append((hint, tuple(ids)))
        self._came.set()

    async def until(self, it_is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not it_is_so():
                self._came.clear()
                await self._came.wait()

    def has(self, hint: Hint) -> Callable[[], bool]:
        return lambda: any(it is hint for it, _ in self.hints)


async def test_hints_reach_other_processes_after_the_commit(postgres_url: str) -> None:
    """Polling finds everything; a hint makes that quick."""
    async with opened(postgres_url) as here, opened(postgres_url) as there:
        heard = Heard(there)
        await there._hints.ready()
        await here._hints.ready()
        (row,) = await here.jobs_put([job()])
        await heard.until(heard.has(Hint.JOBS))
        (held,) = (await here.jobs_claim(CLAIM)).jobs
        assert held.id == row.id
        await there.jobs_request_cancel([row.id])
        told_here = Heard(here)
        await there.jobs_request_cancel([row.id])
        await told_here.until(lambda: (Hint.CANCELS, (row.id,)) in told_here.hints)
        await here.jobs_finish([Finish(*held.fence, FinishKind.DONE, 1, 1, 1)])
        await heard.until(lambda: (Hint.ENDED, (row.id,)) in heard.hints)


@pytest.mark.slow
async def test_store_works_on_after_a_restart_of_the_server(
    own_postgres: Callable[..., OwnServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is alive but silent after a restart is the field's most common trouble."""
    monkeypatch.setattr(_postgres_hints, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(_postgres_hints, "LONGEST_PAUSE_S", 0.05)
    server = own_postgres()
    async with opened(server.url) as store:
        heard = Heard(store)
        await store._hints.ready()
        (row,) = await store.jobs_put([job()])
        await asyncio.to_thread(server.stop)
        with pytest.raises(StoreUnavailable, match=r"is the server running|shutting down"):
            await store.jobs_claim(CLAIM)
        heard.hints.clear()
        await asyncio.to_thread(server.start)
        await heard.until(heard.has(Hint.SCHEDULES))  # it listens again, and says to look at everything
        (held,) = (await store.jobs_claim(CLAIM)).jobs
        assert held.id == row.id


@pytest.mark.slow
async def test_half_open_connection_costs_a_deadline_and_no_more(postgres_server: str, postgres_url: str) -> None:
    """A connection that is open and silent must not hold a call for ever; the next ones find another way."""
    server = urlsplit(postgres_server)
    assert server.hostname is not None
    async with Proxy(server.hostname, server.port or 5432) as proxy:
        url = postgres_url.replace(f":{server.port}/", f":{proxy.port}/")
        async with opened(with_option(url, "timeout=0.5&poll=1")) as store:
            await store.jobs_put([job()])
            proxy.hold()
            with pytest.raises(StoreUnavailable, match="no answer within"):
                await store.jobs_claim(CLAIM)
            proxy.cut()
            proxy.release()
            assert len((await store.jobs_claim(CLAIM)).jobs) == 1


async def test_half_open_connection_of_the_lease_link_is_given_up_with_the_call(
    postgres_server: str, postgres_url: str
) -> None:
    """A renewal is given up long before the server is taken for dead; it must not ask a dead connection again."""
    server = urlsplit(postgres_server)
    assert server.hostname is not None
    async with Proxy(server.hostname, server.port or 5432) as proxy:
        url = postgres_url.replace(f":{server.port}/", f":{proxy.port}/")
        async with opened(with_option(url, "timeout=5")) as store:
            link = store.lease_link()
            await link.open()
            proxy.forget()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await link.jobs_renew("w", [], 6.0)
            async with asyncio.timeout(4):
                assert await link.jobs_renew("w", [], 6.0) == Renewed([], [])
            await link.close()
            await store.close()


@pytest.mark.slow
async def test_process_that_stands_still_in_a_transaction_holds_up_nobody_for_long(postgres_url: str) -> None:
    """Stopped or cut off in mid-transaction it keeps rows locked, and a lease on a locked row cannot be renewed."""
    async with opened(postgres_url) as other, opened(with_option(postgres_url, "timeout=1")) as still:
        (row,) = await other.jobs_put([job()])
        (held,) = (await other.jobs_claim(CLAIM)).jobs

        async def stand_still() -> None:
            async with still._link.connection("standing still") as connection:
                await connection.execute("BEGIN")
                await connection.execute(f"SELECT FROM {still._settings.quoted_schema}.job FOR UPDATE")
                ended = await other.jobs_finish([Finish(*held.fence, FinishKind.DONE, 1, 1, 1)])
                assert ended == [JobState.DONE]
                await connection.execute("COMMIT")

        with pytest.raises(StoreUnavailable, match=r"no connection|stood still"):
            await stand_still()
        assert len(await still.jobs_get([row.id])) == 1, "over a new connection"


async def test_cancelled_call_leaves_no_connection_in_a_transaction(postgres_url: str) -> None:
    """The pool lends each connection again at once."""
    async with opened(with_option(postgres_url, "pool=2&poll=1")) as store:
        for delay in range(12):
            call = asyncio.create_task(store.jobs_request_cancel([(await store.jobs_put([job()]))[0].id]))
            await asyncio.sleep(delay / 2_000)
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)
        assert store._link._pool is not None
        for _ in range(2):
            async with store._link.connection("looking") as connection:
                assert not connection.is_in_transaction()


async def test_refused_decision_costs_no_connection(postgres_url: str) -> None:
    """A taken key is daily business; to connect anew for each would cost ten times the call."""
    async with opened(with_option(postgres_url, "pool=2&poll=1")) as store:
        keyed = Unique("k", on_conflict="raise")
        await store.jobs_put([job(unique=keyed)])
        assert store._link._pool is not None
        before = set(store._link._pool._all)
        with pytest.raises(UniqueConflict):
            await store.jobs_put([job(unique=keyed)])
        assert store._link._pool._all == before


async def test_decision_that_others_are_in_the_way_of_costs_no_connection(postgres_url: str) -> None:
    """It comes when many are at one thing, which is no time to connect anew for each round."""

    async def find_it_locked(connection: Connection) -> None:
        try:
            await connection.execute("DO $$ BEGIN RAISE lock_not_available; END $$")
        except asyncpg.LockNotAvailableError:
            raise InTheWay(Needs()) from None

    async with opened(with_option(postgres_url, "pool=2&poll=1")) as store:
        await store.jobs_put([job()])
        assert store._link._pool is not None
        before = set(store._link._pool._all)
        with pytest.raises(InTheWay):
            await store._link.transaction(find_it_locked, "trying")
        assert len((await store.jobs_claim(CLAIM)).jobs) == 1
        assert store._link._pool._all == before


@pytest.mark.parametrize("between", ["a lease runs out", "the server fails"])
async def test_claim_tells_of_all_that_it_has_leased(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, between: str
) -> None:
    """It is a statement for each want: what the first has leased nobody would know of, whatever comes then."""
    async with opened(with_option(postgres_url, "poll=1")) as store:
        (dead,) = await store.jobs_put([job()])
        await store.jobs_claim(CLAIM._replace(owner="dead"))
        jobs = await store.jobs_put([job(), job(queue="other")])
        rows, asked = store._link.rows, list[str]()

        async def come_between(name: str, *arguments: object) -> object:
            asked.append(name)
            if asked.count("claim") == 2:
                if between == "the server fails":
                    raise StoreUnavailable("it is away")
                async with store._link.connection("ending a lease") as connection:
                    await connection.execute(
                        f"UPDATE {store._settings.quoted_schema}.job SET lease_until_ns = 1 WHERE id = $1", dead.id
                    )
            return await rows(name, *arguments)

        monkeypatch.setattr(store._link, "rows", come_between)
        wants = [Want((queue,), lanes_of(["a"]), 5) for queue in ("default", "other")]
        claimed = await store.jobs_claim(Claim("w", wants, 30.0))
        leased = jobs[:1] if between == "the server fails" else jobs
        assert [row.id for row in claimed.jobs] == [row.id for row in leased]
        assert asked.count("claim") == 2


async def test_pgbouncer_mode_prepares_nothing_and_listens_to_nobody(postgres_url: str) -> None:
    """Each transaction may come over another server connection."""
    async with opened(with_option(postgres_url, "pgbouncer=true")) as store:
        await store.jobs_put([job(), job()])
        (first, second) = (await store.jobs_claim(CLAIM)).jobs
        await store.jobs_finish([Finish(*first.fence, FinishKind.DONE, 1, 1, 1)])
        await store.jobs_release([second.fence])
        async with store._link.connection("looking") as connection:
            assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0
        assert store._hints._task is None


# ---------------------------------------------------------------- plans


HOT: Final[dict[str, tuple[tuple[object, ...], set[str]]]] = {
    "claim": (
        (["default"], ["a", "b"], 100, "w", 1, True, True, ["default"], ["a", "b"]),
        {
            *("job_ready", "job_lease", "job_delayed", "job_serial", "job_rare_priority", "schedule_held_up"),
            *("Tid Scan", "order_at_ns <= "),
        },
    ),
    "renew": (("w", ["x"], [1], [None], [None], [None], 1), {"job_pkey"}),
    "finish": ((["x"], [1], ["w"], ["done"], [1], [1], [1], [None], [None], [None]), {"job_pkey"}),
    "expired": ((100,), {"job_lease"}),
    "load_jobs": ((["x"],), {"job_pkey"}),
    "load_finished": ((["x"],), {"job_history_pkey"}),
    "load_lines": ((["k"],), {"job_key"}),
    "load_uniques": ((["a"], ["k"]), {"unique_key_pkey"}),
    "load_schedules": ((["s"],), {"schedule_pkey"}),
    "load_held_up": ((["k"], [], []), {"schedule_held_up"}),
    "give_turns": ((["k"],), {"job_line", "job_turn", "job_serial"}),
    "schedule_due": ((1, 100), {"schedule_wake"}),
    "get": ((["x"],), {"job_pkey", "job_history_pkey"}),
    "newest": (
        (None, None, None, None, None, None, False, 2**62, 100),
        {"job_newest", "job_history_newest"},
    ),
    "purge": ((1, 100, None), {"job_history_age", "job_history_pkey", "Index Cond: (ROW(finished_at_ns, seq) <= "}),
    "tidy": ((), {"outcome_minute", "unique_key_until", "Tid Scan"}),
}
"""Arguments, and what the plan must go by."""


@pytest.mark.parametrize("name", HOT)
async def test_hot_statements_go_by_their_indexes(postgres_url: str, name: str) -> None:
    """A scan of a table is quick in every test, and slow in every production."""
    arguments, wanted = HOT[name]
    async with opened(with_option(postgres_url, "poll=1")) as store, store._link.connection("explaining") as connection:
        plan = await explained(connection, store._link.sql[name], arguments)
    assert not [line for line in plan if "Seq Scan" in line and " on limit_" not in line], "\n".join(plan)  # a few rows
    assert not {it for it in wanted if not any(it in line for line in plan)}, "\n".join(plan)


async def explained(connection: object, sql: str, arguments: Sequence[object]) -> list[str]:
    """Return the plan that all executions of a prepared statement share."""
    assert isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy)
    rows = await connection.fetch(f"EXPLAIN {sql}", *arguments)
    return [row[0] for row in rows]


# ---------------------------------------------------------------- schema and errors


async def test_newer_schema_is_refused(postgres_url: str) -> None:
    """An old process must not write what it does not understand."""
    settings = parse(postgres_url)
    await _postgres_schema.upgrade(settings)
    connection = await asyncpg.connect(settings.dsn)
    await connection.execute(f"INSERT INTO {settings.quoted_schema}.migration (number, name) VALUES (9999, 'later')")
    await connection.close()
    with pytest.raises(
        StoreError, match=r"its schema is at 9999, which takes .* this version knows .* upgrade quarterjack"
    ):
        async with opened(postgres_url):
            pass


async def test_store_serves_one_app_at_a_time_and_says_when_it_is_not_open(postgres_url: str) -> None:
    """A second app on one object would leave the first one's connections to nobody."""
    async with opened(postgres_url) as store:
        with pytest.raises(Conflict, match="one store per app"):
            await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
        assert await store.jobs_put([job()])
    for call in (store.now_ns(), store.jobs_get(["x"]), store.workers_list()):
        with pytest.raises(StoreUnavailable, match="not open"):
            await call
    await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
    await store.close()


class ServedBench(Bench):
    """A bench on the server's own clock."""

    async def advance(self, seconds: float) -> None:
        del seconds
        await asyncio.sleep(0.002)  # what has ended has ended before now


async def test_schema_that_was_added_to_serves_the_version_before(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deploy is taken back, or a process of the version before starts anew in the middle of one."""
    running = ServedBench(PostgresStore.from_url(postgres_url))
    await running.open()
    name = parse(postgres_url).quoted_schema
    added = [f"ALTER TABLE {name}.{table} ADD COLUMN newer text;" for table in TABLES]
    with later_step(monkeypatch, "postgres", "\n".join([*added, f"CREATE TABLE {name}.newer (id text);"])) as number:
        await _postgres_schema.upgrade(parse(postgres_url))
    await lives(running)
    await running.store.close()
    restarted = PostgresStore.from_url(postgres_url)
    bench = ServedBench(restarted)
    await bench.open()
    assert (await restarted.schema_status()).current == number
    await lives(bench)
    await restarted.close()


async def test_schema_that_something_was_taken_from_is_refused(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever needs what is gone must not begin to work."""
    settings = parse(postgres_url)
    await _postgres_schema.upgrade(settings)
    dropped = f"DROP TABLE {settings.quoted_schema}.audit;"
    with later_step(monkeypatch, "postgres", dropped, expands=False):
        await _postgres_schema.upgrade(settings)
    with pytest.raises(StoreError, match="upgrade quarterjack here, too"):
        async with opened(postgres_url):
            pass


async def test_schema_that_is_missing_is_made_or_told(postgres_url: str) -> None:
    """Whoever may not change a production database by starting a program says so in the URL."""
    with pytest.raises(StoreError, match=r"has no tables of quarterjack yet, .* run `qj db upgrade"):
        async with opened(with_option(postgres_url, "migrate=off")):
            pass
    store = PostgresStore.from_url(postgres_url)
    before = await store.schema_status()
    assert (before.current, before.known) == (0, migrations("postgres")[-1].number)
    assert before.pending[0] == "0001 start"
    assert await store.schema_upgrade() == before
    after = await store.schema_status()
    assert (after.current, after.pending) == (after.known, ())
    async with opened(with_option(postgres_url, "migrate=off")) as again:
        assert await again.jobs_put([job()])


async def test_many_processes_upgrade_at_once(postgres_url: str) -> None:
    """A deploy starts all replicas in the same second."""
    settings = parse(postgres_url)
    await asyncio.gather(*(_postgres_schema.upgrade(settings) for _ in range(6)))
    assert (await _postgres_schema.status(settings)).pending == ()


async def test_script_of_the_migrations_does_what_the_upgrade_does(postgres_url: str) -> None:
    """Some databases are changed by hand, by people who read first."""
    store = PostgresStore.from_url(postgres_url)
    connection = await asyncpg.connect(parse(postgres_url).dsn)
    await connection.execute(store.schema_sql())
    await connection.close()
    assert (await store.schema_status()).pending == ()
    assert store.schema_sql(after=10_000) == ""


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda url: url.replace("/postgres?", "/nowhere?"), "there is no such database; make it with `createdb`"),
        (lambda url: url.replace("qj@", "nobody:secret@"), r"nobody.*role .* does not exist"),
    ],
)
async def test_refusals_say_what_to_do(postgres_url: str, change: Callable[[str], str], words: str) -> None:
    """The first thing everybody meets is a URL that is not quite right."""
    with pytest.raises(StoreError, match=words) as told:
        async with opened(change(postgres_url)):
            pass
    assert "secret" not in str(told.value)


async def test_server_that_is_not_there_is_told_with_its_address() -> None:
    """Where did it look?"""
    with pytest.raises(StoreUnavailable, match=r"postgresql://me:\*\*\*@127.0.0.1:9/db.* is the server running"):
        async with opened("postgresql://me:secret@127.0.0.1:9/db"):
            pass


async def test_user_without_rights_is_told_which_to_grant(postgres_server: str, postgres_url: str) -> None:
    """A program's user often may not make tables, and should not have to."""
    async with opened(postgres_url):
        pass
    connection = await asyncpg.connect(postgres_server)
    name = parse(postgres_url).schema + "_user"
    await connection.execute(f'CREATE ROLE "{name}" LOGIN')
    try:
        with pytest.raises(StoreError, match="GRANT USAGE ON SCHEMA"):
            async with opened(postgres_url.replace("qj@", f"{name}@")):
                pass
    finally:
        await connection.execute(f'DROP ROLE "{name}"')
        await connection.close()


@pytest.mark.parametrize(
    "url",
    [
        "mysql://host/db",
        "postgresql://host/db?schema=",
        "postgresql://host/db?schema=pg_mine",
        'postgresql://host/db?schema=a"b',
        "postgresql://host/db?pool=1",
        "postgresql://host/db?timeout=soon",
        "postgresql://host/db?pgbouncer=perhaps",
    ],
)
def test_urls_that_make_no_sense_are_refused(url: str) -> None:
    """A typo must not become a default."""
    with pytest.raises(InvalidOption):
        parse(url)


def test_url_keeps_the_drivers_options_and_shows_no_password() -> None:
    """What is not ours is the driver's; what is secret stays so."""
    settings = parse("postgresql://me:se%40cret@host:5433/db?sslmode=require&schema=jobs&password=x&poll=yes")
    assert settings.dsn == "postgresql://me:se%40cret@host:5433/db?sslmode=require&password=x"
    assert settings.shown == "postgresql://me:***@host:5433/db?sslmode=require&schema=jobs&password=***&poll=yes"
    assert (settings.schema, settings.listens) == ("jobs", False)


async def test_missing_hints_are_told_once(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is one line in the log, not one per attempt."""
    tries: list[int] = []
    enough = asyncio.Event()

    async def fail(settings: object) -> None:
        tries.append(1)
        if len(tries) == 3:
            enough.set()
        raise StoreUnavailable("nobody answers")

    monkeypatch.setattr(_postgres_hints, "connect", fail)
    monkeypatch.setattr(_postgres_hints, "LONGEST_PAUSE_S", 0.01)
    hints = quiet_hints()
    with caplog.at_level(logging.WARNING, "quarterjack.stores"):
        hints.start()
        await enough.wait()
        await hints.close()
    assert [it.message for it in caplog.records] == [
        "hints of other processes do not arrive, so all is found by polling: nobody answers"
    ]


async def test_hints_that_cannot_be_sent_are_not_gathered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server without a connection left goes on with its jobs for days; each that ends has an id."""

    async def fail(settings: object) -> None:
        raise StoreUnavailable("no connection left")

    monkeypatch.setattr(_postgres_hints, "connect", fail)
    hints = quiet_hints()
    hints.start()
    hints.send(Hint.CANCELS, ["one"])
    hints.send(Hint.CANCELS, ["two"])
    for n in range(1_000):
        hints.send(Hint.ENDED, [str(n)])
    await hints.close()
    assert hints._pending == {Hint.CANCELS: {"one", "two"}, Hint.ENDED: None}, "None is to look at all"


def quiet_hints() -> _postgres_hints.Hints:
    return _postgres_hints.Hints(parse("postgresql://host/db"), "me", lambda hint, ids: None)
