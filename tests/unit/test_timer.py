"""The precise timer: on virtual time where it can be, on real loops where it must be."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack._timerfd import timerfds
from quarterjack.clock import SYSTEM_CLOCK, Alarm, Clock, ClockJump, SystemClock
from quarterjack.errors import UsageError
from quarterjack.testing._clock import VirtualClock
from quarterjack.testing._loop import virtual_loop
from quarterjack.timer import Timer, TimerHandle

S = 1_000_000_000
MS = 1_000_000
HOUR = 3600 * S
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}
on_each_loop = pytest.mark.parametrize("loop", LOOPS)
on_each_alarm = pytest.mark.parametrize("timerfd", [True, False], ids=["timerfd", "call_at"])


def nothing() -> None:
    """Be a callback that nobody listens to."""


def fail(*_: object) -> None:
    raise ZeroDivisionError


def run(loop: str, main: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main)


@pytest.fixture
async def clock() -> AsyncIterator[VirtualClock]:
    with virtual_loop() as clock:
        yield clock


@pytest.fixture
async def timer(clock: VirtualClock) -> AsyncIterator[Timer]:
    timer = Timer.shared(clock)
    yield timer
    timer.release()


class Log:
    """Notes what ran, and when."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began = clock.now_ns()
        self.entries: list[tuple[str, int]] = []

    def note(self, name: str) -> Callable[[], None]:
        return lambda: self.entries.append((name, self._clock.now_ns() - self._began))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.entries]


# -- what runs when -----------------------------------------------------------------


async def test_callbacks_run_at_their_instants_in_order(clock: VirtualClock, timer: Timer) -> None:
    """Exactly due, however they were added: this is what every schedule stands on."""
    log, now = Log(clock), clock.now_ns()
    for name, due in (("c", 3), ("a", 1), ("b", 2), ("hour", HOUR)):
        timer.call_at(now + due, log.note(name))
    await clock.run_for("1h")
    assert log.entries == [("a", 1), ("b", 2), ("c", 3), ("hour", HOUR)]


async def test_one_instant_is_first_come_first_served(clock: VirtualClock, timer: Timer) -> None:
    """Equal instants keep the order they were asked in, or replicas would differ from run to run."""
    log, due = Log(clock), clock.now_ns() + S
    for index in range(50):
        timer.call_at(due, log.note(str(index)))
    await clock.run_for(1)
    assert log.entries == [(str(index), S) for index in range(50)]


async def test_past_instants_are_served_at_once_but_never_from_within_the_call(
    clock: VirtualClock, timer: Timer
) -> None:
    """A caller in the middle of its own work must not be re-entered."""
    log = Log(clock)
    timer.call_at(clock.now_ns() - HOUR, log.note("late"))
    assert log.names == []
    await clock.settle()
    assert log.entries == [("late", 0)]


async def test_callback_that_adds_itself_for_now_does_not_starve_the_loop(clock: VirtualClock, timer: Timer) -> None:
    """What is added while callbacks run waits for the loop's next turn, even if it is overdue."""
    turns = 0

    def again() -> None:
        nonlocal turns
        turns += 1
        if turns < 100:
            timer.call_at(clock.now_ns() - S, again)

    timer.call_at(clock.now_ns(), again)
    for _ in range(4):
        await asyncio.sleep(0)
    assert 1 <= turns <= 4
    await clock.settle()
    assert turns == 100


async def test_cancelled_callback_never_runs(clock: VirtualClock, timer: Timer) -> None:
    """Also when it is cancelled by another callback of the same instant, and cancelling twice is fine."""
    log, due = Log(clock), clock.now_ns() + S
    timer.call_at(due, lambda: victim.cancel())  # noqa: PLW0108  # it is made below
    victim = timer.call_at(due, log.note("victim"))
    survivor = timer.call_at(due, log.note("survivor"))
    await clock.run_for(2)
    victim.cancel()
    survivor.cancel()
    assert log.entries == [("survivor", S)]
    assert not victim.is_pending
    assert "done" in repr(victim)


async def test_cancelling_the_next_one_disarms(clock: VirtualClock, timer: Timer) -> None:
    """A cancelled wait must not wake anybody, nor make virtual time jump to where nobody waits."""
    log, now = Log(clock), clock.now_ns()
    first = timer.call_at(now + HOUR, log.note("first"))
    second = timer.call_at(now + 2 * HOUR, log.note("second"))
    first.cancel()
    assert clock.next_alarm_ns() == clock.monotonic_ns() + 2 * HOUR
    second.cancel()
    assert clock.next_alarm_ns() is None


async def test_cancelled_entries_do_not_pile_up(clock: VirtualClock, timer: Timer) -> None:
    """A timeout per request, nearly always cancelled, must not grow the heap until it is due."""
    timer.call_at(clock.now_ns() + S, nothing)
    for _ in range(10_000):
        timer.call_at(clock.now_ns() + HOUR, nothing).cancel()
    assert len(timer._heap) < 200


async def test_callback_that_raises_harms_nobody_else(clock: VirtualClock, timer: Timer) -> None:
    """It is told to the loop's exception handler; the others run."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    log, due = Log(clock), clock.now_ns() + S
    timer.call_at(due, log.note("before"))
    timer.call_at(due, fail)
    timer.call_at(due, log.note("after"))
    await clock.run_for(1)
    assert log.names == ["before", "after"]
    assert [type(context["exception"]) for context in told] == [ZeroDivisionError]
    assert "timer callback" in told[0]["message"]


async def test_ctrl_c_in_a_callback_loses_none_of_the_others(clock: VirtualClock, timer: Timer) -> None:
    """KeyboardInterrupt passes through, and what was due beside it runs in the next turn."""

    def interrupt() -> None:
        raise KeyboardInterrupt

    log = Log(clock)
    timer.call_at(clock.now_ns(), interrupt)
    timer.call_at(clock.now_ns(), log.note("after"))
    with pytest.raises(KeyboardInterrupt):
        timer._wake()  # as the loop would
    assert log.names == []
    await clock.settle()
    assert log.names == ["after"]


async def test_callbacks_run_in_an_empty_context(clock: VirtualClock, timer: Timer) -> None:
    """What one who waits had set must not show in another's callback."""
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="empty")
    variable.set("of the caller")
    seen: list[str] = []
    timer.call_at(clock.now_ns() + S, lambda: seen.append(variable.get()))
    await clock.run_for(1)
    assert seen == ["empty"]


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(-5, 40)),
        st.tuples(st.just("cancel"), st.integers(0, 30)),
        st.tuples(st.just("add from a callback"), st.integers(-5, 40)),
        st.tuples(st.just("step from a callback"), st.integers(-3, 3)),
        st.tuples(st.just("step"), st.integers(-20, 20)),
        st.tuples(st.just("run"), st.integers(0, 10)),
    ),
    max_size=40,
)


class Story:
    """Does to a timer what Hypothesis thinks of, and notes what becomes of each callback."""

    def __init__(self, clock: VirtualClock, timer: Timer) -> None:
        self._clock = clock
        self._timer = timer
        self.handles: list[TimerHandle] = []
        self.runs: list[int] = []
        self.early: list[int] = []
        self.cancelled: set[int] = set()

    async def tell(self, what: str, amount: int) -> None:
        match what:
            case "add":
                self.add(amount)
            case "add from a callback":
                self.add(amount, lambda: self.add(amount))
            case "step from a callback":
                self.add(5, lambda: self._clock.step_clock(amount / 1000))
            case "step":
                self._clock.step_clock(amount / 1000)
            case "cancel":
                self.cancel(amount)
            case _:
                await self._clock.run_for(amount / 1000)

    def add(self, offset_ms: int, then: Callable[[], None] = nothing) -> None:
        index, due = len(self.handles), self._clock.now_ns() + offset_ms * MS

        def callback() -> None:
            self.runs.append(index)
            if self._clock.now_ns() < due:
                self.early.append(index)
            then()

        self.handles.append(self._timer.call_at(due, callback))

    def cancel(self, index: int) -> None:
        if index < len(self.handles):
            if self.handles[index].is_pending:
                self.cancelled.add(index)
            self.handles[index].cancel()


@settings(max_examples=150, deadline=None)
@given(operations=OPERATIONS)
def test_whatever_happens_nothing_is_early_lost_or_doubled(operations: list[tuple[str, int]]) -> None:
    """Adding, cancelling and setting the clock in any order, also from callbacks: each runs once, due, or never."""

    async def main() -> None:
        with virtual_loop() as clock:
            timer = Timer.shared(clock)
            story = Story(clock, timer)
            for what, amount in operations:
                await story.tell(what, amount)
            await clock.run_for(10)
            assert story.early == []
            assert sorted(story.runs) == sorted(set(range(len(story.handles))) - story.cancelled)
            assert timer._heap == []
            assert clock.next_alarm_ns() is None
            timer.release()

    asyncio.run(main())


# -- sleeping -----------------------------------------------------------------------


async def test_sleepers_wake_at_their_instants(clock: VirtualClock, timer: Timer) -> None:
    """A sleeping task sees exactly the instant it asked for."""
    due = clock.now_ns() + HOUR + 1
    await timer.sleep_until(due)
    assert clock.now_ns() == due


async def test_cancelled_sleeper_leaves_nothing(clock: VirtualClock) -> None:
    """No entry, no alarm, and no claim on the timer."""
    timer = Timer.shared(clock)
    sleeper = asyncio.create_task(timer.sleep_until(clock.now_ns() + HOUR))
    await clock.settle()
    sleeper.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sleeper
    assert timer._heap == []
    timer.release()
    with pytest.raises(UsageError, match="closed"):
        timer.call_at(clock.now_ns(), nothing)


async def test_sleeper_keeps_the_timer_open(clock: VirtualClock) -> None:
    """Who opened the timer may go while others still sleep on it; else they would sleep for ever."""
    timer = Timer.shared(clock)
    sleeper = asyncio.create_task(timer.sleep_until(clock.now_ns() + S))
    await clock.settle()
    timer.release()
    async with asyncio.timeout(10):
        await sleeper
    with pytest.raises(UsageError, match="closed"):
        await timer.sleep_until(clock.now_ns())


# -- sharing ------------------------------------------------------------------------


async def test_one_timer_per_loop_and_clock(clock: VirtualClock, timer: Timer) -> None:
    """A thousand who wait cost one descriptor; another clock is another matter."""
    again, other = Timer.shared(clock), Timer.shared(SYSTEM_CLOCK)
    assert again is timer
    assert other is not timer
    again.release()
    other.release()
    await timer.sleep_until(clock.now_ns() + S)  # still open for its other taker


async def test_last_release_closes_and_drops_what_waits(clock: VirtualClock) -> None:
    """Nothing of a stopped app may run afterwards; the next one gets a fresh timer."""
    log = Log(clock)
    timer = Timer.shared(clock)
    handle = timer.call_at(clock.now_ns() + S, log.note("dropped"))
    timer.release()
    assert not handle.is_pending
    handle.cancel()
    timer.release()  # once too often harms nobody
    fresh = Timer.shared(clock)
    assert fresh is not timer
    await clock.run_for(2)
    assert log.names == []
    fresh.release()


def test_shared_needs_a_running_loop() -> None:
    """A timer belongs to a loop."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        Timer.shared(SYSTEM_CLOCK)


@on_each_loop
def test_loop_closed_without_release_breaks_no_later_one(loop: str) -> None:
    """The next loop waits as if nothing had been, and no descriptor stays open."""
    kept: list[Timer] = []

    async def forgetful() -> None:
        kept.append(Timer.shared(SYSTEM_CLOCK))
        kept[0].call_at(SYSTEM_CLOCK.now_ns() + HOUR, nothing)

    async def orderly() -> None:
        timer = Timer.shared(SYSTEM_CLOCK)
        assert timer is not kept[0]
        assert len(timerfds()) <= 1
        await timer.sleep_until(SYSTEM_CLOCK.now_ns() + MS)
        timer.release()

    run(loop, forgetful())
    run(loop, orderly())
    kept[0].release()
    assert timerfds() == set()


@on_each_loop
def test_forgotten_timer_goes_with_its_loop(loop: str) -> None:
    """Not even a descriptor is left of a loop that was closed while something waited."""

    async def forgetful() -> None:
        Timer.shared(SYSTEM_CLOCK).call_at(SYSTEM_CLOCK.now_ns() + HOUR, nothing)

    run(loop, forgetful())
    gc.collect()
    assert timerfds() == set()
    assert len(Timer._by_place) == 0


def test_loops_in_two_threads_have_timers_of_their_own() -> None:
    """A callback must run on the loop that asked for it."""
    ran_in: list[bool] = []

    async def main() -> None:
        timer = Timer.shared(SYSTEM_CLOCK)
        here, done = threading.get_ident(), asyncio.get_running_loop().create_future()

        def callback() -> None:
            ran_in.append(threading.get_ident() == here)
            done.set_result(None)

        timer.call_at(SYSTEM_CLOCK.now_ns() + 5 * MS, callback)
        await done
        timer.release()

    threads = [threading.Thread(target=run, args=("asyncio", main())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ran_in == [True] * 4


# -- jumps --------------------------------------------------------------------------


async def test_step_is_told_before_due_callbacks(clock: VirtualClock, timer: Timer) -> None:
    """The scheduler must know that the clock was set before it judges what is late."""
    order: list[str] = []
    jumps: list[ClockJump] = []
    timer.on_jump(jumps.append)
    timer.on_jump(lambda jump: order.append(jump.kind))
    timer.call_at(clock.now_ns() + HOUR, lambda: order.append("due"))
    clock.step_clock(2 * 3600)
    await clock.settle()
    assert order == ["step", "due"]
    assert jumps == [ClockJump(kind="step", delta_ns=2 * HOUR, at_ns=clock.now_ns())]


async def test_set_back_is_told_at_once_and_nothing_is_early(clock: VirtualClock, timer: Timer) -> None:
    """An hour set back is an hour more to wait on the wall clock."""
    log, jumps = Log(clock), list[ClockJump]()
    timer.on_jump(jumps.append)
    timer.call_at(clock.now_ns() + S, log.note("due"))
    clock.step_clock(-3600)
    await clock.settle()
    assert [jump.delta_s for jump in jumps] == [-3600.0]
    await clock.run_for(3600)
    assert log.names == []
    await clock.run_for(1)
    assert log.names == ["due"]


async def test_suspend_is_told_apart_from_a_step(clock: VirtualClock, timer: Timer) -> None:
    """After sleep fire times were missed; after a step they may never have existed."""
    jumps: list[ClockJump] = []
    timer.on_jump(jumps.append)
    timer.call_at(clock.now_ns() + HOUR, nothing)
    clock.suspend("8h")
    clock.step_clock(-60)
    await clock.settle()
    assert [(jump.kind, jump.delta_s) for jump in jumps] == [("suspend", 8 * 3600.0), ("step", -60.0)]


async def test_sleep_alone_is_no_step(clock: VirtualClock, timer: Timer) -> None:
    """A machine that slept shows a wall far ahead of the monotonic clock, and nobody has set it."""
    jumps: list[ClockJump] = []
    timer.on_jump(jumps.append)
    timer.call_at(clock.now_ns() + HOUR, nothing)
    clock.suspend("8h")
    await clock.settle()
    assert [jump.kind for jump in jumps] == ["suspend"]


async def test_corrections_of_a_second_are_no_jump(clock: VirtualClock, timer: Timer) -> None:
    """Time servers correct clocks all day; only what exceeds a second makes schedules be planned anew."""
    jumps: list[ClockJump] = []
    timer.on_jump(jumps.append)
    timer.call_at(clock.now_ns() + HOUR, nothing)
    clock.step_clock(1)
    await clock.settle()
    clock.step_clock(-1)
    await clock.settle()
    assert jumps == []


async def test_step_while_nobody_waited_is_told_to_the_next_one(clock: VirtualClock, timer: Timer) -> None:
    """An idle timer never wakes, so it looks when it is used again, and tells from the loop, not from within."""
    jumps: list[ClockJump] = []
    timer.on_jump(jumps.append)
    clock.step_clock(-7200)
    await clock.settle()
    assert jumps == []
    timer.call_at(clock.now_ns() + HOUR, nothing)
    assert jumps == []
    await clock.settle()
    assert [jump.delta_s for jump in jumps] == [-7200.0]


async def test_listener_that_raises_or_leaves_harms_nobody(clock: VirtualClock, timer: Timer) -> None:
    """Each listener stands for itself; ending one of two equal ones leaves the other."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    jumps: list[ClockJump] = []
    timer.on_jump(fail)
    listener = jumps.append
    end = timer.on_jump(listener)
    timer.on_jump(listener)
    end()
    end()
    timer.call_at(clock.now_ns() + HOUR, nothing)
    clock.step_clock(60)
    await clock.settle()
    assert len(jumps) == 1
    assert ["clock jump listener" in context["message"] for context in told] == [True]


class StoppedProcess(SystemClock):
    """A machine on which the process is stopped for a minute between two reads of the clocks."""

    def __init__(self) -> None:
        super().__init__()
        self.stop_in = 0
        self._stopped_ns = 0

    def now_ns(self) -> int:
        return self._read()

    def monotonic_ns(self) -> int:
        return self._read()

    def boottime_ns(self) -> int:
        return self._read()

    def _read(self) -> int:
        self.stop_in -= 1
        if self.stop_in == 0:
            self._stopped_ns += 60 * S
        return time.monotonic_ns() + self._stopped_ns

    def open_alarm(self, loop: asyncio.AbstractEventLoop, on_wake: Callable[[], None]) -> Alarm:
        return SystemClock(timerfd=False).open_alarm(loop, on_wake)


@pytest.mark.parametrize("stop_in", [2, 3, 4])
async def test_process_stopped_while_it_reads_is_no_jump(stop_in: int) -> None:
    """Three clocks cannot be read at once; a pause in between (SIGSTOP, a busy host) looks like a step."""
    clock = StoppedProcess()
    timer = Timer.shared(clock)
    jumps: list[ClockJump] = []
    timer.on_jump(jumps.append)
    clock.stop_in = stop_in
    timer._wake()
    timer._wake()
    assert clock.stop_in < 0
    assert jumps == []
    timer.release()


# -- getting ready ------------------------------------------------------------------


class SpunClock(VirtualClock):
    """A virtual clock with a lead, on which each look at the wall takes 100 ns: who spins gets there."""

    lead_ns = 200_000
    spun_back_ns = 0

    def now_ns(self) -> int:
        self._mono += 100
        if self.spun_back_ns and self.next_alarm_ns() is None:  # the alarm has rung: this is the spinning
            self._wall_ahead -= self.spun_back_ns
            self.spun_back_ns = 0
        return super().now_ns()


@pytest.fixture
async def spun() -> AsyncIterator[SpunClock]:
    with virtual_loop(SpunClock()) as clock:
        assert isinstance(clock, SpunClock)
        yield clock


async def test_wakes_ahead_to_be_ready_at_the_instant(spun: SpunClock) -> None:
    """What need not wait for the instant is done before it; the callback still is not a nanosecond early."""
    timer, log = Timer.shared(spun), list[tuple[str, int]]()
    due = spun.now_ns() + S
    timer.call_at(
        due, lambda: log.append(("due", spun.now_ns() - due)), lambda: log.append(("ready", spun.now_ns() - due))
    )
    await spun.run_for(2)
    timer.release()
    (first, ahead), (second, after) = log
    assert (first, second) == ("ready", "due")
    assert -spun.lead_ns <= ahead < 0
    assert 0 <= after < 1_000


async def test_short_waits_are_not_spun(spun: SpunClock) -> None:
    """A callback every few milliseconds would keep a processor busy with waiting."""
    timer, log = Timer.shared(spun), list[str]()
    timer.call_at(spun.now_ns() + 4 * MS, lambda: log.append("due"), lambda: log.append("ready"))
    await spun.run_for(1)
    timer.release()
    assert log == ["due"]


async def test_clock_set_back_while_getting_ready_ends_the_spinning(spun: SpunClock) -> None:
    """The loop must not stand for the hour that was put back; the callback keeps to the wall."""
    timer, log = Timer.shared(spun), list[int]()
    due = spun.now_ns() + S
    timer.call_at(due, lambda: log.append(spun.now_ns() - due), lambda: setattr(spun, "spun_back_ns", HOUR))
    await spun.run_for(2)
    assert log == []
    assert due - spun.now_ns() > HOUR - 2 * S
    await spun.run_for("1h")
    timer.release()
    assert len(log) == 1
    assert 0 <= log[0] < MS


async def test_cancelled_while_getting_ready_is_not_run(spun: SpunClock) -> None:
    """The preparation may find that there is nothing to do, and say so; what it raises harms nobody."""
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    timer, log = Timer.shared(spun), list[str]()
    handle = timer.call_at(spun.now_ns() + S, lambda: log.append("cancelled"), lambda: handle.cancel())  # noqa: PLW0108  # it is being made
    timer.call_at(spun.now_ns() + 2 * S, lambda: log.append("due"), fail)
    await spun.run_for(3)
    timer.release()
    assert log == ["due"]
    assert ["timer preparation" in context["message"] for context in told] == [True]


# -- real time ----------------------------------------------------------------------


@on_each_loop
@on_each_alarm
def test_never_early_and_in_order_on_real_loops(loop: str, timerfd: bool) -> None:
    """Timers of uvloop ring up to a millisecond early, the kernel's round: none of it may show."""
    clock = SystemClock(timerfd=timerfd)

    async def main() -> None:
        timer = Timer.shared(clock)
        began = clock.now_ns()
        dues = [began + 2 * MS + index * 3 * MS + index * 137_911 for index in range(30)]
        ran: list[tuple[int, int]] = []
        for due in reversed(dues):
            timer.call_at(due, lambda due=due: ran.append((due, clock.now_ns())))  # type: ignore[misc]
        await timer.sleep_until(dues[-1] + 1)
        timer.release()
        assert [due for due, _ in ran] == dues
        assert [due for due, at in ran if at < due] == []

    run(loop, main())


@pytest.mark.skipif(sys.platform != "linux", reason="counts turns through a timerfd")
@on_each_loop
def test_idle_timer_never_wakes_the_loop(loop: str) -> None:
    """A waiting timer rings each 30 seconds; one that nobody waits on must not ring at all."""

    async def main() -> None:
        timer = Timer.shared(SYSTEM_CLOCK)
        timer.call_at(SYSTEM_CLOCK.now_ns() + HOUR, nothing).cancel()
        woken: list[int] = []
        timer._look_at_clocks = lambda: woken.append(1)  # type: ignore[method-assign]
        await asyncio.sleep(0.02)
        assert woken == []
        assert timer._alarm._due_ns is None  # type: ignore[attr-defined]
        timer.release()

    run(loop, main())
