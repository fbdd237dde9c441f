"""The clock: what time it is, and how a loop is woken at a time.

Three counters, one seam. Everything that needs time gets a `Clock`; only this
module and `quarterjack.timer` read the machine's.

- *wall*: `Clock.now_ns`, UTC. Schedules go by it. It may step either way.
- *monotonic*: `Clock.monotonic_ns`. Only differences mean anything; it never
  steps, and stands still while the machine is suspended.
- *boot time*: `Clock.boottime_ns`. As monotonic, but counts suspension.

An `Alarm` wakes a loop at a wall-clock instant. Who sets it must look at the
clock again when woken: an alarm may ring before its time (a clock was set, or
it is time to look whether one was), and it promises nothing but to ring.
Waiting many things on one alarm is the timer's business, `quarterjack.timer`.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Final, Literal, Protocol, Self
from weakref import WeakKeyDictionary

from ._durations import NS_PER_S
from ._timerfd import TimerFd, open_timerfd

__all__ = [
    "RECHECK_NS",
    "SYSTEM_CLOCK",
    "Alarm",
    "Clock",
    "ClockJump",
    "Hold",
    "SystemClock",
    "clock_of",
    "set_clock_of",
]

RECHECK_NS: Final = 30 * NS_PER_S
"""While something is waited for, a system alarm rings at least this often: a suspended
machine tells nobody that it slept."""

LEAD_NS: Final = 200_000
"""How much before an instant the system's alarms are set, for the timer to spin the rest away: a
sleeping processor and the kernel wake us 50 to 150 µs late (measured), and a start should not be."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockJump:
    """The wall clock was set (*step*), or the machine slept (*suspend*).

    Attributes:
        kind: ``"step"`` when the wall clock moved against elapsed time,
            ``"suspend"`` when elapsed time moved against the monotonic clock.
        delta_ns: By how much; negative when the clock was set back.
        at_ns: The wall clock after the jump.
    """

    kind: Literal["step", "suspend"]
    delta_ns: int
    at_ns: int

    @property
    def delta_s(self) -> float:
        """By how many seconds; negative when the clock was set back."""
        return self.delta_ns / NS_PER_S


class Alarm(Protocol):
    """Wakes one loop at wall-clock instants. Belongs to that loop's thread."""

    def set(self, due_ns: int | None, /) -> None:
        """Ring at *due_ns*, or as soon as it is seen to have passed; None: do not ring.

        It replaces what was set before, rings once, and is idempotent and cheap. It may ring early.
        """

    def close(self) -> None:
        """Let go of what the alarm holds in the loop; idempotent, and safe on a closed loop."""


class Hold:
    """A claim that something works outside the loop. The system's clock does not care."""

    __slots__ = ()

    def release(self) -> None:
        """End the claim; idempotent, from any thread."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.release()


_NO_HOLD: Final = Hold()


class Clock(ABC):
    """Where time is read. Compared by identity; reads are safe from any thread."""

    lead_ns: int = 0
    """How long before an instant the timer wants to be woken, to be ready when it comes."""

    @abstractmethod
    def now_ns(self) -> int:
        """Return the wall clock in nanoseconds since the epoch, UTC."""

    @abstractmethod
    def monotonic_ns(self) -> int:
        """Return a counter of nanoseconds for differences; it stands still while the machine sleeps."""

    @abstractmethod
    def boottime_ns(self) -> int:
        """Return a counter of nanoseconds for differences; it counts sleep where the system can tell."""

    @abstractmethod
    def open_alarm(self, loop: asyncio.AbstractEventLoop, on_wake: Callable[[], None]) -> Alarm:
        """Return an alarm that calls *on_wake* on *loop*, in an empty context; disarmed.

        Call it on the loop's own thread.
        """

    def now(self) -> datetime:
        """Return the wall clock as an aware datetime in UTC, cut to the microsecond."""
        return _EPOCH + timedelta(microseconds=self.now_ns() // 1_000)

    def monotonic(self) -> float:
        """Return `monotonic_ns` in seconds."""
        return self.monotonic_ns() / NS_PER_S

    def hold(self) -> Hold:
        """Say that a thread or a process works, from now until the hold is released.

        Virtual time stands still meanwhile; on every other clock nothing happens.
        Release it when the result has *reached the loop*, not when the thread has it:
        in between, nothing would keep time from jumping. Use it as a context manager,
        or call `Hold.release`.
        """
        return _NO_HOLD


class SystemClock(Clock):
    """The machine's clocks.

    Args:
        timerfd: Use the kernel's wall-clock timers where there are any (Linux).
            They wake a loop some 0.1 ms after the instant and notice at once that
            the clock was set; the loop's own timers take a millisecond, and notice
            within 30 seconds.
    """

    def __init__(self, *, timerfd: bool = True) -> None:
        self._use_timerfd = timerfd
        self.lead_ns = LEAD_NS if timerfd else 0

    # The builtins themselves rather than methods that call them: a read costs 75 ns, not 130.
    now_ns = staticmethod(time.time_ns)  # pyright: ignore[reportAssignmentType]
    monotonic_ns = staticmethod(time.monotonic_ns)  # pyright: ignore[reportAssignmentType]
    monotonic = staticmethod(time.monotonic)  # pyright: ignore[reportAssignmentType]
    boottime_ns = staticmethod(  # pyright: ignore[reportAssignmentType]
        partial(time.clock_gettime_ns, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns
    )

    def open_alarm(self, loop: asyncio.AbstractEventLoop, on_wake: Callable[[], None]) -> Alarm:
        """Return an alarm on a kernel timer, or on the loop's own where there is none."""
        fd = open_timerfd() if self._use_timerfd else None
        if fd is not None:
            try:
                return _TimerfdAlarm(loop, on_wake, fd)
            except NotImplementedError:  # a loop that cannot watch descriptors
                fd.close()
        return _LoopAlarm(loop, on_wake)


SYSTEM_CLOCK: Final = SystemClock()

_CLOCKS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, Clock]] = WeakKeyDictionary()


def clock_of(loop: asyncio.AbstractEventLoop) -> Clock:
    """Return the clock that *loop* runs by: the system's, unless `set_clock_of` named another."""
    return _CLOCKS.get(loop, SYSTEM_CLOCK) if _CLOCKS else SYSTEM_CLOCK


def set_clock_of(loop: asyncio.AbstractEventLoop, clock: Clock | None) -> None:
    """Say which clock *loop* runs by; None is the system's again. For those who drive a loop's time."""
    if clock is None:
        _CLOCKS.pop(loop, None)
    else:
        _CLOCKS[loop] = clock


class _TimerfdAlarm:
    """An alarm on a timerfd that the loop watches."""

    __slots__ = ("_due_ns", "_fd", "_loop", "_on_wake")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_wake: Callable[[], None], fd: TimerFd) -> None:
        self._loop = loop
        self._on_wake = on_wake
        self._fd = fd
        self._due_ns: int | None = None
        # In an empty context, else whatever the first one to wait had set would show in every callback.
        Context().run(loop.add_reader, fd.fd, self._ring)

    def set(self, due_ns: int | None, /) -> None:
        if due_ns == self._due_ns:
            return
        self._due_ns = due_ns
        if due_ns is None:
            self._fd.disarm()
        elif not self._fd.arm(min(due_ns, time.time_ns() + RECHECK_NS)):
            # The clock was set since the last look. That is news, and this arming has swallowed it.
            self._loop.call_soon(self._on_wake, context=Context())

    def _ring(self) -> None:
        if self._fd.drain():
            self._due_ns = None
            self._on_wake()

    def close(self) -> None:
        if not self._fd.is_open:  # closed before, or inherited through a fork
            return
        if not self._loop.is_closed():
            self._loop.remove_reader(self._fd.fd)
        self._fd.close()


class _LoopAlarm:
    """An alarm on the loop's own timers, for systems and loops without a timerfd."""

    __slots__ = ("_context", "_due_ns", "_handle", "_loop", "_on_wake")

    def __init__(self, loop: asyncio.AbstractEventLoop, on_wake: Callable[[], None]) -> None:
        self._loop = loop
        self._on_wake = on_wake
        self._due_ns: int | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._context = Context()

    def set(self, due_ns: int | None, /) -> None:
        if due_ns == self._due_ns:
            return
        self.close()
        self._due_ns = due_ns
        if due_ns is not None:
            delay_ns = min(due_ns - time.time_ns(), RECHECK_NS)
            self._handle = self._loop.call_later(max(delay_ns, 0) / NS_PER_S, self._ring, context=self._context)

    def _ring(self) -> None:
        self._due_ns = self._handle = None
        self._on_wake()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._due_ns = self._handle = None
