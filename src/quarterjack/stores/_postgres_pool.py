"""A pool of PostgreSQL connections: lent without a turn of the loop, and never given back in doubt.

The driver's own pool takes three turns of the event loop to lend a connection and take it
back, and a round trip to reset it; a call of ours often takes no longer than that.
Here a connection whose call ended in order goes back as it is; one whose call was
cancelled or timed out, and which may be anywhere, is dropped."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Final, TypeAlias

import asyncpg

from quarterjack.errors import StoreUnavailable

from ._postgres_errors import DRIVER_ERRORS, explained
from ._postgres_url import SERVER_SETTINGS, Settings

__all__ = ["Connection", "Pool", "connect"]

TIMEOUTS: Final = ("statement_timeout", "idle_in_transaction_session_timeout")

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def connect(settings: Settings) -> Connection:
    """Open a connection outside of any pool.

    Raises:
        StoreError: If there is no server, or it refuses us.
    """
    timeout_s = settings.timeout_s
    try:
        if settings.pgbouncer:
            return await asyncpg.connect(
                settings.dsn, timeout=timeout_s, command_timeout=timeout_s, statement_cache_size=0
            )
        # A client that falls silent in mid-transaction (stopped, cut off) keeps its rows from others no longer than a
        # call may take: leases of jobs that are locked cannot be renewed.
        timeouts = dict.fromkeys(TIMEOUTS, str(round(timeout_s * 1_000)))
        server = {**SERVER_SETTINGS, **timeouts}
        return await asyncpg.connect(settings.dsn, timeout=timeout_s, command_timeout=timeout_s, server_settings=server)
    except DRIVER_ERRORS as error:
        raise explained(error, settings, "connecting") from error


class Pool:
    """At most *settings.pool* connections, the last one used lent first; who comes when all are lent waits in line.

    While somebody waits in line nothing is idle and nothing can be opened: what comes free is handed to the first
    there, whom no newcomer overtakes.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[Connection] = []
        self._all: set[Connection] = set()
        self._opening = 0
        """How many may be opened now, by whoever has reserved the room."""
        self._line: deque[asyncio.Future[Connection | None]] = deque()
        """Who waits: for a connection, or None for room to open one."""
        self._is_closed = False

    async def acquire(self) -> Connection:
        """Return a connection that nobody else has, until `release`.

        Raises:
            StoreError: If a new one cannot be opened, or none comes free within the deadline.
        """
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_closed():
                return connection
            self._all.discard(connection)
        if self._has_room():
            self._opening += 1
            return await self._opened()
        return await self._in_turn()

    def _has_room(self) -> bool:
        return len(self._all) + self._opening < self._settings.pool

    async def _opened(self) -> Connection:
        """Open a connection in room that was reserved."""
        try:
            if self._is_closed:
                raise self._not_open()
            connection = await connect(self._settings)
            if self._is_closed:
                connection.terminate()
                raise self._not_open()
            self._all.add(connection)
            return connection
        finally:
            self._opening -= 1
            self._lend_room()

    def _not_open(self) -> StoreUnavailable:
        return StoreUnavailable(f"{self._settings.shown}: the store is not open")

    async def _in_turn(self) -> Connection:
        turn: asyncio.Future[Connection | None] = asyncio.get_running_loop().create_future()
        self._line.append(turn)
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await turn
        except TimeoutError:
            if turn.cancelled():  # else it was given in the very moment of the deadline
                raise StoreUnavailable(
                    f"{self._settings.shown}: all {self._settings.pool} connections were busy for "
                    f"{self._settings.timeout_s:g} s; a larger pool= in the URL may help"
                ) from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it was this one's turn: it is the next one's now
                self._pass_on(turn.result())
            raise
        finally:
            with suppress(ValueError):
                self._line.remove(turn)
        connection = turn.result()
        return await self._opened() if connection is None else connection

    def _pass_on(self, connection: Connection | None) -> None:
        if connection is not None:
            self.release(connection, is_sound=True)
        else:
            self._opening -= 1
            self._lend_room()

    def release(self, connection: Connection, *, is_sound: bool) -> None:
        """Take a connection back; one that is not sound is dropped, and with it what it was at."""
        if self._is_closed or not is_sound or connection.is_closed() or connection.is_in_transaction():
            self._all.discard(connection)
            connection.terminate()
            self._lend_room()
        elif (turn := self._next_turn()) is not None:
            turn.set_result(connection)
        else:
            self._idle.append(connection)

    def _lend_room(self) -> None:
        """Let those in line open connections, as many as there is room for."""
        while self._has_room() and (turn := self._next_turn()) is not None:
            self._opening += 1
            turn.set_result(None)

    def _next_turn(self) -> asyncio.Future[Connection | None] | None:
        while self._line:
            turn = self._line.popleft()
            if not turn.done():
                return turn
        return None

    async def close(self) -> None:
        """Close what is idle, and drop what is lent; idempotent."""
        self._is_closed = True
        idle, self._idle = self._idle, []
        for connection in self._all - set(idle):
            connection.terminate()
        self._all.clear()
        self._lend_room()  # who waits finds that it is closed
        for connection in idle:
            try:
                await connection.close(timeout=1.0)
            except DRIVER_ERRORS:
                connection.terminate()
