"""How a PostgreSQL store speaks to its server: statements by name, transactions tried again, errors in words."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from random import Random
from typing import Any, Final, TypeVar

import asyncpg

from quarterjack.errors import Conflict, StoreUnavailable

from ._postgres_errors import DRIVER_ERRORS, explained, is_transient, leaves_sound
from ._postgres_pool import Connection, Pool
from ._postgres_sql import statements
from ._postgres_url import Settings

__all__ = ["Link"]

T = TypeVar("T")

TRIES: Final = 8
"""How often a transaction is tried that others were in the way of; by then something else is wrong."""
BACKOFF_S: Final = 0.002


class Link:
    """The pool, and the store's statements with the schema's name in them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._pool: Pool | None = None
        self._random = Random()  # noqa: S311  # it spreads retries, and keeps no secret
        self.sql = statements(settings)
        """The statements by their names in ``sql/postgres/queries.sql``."""

    @property
    def is_open(self) -> bool:
        """True from `open` to `close`."""
        return self._pool is not None

    async def open(self) -> None:
        """Connect.

        Raises:
            Conflict: If it is open.
            StoreError: If there is no server, or it refuses us.
        """
        pool = Pool(self.settings)
        pool.release(await pool.acquire(), is_sound=True)
        if self._pool is not None:
            await pool.close()
            raise Conflict(f"{self.settings.shown}: the store was opened twice at once")
        self._pool = pool

    async def close(self) -> None:
        """Close every connection; idempotent."""
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.close()

    @asynccontextmanager
    async def connection(self, doing: str) -> AsyncIterator[Connection]:
        """Lend a connection; what the driver raises in the block is told as a `StoreError`.

        Raises:
            StoreError: What it is about; `StoreUnavailable` where trying again may help.
        """
        pool = self._opened()
        connection = await pool.acquire()
        is_sound = False
        try:
            yield connection
            is_sound = True
        except DRIVER_ERRORS as error:
            is_sound = leaves_sound(error)
            raise explained(error, self.settings, doing) from error
        finally:
            pool.release(connection, is_sound=is_sound)

    def _opened(self) -> Pool:
        if self._pool is None:
            raise StoreUnavailable(f"{self.settings.shown}: the store is not open")
        return self._pool

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
        """As `connection`, spelled out for the way that every call goes, and again where others were in the way."""
        for tries in range(TRIES):
            pool = self._opened()
            connection = await pool.acquire()
            is_sound = False
            try:
                answer = await work(connection)
                is_sound = True
            except DRIVER_ERRORS as error:
                is_sound = leaves_sound(error)
                if not is_transient(error) or tries == TRIES - 1:
                    raise explained(error, self.settings, doing) from error
            except (
                Exception
            ):  # a decision's own, such as a taken key: the transaction is rolled back, the line in order
                is_sound = True
                raise
            else:
                return answer
            finally:
                pool.release(connection, is_sound=is_sound)
            await asyncio.sleep(self._random.uniform(0, BACKOFF_S * 2**tries))
        raise AssertionError("the last try returns or raises")
