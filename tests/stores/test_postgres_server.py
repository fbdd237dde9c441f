"""The PostgreSQL store and its server: restarts, a network that fails, calls cut short, errors in words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import asyncpg
import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import Conflict, StoreError, StoreUnavailable, UniqueConflict
from quarterjack.model import Finish, FinishKind, JobIds, JobState, Unique, lanes_of
from quarterjack.stores import _postgres_hints
from quarterjack.stores._needs import Needs
from quarterjack.stores._postgres_pool import Connection
from quarterjack.stores._postgres_transact import InTheWay
from quarterjack.stores._postgres_url import parse
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Claim, Hint, Renewed, Want
from tests.servers.fixtures import with_option
from tests.servers.proxy import Proxy
from tests.servers.running import OwnServer
from tests.stores.postgres_kit import CLAIM, Heard, job, opened


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
