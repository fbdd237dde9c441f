"""Alarms: what is to be done at an instant, many on one timer of the loop.

A job's timeout, its deadline and its pause are alarms, and so is the instant a
gate named. Most are cancelled long before they would ring (a body is faster
than its timeout), so that must be cheap and leave nothing behind: cancelled
ones stay in the heap until they are more than half of it, and with the last
live one the timer goes, too. An idle process is not woken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from heapq import heapify, heappop, heappush
from itertools import count
from typing import Final

__all__ = ["Alarm", "Alarms"]

NEVER: Final = float("inf")
SHORTEST_S: Final = 1e-6
"""An instant may lie so close that the loop's clock, a float, cannot tell it from now: a timer would ring at once, find
nothing due, and be set anew, without end where time stands still meanwhile (a virtual clock counts nanoseconds)."""

COMPACT_ABOVE: Final = 64
"""Fewer cancelled alarms are left to be popped."""


class Alarm:
    """Something to be done at an instant, unless it is cancelled."""

    __slots__ = ("_alarms", "_callback", "at")

    def __init__(self, at: float, callback: Callable[[], None], alarms: Alarms) -> None:
        self.at = at
        self._callback: Callable[[], None] | None = callback
        self._alarms = alarms

    @property
    def is_live(self) -> bool:
        """True until it has rung or was cancelled."""
        return self._callback is not None

    def cancel(self) -> None:
        """Do nothing then."""
        if self._callback is not None:
            self._callback = None
            self._alarms.forget_one()

    def ring(self) -> None:
        """Do it."""
        callback, self._callback = self._callback, None
        if callback is not None:
            callback()


class Alarms:
    """The alarms of one dispatcher.

    Args:
        loop: Whose timer it is.
        monotonic: What tells the time, in seconds.
        context: In which they ring.
    """

    __slots__ = ("_context", "_handle", "_heap", "_loop", "_monotonic", "_seq", "_void")

    def __init__(self, loop: asyncio.AbstractEventLoop, monotonic: Callable[[], float], context: Context) -> None:
        self._loop = loop
        self._monotonic = monotonic
        self._context = context
        self._heap: list[tuple[float, int, Alarm]] = []
        self._void = 0
        """Cancelled ones in the heap."""
        self._seq = count()
        self._handle: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def call_at(self, at: float, callback: Callable[[], None]) -> Alarm:
        """Call *callback* at a monotonic instant, in seconds."""
        alarm = Alarm(at, callback, self)
        first = self._heap[0][0] if self._heap else NEVER
        heappush(self._heap, (at, next(self._seq), alarm))
        if at < first:
            self._set_timer()
        return alarm

    def forget_one(self) -> None:
        """One in the heap was cancelled."""
        self._void += 1
        size = len(self._heap)
        if self._void == size:
            self._heap.clear()
            self._void = 0
            self._set_timer()
        elif self._void > COMPACT_ABOVE and 2 * self._void > size:
            self._heap = [entry for entry in self._heap if entry[2].is_live]
            heapify(self._heap)
            self._void = 0

    def _set_timer(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        heap = self._heap
        while heap and not heap[0][2].is_live:
            heappop(heap)
            self._void -= 1
        if heap:
            delay = heap[0][0] - self._monotonic()
            delay = max(delay, SHORTEST_S) if delay > 0 else 0.0
            self._handle = self._loop.call_later(delay, self._on_timer, context=self._context)

    def _on_timer(self) -> None:
        self._handle = None
        now = self._monotonic()
        try:
            while self._heap and self._heap[0][0] <= now:  # a loop may ring a little early; then it is set anew
                alarm = heappop(self._heap)[2]
                if alarm.is_live:
                    alarm.ring()
                else:
                    self._void -= 1
        finally:
            self._set_timer()
