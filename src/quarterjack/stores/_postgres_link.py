"""The connections of a PostgreSQL store: a pool with settings of its own, and the deadline of every call.

The driver's pool resets a connection each time it is given back, which costs a
round trip; ours only ends a transaction that a cancelled call has left. Plans are
made once: the statements are few, and their arrays say nothing to the planner."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar

import asyncpg

from quarterjack.errors import StoreUnavailable

from ._postgres_errors import DRIVER_ERRORS, explained, is_transient
from ._postgres_sql import statements
from ._postgres_url import Settings

if TYPE_CHECKING:  # the driver's generics take arguments in its stubs alone
    from asyncpg.pool import PoolConnectionProxy

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"

__all__ = ["Connection", "Link", "connect"]

T = TypeVar("T")

TRIES: Final = 8
"""How often a transaction is tried that others were in the way of; by then something else is wrong."""
BACKOFF_S: Final = 0.002
IDLE_S: Final = 300.0
"""A connection that nobody needed for so long is closed."""

_SERVER_SETTINGS: Final = {
    "application_name": "quarterjack",
    "plan_cache_mode": "force_generic_plan",
    # The hot table is small and turns over all the time, so what was counted of it is wrong most of the time:
    # a plan must not depend on that. Every statement of ours has an index to go by.
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    "idle_in_transaction_session_timeout": "60000",
}


async def connect(settings: Settings) -> asyncpg.Connection[asyncpg.Record]:
    """Open a connection outside of any pool.

    Raises:
        StoreError: If there is no server, or it refuses us.
    """
    try:
        return await asyncpg.connect(settings.dsn, **_arguments(settings))
    except DRIVER_ERRORS as error:
        raise explained(error, settings, "connecting") from error


def _arguments(settings: Settings) -> dict[str, Any]:
    arguments: dict[str, Any] = {"timeout": settings.timeout_s, "command_timeout": settings.timeout_s}
    if settings.pgbouncer:
        return {**arguments, "statement_cache_size": 0}
    timeout_ms = round(settings.timeout_s * 1_000)
    return {**arguments, "server_settings": {**_SERVER_SETTINGS, "statement_timeout": str(timeout_ms)}}


async def _leave_clean(connection: Connection) -> None:
    """Let a connection go back to the pool: a call that was cancelled may have left it in a transaction."""
    if connection.is_in_transaction():
        await connection.execute("ROLLBACK")


class Link:
    """The pool, and the store's statements with the schema's name in them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._random = Random()  # noqa: S311  # it spreads retries, and keeps no secret
        self.sql = statements(settings)
        """The statements by their names in ``sql/postgres/queries.sql``."""

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreError: If there is no server, or it refuses us.
        """
        settings = self.settings
        pool = asyncpg.create_pool(
            settings.dsn,
            min_size=1,
            max_size=settings.pool,
            max_inactive_connection_lifetime=IDLE_S,
            reset=_leave_clean,
            **_arguments(settings),
        )
        try:
            self._pool = await pool
        except DRIVER_ERRORS as error:
            raise explained(error, settings, "connecting") from error

    async def close(self) -> None:
        """Close every connection; idempotent."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            await asyncio.wait_for(pool.close(), 2.0)
        except DRIVER_ERRORS:
            pool.terminate()

    @asynccontextmanager
    async def connection(self, doing: str) -> AsyncIterator[Connection]:
        """Lend a connection; what the driver raises in the block is told as a `StoreError`.

        Raises:
            StoreError: What it is about; `StoreUnavailable` where trying again may help.
        """
        pool = self._pool
        if pool is None:
            raise StoreUnavailable(f"{self.settings.shown}: the store is not open (while {doing})")
        try:
            async with pool.acquire(timeout=self.settings.timeout_s) as connection:
                yield connection
        except DRIVER_ERRORS as error:
            raise explained(error, self.settings, doing) from error

    async def rows(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        """Run one statement by its name, a transaction of its own; return its rows.

        Raises:
            StoreError: As `connection`.
        """
        return await self._tried(lambda connection: connection.fetch(self.sql[name], *arguments), name)

    async def value(self, name: str, *arguments: Any) -> Any:
        """Run one statement by its name; return the first value of its first row, or None."""
        return await self._tried(lambda connection: connection.fetchval(self.sql[name], *arguments), name)

    async def transaction(self, work: Callable[[Connection], Awaitable[T]], doing: str) -> T:
        """Run *work* in a transaction, and again where others were in its way; it must be repeatable.

        Raises:
            StoreError: As `connection`.
        """

        async def whole(connection: Connection) -> T:
            async with connection.transaction():
                return await work(connection)

        return await self._tried(whole, doing)

    async def _tried(self, work: Callable[[Connection], Awaitable[T]], doing: str) -> T:
        for tries in range(TRIES):
            async with self.connection(doing) as connection:
                try:
                    return await work(connection)
                except asyncpg.PostgresError as error:
                    if not is_transient(error) or tries == TRIES - 1:
                        raise
            await asyncio.sleep(self._random.uniform(0, BACKOFF_S * 2**tries))
        raise AssertionError("the last try returns or raises")
