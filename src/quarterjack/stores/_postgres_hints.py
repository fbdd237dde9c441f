"""Hints over PostgreSQL: who may have something to do is told after the commit, by NOTIFY.

Never inside the transaction that makes the work: a commit that notifies takes a lock
that all such commits of the database wait for. Hints that come while one is being
sent, or shortly after, travel together with the next. They are quick and may be lost:
polling is the truth.

One connection listens and sends. It is asked now and then whether it is alive, since
a half-open one is silent for ever; a dead one is replaced after a pause that grows,
and then all listeners are told to look at everything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from random import Random
from typing import Any, Final

from pydantic_core import from_json, to_json

from ._postgres_pool import Connection, connect
from ._postgres_url import Settings
from .base import Hint, HintListener

__all__ = ["Hints"]

logger = logging.getLogger("quarterjack.stores")

ALIVE_EVERY_S: Final = 15.0
"""How often the connection is asked for a sign of life, if nothing is sent over it."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 5.0
SPACING_S: Final = 0.002
"""From one message to the next: each costs both sides as much as the submit that it tells of."""
LAST_WORDS_S: Final = 0.2
"""So long a process that ends waits for what it has to say."""
MAX_PAYLOAD_BYTES: Final = 7_900
"""PostgreSQL takes 7,999; a longer list of ids becomes "look at all"."""
MAX_IDS: Final = 300
"""More than these are not gathered while nothing can be sent: they would hardly fit, and there is no end to them."""

_SEND: Final = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS payload"
_LOCAL: Final = frozenset({Hint.FINISHED})
"""What concerns this process alone."""


class Hints:
    """The connection to other processes: sends them hints, and tells of theirs.

    Args:
        settings: Where the server is.
        sender: A name for this process, so that it does not hear itself.
        hear: What to call with a hint of another process.
    """

    def __init__(self, settings: Settings, sender: str, hear: HintListener) -> None:
        self._settings = settings
        self._sender = sender
        self._hear = hear
        self._pending: dict[Hint, set[str] | None] = {}
        self._stir = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_ready = asyncio.Event()
        self._is_ending = asyncio.Event()
        self._random = Random()  # noqa: S311  # it spreads attempts to connect, and keeps no secret

    def start(self) -> None:
        """Connect to the other processes, in a task; without LISTEN do nothing."""
        if self._settings.listens and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run(), name="quarterjack-postgres-hints")

    async def ready(self) -> None:
        """Return once hints come and go; at once where nobody listens."""
        if self._task is not None:
            await self._is_ready.wait()

    async def close(self) -> None:
        """End the connection; idempotent. What cannot be sent at once is found by polling."""
        task, self._task = self._task, None
        if task is not None:
            try:
                if self._is_ready.is_set() and self._pending:
                    self._is_ending.set()
                    self._stir.set()
                    await asyncio.wait({task}, timeout=LAST_WORDS_S)
            finally:
                task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def send(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        """Tell the other processes soon; no ids means "look at all"."""
        if self._task is None or hint in _LOCAL:
            return
        known = self._pending.setdefault(hint, set())
        if known is not None:
            known.update(ids)
            if not ids or len(known) > MAX_IDS:
                self._pending[hint] = None
        self._stir.set()

    # -- the connection --------------------------------------------------------------

    async def _run(self) -> None:
        pause, is_first = FIRST_PAUSE_S, True
        while True:
            try:
                async with self._connection() as connection:
                    if not is_first:
                        self._look_at_all()
                    pause, is_first = FIRST_PAUSE_S, False
                    self._is_ready.set()
                    await self._serve(connection)
                if self._is_ending.is_set():
                    return
            except Exception as error:  # a driver cut off in mid-word raises anything; without this task nobody listens
                if pause == FIRST_PAUSE_S:
                    logger.warning("hints of other processes do not arrive, so all is found by polling: %s", error)
            self._is_ready.clear()
            await asyncio.sleep(self._random.uniform(pause / 2, pause))
            pause = min(LONGEST_PAUSE_S, pause * 2)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        connection = await connect(self._settings)
        try:
            await connection.execute("SET synchronous_commit = off")  # a hint that a crash loses is lost
            await connection.add_listener(self._settings.channel, self._heard)
            connection.add_termination_listener(lambda _: self._stir.set())
            yield connection
        finally:
            connection.terminate()

    async def _serve(self, connection: Connection) -> None:
        """Send what is pending, and ask for a sign of life in between, until the connection or the store ends."""
        while not connection.is_closed() and not (self._is_ending.is_set() and not self._pending):
            try:
                async with asyncio.timeout(ALIVE_EVERY_S):
                    await self._stir.wait()
            except TimeoutError:
                await connection.fetchval("SELECT 1")
                continue
            self._stir.clear()
            payloads = [self._payload(hint, ids) for hint, ids in self._pending.items()]
            self._pending.clear()
            if payloads:
                await connection.fetch(_SEND, self._settings.channel, payloads)
                with suppress(TimeoutError):
                    async with asyncio.timeout(SPACING_S):
                        await self._is_ending.wait()

    def _payload(self, hint: Hint, ids: set[str] | None) -> str:
        whole = to_json([self._sender, hint.value, sorted(ids or ())]).decode()
        return whole if len(whole) <= MAX_PAYLOAD_BYTES else to_json([self._sender, hint.value, []]).decode()

    def _heard(self, connection: Any, pid: int, channel: str, payload: object) -> None:
        del connection, pid, channel
        try:
            sender, hint, ids = from_json(str(payload))
            if sender != self._sender:
                self._hear(Hint(hint), ids)
        except ValueError:  # another version's; whatever it means, looking is right
            self._look_at_all()

    def _look_at_all(self) -> None:
        for hint in Hint:
            if hint not in _LOCAL:
                self._hear(hint, ())
