"""The PostgreSQL store's schema: who may use it, who makes it, and what other versions do with it."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from quarterjack.errors import StoreError
from quarterjack.stores import _postgres_schema
from quarterjack.stores._postgres_url import parse
from quarterjack.stores._schema import migrations
from quarterjack.stores.postgres import PostgresStore
from quarterjack.testing.store_contract import Bench
from tests.servers.fixtures import with_option
from tests.stores.later import later_step, lives
from tests.stores.postgres_kit import TABLES, job, opened


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
