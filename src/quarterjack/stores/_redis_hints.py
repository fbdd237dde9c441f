"""Hints between processes, over a channel of the server: they make things quick, polling makes them right.

A connection of its own listens. When it breaks it is made anew, with growing and
jittered pauses; what was said meanwhile is unknown then, so everybody is told to
look at everything. A line that says nothing is asked for a sign of life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, cast

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from ._redis_errors import explained
from .base import Hint

__all__ = ["SEPARATOR", "HintLine"]

log = logging.getLogger("quarterjack.stores.redis")

SEPARATOR: Final = "\x1f"
"""Between the ids of a hint."""
_QUIET_S: Final = 10.0
"""After so long without a word the server is asked whether it is there."""
_LONGEST_PAUSE_S: Final = 5.0
_FOREIGN: Final = (Hint.JOBS, Hint.SCHEDULES, Hint.CANCELS, Hint.ENDED, Hint.PAUSED, Hint.LIMITS)
"""What other processes tell."""


class HintLine:
    """Listens to a channel until it is stopped.

    Args:
        connect: Makes a connection that is not connected yet.
        channel: The channel's name.
        me: The sender whose hints are not for us: its own process knows already.
        tell: What to call for each hint.
        where: The server's address, as it may be shown.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractConnection],
        channel: str,
        me: str,
        tell: Callable[[Hint, Sequence[str]], None],
        where: str,
    ) -> None:
        self._connect = connect
        self._channel = channel
        self._me = me
        self._tell = tell
        self._where = where
        self._rng = Random()  # noqa: S311  # spreads attempts to connect, guards nothing
        self._task: asyncio.Task[None] | None = None
        self.listening = asyncio.Event()
        """Set while what others say is heard."""

    def start(self) -> None:
        """Begin to listen."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="quarterjack-redis-hints")

    async def stop(self) -> None:
        """Listen no more; idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        failures = 0
        while True:
            try:
                await self._listen(is_again=failures > 0)
            except Exception as error:  # a listener's own as well: without this task nobody listens
                failures = 1 if self.listening.is_set() else failures + 1
                if failures == 1:
                    is_known = isinstance(error, (RedisError, OSError))
                    told = explained(_as_known(error), self._where, "listening")
                    log.warning("%s; polling until it is back", told, exc_info=None if is_known else error)
            finally:
                self.listening.clear()
            await asyncio.sleep(min(_LONGEST_PAUSE_S, 0.1 * 2 ** min(failures, 10)) * self._rng.uniform(0.5, 1))

    async def _listen(self, *, is_again: bool) -> None:
        connection = self._connect()
        try:
            async with asyncio.timeout(_QUIET_S):
                await connection.connect()  # type: ignore[no-untyped-call, unused-ignore]  # the driver's is untyped
                await connection.send_command("SUBSCRIBE", self._channel, check_health=False)
                await connection.read_response(disconnect_on_error=False)
            self.listening.set()
            if is_again:
                log.info("%s: listening again", self._where)
                self._look_at_all()
            await self._hear(connection)
        finally:
            await connection.disconnect(nowait=True)

    async def _hear(self, connection: AbstractConnection) -> None:
        is_asked = False
        while True:
            said = cast("list[str] | None", await connection.read_response(timeout=_QUIET_S, disconnect_on_error=False))
            if said is not None:
                is_asked = False
                if said[0] == "message":
                    self._take(said[2])
            elif is_asked:
                raise TimeoutError("no sign of life")
            else:
                is_asked = True
                await connection.send_command("PING", check_health=False)

    def _take(self, message: str) -> None:
        sender, hint, ids = (*message.split(" ", 2), None, None)[:3]
        if hint is None or ids is None:  # not from a store of ours; whatever it means, looking is right
            self._look_at_all()
        elif sender != self._me and hint in _KNOWN:  # a newer version may say what this one does not know
            self._tell(Hint(hint), ids.split(SEPARATOR) if ids else ())

    def _look_at_all(self) -> None:
        for hint in _FOREIGN:
            self._tell(hint, ())


_KNOWN: Final = frozenset(hint.value for hint in Hint)


def _as_known(error: Exception) -> Exception:
    return error if str(error) else type(error)("no answer in time")
