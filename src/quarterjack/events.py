"""One typed stream of everything that happens.

Who makes a move tells the stream; who wants to know listens. Two ways to listen:

- `EventStream.listen`: a plain function, called at once on the loop that made
  the move. It cannot break a job (what it raises is logged once per listener
  and error type) and should not block one; slow work belongs in a subscriber.
- `EventStream.subscribe`: an asynchronous iterator with a bounded queue. A
  slow subscriber loses the *oldest* events and is told how many: the next
  event it gets is `EventsDropped(count)`.

An event is built only when somebody listens: senders ask `has_listeners`
first, so an unobserved move costs one attribute read.

Events carry plain facts (ids, names, instants in integer nanoseconds UTC) and
never live objects, so they may be kept, printed and sent elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Literal
from weakref import WeakMethod, finalize

from ._signatures import check_plain

__all__ = [
    "CallbackFailed",
    "CancelIgnored",
    "ClockJumped",
    "Event",
    "EventStream",
    "EventsDropped",
    "JobEvent",
    "JobEventKind",
    "LoopBlocked",
    "ScheduleConflict",
    "ScheduleEvent",
    "ScheduleKind",
    "StreamEvent",
    "StreamEventKind",
    "Subscription",
]

log = logging.getLogger("quarterjack.events")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at *at_ns* (nanoseconds since the epoch, UTC)."""

    at_ns: int

    @property
    def at(self) -> datetime:
        """When it happened, as an aware datetime in UTC."""
        return datetime.fromtimestamp(self.at_ns / 1e9, UTC)


JobEventKind = Literal[
    "submitted",
    "scheduled",
    "running",
    "progress",
    "retry",
    "snooze",
    "released",
    "repeated",
    "done",
    "failed",
    "timed_out",
    "cancelled",
    "skipped",
    "missed",
    "lost",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent(Event):
    """A job made a move and is in *state* now.

    *kind* says which: the state it reached; or why it waits again, ``"retry"``,
    ``"snooze"``, ``"released"`` (its worker gave it back unrun), ``"repeated"``
    (`app.retry`); or ``"progress"`` (it runs on and said how far it is).
    """

    kind: JobEventKind
    job_id: str
    task: str
    state: str
    attempt: int
    schedule_id: str | None = None
    nominal_ns: int | None = None
    reason: str | None = None
    lag_s: float | None = None
    duration_s: float | None = None


ScheduleKind = Literal["put", "removed", "paused", "resumed", "fired", "missed", "skipped", "parked", "backfilled"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleEvent(Event):
    """Something became of a schedule: put, removed, paused, resumed, fired, missed, parked.

    *count* says how many fire times it is about: those a row of ``"missed"`` stands
    for, the jobs that a backfill made.
    """

    kind: ScheduleKind
    schedule_id: str
    task: str
    nominal_ns: int | None = None
    count: int = 1
    reason: str | None = None


StreamEventKind = Literal["started", "refused", "unacknowledged", "failed", "ended"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent(Event):
    """Something became of a stream in this process, or of one of its items.

    *kind*: its source was opened (``"started"``); an item made no job (``"refused"``); its job is stored, but
    ``ack`` raised (``"unacknowledged"``, as is an item whose ``reject`` raised); the source raised, or the store
    (``"failed"``); the source has no more items (``"ended"``). With *pause_s* it goes on after so long.
    """

    kind: StreamEventKind
    stream_id: str
    task: str
    reason: str | None = None
    pause_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConflict(Event):
    """Two codes declare one schedule differently, and put it in turns; *reason* says what to do.

    This process put its own declaration back in the place of another one, which had taken its place before.
    """

    schedule_id: str
    task: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJumped(Event):
    """The wall clock was set (*step*), or the machine slept (*suspend*), by *delta_s* seconds."""

    kind: Literal["step", "suspend"]
    delta_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopBlocked(Event):
    """The event loop has stood still for *seconds*, at *where*, under *task* (if a job did it)."""

    seconds: float
    where: str
    task: str | None
    job_id: str | None
    stack: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelIgnored(Event):
    """A body still runs *after_s* seconds after it was told to stop."""

    job_id: str
    task: str
    after_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CallbackFailed(Event):
    """A callback or hook raised; the job it belongs to is not affected."""

    callback: str
    job_id: str | None
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EventsDropped(Event):
    """This subscriber was too slow: *count* events before this one were dropped."""

    count: int


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the loop that runs in this thread, or None."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _resolve(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _nothing() -> None:
    """Do nothing: a subscription that was never attached has nothing to detach."""


class Subscription:
    """An asynchronous iterator over events; also an async context manager.

    Leaving it by any way (``break``, an exception, `close`) unsubscribes; it
    holds no task and no thread.
    """

    __slots__ = ("__weakref__", "_closed", "_end", "_limit", "_queue", "_told", "_waiter", "dropped")

    def __init__(self, limit: int) -> None:
        self._end: Callable[[], None] = _nothing
        self._limit = limit
        self._queue: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False
        self.dropped = 0
        """Events this subscriber lost so far."""
        self._told = 0
        """How many of these the reader has been told of; only the reader writes it, `dropped` only the sender."""

    def _push(self, event: Event) -> None:
        """Add an event; on the app's loop, which need not be the reader's."""
        if len(self._queue) >= self._limit:
            with suppress(IndexError):  # the reader was quicker
                self._queue.popleft()
                self.dropped += 1
        self._queue.append(event)
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is None:
            return
        loop = waiter.get_loop()
        if _running_loop() is loop:
            _resolve(waiter)
        else:
            with suppress(RuntimeError):  # the reader's loop is closed: nobody waits
                loop.call_soon_threadsafe(_resolve, waiter)

    def close(self) -> None:
        """Stop listening; a pending ``anext`` ends the iteration."""
        self._closed = True
        self._end()
        self._wake()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self

    async def __anext__(self) -> Event:
        while not self._queue and not self._closed:
            waiter = self._waiter = asyncio.get_running_loop().create_future()
            try:
                # Look again: an event may have come from another thread before there was a waiter to wake.
                if not self._queue and not self._closed:
                    await waiter
            finally:
                self._waiter = None
        if not self._queue:
            raise StopAsyncIteration
        event = self._queue.popleft()
        lost = self.dropped - self._told
        if lost:
            self._told += lost
            self._queue.appendleft(event)
            return EventsDropped(at_ns=event.at_ns, count=lost)
        return event

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class EventStream:
    """Where moves are told and listeners hang. Not thread-safe: it belongs to the app's loop."""

    __slots__ = ("_complained", "_listeners", "has_listeners")

    def __init__(self) -> None:
        self._listeners: tuple[Callable[[Event], None], ...] = ()
        self._complained: set[tuple[object, type[BaseException]]] = set()
        self.has_listeners = False
        """Ask this before building an event."""

    def listen(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        """Call *listener*, a plain function, with every event from now on; returns the function that ends it.

        Raises:
            InvalidOption: If it is a coroutine function.
        """
        check_plain(listener, "listener")
        self._listeners = (*self._listeners, listener)
        self.has_listeners = True
        return lambda: self.remove(listener)

    def remove(self, listener: Callable[[Event], None]) -> None:
        """Stop calling *listener*; unknown listeners are ignored."""
        self._listeners = tuple(known for known in self._listeners if known != listener)
        self.has_listeners = bool(self._listeners)

    def subscribe(self, limit: int = 10_000) -> Subscription:
        """Return an asynchronous iterator over every event from now on, at most *limit* queued."""
        subscription = Subscription(limit)
        # The stream must not keep alive a subscription whose reader has left its `async for`.
        weakly = WeakMethod(subscription._push)  # one class in two halves

        def push(event: Event) -> None:
            if (method := weakly()) is not None:
                method(event)

        end = self.listen(push)
        subscription._end = end
        finalize(subscription, end)
        return subscription

    def send(self, event: Event) -> None:
        """Tell every listener; what one raises is logged and reaches neither the others nor the sender."""
        for listener in self._listeners:
            try:
                listener(event)
            except (Exception, asyncio.CancelledError) as error:  # users' code, and no listener may break a job
                self._complain(listener, error)

    def _complain(self, listener: Callable[[Event], None], error: BaseException) -> None:
        key = (listener, type(error))
        if key in self._complained:
            return
        self._complained.add(key)
        log.exception("event listener %r raised; further %s of it are not logged", listener, type(error).__name__)
