"""PostgreSQL stores for tests: on a clock that the test moves, in a schema that is emptied and not made anew."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Final

import asyncpg

from quarterjack._durations import NS_PER_S
from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.model import JobIds, JobRecord, RunOptions, lanes_of
from quarterjack.stores import _postgres_schema as schema
from quarterjack.stores._postgres_url import parse
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Claim, Hint, Want
from quarterjack.stores.postgres import PostgresStore
from quarterjack.testing.store_contract import Bench
from tests.servers.fixtures import drop_schema, with_option

TABLES: Final = (
    *("job", "job_history", "occurrence", "unique_key", "schedule", "outcome"),
    *("worker", "audit", "limit_slot", "limit_bucket"),
)
START_NS: Final = 1_772_442_000 * NS_PER_S
CLAIM: Final = Claim("w", [Want(("default",), lanes_of(["a"]), 10)], 30.0)
"""Ten jobs of the task a."""
_NEW: Final = JobIds()

TEST_CLOCK: Final = """
CREATE TABLE {schema}.test_clock (ns bigint NOT NULL);
INSERT INTO {schema}.test_clock VALUES ({start});
CREATE OR REPLACE FUNCTION {schema}.now_ns() RETURNS bigint LANGUAGE sql VOLATILE
AS $$ SELECT ns FROM {schema}.test_clock $$;
"""


@contextlib.contextmanager
def schema_on_test_time(server: str) -> Iterator[str]:
    """Yield the URL of a schema whose clock stands still unless `MovedBench` moves it."""
    name = f"qj_{secrets.token_hex(6)}"
    url = with_option(server, f"schema={name}")

    async def make() -> None:
        settings = parse(url)
        await schema.upgrade(settings)
        connection = await asyncpg.connect(settings.dsn)
        await connection.execute(TEST_CLOCK.replace("{schema}", settings.quoted_schema).format(start=START_NS))
        await connection.close()

    asyncio.run(make())
    try:
        yield url
    finally:
        asyncio.run(drop_schema(server, name))


class EmptyStore(PostgresStore):
    """Begins with empty tables, and with the clock at its start."""

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        await super().open(clock, ids, encoding)
        name = self._settings.quoted_schema
        async with self._link.connection("emptying") as connection:
            await connection.execute("; ".join(f"DELETE FROM {name}.{table}" for table in TABLES))
            await connection.execute(f"UPDATE {name}.test_clock SET ns = {START_NS}")


class MovedBench(Bench):
    """A bench whose store's clock is the server's, moved by the test."""

    store: PostgresStore

    def __init__(self, url: str) -> None:
        super().__init__(EmptyStore.from_url(with_option(url, "poll=1&pool=3")))

    async def advance(self, seconds: float) -> None:
        await super().advance(seconds)
        async with self.store._link.connection("moving the clock") as connection:
            await connection.execute(
                f"UPDATE {self.store._settings.quoted_schema}.test_clock SET ns = ns + {round(seconds * NS_PER_S)}"
            )


@contextlib.asynccontextmanager
async def opened(url: str) -> AsyncIterator[PostgresStore]:
    """Lend an open store on the server's own clock."""
    store = PostgresStore.from_url(url)
    await store.open(SYSTEM_CLOCK, JobIds(), Encoding())
    try:
        yield store
    finally:
        await store.close()


def job(**options: object) -> JobRecord:
    """Return a new job of the task a."""
    return JobRecord(_NEW(), "a", (), {}, RunOptions(**options))  # type: ignore[arg-type]  # options by name


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
