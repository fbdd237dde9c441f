"""uvloop on virtual time, as far as flows need it: no sockets, no threads.

`quarterjack.testing.virtual_loop` drives asyncio's own loop by its insides, which
uvloop has not. Here timers are kept in Python and handed to uvloop's ready queue
when nothing else is there to do: tasks, futures and callbacks are uvloop's."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any, cast

import uvloop

from quarterjack.clock import set_clock_of
from quarterjack.testing import VirtualClock

__all__ = ["VirtualUvLoop"]

STILL_TURNS = 3
"""So many turns in which nothing was called are a standstill."""


class VirtualUvLoop(uvloop.Loop):
    """A loop of uvloop's whose time jumps when all is idle."""

    def __init__(self) -> None:
        super().__init__()
        self._clock: VirtualClock | None = None
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._seq = count()
        self._calls = 0
        self._still = 0

    def time(self) -> float:
        return super().time() if self._clock is None else self._clock.monotonic_ns() / 1e9

    # Typeshed names the types of *args* one by one, which an override that hands them on need not.

    def call_soon(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]  # see above
        self._calls += 1
        return super().call_soon(callback, *args, context=context)

    def call_later(self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]  # likewise
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:  # type: ignore[override]  # likewise
        handle = asyncio.TimerHandle(when, callback, args, cast("Any", self), context)
        heapq.heappush(self._timers, (when, next(self._seq), handle))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Part of asyncio's contract between handles and loops."""

    @contextmanager
    def virtual(self, start: str) -> Iterator[VirtualClock]:
        """Let a virtual clock stand in for this loop's time."""
        self._clock = clock = VirtualClock(start)
        clock.attach(_Driver(self))
        set_clock_of(self, clock)
        self._tick(self._calls)
        try:
            yield clock
        finally:
            self._clock = None
            set_clock_of(self, None)
            clock.detach()

    def _tick(self, calls_before: int) -> None:
        clock = self._clock
        if clock is None:
            return
        self._still = self._still + 1 if self._calls == calls_before else 0
        if self._still >= STILL_TURNS:
            self._still = 0
            self._move(clock)
        super().call_soon(self._tick, self._calls)

    def _move(self, clock: VirtualClock) -> None:
        timers = self._timers
        while timers and timers[0][2].cancelled():
            heapq.heappop(timers)
        dues = [round(timers[0][0] * 1e9)] if timers else []
        alarm = clock.next_alarm_ns()
        dues += [] if alarm is None else [alarm]
        if dues:
            clock.move_to(max(min(dues), clock.monotonic_ns()))
        while timers and round(timers[0][0] * 1e9) <= clock.monotonic_ns():
            handle = heapq.heappop(timers)[2]
            if not handle.cancelled():
                self.call_soon(handle._run)


class _Driver:
    """What a virtual clock knows of who drives it."""

    def __init__(self, loop: VirtualUvLoop) -> None:
        self.loop = cast("asyncio.AbstractEventLoop", loop)

    def wake(self) -> None:
        """The loop looks by itself in every turn."""
