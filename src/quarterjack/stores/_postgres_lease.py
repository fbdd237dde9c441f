"""Leases kept from another thread: a connection of its own, on that thread's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from quarterjack.model import WorkerInfo

from ._postgres_errors import DRIVER_ERRORS, explained
from ._postgres_jobs import renew
from ._postgres_pool import Connection, connect
from ._postgres_registry import worker_arguments
from ._postgres_url import Settings
from ._rows import Encoding
from .base import Renewal, Renewed
from .leases import LeaseLink

__all__ = ["PostgresLeaseLink"]


class PostgresLeaseLink(LeaseLink):
    """Renews over one connection; a call that fails or is cancelled drops it, and `open` makes another.

    Args:
        settings: Where the server is.
        sql: The store's statements.
        encoding: Turns progress and checkpoints into bytes; it keeps nothing between calls.
    """

    def __init__(self, settings: Settings, sql: dict[str, str], encoding: Encoding) -> None:
        self._settings = settings
        self._sql = sql
        self._encoding = encoding
        self._connection: Connection | None = None

    async def open(self) -> None:
        """Connect, or connect anew after an error."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await connect(self._settings)

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Renew over the link's own connection."""
        connection = await self._connected()
        with self._asking("renewing leases"):
            return await renew(connection, self._sql["renew"], self._encoding, owner, renewals, lease_s)

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Refresh the worker's row over the link's own connection."""
        connection = await self._connected()
        with self._asking("refreshing the worker's row"):
            command: str | None = await connection.fetchval(self._sql["worker_put"], *worker_arguments(worker))
        return command

    async def close(self) -> None:
        """Let go of the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                await connection.close(timeout=1.0)
            except DRIVER_ERRORS:
                connection.terminate()

    async def _connected(self) -> Connection:
        await self.open()
        assert self._connection is not None  # noqa: S101  # `open` makes one, or raises
        return self._connection

    @contextmanager
    def _asking(self, doing: str) -> Iterator[None]:
        """Drop the connection, at once, where a call fails or is given up: it may be half-open."""
        try:
            yield
        except DRIVER_ERRORS as error:
            self._drop()
            raise explained(error, self._settings, doing) from error
        except asyncio.CancelledError:
            self._drop()
            raise

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
