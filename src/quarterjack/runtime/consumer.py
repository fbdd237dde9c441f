"""Takes the items of one `Stream` and makes a job of each.

    opening ─▶ room? ─▶ next item ─▶ check ─▶ store ─▶ acknowledge ─┐
       ▲        ▲                      │ refused: told, the next    │
       │        └──────────────────────┴────────────────────────────┘
       └── a growing pause ◀── the source raised

No item is asked for unless there is room for its job, and none is let go of
between the moment the source gives it and the moment its job is stored: a stop
that comes there waits, and a store that fails is asked again. What waits (for
an item, for room, between two starts) is interrupted by a stop at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from typing import Any, Final, Literal

from ._intake import DeclaredStream, Intake, StreamHost, is_ours, waited, words

__all__ = ["Consumer", "StreamState"]

log = logging.getLogger("quarterjack.streams")

StreamState = Literal["elsewhere", "opening", "waiting", "full", "storing", "pausing", "ended", "stopped"]

FLOOD: Final = 32
"""A source that never waits lets the loop turn after so many items; see `FLOOD` in ``_app_jobs``."""


class Consumer:
    """One stream in this process."""

    def __init__(self, host: StreamHost, declared: DeclaredStream) -> None:
        self._host = host
        self.declared = declared
        self.intake = Intake(host, declared)
        self._trigger = declared.trigger
        self.state: StreamState = "opening"
        self.failures = 0
        """Starts in a row that failed without an item."""
        self._task: asyncio.Task[None] | None = None
        self._is_stopping = self._may_interrupt = False

    # -- life ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to take items."""
        name = f"quarterjack-stream {self.declared.id}"
        context = self._host.context.copy()
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name, context=context)
        self._task.add_done_callback(self._on_end)

    def hold(self) -> None:
        """Ask for no more items."""
        self._is_stopping = True

    def stop(self) -> None:
        """Take no more items; the one in hand is stored first. `ended` waits for that."""
        self.hold()
        self.intake.hurry()
        if self._task is not None:  # a turn later: an item that has just been handed over is in nobody else's hands
            self._task.get_loop().call_soon(self._interrupt)

    def _interrupt(self) -> None:
        if self._may_interrupt and self._task is not None and not self._task.cancelling():
            self._task.cancel()

    @property
    def is_ended(self) -> bool:
        """True if it never began, or its source is closed."""
        return self._task is None or self._task.done()

    async def ended(self) -> None:
        """Wait until the source is closed."""
        if self._task is not None:
            await asyncio.wait({self._task})

    async def close(self, grace_s: float) -> None:
        """End it now, item in hand or not; twice *grace_s* is for the source to close."""
        task = self._task
        if task is None:
            return
        self._is_stopping = True
        if not task.done() and not task.cancelling():
            task.cancel()
        for _ in range(2):
            if not task.done():
                await asyncio.wait({task}, timeout=grace_s)
            if task.done():
                return
            log.warning("stream %s does not end and is cancelled", self.declared.id, extra={"stream": self.declared.id})
            task.cancel()

    def _on_end(self, task: asyncio.Task[None]) -> None:
        if self.state != "ended":
            self.state = "stopped"
        if task.cancelled():
            if not self._is_stopping:
                self._host.fatal(RuntimeError(f"somebody cancelled {task.get_name()}"))
        elif (error := task.exception()) is not None:
            self._host.fatal(error)

    @contextmanager
    def _while(self, state: StreamState) -> Iterator[None]:
        """Be in *state*, which a stop interrupts."""
        self.state, self._may_interrupt = state, True
        try:
            yield
        finally:
            self._may_interrupt = False

    # -- the source ------------------------------------------------------------------

    async def _run(self) -> None:
        while not self._is_stopping:
            try:
                await self._consume()
                pause_s, reason = self._trigger.restart, None
            except (KeyboardInterrupt, SystemExit) as error:  # as a body does: the app ends in an orderly way
                self._host.fatal(error)
                return
            except (Exception, asyncio.CancelledError) as error:  # users' code: the source, and how it is closed
                if is_ours(error):
                    raise
                self.failures += 1
                pause_s, reason = self.intake.pause_s(self.failures), words(error)
                self.intake.tell("failed", reason, error, pause_s=None if self._is_stopping else pause_s)
            if self._is_stopping:
                break
            if reason is None:
                self.intake.tell("ended", None, pause_s=pause_s)
            if pause_s is None:
                self.state = "ended"
                return
            with self._while("pausing"):
                await asyncio.sleep(pause_s)

    async def _consume(self) -> None:
        """Open the source, take its items to the end, close it.

        Raises:
            BaseException: What the source raised.
            RuntimeError: If its context manager swallowed that: it would pass for an end.
        """
        has_ended = False
        async with AsyncExitStack() as stack:
            with self._while("opening"):
                items = await self._opened(stack)
            self.intake.tell("started", None)
            await self._take_all(items)
            has_ended = True
        if not has_ended:
            raise RuntimeError(f"{self._trigger.source} raised, and its context manager swallowed it")

    async def _opened(self, stack: AsyncExitStack) -> AsyncIterator[Any]:
        source: Any = self._trigger.factory()
        if not _has(source, "__aenter__"):  # what is both awaitable and a context manager is to be entered
            source = await waited(source)
        if _has(source, "__aenter__"):
            source = await stack.enter_async_context(source)
        if not _has(source, "__aiter__"):
            raise TypeError(f"{self._trigger.source} must return an asynchronous iterable, got {source!r}")
        items: AsyncIterator[Any] = aiter(source)
        close = getattr(items, "aclose", None)
        if close is not None:
            stack.push_async_callback(close)
        return items

    async def _take_all(self, items: AsyncIterator[Any]) -> None:
        while not self._is_stopping:
            if self.intake.is_full:
                with self._while("full"):
                    await self.intake.room()
            try:
                with self._while("waiting"):
                    item = await anext(items)
            except StopAsyncIteration:
                self.failures = 0
                return
            self.failures = 0
            self.state = "storing"
            await self.intake.take(item)
            if self.intake.taken % FLOOD == 0:
                await asyncio.sleep(0)


def _has(it: object, method: str) -> bool:
    return hasattr(type(it), method)
