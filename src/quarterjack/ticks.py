"""A trigger as an asynchronous iterator: clock tops without an application.

    async for tick in ticks(Every(minutes=5)):
        print(tick.nominal, tick.lag, tick.missed)

The next tick comes from the rule and the last *fire* time, so nothing drifts,
however long the body takes. A body that takes longer than the period finds
several fire times passed; ``missed=`` says which of them it gets, and
`Tick.missed` how many it does not:

    period 10, body 25     0 ........ 10 ........ 20 ........ 30 ........ 40
    latest (default)       tick 0                       at 25: tick 20, missed 1
    earliest               tick 0                       at 25: tick 10, missed 1
    all                    tick 0                       at 25: tick 10, then tick 20
    skip                   tick 0                                 tick 30, missed 2

A fire time is served once and never again, whatever the wall clock does. Set
back, the iterator waits until the clock has passed the last tick; set forward,
what was leapt over is missed as if the body had slept through it.

Between two ticks the iterator holds nothing: no task, no descriptor. ``break``,
an exception and cancelling the task that waits leave nothing behind, and a
cancelled wait loses no tick. Any number of them wait on one `Timer`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Final, Self, get_args

from ._durations import NS_PER_S
from ._numbers import whole_number
from .clock import SYSTEM_CLOCK, Clock
from .errors import InvalidOption, NaiveDatetime, NotPeriodic, UsageError
from .policies.missed import MissedMode, fold_missed
from .timer import Timer
from .triggers import Trigger

__all__ = ["Tick", "Ticks", "ticks"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MODES: Final[tuple[str, ...]] = get_args(MissedMode)


@dataclass(frozen=True, slots=True)
class Tick:
    """One fire time, served.

    Attributes:
        nominal_ns: The fire time, in nanoseconds since the epoch.
        index: Counts the ticks served by this iterator, from 0.
        lag: How many seconds after its fire time it was served; never negative.
        missed: How many fire times were left out since the tick before (1000: or more).
    """

    nominal_ns: int
    index: int
    lag: float
    missed: int

    @property
    def nominal(self) -> datetime:
        """The fire time, as an aware datetime in UTC, cut to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.nominal_ns // 1_000)


def ticks(
    trigger: Trigger,
    *,
    clock: Clock = SYSTEM_CLOCK,
    missed: MissedMode = "latest",
    max_catchup: int = 100,
    start: datetime | None = None,
) -> Ticks:
    """Return the fire times of *trigger*, each when it is due, for ``async for``.

    It ends when the trigger has no more fire times.

    Args:
        trigger: Any periodic trigger.
        clock: Where time is read; tests pass a virtual one.
        missed: Which of several fire times that passed unserved are served: the
            ``"latest"``, the ``"earliest"``, ``"all"`` or none (``"skip"``). A single
            late one always is.
        max_catchup: With ``"all"``, how many at once at most (the newest).
        start: Serve fire times from this instant on, itself included; in the past,
            what has gone by since is missed. By default, those after the first
            ``anext``.

    Raises:
        NotPeriodic: If the trigger's fire times depend on how its runs end, or it is a hook.
        NaiveDatetime: If *start* has no zone.
        InvalidOption: If another argument is out of its range.
    """
    return Ticks(trigger, clock=clock, missed=missed, max_catchup=max_catchup, start=start)


class Ticks:
    """What `ticks` returns: an asynchronous iterator, and a context manager that closes it."""

    def __init__(
        self,
        trigger: Trigger,
        *,
        clock: Clock = SYSTEM_CLOCK,
        missed: MissedMode = "latest",
        max_catchup: int = 100,
        start: datetime | None = None,
    ) -> None:
        _check(trigger, missed, max_catchup)
        self._trigger = trigger
        self._clock = clock
        self._mode: MissedMode = missed
        self._max_catchup = max_catchup
        self._start_ns = None if start is None else _instant_ns(start)
        self._has_begun = self._is_closed = self._is_running = False
        self._cursor_ns = 0  # everything up to here is served or missed
        self._following_ns: int | None = None  # the first fire time after the cursor
        self._at_creation_ns: int | None = None  # a fire time that no rule yields
        self._ready: deque[int] = deque()
        self._missed = 0
        self._served = 0
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Tick:
        """Return the next tick when it is due. Cancelling it loses no tick: the next call gets it.

        Even with a tick overdue, the loop gets a turn before: a body without an
        ``await`` of its own starves nobody.

        Raises:
            StopAsyncIteration: At the end, or when closed.
            UsageError: If another task waits for this iterator already.
        """
        if self._is_running:
            raise UsageError("two tasks wait for one iterator: give each its own ticks(...)")
        self._is_running = True
        try:
            nominal = await self._next()
        finally:
            self._is_running = False
        if nominal is None:
            raise StopAsyncIteration
        lag = max(self._clock.now_ns() - nominal, 0) / NS_PER_S
        tick = Tick(nominal, self._served, lag, self._missed)
        self._served += 1
        self._missed = 0
        return tick

    async def aclose(self) -> None:
        """End the iteration, also for a task that waits in it right now; idempotent."""
        self._is_closed = True
        self._ready.clear()
        if self._waiter is not None:
            _resolve(self._waiter)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"ticks({self._trigger!r}, missed={self._mode!r})"

    async def _next(self) -> int | None:
        """Return the fire time to serve; nothing is taken before the last await."""
        if not self._has_begun:
            self._begin()
        has_yielded = False
        while not self._is_closed:
            due = self._following_ns
            if not self._ready and due is None:
                return None
            if not self._ready and due is not None and due > self._clock.now_ns():
                await self._wait(due)
                has_yielded = True
            elif not has_yielded:
                await asyncio.sleep(0)
                has_yielded = True
            elif self._ready:
                return self._ready.popleft()
            else:
                self._fold()
        return None

    def _begin(self) -> None:
        """Fix what the trigger left open until now, and find the first fire time."""
        now, start = self._clock.now_ns(), self._start_ns
        begin = now if start is None else start
        declared = self._trigger
        trigger = declared.resolved(begin, "ticks")
        if declared.fires_at_creation:
            self._at_creation_ns = self._following_ns = begin
            self._cursor_ns = begin - 1
        else:
            self._cursor_ns = now if start is None else start - 1
            self._following_ns = trigger.next_ns(self._cursor_ns)
        self._trigger = trigger
        self._has_begun = True

    def _fold(self) -> None:
        """Decide which of the fire times that have passed are served."""
        if self._at_creation_ns is not None:
            self._cursor_ns = self._at_creation_ns
            self._at_creation_ns = None
            self._ready.append(self._cursor_ns)
            self._following_ns = self._trigger.next_ns(self._cursor_ns)
            return
        due = fold_missed(
            self._trigger,
            self._cursor_ns,
            self._clock.now_ns(),
            mode=self._mode,
            max_catchup=self._max_catchup,
            first_ns=self._following_ns,
        )
        self._cursor_ns, self._following_ns = due.cursor, due.following
        self._ready.extend(due.nominals)
        self._missed += due.missed

    async def _wait(self, due_ns: int) -> None:
        # The timer is taken for the wait alone: opening one costs 20 µs where nobody else waits, and
        # nothing is left to forget when the loop body breaks.
        timer = Timer.shared(self._clock)
        self._waiter = asyncio.get_running_loop().create_future()
        handle = timer.call_at(due_ns, partial(_resolve, self._waiter))
        try:
            await self._waiter
        finally:
            self._waiter = None
            handle.cancel()
            timer.release()


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _check(trigger: object, missed: str, max_catchup: object) -> None:
    if not isinstance(trigger, Trigger):
        raise InvalidOption(f"ticks() takes a trigger such as Every(seconds=30), not {trigger!r}")
    if not trigger.is_periodic:
        raise NotPeriodic(
            f"{trigger!r} has no fire times of its own to iterate over: use Every, Aligned, At, Cron or Once"
        )
    if missed not in _MODES:
        raise InvalidOption(f"missed must be one of {', '.join(_MODES)}, not {missed!r}")
    whole_number(max_catchup, "max_catchup", 1)


def _instant_ns(start: object) -> int:
    if not isinstance(start, datetime):
        raise InvalidOption(f"start must be an aware datetime, not {start!r}")
    if start.utcoffset() is None:
        raise NaiveDatetime(f"start={start!r} names no instant: add tzinfo=, for instance datetime.UTC")
    return (start - _EPOCH) // timedelta(microseconds=1) * 1_000
