"""Virtual time on a running loop: what moves it, what holds it, and that nothing of it stays."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack._durations import Seconds
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import InvalidOption, NaiveDatetime, UsageError
from quarterjack.testing import _loop as loop_module
from quarterjack.testing._clock import VirtualClock
from quarterjack.testing._loop import virtual_loop
from quarterjack.timer import Timer

S = 1_000_000_000
HOUR = 3600 * S


@pytest.fixture
async def clock() -> AsyncIterator[VirtualClock]:
    with virtual_loop() as clock:
        yield clock


def nothing() -> None:
    """Be a callback that nobody listens to."""


async def run_for_ever() -> None:
    while True:  # it is the many sleeps that matter
        await asyncio.sleep(3600)


def elapsed(clock: VirtualClock, since: int) -> float:
    return (clock.monotonic_ns() - since) / S


# -- starting -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "tz", "shown"),
    [
        ("2026-03-29T00:30Z", None, "2026-03-29T00:30:00+00:00"),
        ("2026-03-29T00:30+02:00", None, "2026-03-28T22:30:00+00:00"),
        ("2026-03-29T00:30", "Europe/Rome", "2026-03-28T23:30:00+00:00"),
        (datetime(2026, 3, 29, 12, tzinfo=UTC), "Europe/Rome", "2026-03-29T12:00:00+00:00"),
    ],
)
def test_starts_at_the_instant_it_is_given(start: datetime | str, tz: str | None, shown: str) -> None:
    """A test is about one moment in history, and says so in its own zone."""
    assert VirtualClock(start, tz=tz).now().isoformat() == shown


def test_start_without_a_zone_is_refused() -> None:
    """A naive start would make the test depend on where it runs."""
    with pytest.raises(NaiveDatetime, match="tz="):
        VirtualClock("2026-03-29T00:30")


@pytest.mark.parametrize(("start", "tz"), [("tomorrow", None), ("2026-03-29T00:30", "Europe/Room")])
def test_start_that_is_no_instant_is_refused(start: str, tz: str | None) -> None:
    """A misspelt date or zone is told as such."""
    with pytest.raises(InvalidOption):
        VirtualClock(start, tz=tz)


# -- moving -------------------------------------------------------------------------


async def test_awaiting_moves_time(clock: VirtualClock) -> None:
    """Anything a test awaits makes time go on by itself, without waiting for it."""
    began, real = clock.monotonic_ns(), time.monotonic()
    await asyncio.sleep(86_400)
    assert clock.monotonic_ns() - began == 86_400 * S
    assert time.monotonic() - real < 60


async def test_time_moves_only_when_nothing_else_is_to_do(clock: VirtualClock) -> None:
    """Work takes no virtual time: who polls in a busy loop sees the same instant throughout."""
    sleeper = asyncio.create_task(asyncio.sleep(0.001))
    began = clock.now_ns()
    for _ in range(1000):
        await asyncio.sleep(0)
    assert clock.now_ns() == began
    assert not sleeper.done()
    await sleeper


async def test_loop_and_clock_show_the_same_time(clock: VirtualClock) -> None:
    """Code that counts by ``loop.time()`` lives in the same world."""
    loop = asyncio.get_running_loop()
    assert loop.time() == clock.monotonic()
    await asyncio.sleep(12.5)
    assert loop.time() == clock.monotonic()


async def test_timers_of_the_loop_are_exact_to_the_nanosecond(clock: VirtualClock) -> None:
    """Tenths of seconds are no floats; their sums must not creep."""
    began = clock.now_ns()
    for _ in range(1000):
        await asyncio.sleep(0.1)
    assert clock.now_ns() - began == 100 * S
    await asyncio.sleep(137e-9)
    assert clock.now_ns() - began == 100 * S + 137


async def test_many_at_one_instant_all_run_at_it(clock: VirtualClock) -> None:
    """A thousand schedules on the hour fire on the hour, not one after the other."""
    due, seen = clock.now_ns() + HOUR, list[int]()
    timer = Timer.shared(clock)

    async def sleeper() -> None:
        await timer.sleep_until(due)
        await asyncio.sleep(0)
        seen.append(clock.now_ns())

    async with asyncio.TaskGroup() as group:
        for _ in range(1000):
            group.create_task(sleeper())
    timer.release()
    assert seen == [due] * 1000


async def test_timeouts_strike_in_virtual_time(clock: VirtualClock) -> None:
    """The timeouts of asyncio are part of the world."""
    began = clock.monotonic_ns()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3600):
            await asyncio.Event().wait()
    assert elapsed(clock, began) == 3600


async def test_a_year_of_hours_is_exact(clock: VirtualClock) -> None:
    """Long runs are what virtual time is for; no error may add up over them."""
    timer, due = Timer.shared(clock), clock.now_ns()
    for _ in range(8_760):
        due += HOUR
        await timer.sleep_until(due)
        assert clock.now_ns() == due
    timer.release()
    assert clock.now().isoformat() == "2027-01-01T00:00:00+00:00"


async def test_sleeping_for_ever_moves_nothing(clock: VirtualClock) -> None:
    """Infinite and absurdly long sleeps are ways to say "never": the world must not jump there."""
    sleepers = [asyncio.create_task(asyncio.sleep(for_ever)) for for_ever in (math.inf, 1e11)]
    loop = asyncio.get_running_loop()
    came = loop.create_future()
    threading.Timer(0.03, loop.call_soon_threadsafe, (came.set_result, None)).start()
    await came
    assert clock.now().isoformat() == "2026-01-01T00:00:00+00:00"
    for sleeper in sleepers:
        sleeper.cancel()


@settings(max_examples=200, deadline=None)
@given(
    far=st.floats(0, 5e9, allow_nan=False),
    delays=st.lists(st.floats(1e-9, 10.0, allow_nan=False), min_size=1, max_size=5),
)
def test_floats_never_stop_time_nor_run_it_wild(far: float, delays: list[float]) -> None:
    """After centuries a float of seconds is coarse: sleeps must still end, and take about what was asked."""

    async def main() -> None:
        with virtual_loop() as clock:
            await clock.run_for(timedelta(seconds=far))
            grain = 1e-6 if far < 2e9 else 2e-6
            for delay in delays:
                began = clock.monotonic_ns()
                await asyncio.sleep(delay)
                assert abs(elapsed(clock, began) - delay) <= grain

    asyncio.run(asyncio.wait_for(main(), 30))


# -- driving ------------------------------------------------------------------------


async def test_run_until_settles_everything_due_up_to_it(clock: VirtualClock) -> None:
    """What is due at the very instant, and what comes of it in many turns, is done on return."""
    until, done = clock.now_ns() + HOUR, list[str]()

    async def chain() -> None:
        await asyncio.sleep(3600)
        for _ in range(20):
            await asyncio.sleep(0)
        await asyncio.to_thread(time.sleep, 0.01)
        done.append("due")
        await asyncio.sleep(0.001)
        done.append("too late")

    task = asyncio.create_task(chain())
    await clock.run_until(until)
    assert done == ["due"]
    assert clock.now_ns() == until
    await task


@pytest.mark.parametrize(
    "until", ["2026-01-01T01:00+01:00", datetime(2026, 1, 1, 0, tzinfo=UTC), 1_767_225_600_000_000_000]
)
async def test_run_until_takes_what_people_write(clock: VirtualClock, until: datetime | str | int) -> None:
    """Text with an offset, aware datetimes and nanoseconds are the same instant; now is fine."""
    await clock.run_until(until)
    assert clock.now().isoformat() == "2026-01-01T00:00:00+00:00"


async def test_run_until_the_past_is_refused(clock: VirtualClock) -> None:
    """It could only return with the clock showing something else."""
    await clock.run_for(1)
    with pytest.raises(InvalidOption, match="past"):
        await clock.run_until("2026-01-01T00:00Z")


async def test_run_for_counts_elapsed_time(clock: VirtualClock) -> None:
    """A clock that is set meanwhile changes what the wall shows, not how long an hour is."""
    asyncio.get_running_loop().call_later(60, clock.step_clock, -7200)
    began = clock.monotonic_ns()
    await clock.run_for("1h")
    assert elapsed(clock, began) == 3600
    assert clock.now().isoformat() == "2025-12-31T23:00:00+00:00"


async def test_two_may_drive_at_once(clock: VirtualClock) -> None:
    """Each returns at its own instant; a cancelled one is forgotten."""
    seen: dict[str, int] = {}

    async def drive(name: str, hours: int) -> None:
        await clock.run_for(timedelta(hours=hours))
        seen[name] = clock.now().hour

    given_up = asyncio.create_task(drive("given up", 1))
    asyncio.get_running_loop().call_later(60, given_up.cancel)
    await asyncio.gather(drive("three", 3), drive("two", 2))
    assert seen == {"two": 2, "three": 3}


async def test_settle_moves_nothing(clock: VirtualClock) -> None:
    """It finishes what is due now and leaves the next instant alone."""
    done: list[str] = []
    loop = asyncio.get_running_loop()
    loop.call_later(0, done.append, "now")
    loop.call_later(0.001, done.append, "later")
    before = clock.now_ns()
    await clock.settle()
    assert done == ["now"]
    assert clock.now_ns() == before


async def test_who_still_waits_at_the_end_is_told() -> None:
    """A driver left behind would hang for ever once nothing moves the clock."""
    with virtual_loop() as clock:
        left = asyncio.create_task(clock.run_for("1h"))
        await asyncio.sleep(0)
    with pytest.raises(UsageError, match="virtual time ended"):
        await left


# -- the wall -----------------------------------------------------------------------


async def test_step_moves_the_wall_alone(clock: VirtualClock) -> None:
    """Nobody waits longer or shorter for elapsed time because the clock was set."""
    mono, boot = clock.monotonic_ns(), clock.boottime_ns()
    clock.step_clock(timedelta(days=-1))
    assert clock.now().isoformat() == "2025-12-31T00:00:00+00:00"
    assert (clock.monotonic_ns(), clock.boottime_ns()) == (mono, boot)


@pytest.mark.parametrize("delta", ["-1h", -3600, -3600.0, timedelta(hours=-1)])
async def test_step_takes_what_people_write(clock: VirtualClock, delta: Seconds | str) -> None:
    """Back and forth, in the same words as everywhere."""
    clock.step_clock(delta)
    clock.step_clock("2h")
    assert clock.now().isoformat() == "2026-01-01T01:00:00+00:00"


@pytest.mark.parametrize("delta", [math.nan, "soon", None, True])
async def test_step_that_is_no_span_is_refused(clock: VirtualClock, delta: Any) -> None:
    """A bare TypeError from within says nothing."""
    with pytest.raises(InvalidOption):
        clock.step_clock(delta)


async def test_suspend_moves_wall_and_boot_time(clock: VirtualClock) -> None:
    """A laptop that slept finds the wall ahead and its own timers where they were."""
    mono, boot = clock.monotonic_ns(), clock.boottime_ns()
    clock.suspend("8h")
    assert clock.now().isoformat() == "2026-01-01T08:00:00+00:00"
    assert clock.monotonic_ns() == mono
    assert clock.boottime_ns() - boot == 8 * HOUR


# -- what holds time ----------------------------------------------------------------


async def test_time_stands_still_while_a_thread_works(clock: VirtualClock) -> None:
    """A thread works in real time: no virtual timeout may strike meanwhile."""
    began = clock.monotonic_ns()
    async with asyncio.timeout(1):
        await asyncio.to_thread(time.sleep, 0.03)
        await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.03)
        with ThreadPoolExecutor() as pool:
            await asyncio.get_running_loop().run_in_executor(pool, time.sleep, 0.03)
    assert clock.monotonic_ns() == began


async def test_cancelled_call_holds_until_its_thread_is_done(clock: VirtualClock) -> None:
    """Cancelling the wait does not stop the thread, so time must go on standing."""
    go, began = threading.Event(), clock.monotonic_ns()
    call = asyncio.create_task(asyncio.to_thread(go.wait))
    while clock.holds < 2:  # for the call, and for the thread that has begun it
        await asyncio.sleep(0)
    call.cancel()
    sleeper = asyncio.create_task(asyncio.sleep(1))
    threading.Timer(0.03, go.set).start()
    while not go.is_set():
        assert clock.monotonic_ns() == began
        await asyncio.sleep(0)
    await sleeper
    assert elapsed(clock, began) == 1


async def test_executor_that_refuses_holds_nothing(clock: VirtualClock) -> None:
    """A closed pool raises; time must not stand still for a call that never was."""
    pool = ThreadPoolExecutor()
    pool.shutdown()
    with pytest.raises(RuntimeError, match="shutdown"):
        await asyncio.get_running_loop().run_in_executor(pool, list)
    assert clock.holds == 0


async def test_hold_keeps_time_and_its_release_wakes_the_loop(clock: VirtualClock) -> None:
    """Executors hold while they work; released from another thread, the loop goes on at once."""
    began, released = clock.monotonic_ns(), list[bool]()
    hold = clock.hold()

    def work() -> None:
        time.sleep(0.03)
        released.append(clock.monotonic_ns() == began)
        hold.release()
        hold.release()  # once counts

    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.sleep(3600)
    thread.join()
    assert released == [True]
    assert elapsed(clock, began) == 3600
    assert clock.holds == 0


async def test_holds_add_up(clock: VirtualClock) -> None:
    """Time moves when the last one is released."""
    moved = asyncio.create_task(asyncio.sleep(1))
    with clock.hold():
        with clock.hold():
            pass
        for _ in range(100):
            await asyncio.sleep(0)
        assert not moved.done()
    await moved


async def test_advance_moves_time_although_it_is_held(clock: VirtualClock) -> None:
    """A body that only ends when told that its timeout struck needs time to go on while it works."""
    told, began = threading.Event(), clock.monotonic_ns()
    asyncio.get_running_loop().call_later(5, told.set)
    body = asyncio.create_task(asyncio.to_thread(told.wait))
    await clock.advance(10)
    assert elapsed(clock, began) == 10
    assert await body


async def test_calls_from_other_threads_are_seen_before_time_moves_on(clock: VirtualClock) -> None:
    """With endless timers to run, a call from outside must still get its turn soon."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    threading.Timer(0.01, loop.call_soon_threadsafe, (stop.set,)).start()
    turns = 0
    while not stop.is_set():
        await asyncio.sleep(3600)
        turns += 1
        assert clock.monotonic_ns() > 0
    assert turns > 1


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="needs signals")
async def test_signals_are_seen_while_time_runs(clock: VirtualClock) -> None:
    """Signal handlers of the loop come through its self-pipe, which is polled now and then."""
    seen = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, seen.set)
    os.kill(os.getpid(), signal.SIGUSR1)
    for _ in range(100):
        await asyncio.sleep(60)
    asyncio.get_running_loop().remove_signal_handler(signal.SIGUSR1)
    assert seen.is_set()
    assert clock.holds == 0


async def test_sockets_get_a_real_chance() -> None:
    """A local peer's answer arrives before virtual time runs out; it is polled for, each time anew."""
    with virtual_loop(io_grace=0.25) as clock:  # enough for a machine that is busy with something else
        await talk_to_a_peer_that_falls_silent(clock)


async def talk_to_a_peer_that_falls_silent(clock: VirtualClock) -> None:
    here, there = socket.socketpair()
    there_reader = threading.Thread(target=lambda: [there.send(there.recv(1)) for _ in range(20)])
    there_reader.start()
    reader, writer = await asyncio.open_connection(sock=here)
    began = clock.monotonic_ns()
    async with asyncio.timeout(1):
        for _ in range(20):
            writer.write(b"?")
            assert await reader.readexactly(1) == b"?"
    assert clock.monotonic_ns() == began
    with pytest.raises(TimeoutError):  # a silent peer does not keep time from moving
        async with asyncio.timeout(3600):
            await reader.readexactly(1)
    writer.close()
    await writer.wait_closed()
    there_reader.join()
    there.close()


async def test_real_timers_are_not_taken_for_sockets(clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel timer of the system's clock in the same loop must not slow each jump down."""
    timer = Timer.shared(SYSTEM_CLOCK)
    timer.call_at(SYSTEM_CLOCK.now_ns() + HOUR, nothing)
    polled: list[float | None] = []

    def poll(timeout: float | None) -> list[Any]:
        polled.append(timeout)
        return []

    monkeypatch.setattr(clock._driver, "_poll", poll)
    for _ in range(64):
        await asyncio.sleep(1)
    timer.release()
    assert set(polled) <= {0}


async def test_alarms_of_a_loop_in_another_thread_ring_too(clock: VirtualClock) -> None:
    """A LoopThread waits on the same clock; time waits until its callback has run."""
    dues = [clock.now_ns() + hours * HOUR for hours in (1, 2, 3)]
    seen: list[int] = []
    ready = threading.Event()

    async def elsewhere() -> None:
        timer = Timer.shared(clock)
        done = asyncio.get_running_loop().create_future()
        for due in dues:
            timer.call_at(due, lambda: seen.append(clock.now_ns()))
        timer.call_at(dues[-1], lambda: done.set_result(None))
        ready.set()
        await done
        timer.release()

    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
    thread.start()
    await asyncio.to_thread(ready.wait)
    await clock.run_for("4h")
    await asyncio.to_thread(thread.join)
    assert seen == dues


async def test_alarm_of_a_closed_loop_is_forgotten(clock: VirtualClock) -> None:
    """A thread's loop that ended without a release must not stop time."""
    due = clock.now_ns() + HOUR

    async def elsewhere() -> None:
        Timer.shared(clock).call_at(due, nothing)

    await asyncio.to_thread(asyncio.run, elsewhere())
    await clock.run_for("2h")
    assert clock.holds == 0
    assert clock._alarms == ()


async def test_alarm_set_in_another_thread_wakes_a_loop_that_waits_for_nothing(clock: VirtualClock) -> None:
    """Time has nowhere to go until the other thread says where: that must be heard."""
    loop = asyncio.get_running_loop()
    came = loop.create_future()

    async def elsewhere() -> None:
        await asyncio.sleep(0.03)  # real: by then the driven loop sleeps in its selector
        timer = Timer.shared(clock)
        await timer.sleep_until(clock.now_ns() + HOUR)
        timer.release()
        loop.call_soon_threadsafe(came.set_result, clock.now().isoformat())

    thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
    thread.start()
    assert await came == "2026-01-01T01:00:00+00:00"
    await asyncio.to_thread(thread.join)


async def test_closed_alarm_is_silent_even_if_it_was_ringing(clock: VirtualClock) -> None:
    """What closes an alarm must not be called by it any more."""
    rang: list[int] = []
    alarm = clock.open_alarm(asyncio.get_running_loop(), lambda: rang.append(1))
    alarm.set(clock.now_ns())
    alarm.close()
    await clock.settle()
    assert rang == []


# -- standing still -----------------------------------------------------------------


async def test_standstill_is_told_with_those_who_wait(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A test that waits for what never comes says where, once, instead of hanging in silence."""
    monkeypatch.setattr(loop_module, "_PATIENCE_S", 0.02)
    came = asyncio.get_running_loop().create_future()
    threading.Timer(0.2, asyncio.get_running_loop().call_soon_threadsafe, (came.set_result, None)).start()
    with caplog.at_level(logging.WARNING, "quarterjack.testing"):
        await came
    (record,) = caplog.records
    assert "no timer is set" in record.getMessage()
    assert "test_virtual_loop.py" in record.getMessage()
    assert clock.holds == 0


async def test_standstill_under_a_hold_names_the_hold(
    clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A hold that is never released is the likeliest reason, so it is the one named."""
    monkeypatch.setattr(loop_module, "_PATIENCE_S", 0.02)
    threading.Timer(0.1, clock.hold().release).start()
    with caplog.at_level(logging.WARNING, "quarterjack.testing"):
        await asyncio.sleep(1)
    assert ["held 1 times" in record.getMessage() for record in caplog.records] == [True]


# -- coming and going ---------------------------------------------------------------


async def test_leaves_the_loop_as_it_was() -> None:
    """The loop belongs to whoever made it: no attribute of it may remember us."""
    loop: Any = asyncio.get_running_loop()

    def attributes() -> dict[str, object]:
        ours = "_scheduled", "_timer_cancelled_count", "_default_executor"  # change by being used
        found: dict[str, object] = {**vars(loop), **vars(loop._selector)}
        return {name: value for name, value in found.items() if name not in ours}

    before = attributes()
    with virtual_loop() as clock:
        await asyncio.sleep(3600)
        await asyncio.to_thread(list)
        assert attributes() != before
    assert attributes() == before
    assert abs(loop.time() - time.monotonic()) < 1
    with pytest.raises(UsageError, match="no loop drives"):
        await clock.run_for(1)


async def test_leaves_the_loop_as_it_was_after_an_error() -> None:
    """A failing test must not hand a virtual loop to the next one."""
    with pytest.raises(ZeroDivisionError), virtual_loop():
        raise ZeroDivisionError
    assert abs(asyncio.get_running_loop().time() - time.monotonic()) < 1


async def test_timers_that_are_left_keep_what_they_had_left() -> None:
    """A timer set inside for ten seconds, six of which have passed, has four to go outside."""
    loop = asyncio.get_running_loop()
    with virtual_loop():
        handle = loop.call_later(10, list)
        await asyncio.sleep(6)
    assert 3.5 < handle.when() - loop.time() <= 4.01
    handle.cancel()


async def test_timeout_around_the_block_counts_real_time() -> None:
    """A guard around a test must survive a year of virtual time, and must strike when the test runs wild."""
    began = time.monotonic()

    async def run_wild() -> None:
        with virtual_loop() as clock:
            await clock.run_for("365d")
            assert time.monotonic() - began < 0.2
            await run_for_ever()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(run_wild(), 0.2)
    assert time.monotonic() - began >= 0.19


async def test_timeout_around_the_block_strikes_when_nothing_happens() -> None:
    """A loop that sleeps in the real selector still has an eye on it."""

    async def hang() -> None:
        with virtual_loop():
            await asyncio.get_running_loop().create_future()

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(hang(), 0.05)


async def test_outer_timers_that_did_not_strike_go_on_afterwards() -> None:
    """They are put back where they were, those cancelled meanwhile too."""
    loop = asyncio.get_running_loop()
    struck = loop.create_future()
    kept = loop.call_later(0.05, struck.set_result, "kept")
    dropped = loop.call_later(0.05, struck.set_result, "dropped")
    with virtual_loop():
        dropped.cancel()
        await asyncio.sleep(3600)
        assert not struck.done()
    assert await struck == "kept"
    assert kept.when() <= loop.time()


async def test_nesting_is_refused() -> None:
    """Two clocks cannot drive one loop, nor one clock two blocks; both say so."""
    clock = VirtualClock()
    with virtual_loop(clock):
        with pytest.raises(UsageError, match="nested"), virtual_loop():
            pass
        await asyncio.sleep(1)
    with virtual_loop(clock):  # one after the other is fine
        await asyncio.sleep(1)
    assert clock.now().isoformat() == "2026-01-01T00:00:02+00:00"


async def test_one_clock_drives_one_loop(clock: VirtualClock) -> None:
    """Two loops that both believe to drive would jump over each other's work; the second stays as it was."""

    async def elsewhere() -> None:
        with pytest.raises(UsageError, match="drives a loop already"), virtual_loop(clock):
            pass
        assert "time" not in vars(asyncio.get_running_loop())

    await asyncio.to_thread(asyncio.run, elsewhere())


def test_uvloop_is_refused_with_the_way_out() -> None:
    """Its time cannot be taken over; the message says what to do."""

    async def main() -> None:
        with pytest.raises(UsageError, match=r"not uvloop\.Loop"), virtual_loop():
            pass

    uvloop.run(main())


def test_clock_without_a_loop_says_so() -> None:
    """An alarm that can never ring is refused rather than waited for."""

    async def main() -> None:
        with pytest.raises(UsageError, match="virtual_loop"):
            Timer.shared(VirtualClock())

    asyncio.run(main())


def test_works_in_asyncios_debug_mode(caplog: pytest.LogCaptureFixture) -> None:
    """Debug mode checks threads and times callbacks by the loop's clock: hours must not look like slow callbacks."""

    async def main() -> None:
        with virtual_loop() as clock:
            timer = Timer.shared(clock)
            await asyncio.sleep(3600)
            await timer.sleep_until(clock.now_ns() + HOUR)
            await asyncio.to_thread(list)
            await clock.run_for("1d")
            timer.release()
        await asyncio.sleep(0)
        assert asyncio.get_running_loop().slow_callback_duration == 0.1

    asyncio.run(main(), debug=True)
    assert [record.getMessage() for record in caplog.records if "took" in record.getMessage()] == []
