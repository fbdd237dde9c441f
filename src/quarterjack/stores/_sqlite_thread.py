"""A thread that owns one connection: calls go in from any loop, answers come back to that loop.

Whoever waits holds the app's clock meanwhile, so that virtual time does not jump
past a file that is still being written. A caller that is cancelled before its
turn is passed over; one that is cancelled later leaves its call to be done. No
call waits longer than its deadline, whatever the disk does."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any, Final, Generic, NamedTuple, TypeVar

from quarterjack.clock import SYSTEM_CLOCK, Clock, Hold, SystemClock
from quarterjack.errors import Forked, InvalidOption, StoreError, StoreUnavailable

from ._sqlite_errors import in_words

__all__ = ["Answer", "Call", "SqlThread"]

T = TypeVar("T")
_MOST_AT_ONCE: Final = 500
"""So many calls share a turn: more would make the first one wait for the last."""
_GRACE_S: Final = 5.0
"""How much longer than its deadline a caller waits, for the thread to say why it took so long."""
_inherited: Final[list[sqlite3.Connection]] = []
"""Connections of the parent in a forked child: closing them there would take its locks away, so they are kept."""


class Call(Generic[T]):
    """Something to be done with the connection, and who waits for it."""

    __slots__ = ("due_s", "future", "hold", "is_relaxed", "loop", "work")

    def __init__(
        self, work: Callable[[Any], T], loop: asyncio.AbstractEventLoop, hold: Hold, due_s: float, *, is_relaxed: bool
    ) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()
        self.hold = hold
        self.due_s = due_s
        self.is_relaxed = is_relaxed

    def expire(self, url: str, deadline_s: float) -> None:
        """Let the caller wait no longer."""
        if not self.future.done():
            self.future.set_exception(
                StoreUnavailable(
                    f"{url} did not answer within {deadline_s:g} s: the disk hangs, or a thread of this process "
                    "keeps the interpreter to itself; what was asked may still be done"
                )
            )


class Answer(NamedTuple):
    """How a call ended."""

    call: Call[Any]
    result: Any
    error: BaseException | None


class SqlThread(ABC):
    """A connection, the thread that alone uses it, and the queue between.

    Args:
        name: The thread's name.
        url: How the store is called in errors.
        clock: Whose time stands still while a caller waits.
        deadline_s: How long a call may take, its wait for a lock included.
    """

    def __init__(self, name: str, url: str, clock: Clock, deadline_s: float) -> None:
        self.url = url
        self._clock = clock
        self._deadline_s = deadline_s
        self._is_real = isinstance(clock, SystemClock)  # in virtual time hours may pass while a file is written
        self._calls: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._pid = os.getpid()
        self._end: str | None = None
        self._last: list[Call[None]] = []
        """Who waits for the thread's end."""
        self._connection: sqlite3.Connection | None = None
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._thread.start()

    # -- the callers' side -----------------------------------------------------------

    async def call(self, work: Callable[[Any], T], *, is_relaxed: bool = False) -> T:
        """Do *work* in the thread and return its result.

        Args:
            work: What to do, given what the thread serves with.
            is_relaxed: A power failure may undo it; a crash of the process may not.

        Raises:
            Forked: In a child of the process that opened the store.
            StoreUnavailable: If the deadline passed, or the store was closed.
        """
        if self._pid != os.getpid():
            raise Forked(
                f"{self.url} was opened by process {self._pid}, and this is its forked child {os.getpid()}: "
                "make and start the app in the child, or start processes with 'spawn'"
            )
        if self._end is not None:
            raise StoreUnavailable(self._end)
        loop = asyncio.get_running_loop()
        call = self._called(work, loop, is_relaxed=is_relaxed)
        self._calls.put(call)
        if not self._is_real:
            return await call.future
        timer = loop.call_later(self._deadline_s + _GRACE_S, call.expire, self.url, self._deadline_s)
        try:
            return await call.future
        finally:
            timer.cancel()

    def _called(
        self, work: Callable[[Any], T], loop: asyncio.AbstractEventLoop, *, is_relaxed: bool = False
    ) -> Call[T]:
        due_s = SYSTEM_CLOCK.monotonic() + self._deadline_s
        return Call(work, loop, self._clock.hold(), due_s, is_relaxed=is_relaxed)

    def post(self, work: Callable[[Any], T]) -> None:
        """Have *work* done, and let nobody wait for it."""
        if self._end is None and self._pid == os.getpid():
            call = self._called(work, asyncio.get_running_loop())
            call.future.add_done_callback(_forget)
            self._calls.put(call)

    async def stop(self) -> None:
        """Do what was asked before, then close the connection; idempotent."""
        if self._pid != os.getpid():
            if self._connection is not None:
                _inherited.append(self._connection)
            return
        self._end = self._end or f"{self.url} is closed"
        if not self._thread.is_alive():
            return
        loop = asyncio.get_running_loop()
        last = self._called(_nothing, loop)
        self._last.append(last)
        self._calls.put(None)
        timer = loop.call_later(self._deadline_s + _GRACE_S, last.expire, self.url, self._deadline_s)
        try:
            await last.future
        finally:
            timer.cancel()
        self._thread.join()  # it has said that it is done, so this takes no time

    # -- the thread's side -----------------------------------------------------------

    @abstractmethod
    def connect(self) -> sqlite3.Connection:
        """Open the connection."""

    @abstractmethod
    def serve(self, connection: sqlite3.Connection, calls: list[Call[Any]]) -> None:
        """Do *calls* and answer them all."""

    def idle(self, connection: sqlite3.Connection) -> float | None:
        """Look after things between calls; return how many seconds until the next look."""
        del connection
        return None

    def _main(self) -> None:
        try:
            self._serve_all()
        except StoreError as error:
            self._end = str(error)
        except BaseException as error:  # nobody else would hear of it: whoever waits or asks later is told
            self._end = f"the thread of {self.url} has ended: {type(error).__name__}: {error}"
        finally:
            self._refuse_rest()
            if self._connection is not None:
                self._connection.close()
            self.answer(Answer(call, None, None) for call in self._last)

    def _serve_all(self) -> None:
        calls, is_open = self._take(None)
        while calls or is_open:
            if calls:
                self._serve(calls)
            if not is_open:
                return
            pause = self.idle(self._connection) if self._connection is not None else None
            calls, is_open = self._take(pause)

    def _serve(self, calls: list[Call[Any]]) -> None:
        """Serve with a connection; one that cannot be opened now may be later."""
        try:
            if self._connection is None:
                self._connection = self.connect()
        except (sqlite3.Error, StoreError) as error:
            self.answer(Answer(call, None, error) for call in calls)
            return
        except BaseException as error:
            self.answer(Answer(call, None, error) for call in calls)
            raise
        try:
            self.serve(self._connection, calls)
        except BaseException as error:
            self.answer(Answer(call, None, error) for call in calls)
            raise

    def _take(self, timeout_s: float | None) -> tuple[list[Call[Any]], bool]:
        """Return the calls that wait, at least one unless the time is up; False with them when it is the end."""
        calls: list[Call[Any]] = []
        try:
            call = self._calls.get(timeout=timeout_s)
            while call is not None and len(calls) < _MOST_AT_ONCE:
                calls.append(call)
                call = self._calls.get_nowait()
        except Empty:
            return calls, True
        if call is not None:
            calls.append(call)
        return calls, call is not None

    def _refuse_rest(self) -> None:
        rest, is_open = self._take(0)
        while rest or not is_open:
            error = StoreUnavailable(self._end or "")
            self.answer(Answer(call, None, error) for call in rest)
            rest, is_open = self._take(0)

    def answer(self, answers: Iterable[Answer]) -> None:
        """Hand the answers to the loops that wait for them."""
        by_loop: dict[asyncio.AbstractEventLoop, list[Answer]] = {}
        for answer in answers:
            by_loop.setdefault(answer.call.loop, []).append(answer)
        for loop, mine in by_loop.items():
            try:
                loop.call_soon_threadsafe(self._deliver, mine)
            except RuntimeError:  # that loop has closed: nobody waits
                for answer in mine:
                    answer.call.hold.release()

    def _deliver(self, answers: list[Answer]) -> None:
        for call, result, error in answers:
            call.hold.release()
            if call.future.done():
                continue
            if error is None:
                call.future.set_result(result)
            else:
                call.future.set_exception(self._told(error))

    def _told(self, error: BaseException) -> BaseException:
        """Return *error* as the caller meets it."""
        if isinstance(error, sqlite3.Error):
            told: Exception = in_words(error, self.url, "could not do what was asked")
        elif isinstance(error, OverflowError):
            told = InvalidOption(f"{self.url} keeps instants up to the year 2262, as nanoseconds in 64 bits: {error}")
        else:
            return error
        told.__cause__ = error
        return told


def _nothing(_: object) -> None:
    """The thread's end is work enough."""


def _forget(future: asyncio.Future[Any]) -> None:
    """Take note of an error that nobody waits for: the next call meets it too."""
    if not future.cancelled():
        future.exception()
