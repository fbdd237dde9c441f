"""Leases kept from another thread: a connection of its own, on that thread's loop."""

from __future__ import annotations

from collections.abc import Sequence

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
    """Renews over one connection; a call that fails drops it, and `open` makes another.

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
        try:
            return await renew(connection, self._sql["renew"], self._encoding, owner, renewals, lease_s)
        except DRIVER_ERRORS as error:
            raise self._dropped(error, "renewing leases") from error

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Refresh the worker's row over the link's own connection."""
        connection = await self._connected()
        try:
            command: str | None = await connection.fetchval(self._sql["worker_put"], *worker_arguments(worker))
        except DRIVER_ERRORS as error:
            raise self._dropped(error, "refreshing the worker's row") from error
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

    def _dropped(self, error: BaseException, doing: str) -> Exception:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.terminate()
        return explained(error, self._settings, doing)
