"""The system's clock and its alarms, on asyncio and uvloop, with and without kernel timers."""

from __future__ import annotations

import asyncio
import contextvars
import errno
import gc
import os
import sys
import time
from collections.abc import Callable, Coroutine
from datetime import UTC
from typing import Any, NoReturn

import pytest
import uvloop

from quarterjack import _timerfd
from quarterjack import clock as clock_module
from quarterjack._timerfd import PORTABLE, TimerFd, open_timerfd, timerfds
from quarterjack.clock import SYSTEM_CLOCK, Alarm, Clock, ClockJump, SystemClock

MS = 1_000_000
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
has_none = sys.platform != "linux" or bool(os.environ.get(PORTABLE))
needs_timerfd = pytest.mark.skipif(has_none, reason="timerfd is Linux's")
on_each_loop = pytest.mark.parametrize("loop", LOOPS)
on_each_alarm = pytest.mark.parametrize(
    "timerfd", [pytest.param(True, id="timerfd", marks=needs_timerfd), pytest.param(False, id="call_at")]
)


def nothing() -> None:
    """Be a callback that nobody listens to."""


def run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main)


async def rings(clock: Clock, due_ns: int | None, *, within_s: float = 5.0) -> int | None:
    """Return when an alarm set to *due_ns* rang, None if it did not."""
    rang = asyncio.Event()
    alarm = clock.open_alarm(asyncio.get_running_loop(), rang.set)
    alarm.set(due_ns)
    try:
        async with asyncio.timeout(within_s):
            await rang.wait()
    except TimeoutError:
        return None
    finally:
        alarm.close()
    return time.time_ns()


class FixedClock(SystemClock):
    """A clock whose wall shows one instant."""

    def __init__(self, shown_ns: int) -> None:
        super().__init__()
        self._shown_ns = shown_ns

    def now_ns(self) -> int:
        return self._shown_ns


# -- reading ------------------------------------------------------------------------


def test_wall_clock_is_the_machines() -> None:
    """Schedules go by the wall clock of the machine, in nanoseconds."""
    before, shown, after = time.time_ns(), SYSTEM_CLOCK.now_ns(), time.time_ns()
    assert before <= shown <= after


def test_now_is_aware_utc_and_never_ahead_of_the_nanoseconds() -> None:
    """Rounding up would show an instant that has not come, and make a start look early."""
    almost_a_second = FixedClock(1_700_000_000_999_999_999).now()
    assert almost_a_second.tzinfo is UTC
    assert almost_a_second.isoformat() == "2023-11-14T22:13:20.999999+00:00"


def test_differences_agree_between_the_counters() -> None:
    """A jump is seen by comparing how far the three counters went, so they must go alike."""
    before = SYSTEM_CLOCK.monotonic_ns(), SYSTEM_CLOCK.boottime_ns(), SYSTEM_CLOCK.monotonic()
    time.sleep(0.01)
    mono = SYSTEM_CLOCK.monotonic_ns() - before[0]
    boot = SYSTEM_CLOCK.boottime_ns() - before[1]
    assert 10 * MS <= mono <= boot + 5 * MS
    assert abs(boot - mono) < 500 * MS
    assert SYSTEM_CLOCK.monotonic() - before[2] >= 0.01


def test_hold_means_nothing_to_the_systems_clock() -> None:
    """Executors hold whatever clock they get; real time does not wait for them."""
    with SYSTEM_CLOCK.hold() as hold:
        hold.release()
    hold.release()


def test_jump_tells_seconds_and_direction() -> None:
    """People read seconds; a clock set back is negative."""
    assert ClockJump(kind="step", delta_ns=-3_600_000_000_000, at_ns=0).delta_s == -3600.0


# -- alarms -------------------------------------------------------------------------


@on_each_loop
@on_each_alarm
def test_alarm_rings_when_due(loop: str, timerfd: bool) -> None:
    """The whole library wakes by this; the kernel's alarm is moreover never early."""

    async def main() -> None:
        due = time.time_ns() + 30 * MS
        rang = await rings(SystemClock(timerfd=timerfd), due)
        assert rang is not None
        # uvloop's own timers count whole milliseconds and may be one early: the timer looks again.
        assert rang >= due - (0 if timerfd else 2 * MS)

    run(loop, main())


@on_each_loop
@on_each_alarm
@pytest.mark.parametrize("due_ns", [-1, 0, 1, 1_000_000_000])
def test_alarm_for_the_past_rings_at_once(loop: str, timerfd: bool, due_ns: int) -> None:
    """A late fire time must not wait, and zero must not disarm as it does in the kernel."""

    async def main() -> None:
        assert await rings(SystemClock(timerfd=timerfd), due_ns) is not None

    run(loop, main())


@on_each_loop
@on_each_alarm
def test_alarm_set_to_none_does_not_ring(loop: str, timerfd: bool) -> None:
    """Who waits for nothing is never woken."""

    async def main() -> None:
        rang: list[int] = []
        alarm = SystemClock(timerfd=timerfd).open_alarm(asyncio.get_running_loop(), lambda: rang.append(1))
        alarm.set(time.time_ns() + 5 * MS)
        alarm.set(None)
        await asyncio.sleep(0.03)
        assert rang == []
        alarm.close()

    run(loop, main())


@on_each_alarm
def test_alarm_rings_once_and_can_be_set_to_the_same_instant_again(timerfd: bool) -> None:
    """Set again to the instant it just rang for, it rings again: skipping an equal instant applies to waiting only."""

    async def main() -> None:
        rang: list[int] = []
        due = time.time_ns()
        alarm: Alarm

        def on_wake() -> None:
            rang.append(1)
            if len(rang) < 3:
                alarm.set(due)

        alarm = SystemClock(timerfd=timerfd).open_alarm(asyncio.get_running_loop(), on_wake)
        alarm.set(due)
        await asyncio.sleep(0.05)
        assert len(rang) == 3
        alarm.close()

    run("asyncio", main())


@on_each_alarm
def test_alarm_rings_early_to_look_at_the_clocks(timerfd: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that slept tells nobody: while something is waited for, the clocks are compared now and then."""
    monkeypatch.setattr(clock_module, "RECHECK_NS", 10 * MS)

    async def main() -> None:
        assert await rings(SystemClock(timerfd=timerfd), time.time_ns() + 3_600_000 * MS) is not None

    run("asyncio", main())


@on_each_loop
@on_each_alarm
def test_alarm_calls_back_in_an_empty_context(loop: str, timerfd: bool) -> None:
    """Else every callback would see the context variables of whoever happened to wait first."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="empty")

    async def main() -> None:
        variable.set("of the first one to wait")
        seen = asyncio.get_running_loop().create_future()
        alarm = SystemClock(timerfd=timerfd).open_alarm(
            asyncio.get_running_loop(), lambda: seen.set_result(variable.get())
        )
        alarm.set(time.time_ns())
        assert await seen == "empty"
        alarm.close()

    run(loop, main())


# -- the clock is set ---------------------------------------------------------------


def set_behind_our_back(calls: list[int]) -> Callable[[int, int, int], None]:
    """Return a ``timerfd_settime`` that reports a set clock once, as the kernel does."""

    def settime(fd: int, flags: int, due_ns: int) -> None:
        del fd, flags
        calls.append(due_ns)
        if len(calls) == 1:
            raise OSError(errno.ECANCELED, "the clock was set")

    return settime


@needs_timerfd
def test_arming_that_swallows_a_set_clock_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel reports a set clock once, possibly to the call that arms: the news must not be lost."""
    real = open_timerfd()
    assert real is not None
    calls: list[int] = []
    fd = TimerFd(os.dup(real.fd), set_behind_our_back(calls))
    real.close()
    monkeypatch.setattr(clock_module, "open_timerfd", lambda: fd)
    due = time.time_ns() + 1000 * MS

    async def main() -> None:
        rang = await rings(SYSTEM_CLOCK, due)
        assert rang is not None
        assert rang < due

    run("asyncio", main())
    first, again = calls
    assert first == again  # and it is armed all the same
    assert due - MS < again <= due


@needs_timerfd
@pytest.mark.parametrize(("number", "expected"), [(errno.ECANCELED, True), (errno.EAGAIN, False)])
def test_set_clock_counts_as_ringing_and_a_false_alarm_does_not(
    number: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading a cancelled timer fails with ECANCELED: that is how a set clock wakes us at once."""
    timer = open_timerfd()
    assert timer is not None

    def read(fd: int, size: int) -> bytes:
        del fd, size
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "read", read)
        assert timer.drain() is expected
    timer.close()


@needs_timerfd
def test_other_failures_of_the_kernel_are_not_swallowed() -> None:
    """A closed descriptor is a bug of ours, not a set clock."""
    timer = open_timerfd()
    assert timer is not None
    timer.close()
    with pytest.raises(OSError, match=r"timerfd_settime|Bad file") as caught:
        timer.arm(time.time_ns())
    assert caught.value.errno == errno.EBADF


# -- where there is no timerfd --------------------------------------------------------


def test_no_timerfd_outside_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    """Elsewhere the loop's timers serve."""
    monkeypatch.setattr(sys, "platform", "darwin")
    assert open_timerfd() is None


@needs_timerfd
def test_alarm_without_a_descriptor_falls_back_to_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is out of descriptors, or a kernel that refuses, still keeps its schedules."""

    def refuse() -> NoReturn:
        raise OSError(errno.EMFILE, "too many open files")

    monkeypatch.setattr(_timerfd, "_create", refuse)

    async def main() -> None:
        assert await rings(SYSTEM_CLOCK, time.time_ns() + 5 * MS) is not None
        assert timerfds() == set()

    run("asyncio", main())


@needs_timerfd
def test_loop_that_watches_no_descriptors_gets_the_other_alarm() -> None:
    """Such a loop says NotImplementedError; the descriptor made for it is closed."""

    class Blind(asyncio.SelectorEventLoop):
        def add_reader(self, fd: object, callback: object, *args: object) -> NoReturn:
            raise NotImplementedError

    async def main() -> None:
        assert await rings(SYSTEM_CLOCK, time.time_ns() + 5 * MS) is not None
        assert timerfds() == set()

    with asyncio.Runner(loop_factory=Blind) as runner:
        runner.run(main())


# -- nothing is left behind -----------------------------------------------------------


@needs_timerfd
@on_each_loop
def test_closed_alarm_leaves_no_descriptor(loop: str) -> None:
    """One alarm per loop over the life of a process must not add up."""

    async def main() -> None:
        alarm = SYSTEM_CLOCK.open_alarm(asyncio.get_running_loop(), nothing)
        (fd,) = timerfds()
        alarm.set(time.time_ns() + 1000 * MS)
        alarm.close()
        alarm.close()
        assert timerfds() == set()
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)

    run(loop, main())


@needs_timerfd
@on_each_loop
def test_alarm_outlives_its_loop_without_harm(loop: str) -> None:
    """Closing after the loop is closed must neither raise nor leak."""
    alarms: list[Alarm] = []

    async def main() -> None:
        alarms.append(SYSTEM_CLOCK.open_alarm(asyncio.get_running_loop(), nothing))
        alarms[0].set(time.time_ns() + 1000 * MS)

    run(loop, main())
    alarms[0].close()
    assert timerfds() == set()


@needs_timerfd
@on_each_loop
def test_forgotten_alarm_gives_its_descriptor_back(loop: str) -> None:
    """A loop that was closed while something waited keeps no descriptor open."""

    async def main() -> None:
        SYSTEM_CLOCK.open_alarm(asyncio.get_running_loop(), nothing).set(time.time_ns() + 1000 * MS)

    run(loop, main())
    gc.collect()
    assert timerfds() == set()


@needs_timerfd
def test_fork_closes_in_the_child_and_wakes_the_parent() -> None:
    """The child shares the parent's epoll set: tidying up there the usual way would make the parent deaf."""

    async def main() -> None:
        rang = asyncio.Event()
        loop = asyncio.get_running_loop()
        alarm = SYSTEM_CLOCK.open_alarm(loop, rang.set)
        (fd,) = timerfds()
        child = os.fork()
        if child == 0:
            try:
                os.fstat(fd)
            except OSError:
                alarm.close()
                os._exit(0 if timerfds() == set() else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0  # it ends at once
        alarm.set(time.time_ns() + 5 * MS)
        async with asyncio.timeout(5):
            await rang.wait()
        alarm.close()

    run("asyncio", main())
