"""One connection to a Redis or Valkey server, shared by all calls of a store.

The server runs one command at a time, so one connection that many callers write
to without waiting for each other is as fast as many. Replies come in the order of
the commands: a reader hands each to whoever asked. A caller that is cancelled
leaves the line in order, its reply is read and dropped; what it asked may have been done.

Each call has a deadline. Past it the line is taken for dead (a connection may be
half-open for hours) and dropped with everything that waits on it; the next call
makes a new one. The reader notices at once when the server closes the line, so no
command is sent into one that is known to be dead, and none is ever sent twice."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from quarterjack.errors import StoreError, StoreUnavailable

from ._redis_errors import explained

__all__ = ["Link", "Word"]

Word = str | bytes | int
"""A part of a command."""

_pack: Final[Callable[[tuple[Word, ...]], bytes]] = hiredis.pack_command  # type: ignore[assignment, unused-ignore]  # pyright: ignore[reportUnknownMemberType, reportAssignmentType]  # its stub knows one word
_MAY_WAIT: Final = 32_768
"""A command of so many bytes may have to wait for the socket; smaller ones find room in its buffer."""


class _Line:
    """One connection, with who waits for its replies."""

    __slots__ = ("_reader", "_waiting", "connection", "error")

    def __init__(self, connection: AbstractConnection) -> None:
        self.connection = connection
        self.error: Exception | None = None
        """Why it can be used no more."""
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._reader = asyncio.get_running_loop().create_task(self._read(), name="quarterjack-redis-reader")

    async def ask(self, packed: bytes) -> Any:
        """Send a command and return its reply."""
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        sending = self._send(packed, reply)
        if len(packed) < _MAY_WAIT:
            await sending
        else:  # a caller that is cancelled meanwhile must not leave half a command behind
            await asyncio.shield(sending)
        return await reply

    async def _send(self, packed: bytes, reply: asyncio.Future[Any]) -> None:
        """Take a place in the line and write the command in one step, for replies come in the order of the writing."""
        if self.error is not None:
            raise self.error
        self._waiting.append(reply)
        await self.connection.send_packed_command(packed, check_health=False)

    async def _read(self) -> None:
        read, waiting = self.connection.read_response, self._waiting
        try:
            while True:
                try:
                    answer = cast("Any", await read(disconnect_on_error=False))
                except ResponseError as refusal:
                    reply = waiting.popleft()
                    if not reply.done():
                        reply.set_exception(refusal)
                else:
                    reply = waiting.popleft()
                    if not reply.done():  # else whoever asked was cancelled
                        reply.set_result(answer)
        except (RedisError, OSError, IndexError) as error:  # IndexError: a reply that nobody asked for
            await self.drop(error)

    async def drop(self, error: Exception) -> None:
        """Close the connection; everybody who waits for it gets *error*."""
        if self.error is not None:
            return
        self.error = error
        while self._waiting:
            reply = self._waiting.popleft()
            if not reply.done():
                reply.set_exception(error)
                reply.exception()  # who asked may be gone
        try:
            if self._reader is not asyncio.current_task():
                self._reader.cancel()
                await asyncio.gather(self._reader, return_exceptions=True)
        finally:
            await self.connection.disconnect(nowait=True)


class Link:
    """What a store asks its server through.

    Args:
        connect: Makes a connection that is not connected yet.
        where: The server's address, as it may be shown.
        timeout_s: The deadline of each call, connecting included.
    """

    def __init__(self, connect: Callable[[], AbstractConnection], where: str, timeout_s: float) -> None:
        self._connect = connect
        self.where = where
        self.timeout_s = timeout_s
        self._line: _Line | None = None
        self._lock = asyncio.Lock()

    async def call(self, doing: str, *words: Word) -> Any:
        """Send a command and return its reply; *doing* says in an error what it was for.

        Cancelling it leaves open whether the command is carried out.

        Raises:
            ResponseError: If the server refused the command for a reason of its own (see `explain`).
            StoreUnavailable: If it did not answer in time.
        """
        packed = _pack(words)
        line: _Line | None = None
        try:
            async with asyncio.timeout(self.timeout_s):
                line = self._line
                if line is None or line.error is not None:
                    line = await self._new_line(doing)
                return await line.ask(packed)
        except ReadOnlyError as refusal:  # a failover has made a replica of it: the next call looks for the primary
            if line is not None:
                await line.drop(refusal)
            raise
        except ResponseError:
            raise
        except TimeoutError:
            late = StoreUnavailable(
                f"{self.where}: no answer within {self.timeout_s:g} s while {doing}; the connection is given up "
                "(it may be half-open, or the server busy) and made anew at the next call"
            )
            if line is not None:
                await line.drop(late)
            raise late from None
        except (RedisError, OSError) as error:
            raise explained(error, self.where, doing) from error

    async def _new_line(self, doing: str) -> _Line:
        async with self._lock:
            line = self._line
            if line is None or line.error is not None:
                connection = self._connect()
                try:
                    await connection.connect()  # type: ignore[no-untyped-call, unused-ignore]  # the driver's is untyped
                except ResponseError as error:  # of the greeting, and not of what the caller asks
                    await connection.disconnect(nowait=True)
                    raise explained(error, self.where, doing) from error
                except BaseException:
                    await connection.disconnect(nowait=True)
                    raise
                line = self._line = _Line(connection)
            return line

    def explain(self, error: ResponseError, doing: str) -> StoreError:
        """Return what to raise where the server refused a command."""
        return explained(error, self.where, doing)

    async def close(self) -> None:
        """Close the connection; idempotent."""
        line, self._line = self._line, None
        if line is not None:
            await line.drop(StoreUnavailable(f"{self.where}: the store was closed"))
