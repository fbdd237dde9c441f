"""The virtual clock: time that goes on only when everybody waits for it.

A `VirtualClock` is a `Clock` whose three counters are plain integers. It moves
when the loop that `quarterjack.testing._loop` instruments has nothing to do,
straight to the next instant that something waits for, so that a year passes in
the time its work takes, and a callback due at an instant runs at exactly that
instant. It stands still while something is at work that the loop cannot see:
whoever starts such work takes a `VirtualClock.hold`.

Three ways to drive it from a test, beside simply awaiting something:

- `run_until` and `run_for` return when the instant is reached *and* everything
  due up to it, and everything that came of that, is done;
- `advance` does the same without regard to holds and sockets;
- `step_clock` and `suspend` do to the clock what people and laptops do to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Final, Protocol
from zoneinfo import ZoneInfo

from quarterjack._durations import NS_PER_S, Seconds, parse_duration
from quarterjack.clock import Alarm, Clock, Hold
from quarterjack.errors import InvalidOption, NaiveDatetime, UsageError
from quarterjack.model import as_datetime

__all__ = ["DEFAULT_START", "Driver", "VirtualClock"]

DEFAULT_START: Final = "2026-01-01T00:00:00+00:00"

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UPTIME_NS: Final = 100_000 * NS_PER_S
"""Where the monotonic clock starts: a machine that has been up for a day, as zero would hide mistakes."""


class Driver(Protocol):
    """What the clock asks of the loop that drives it."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    def wake(self) -> None:
        """Look again whether time may move; from any thread."""


@dataclass(frozen=True, slots=True)
class Waiter:
    """Somebody who waits for virtual time to reach an instant and everything due by then to be done."""

    at_ns: int
    is_wall: bool
    is_forced: bool
    future: asyncio.Future[None]


class VirtualClock(Clock):
    """A clock that starts at *start* and moves as the module's head says.

    Args:
        start: The wall clock at the beginning: an aware datetime, or ISO 8601.
        tz: The zone of a *start* that names none.

    Raises:
        NaiveDatetime: If neither *start* nor *tz* names a zone.
        InvalidOption: If *start* is no date, or *tz* no zone.
    """

    def __init__(self, start: datetime | str = DEFAULT_START, *, tz: str | None = None) -> None:
        self._mono = _UPTIME_NS
        self._wall_ahead = instant_ns(start, tz) - self._mono
        self._slept = 0
        self._lock = Lock()
        self._holds = 0
        self._alarms: tuple[_VirtualAlarm, ...] = ()
        self._waiters: list[Waiter] = []
        self._driver: Driver | None = None

    # -- reading --------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the virtual wall clock."""
        return self._mono + self._wall_ahead

    def monotonic_ns(self) -> int:
        """Return the virtual time that has passed, in suspension excepted; the loop's own time is the same."""
        return self._mono

    def boottime_ns(self) -> int:
        """Return the virtual time that has passed, in suspension included."""
        return self._mono + self._slept

    def open_alarm(self, loop: asyncio.AbstractEventLoop, on_wake: Callable[[], None]) -> Alarm:
        """Return an alarm that rings at exactly its instant.

        On another loop than the driven one (in another thread) time waits until
        *on_wake* has run, but what that sets going there is not seen: hold the clock.

        Raises:
            UsageError: If no loop drives this clock: nothing would ever ring.
        """
        alarm = _VirtualAlarm(self, loop, on_wake, is_foreign=loop is not self._driven().loop)
        with self._lock:
            self._alarms = (*self._alarms, alarm)
        return alarm

    def hold(self) -> Hold:
        """Keep time from moving until the hold is released; from any thread.

        Release it when the result has reached the loop, not when the thread has it.
        """
        with self._lock:
            self._holds += 1
        return _VirtualHold(self)

    # -- moving ---------------------------------------------------------------------

    async def run_until(self, until: datetime | str | int) -> None:
        """Let everything happen that is due up to and including *until*, then return at that instant.

        Args:
            until: An aware datetime, ISO 8601 with an offset, or nanoseconds since the epoch.

        Raises:
            InvalidOption: If the wall clock is past *until*.
        """
        at_ns = instant_ns(until)
        if at_ns < self.now_ns():
            past = as_datetime(at_ns)
            when = until if past is None else past.isoformat()
            raise InvalidOption(f"the virtual clock is past {when}: it shows {self.now().isoformat()}")
        await self._wait(at_ns, is_wall=True)

    async def run_for(self, duration: Seconds | str) -> None:
        """As `run_until`, *duration* of elapsed time from now (seconds, a timedelta, ``"2d"``)."""
        await self._wait(self._mono + _duration_ns(duration))

    async def settle(self) -> None:
        """Let everything happen that is due now, and what comes of it, without moving time."""
        await self._wait(self._mono)

    async def advance(self, duration: Seconds | str) -> None:
        """As `run_for`, but time moves even while threads work or sockets are open.

        This is how to let a timeout strike whose body never ends by itself.
        """
        await self._wait(self._mono + _duration_ns(duration), is_forced=True)

    def step_clock(self, delta: Seconds | str) -> None:
        """Set the wall clock by *delta* (seconds or a timedelta, either way); nothing else moves.

        Who waits is told at once, as by a kernel timer that is cancelled when the clock is set.
        """
        self._wall_ahead += _signed_ns(delta)
        self._ring_all()

    def suspend(self, delta: Seconds | str) -> None:
        """Suspend the machine for *delta*: wall and boot time go on, the monotonic clock does not."""
        slept = _duration_ns(delta)
        self._wall_ahead += slept
        self._slept += slept
        self._ring_all()

    async def _wait(self, at_ns: int, *, is_wall: bool = False, is_forced: bool = False) -> None:
        waiter = Waiter(at_ns, is_wall, is_forced, self._driven().loop.create_future())
        self._waiters.append(waiter)
        try:
            await waiter.future
        finally:
            self._waiters.remove(waiter)

    def _driven(self) -> Driver:
        if self._driver is None:
            raise UsageError("no loop drives this virtual clock: use it inside `with virtual_loop(clock):`")
        return self._driver

    def _ring_all(self) -> None:
        for alarm in self._alarms:
            if alarm.due_ns is not None:
                alarm.ring()

    # -- for the driver -------------------------------------------------------------

    def attach(self, driver: Driver) -> None:
        """Let *driver* move this clock."""
        if self._driver is not None:
            raise UsageError("this virtual clock drives a loop already: make one clock for each")
        self._driver = driver

    def detach(self) -> None:
        """Stand still; who still waits is told."""
        self._driver = None
        for waiter in self._waiters:
            if not waiter.future.done():
                waiter.future.set_exception(UsageError("virtual time ended while this was waiting for it"))

    @property
    def holds(self) -> int:
        """How many holds keep time from moving."""
        return self._holds

    @property
    def is_forced(self) -> bool:
        """Somebody wants time to move whatever is under way."""
        return any(waiter.is_forced for waiter in self._waiters)

    def next_alarm_ns(self) -> int | None:
        """Return when the next alarm rings, in monotonic time."""
        dues = [due for alarm in self._alarms if (due := alarm.due_ns) is not None]
        return max(min(dues) - self._wall_ahead, self._mono) if dues else None

    def next_waiter_ns(self) -> int | None:
        """Return the first instant that somebody drives to, in monotonic time."""
        targets = [self._target_ns(waiter) for waiter in self._waiters if not waiter.future.done()]
        return max(min(targets), self._mono) if targets else None

    def _target_ns(self, waiter: Waiter) -> int:
        return waiter.at_ns - self._wall_ahead if waiter.is_wall else waiter.at_ns

    def move_to(self, mono_ns: int) -> None:
        """Move to an instant of monotonic time and ring what is due by then."""
        self._mono = mono_ns
        now = self.now_ns()
        for alarm in self._alarms:
            if (due := alarm.due_ns) is not None and due <= now:
                alarm.ring()

    def release_waiters(self) -> None:
        """Tell those who wait for an instant up to now that all is settled."""
        for waiter in self._waiters:
            if self._target_ns(waiter) <= self._mono and not waiter.future.done():
                waiter.future.set_result(None)

    # -- for alarms and holds -------------------------------------------------------

    def look_again(self) -> None:
        """Tell the driver, if there is one, that time may have become free to move."""
        driver = self._driver
        if driver is not None:
            driver.wake()

    def forget(self, alarm: _VirtualAlarm) -> None:
        """Never ring *alarm* again."""
        with self._lock:
            self._alarms = tuple(known for known in self._alarms if known is not alarm)

    def end_hold(self) -> None:
        """Account for one hold less."""
        with self._lock:
            self._holds -= 1
            is_last = self._holds == 0
        if is_last:
            self.look_again()


class _VirtualHold(Hold):
    """Keeps one virtual clock from moving until released."""

    __slots__ = ("_clock",)

    def __init__(self, clock: VirtualClock) -> None:
        self._clock: list[VirtualClock] = [clock]

    def release(self) -> None:
        try:
            clock = self._clock.pop()  # atomic: two threads that release at once count once
        except IndexError:
            return
        clock.end_hold()


class _VirtualAlarm:
    """Rings when the virtual clock reaches its instant, or is set while it waits."""

    __slots__ = ("_clock", "_context", "_is_closed", "_is_foreign", "_loop", "_on_wake", "due_ns")

    def __init__(
        self, clock: VirtualClock, loop: asyncio.AbstractEventLoop, on_wake: Callable[[], None], *, is_foreign: bool
    ) -> None:
        self._clock = clock
        self._loop = loop
        self._on_wake = on_wake
        self._is_foreign = is_foreign
        self._is_closed = False
        self._context = Context()
        self.due_ns: int | None = None

    def set(self, due_ns: int | None, /) -> None:
        self.due_ns = due_ns
        if due_ns is None:
            return
        if due_ns <= self._clock.now_ns():
            self.ring()
        elif self._is_foreign:
            self._clock.look_again()

    def ring(self) -> None:
        """Wake the loop in its next turn."""
        self.due_ns = None
        if not self._is_foreign:
            self._loop.call_soon(self._wake, None, context=self._context)
            return
        hold = self._clock.hold()
        try:
            self._loop.call_soon_threadsafe(self._wake, hold, context=self._context)
        except RuntimeError:  # that loop was closed under us
            hold.release()
            self.close()

    def _wake(self, hold: Hold | None) -> None:
        try:
            if not self._is_closed:
                self._on_wake()
        finally:
            if hold is not None:
                hold.release()

    def close(self) -> None:
        self._is_closed = True
        self.due_ns = None
        self._clock.forget(self)


def instant_ns(when: datetime | str | int, tz: str | None = None) -> int:
    """Return nanoseconds since the epoch for an aware datetime, ISO 8601, or such nanoseconds.

    Raises:
        NaiveDatetime: If neither *when* nor *tz* names a zone.
        InvalidOption: If *when* is no date, or *tz* no zone.
    """
    if isinstance(when, int):
        return when
    try:
        moment = datetime.fromisoformat(when) if isinstance(when, str) else when
        zone = None if tz is None else ZoneInfo(tz)
    except (ValueError, LookupError, OSError) as error:
        raise InvalidOption(f"{when!r} is no instant, as 2026-03-01T09:00 is one: {error}") from error
    if moment.tzinfo is None:
        if zone is None:
            raise NaiveDatetime(f"{when!r} names no instant: add an offset, as in 2026-03-01T09:00+01:00, or give tz=")
        moment = moment.replace(tzinfo=zone)
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1_000


def _signed_ns(delta: Seconds | str) -> int:
    """Return a span that may be negative: ``-3600``, ``"-1h"``."""
    if isinstance(delta, str) and delta.startswith("-"):
        return -_duration_ns(delta[1:])
    if isinstance(delta, timedelta):
        return -_duration_ns(-delta) if delta < timedelta(0) else _duration_ns(delta)
    if isinstance(delta, int | float) and delta < 0:
        return -_duration_ns(-delta)
    return _duration_ns(delta)


def _duration_ns(duration: Seconds | str) -> int:
    return round(parse_duration(duration) * NS_PER_S)
