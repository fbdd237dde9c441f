"""Virtual time on a loop that runs already.

`virtual_loop` takes asyncio's own loop, whoever made it, and until the block is
left lets a `VirtualClock` stand in for its time. Before the loop goes to sleep
it asks the selector how long; there we answer "not at all", having moved the
clock to the next instant that something waits for: a timer of the loop, an
alarm of the clock, or a test that drives it. In this order the clock

1. waits while it is *held*: `VirtualClock.hold`, and by itself whatever runs
   in ``loop.run_in_executor``, ``asyncio.to_thread`` and ``anyio.to_thread``,
   until its result is back in the loop (a cancelled call: until its thread is really done);
2. gives real input and output a chance: while a socket or a pipe is
   registered with the loop, it moves only after ``io_grace`` seconds of real
   silence, each time. What takes longer than that to answer needs a hold;
3. moves to the next instant and runs everything due there;
4. with nothing left to wait for, waits for the outside world as any loop does.

A standstill of more than a few real seconds is logged, with the tasks that
wait. Timers that were set before the block keep to real time, so that an
``asyncio.timeout`` around it still guards a test; those that are left when the
block ends go on with what they had left.

What is used of asyncio's inner workings stands in `_Driver`: the loop's
``time``, ``run_in_executor``, ``_scheduled``, ``_ready``, ``_ssock``,
``_clock_resolution`` and ``_selector``. Other loops (uvloop) have none of these.
"""

from __future__ import annotations

import asyncio
import heapq
import importlib
import logging
import math
import sys
from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from types import ModuleType
from typing import Any, Final, TypeVar

from quarterjack._durations import MAX_SECONDS, NS_PER_S
from quarterjack._timerfd import timerfds
from quarterjack.clock import Hold, set_clock_of
from quarterjack.errors import UsageError

from ._clock import DEFAULT_START, VirtualClock

__all__ = ["IO_GRACE_S", "virtual_loop"]

log = logging.getLogger("quarterjack.testing")

IO_GRACE_S: Final = 0.02
"""How long sockets must be silent before time moves: local peers answer in a twentieth of it, and on a
busy machine still within it. Each move costs that much, so a year of hours with an open socket takes minutes."""

_POLL_EVERY: Final = 16
"""With only the self-pipe to poll, most turns skip it; signals and outer timers wait this many at most."""

_PATIENCE_S: Final = 5.0
"""A real standstill longer than this is told."""

_EXACT_BELOW_S: Final = 2.0**20
"""Up to here (12 days of loop time) a float of seconds tells nanoseconds apart; beyond, timers of the
loop are kept to the microsecond. Alarms of the clock are exact for ever."""

_HARDLY_NS: Final = 1_000_000
"""Less than this in a few real seconds is no progress."""

_LOOK_EVERY: Final = 4_096
"""Every so many turns it is looked whether time moves at all."""

_MISSING: Final = object()
_T = TypeVar("_T")


def _anyio_to_thread() -> ModuleType | None:
    """Return ``anyio.to_thread`` if anything here could use it: anyio itself loads it at its first use only."""
    if "anyio" not in sys.modules and "fast_depends" not in sys.modules:
        return None
    try:
        return importlib.import_module("anyio.to_thread")
    except ImportError:  # no anyio after all
        return None


@contextmanager
def virtual_loop(
    clock: VirtualClock | None = None,
    *,
    start: datetime | str = DEFAULT_START,
    tz: str | None = None,
    io_grace: float = IO_GRACE_S,
) -> Generator[VirtualClock]:
    """Let *clock* (or a new one that begins at *start*) drive the running loop inside the block.

    Args:
        clock: A clock that drives no loop yet.
        start: As for `VirtualClock`, where no clock is given.
        tz: As for `VirtualClock`.
        io_grace: Seconds of real silence on open sockets before time moves.

    Raises:
        UsageError: If the running loop is not asyncio's own selector loop, or is virtual already.
        RuntimeError: If no loop is running.
    """
    driver = _Driver(asyncio.get_running_loop(), VirtualClock(start, tz=tz) if clock is None else clock, io_grace)
    driver.install()
    try:
        yield driver.clock
    finally:
        driver.remove()


class _Driver:
    """Moves one clock on behalf of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: VirtualClock, io_grace: float) -> None:
        if not isinstance(loop, BaseSelectorEventLoop):
            name = f"{type(loop).__module__}.{type(loop).__qualname__}"
            raise UsageError(f"virtual time needs asyncio's own selector event loop, not {name}: run this test on that")
        self.loop: asyncio.AbstractEventLoop = loop
        self.clock = clock
        inner: Any = loop
        self._inner = inner  # the parts that asyncio does not publish
        self._selector: Any = self._inner._selector
        self._io_grace = io_grace
        self._turns = 0
        self._instant_ns, self._instant_since = -_HARDLY_NS, 0.0
        self._still_since: float | None = None
        self._was_told = False
        self._undo: list[Callable[[], None]] = []
        self._outer: list[asyncio.TimerHandle] = []
        self._real_time = loop.time
        self._real_select: Callable[[float | None], list[Any]] = self._selector.select
        self._real_run_in_executor = loop.run_in_executor

    # -- in and out -----------------------------------------------------------------

    def install(self) -> None:
        """Take over the loop's time."""
        if "select" in vars(self._selector):
            raise UsageError("this loop runs on virtual time already: virtual_loop cannot be nested")
        self.clock.attach(self)
        self._overlook_this_turn()
        self._outer, self._inner._scheduled = self._inner._scheduled, []
        self._replace(self._selector, "select", self._select)
        self._replace(self.loop, "time", self._time)
        self._replace(self.loop, "run_in_executor", self._run_in_executor)
        if (to_thread := _anyio_to_thread()) is not None:
            # anyio's threads (plain dependencies, FastAPI's plain endpoints) go by no executor of the loop.
            self._replace(to_thread, "run_sync", partial(self._run_sync, to_thread.run_sync))
        self._replace(self.loop, "_clock_resolution", 1.0 / NS_PER_S)
        set_clock_of(self.loop, self.clock)

    def remove(self) -> None:
        """Give the loop its time back; timers keep what they had left."""
        self._overlook_this_turn()
        set_clock_of(self.loop, None)
        shift = self._real_time() - self._time()
        while self._undo:
            self._undo.pop()()
        for handle in self._inner._scheduled:
            handle._when += shift
        self._inner._scheduled.extend(self._outer)
        heapq.heapify(self._inner._scheduled)
        self.clock.detach()

    def _overlook_this_turn(self) -> None:
        # The callback that comes or goes begins in one time and ends in the other: asyncio's debug
        # mode would report it as one that took a day.
        limit = self._inner.slow_callback_duration
        if self.loop.get_debug() and not math.isinf(limit):
            self._inner.slow_callback_duration = math.inf
            self.loop.call_soon(partial(setattr, self.loop, "slow_callback_duration", limit))

    def _replace(self, owner: object, name: str, value: object) -> None:
        before = vars(owner).get(name, _MISSING)
        setattr(owner, name, value)
        self._undo.append(
            partial(delattr, owner, name) if before is _MISSING else partial(setattr, owner, name, before)
        )

    # -- what the loop sees ---------------------------------------------------------

    def _time(self) -> float:
        return self.clock.monotonic_ns() / NS_PER_S

    def _run_in_executor(self, executor: Any, func: Callable[..., _T], *args: Any) -> asyncio.Future[_T]:
        """Hold time until the result is back in the loop, and until the thread is done."""
        if executor is None or isinstance(executor, ThreadPoolExecutor):
            func = partial(_held, self.clock, func)  # a process could not be sent the clock
        hold = self.clock.hold()
        try:
            future = self._real_run_in_executor(executor, func, *args)
        except BaseException:
            hold.release()
            raise
        future.add_done_callback(partial(_release, hold))
        return future

    async def _run_sync(self, real: Callable[..., Any], func: Callable[..., Any], /, *args: Any, **options: Any) -> Any:
        """Hold time while one of anyio's threads works for this loop."""
        if asyncio.get_running_loop() is not self.loop:
            return await real(func, *args, **options)
        with self.clock.hold():
            return await real(partial(_held, self.clock, func), *args, **options)

    def _select(self, timeout: float | None) -> list[Any]:
        """Stand in for the selector: where the loop would sleep, time moves."""
        self._turns += 1
        if self._turns % _LOOK_EVERY == 0:
            self._tell_if_stuck()
        is_busy = (timeout is not None and timeout <= 0) or self._inner._ready
        if self._turns % _POLL_EVERY == 0 or (is_busy and self._has_io()):
            events = self._poll(0)
            if events or is_busy or self._inner._ready:
                return events
        return [] if is_busy else self._move()

    def wake(self) -> None:
        """Make the loop look again, from any thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self.loop.call_soon_threadsafe(_nothing)

    # -- moving ---------------------------------------------------------------------

    def _move(self) -> list[Any]:
        """Nothing is ready: move the clock, or wait for the outside world."""
        if not self.clock.is_forced:
            if self.clock.holds:
                return self._stand_still()
            if self._has_io():
                events = self._poll(self._io_grace)
                if events or self._inner._ready:
                    return events
        timer = self._next_timer_ns()
        alarm = self.clock.next_alarm_ns()
        due = timer if alarm is None else alarm if timer is None else min(timer, alarm)
        waiter = self.clock.next_waiter_ns()
        if due is None and waiter is None:
            return self._stand_still()
        self._still_since = None
        if due is None or (waiter is not None and waiter < due):
            # Strictly before: who drives the clock is told only when all that is due then is done.
            self._go(waiter or 0)
            self.clock.release_waiters()
        else:
            self._go(due)
        return []

    def _go(self, mono_ns: int) -> None:
        self.clock.move_to(mono_ns)
        if self._time() >= _EXACT_BELOW_S:
            self._inner._clock_resolution = 1e-6

    def _next_timer_ns(self) -> int | None:
        """Return when the loop's next timer is due, in the clock's monotonic nanoseconds."""
        if not self._inner._scheduled:
            return None
        when: float = self._inner._scheduled[0]._when
        if when - self._time() > MAX_SECONDS:  # somebody sleeps for ever, and says so with a huge number
            return None
        grain = 1 if when < _EXACT_BELOW_S else 1_000
        due = round(when * (NS_PER_S // grain)) * grain
        # The loop runs what is due before now + resolution. Whatever floats do to it, time must go on.
        now = self.clock.monotonic_ns()
        return max(due, now if when < self._time() + self._inner._clock_resolution else now + grain)

    # -- the outside world ----------------------------------------------------------

    def _has_io(self) -> bool:
        """Something is registered beside the self-pipe and kernel timers."""
        registered = self._selector.get_map()
        if len(registered) <= 1:
            return False
        return bool(set(registered) - {self._inner._ssock.fileno()} - timerfds())

    def _poll(self, timeout: float | None) -> list[Any]:
        """Really poll; timers from outside the block are looked at by the way."""
        if self._outer:
            left = max(self._outer[0].when() - self._real_time(), 0)
            timeout = left if timeout is None else min(timeout, left)
        events = self._real_select(timeout)
        while self._outer and (self._outer[0].cancelled() or self._outer[0].when() <= self._real_time()):
            handle: Any = heapq.heappop(self._outer)
            handle._scheduled = False
            self._inner._ready.append(handle)
        return events

    def _stand_still(self) -> list[Any]:
        """Wait for the outside world; say so if it takes long."""
        now = self._real_time()
        if self._still_since is None:
            self._still_since, self._was_told = now, False
        patience = None if self._was_told else max(self._still_since + _PATIENCE_S - now, 0)
        events = self._poll(patience)
        is_still = not events and not self._inner._ready
        if is_still and not self._was_told and self._real_time() >= self._still_since + _PATIENCE_S:
            self._was_told = True
            log.warning("%s", self._describe())
        return events

    def _tell_if_stuck(self) -> None:
        """Say so if turn follows turn and time hardly moves: something is always ready."""
        instant, now = self.clock.monotonic_ns(), self._real_time()
        if instant - self._instant_ns >= _HARDLY_NS or self.clock.holds:
            self._instant_ns, self._instant_since, self._was_told = instant, now, False
        elif not self._was_told and now >= self._instant_since + _PATIENCE_S:
            self._was_told = True
            log.warning("%s", self._describe(f"{self._turns} turns of the loop, and something is always ready"))

    def _describe(self, busy: str = "") -> str:
        holds = self.clock.holds
        why = busy or (f"it is held {holds} times, by threads or processes at work" if holds else "no timer is set")
        if not busy and not holds and self._has_io():
            why += ", and sockets or pipes are silent"
        tasks = [task for task in asyncio.all_tasks(self.loop) if not task.done()]
        lines = [f"  {task.get_name()} at {_place(task)}" for task in tasks[:20]]
        return "\n".join(
            [
                f"virtual time has stood still for {_PATIENCE_S:g} real seconds: {why}. Waiting tasks ({len(tasks)}):",
                *sorted(lines),
            ]
        )


def _place(task: asyncio.Task[Any]) -> str:
    stack = task.get_stack(limit=1)
    return f"{stack[0].f_code.co_filename}:{stack[0].f_lineno}" if stack else repr(task.get_coro())


def _held(clock: VirtualClock, func: Callable[..., _T], *args: Any) -> _T:
    with clock.hold():
        return func(*args)


def _release(hold: Hold, _: object) -> None:
    hold.release()


def _nothing() -> None:
    """Run for the sake of the turn of the loop that runs it."""
