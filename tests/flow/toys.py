"""Toy gates that keep accounts, and an event loop that turns by hand: what the tests of the dispatcher are made of."""

from __future__ import annotations

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Hashable, Mapping
from itertools import count
from typing import Any, cast

from quarterjack.clock import Clock, set_clock_of
from quarterjack.flow.base import Gate, Order
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.outcome import Ended, EndKind
from quarterjack.flow.room import WaitingRoom
from quarterjack.flow.waiting import Phase, Waiting


class Handle:
    """A call of the loop by hand."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        self.callback = None


class HandLoop:
    """As much of an event loop as a dispatcher uses; its time moves when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0
        self.turns = 0
        self.timers_set = 0
        self._soon: deque[Callable[[], None]] = deque()
        self._timers: list[tuple[float, int, Handle]] = []
        self._seq = count()
        set_clock_of(self.as_loop, cast("Clock", self))

    @property
    def as_loop(self) -> asyncio.AbstractEventLoop:
        return cast("asyncio.AbstractEventLoop", self)

    def monotonic(self) -> float:
        return self.now

    def is_closed(self) -> bool:
        return False

    def call_soon(self, callback: Callable[[], None], *, context: object = None) -> None:
        self._soon.append(callback)

    def call_later(self, delay: float, callback: Callable[[], None], *, context: object = None) -> Handle:
        self.timers_set += 1
        handle = Handle(callback)
        heapq.heappush(self._timers, (self.now + delay, next(self._seq), handle))
        return handle

    @property
    def timers(self) -> int:
        """How many would still wake it."""
        return sum(handle.callback is not None for _, _, handle in self._timers)

    def turn(self) -> bool:
        """Run what was to run in this turn; say whether there was anything."""
        while self._timers and (self._timers[0][2].callback is None or self._timers[0][0] <= self.now):
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                self._soon.append(callback)
        todo, self._soon = self._soon, deque()
        for callback in todo:
            callback()
        self.turns += bool(todo)
        return bool(todo)

    def settle(self) -> None:
        """Turn until nothing is left to do now."""
        for _ in range(500):
            if not self.turn():
                return
        raise AssertionError("it spins")

    def advance(self, seconds: float) -> None:
        """Let time pass, each timer in its turn."""
        end = self.now + seconds
        self.settle()
        while self._timers and self._timers[0][0] <= end:
            self.now = max(self.now, self._timers[0][0])
            self.settle()
        self.now = end


class Job(Waiting):
    """A job of a test: where it stands is `_phase`, what it passes is written down here."""

    def __init__(self, n: int, room: int, key: Hashable, cost: float, level: int, now: float) -> None:
        self.id = str(n)
        self.room = room
        self.key: Mapping[str, Hashable] = {"k": key}
        self.cost = cost
        self.priority = level
        self.enqueued_at = now
        self.error: Exception | None = None

    @property
    def phase(self) -> Phase:
        return self._phase

    @property
    def place(self) -> tuple[float, int]:
        """Where it stands among others."""
        return self._rank, self._seq


class Toy(Gate):
    """Keeps account of who is inside; raises in the methods named in *faults*, once each."""

    def __init__(self, name: str, *, by: str | None = None) -> None:
        super().__init__(by=by, name=name)
        self.inside: dict[str, float] = {}
        self.faults: set[str] = set()
        self.complaints: list[str] = []

    def fail_in(self, method: str) -> None:
        if method in self.faults:
            self.faults.discard(method)
            raise OSError(method)

    def eta(self, job: Waiting, now: float) -> float:
        self.fail_in("eta")
        return self.opens(job, now)

    def opens(self, job: Waiting, now: float) -> float:
        return now

    def take(self, job: Waiting, now: float) -> None:
        self.fail_in("take")
        if job.id in self.inside:
            self.complaints.append(f"{job.id} was taken twice")
        self.inside[job.id] = job.cost

    def started(self, job: Waiting, now: float) -> None:
        self.fail_in("started")

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        if self.inside.pop(job.id, None) is None:
            self.complaints.append(f"{job.id} was given back without a take")
        self.fail_in("give")

    def is_idle(self, now: float) -> bool:
        return not self.inside


class Slots(Toy):
    """At most so much cost inside."""

    limit = 2

    def opens(self, job: Waiting, now: float) -> float:
        return now if sum(self.inside.values()) + job.cost <= self.limit else math.inf


class Switch(Toy):
    """Open or closed; whoever turns it wakes it."""

    is_on = True

    def opens(self, job: Waiting, now: float) -> float:
        return now if self.is_on else math.inf


class Pace(Toy):
    """A second from start to start; until who was admitted has begun nobody knows when the next may."""

    next_at = 0.0
    reserved: str | None = None

    def opens(self, job: Waiting, now: float) -> float:
        return math.inf if self.reserved is not None else self.next_at

    def take(self, job: Waiting, now: float) -> None:
        super().take(job, now)
        self.reserved = job.id

    def started(self, job: Waiting, now: float) -> None:
        self.reserved, self.next_at = None, now + 1.0
        super().started(job, now)

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        if ended.kind is EndKind.NOT_STARTED and self.reserved == job.id:
            self.reserved = None
        super().give(job, now, ended)

    def is_idle(self, now: float) -> bool:
        return super().is_idle(now) and self.next_at <= now


class Levels(Order):
    """Two seconds of age are worth a level."""

    def __init__(self) -> None:
        self.gone: list[tuple[str, str]] = []

    def rank(self, job: Waiting, now: float) -> float:
        return job.enqueued_at + 2.0 * job.priority

    def chosen(self, job: Waiting, now: float) -> None:
        self.gone.append(("chosen", job.id))

    def left(self, job: Waiting, now: float) -> None:
        self.gone.append(("left", job.id))


def bench(*gates: Gate, **bounds: Any) -> tuple[HandLoop, Any, list[Job], list[Job]]:
    """Return a loop, a waiting room before *gates*, and the lists of those it starts and refuses."""
    loop = HandLoop()
    begun: list[Job] = []
    refused: list[Job] = []

    def refuse(job: Job, error: Exception) -> None:
        job.error = error
        refused.append(job)

    order = bounds.pop("order", None)
    room = WaitingRoom(Dispatcher.of(loop.as_loop), gates, order, start=begun.append, refuse=refuse, **bounds)
    return loop, room, begun, refused
