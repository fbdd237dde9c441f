"""``ticks()``: a trigger as an asynchronous iterator."""

from __future__ import annotations

import asyncio
import gc
import math
import os
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack._timerfd import PORTABLE, timerfds
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import InvalidOption, NaiveDatetime, NotPeriodic, UsageError
from quarterjack.policies.missed import MissedMode
from quarterjack.testing._clock import VirtualClock
from quarterjack.testing._loop import virtual_loop
from quarterjack.ticks import Tick, Ticks, ticks
from quarterjack.timer import Timer
from quarterjack.triggers import Every, Forever, Once, OnStartup, Trigger

S = 1_000_000_000
START = "2026-01-01T00:00:05Z"  # between two tens
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture
async def clock() -> AsyncIterator[VirtualClock]:
    with virtual_loop(start=START) as clock:
        yield clock


async def take(iterator: Ticks, count: int, body_s: float = 0.0) -> list[Tick]:
    """Return the next *count* ticks, with a body that takes *body_s* after each."""
    taken: list[Tick] = []
    async for tick in iterator:
        taken.append(tick)
        if len(taken) == count:
            break
        await asyncio.sleep(body_s)
    return taken


def seconds(taken: list[Tick]) -> list[int]:
    """Return the fire times, in seconds after midnight."""
    return [(tick.nominal - datetime(2026, 1, 1, tzinfo=UTC)) // timedelta(seconds=1) for tick in taken]


def missed(taken: list[Tick]) -> list[int]:
    return [tick.missed for tick in taken]


# -- on time ------------------------------------------------------------------------


async def test_ticks_come_at_their_fire_times(clock: VirtualClock) -> None:
    """Each at exactly its instant, counted from 0, whatever second it was asked in."""
    seen: list[tuple[Tick, int]] = []
    async for tick in ticks(Every(seconds=10), clock=clock):
        seen.append((tick, clock.now_ns()))
        if tick.index == 3:
            break
    assert seconds([tick for tick, _ in seen]) == [10, 20, 30, 40]
    assert [tick.nominal_ns for tick, _ in seen] == [now for _, now in seen]
    assert {(tick.lag, tick.missed) for tick, _ in seen} == {(0.0, 0)}


async def test_nominal_is_aware_utc(clock: VirtualClock) -> None:
    """A fire time names an instant, and prints as one."""
    (tick,) = await take(ticks(Every(seconds=10), clock=clock), 1)
    assert tick.nominal.isoformat() == "2026-01-01T00:00:10+00:00"
    assert tick.nominal.tzinfo is UTC


async def test_bodies_within_the_period_cause_no_drift(clock: VirtualClock) -> None:
    """The next fire time comes from the rule, not from when the body ended."""
    taken = await take(ticks(Every(seconds=10), clock=clock), 1000, body_s=9.9)
    assert seconds(taken) == list(range(10, 10_010, 10))
    assert missed(taken) == [0] * 1000


async def test_ends_with_its_trigger(clock: VirtualClock) -> None:
    """A trigger without further fire times ends the loop rather than hanging in it."""
    once = ticks(Once(at=datetime(2026, 1, 1, 0, 1, tzinfo=UTC)), clock=clock)
    assert seconds([tick async for tick in once]) == [60]
    assert [tick async for tick in once] == []


async def test_once_without_an_instant_fires_now_and_ends(clock: VirtualClock) -> None:
    """What a schedule would do at its creation, an iterator does at its first step."""
    assert seconds([tick async for tick in ticks(Once(), clock=clock)]) == [5]


async def test_counts_from_the_first_step_not_from_creation(clock: VirtualClock) -> None:
    """What passed before anybody asked is not missed."""
    iterator = ticks(Every(seconds=10), clock=clock)
    await asyncio.sleep(100)
    taken = await take(iterator, 1)
    assert (seconds(taken), missed(taken)) == ([110], [0])


@pytest.mark.parametrize(("start_s", "first", "left_out"), [(10, 10, 0), (11, 20, 0), (60, 60, 0), (-15, 0, 1)])
async def test_start_is_inclusive_and_may_lie_in_the_past(
    clock: VirtualClock, start_s: int, first: int, left_out: int
) -> None:
    """From an instant in the past on, what has gone by since counts as missed."""
    start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(seconds=start_s)
    taken = await take(ticks(Every(seconds=10), clock=clock, start=start), 1)
    assert (seconds(taken), missed(taken)) == ([first], [left_out])


async def test_start_in_the_future_holds_the_immediate_one_back(clock: VirtualClock) -> None:
    """What fires at creation fires at the start."""
    start = datetime(2026, 1, 1, 0, 0, 33, tzinfo=UTC)
    assert seconds([tick async for tick in ticks(Once(), clock=clock, start=start)]) == [33]


# -- late ---------------------------------------------------------------------------


async def test_a_single_late_one_is_served_with_its_lag(clock: VirtualClock) -> None:
    """One fire time that passed is late, not missed, in every mode."""
    modes: tuple[MissedMode, ...] = ("latest", "earliest", "all", "skip")
    for mode in modes:
        began = clock.now_ns()
        taken = await take(ticks(Every(minutes=1), clock=clock, missed=mode), 2, body_s=90)
        assert taken[1].nominal_ns - taken[0].nominal_ns == 60 * S
        assert (taken[1].lag, taken[1].missed) == (30.0, 0)
        assert clock.now_ns() > began


@pytest.mark.parametrize(
    ("mode", "nominals", "left_out", "lags"),
    [
        ("latest", [10, 30, 60, 80], [0, 1, 2, 1], [0, 5, 0, 5]),
        ("earliest", [10, 20, 40, 70], [0, 1, 2, 1], [0, 15, 20, 15]),
        ("all", [10, 20, 30, 40], [0, 0, 0, 0], [0, 15, 30, 45]),
        ("skip", [10, 40, 70, 100], [0, 2, 2, 2], [0, 0, 0, 0]),
    ],
)
async def test_body_longer_than_the_period(
    clock: VirtualClock, mode: MissedMode, nominals: list[int], left_out: list[int], lags: list[float]
) -> None:
    """Bodies of 25 seconds on a period of 10: the mode says which ticks they get, and each says what it left out."""
    taken = await take(ticks(Every(seconds=10), clock=clock, missed=mode), 4, body_s=25)
    assert seconds(taken) == nominals
    assert missed(taken) == left_out
    assert [tick.lag for tick in taken] == lags


async def test_catching_up_is_bounded(clock: VirtualClock) -> None:
    """After a day's outage ``all`` serves the newest few, and the first says how many are gone."""
    iterator = ticks(Every(minutes=1), clock=clock, missed="all", max_catchup=3)
    await anext(iterator)
    await asyncio.sleep(10 * 60)
    taken = await take(iterator, 4)
    assert seconds(taken) == [540, 600, 660, 720]
    assert missed(taken) == [7, 0, 0, 0]
    assert [tick.index for tick in taken] == [1, 2, 3, 4]


@settings(max_examples=100, deadline=None)
@given(
    mode=st.sampled_from(["latest", "earliest", "all", "skip"]),
    bodies=st.lists(st.integers(0, 80), min_size=2, max_size=12),
)
def test_every_fire_time_is_served_or_counted(mode: MissedMode, bodies: list[int]) -> None:
    """No fire time is doubled, out of order, early, or lost without a word."""

    async def main() -> None:
        with virtual_loop(start=START) as clock:
            iterator = ticks(Every(seconds=10), clock=clock, missed=mode)
            taken: list[Tick] = []
            for body_s in bodies:
                taken.append(await anext(iterator))
                assert clock.now_ns() >= taken[-1].nominal_ns
                await asyncio.sleep(body_s)
            nominals = seconds(taken)
            assert nominals == sorted(set(nominals))
            served_or_missed = len(taken) + sum(missed(taken))
            ready = len(iterator._ready)
            accounted = (iterator._cursor_ns - taken[0].nominal_ns) // (10 * S) + 1
            assert served_or_missed + ready == accounted

    asyncio.run(main())


# -- the clock is set -----------------------------------------------------------------


async def test_clock_set_back_repeats_nothing(clock: VirtualClock) -> None:
    """A fire time was served; that it comes again on the wall does not make it another one."""
    iterator = ticks(Every(minutes=10), clock=clock)
    before = await take(iterator, 2)
    clock.step_clock(-3600)
    after = await take(iterator, 2)
    assert seconds(before + after) == [600, 1200, 1800, 2400]
    assert clock.now().isoformat() == "2026-01-01T00:40:00+00:00"


async def test_clock_set_forward_misses_what_it_leapt_over(clock: VirtualClock) -> None:
    """The wait ends at once, and the tick says how many went by."""
    iterator = ticks(Every(minutes=10), clock=clock)
    await anext(iterator)
    asyncio.get_running_loop().call_later(60, clock.step_clock, 3 * 3600)
    mono = clock.monotonic_ns()
    tick = await anext(iterator)
    assert clock.monotonic_ns() - mono == 60 * S
    assert (seconds([tick]), tick.missed) == ([3 * 3600 + 600], 17)


async def test_suspend_is_as_a_late_body(clock: VirtualClock) -> None:
    """A laptop that slept through the night wakes to one tick."""
    iterator = ticks(Every(hours=1), clock=clock)
    waiting = asyncio.create_task(iterator.__anext__())
    await asyncio.sleep(60)
    clock.suspend("8h")
    tick = await waiting
    assert (seconds([tick]), tick.missed) == ([8 * 3600], 7)


# -- ending -------------------------------------------------------------------------


async def test_break_leaves_nothing_behind(clock: VirtualClock) -> None:
    """No alarm is left armed, no timer open, no task alive, although the iterator lives on."""
    iterator = ticks(Every(seconds=10), clock=clock)
    await take(iterator, 3)
    assert clock.next_alarm_ns() is None
    assert (id(asyncio.get_running_loop()), clock) not in Timer._by_place
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert seconds(await take(iterator, 1)) == [40]  # and it can be gone on with


async def test_cancelling_loses_no_tick(clock: VirtualClock) -> None:
    """The one that was waited for is served to the next who asks."""
    iterator = ticks(Every(minutes=1), clock=clock)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(10):
            await anext(iterator)
    assert clock.next_alarm_ns() is None
    assert seconds(await take(iterator, 1)) == [60]


@pytest.mark.parametrize("turns", range(6))
async def test_cancelling_at_any_turn_loses_no_tick(clock: VirtualClock, turns: int) -> None:
    """Nothing is taken from the iterator before its last await, so a cancel in between cannot drop it."""
    iterator = ticks(Every(seconds=10), clock=clock, missed="all")
    first = await anext(iterator)
    await asyncio.sleep(20)
    taken: list[Tick] = [first]
    while len(taken) < 3:
        waiting = asyncio.create_task(iterator.__anext__())
        for _ in range(turns):
            await asyncio.sleep(0)
        waiting.cancel()
        try:
            taken.append(await waiting)
        except asyncio.CancelledError:
            taken.append(await anext(iterator))
    assert seconds(taken) == [10, 20, 30]


async def test_closing_ends_a_wait(clock: VirtualClock) -> None:
    """Whoever owns the iterator can end the loop of another task that stands in it."""
    iterator = ticks(Every(hours=1), clock=clock)
    waiting = asyncio.create_task(take(iterator, 5))
    await asyncio.sleep(60)
    await iterator.aclose()
    assert await waiting == []
    assert clock.now().isoformat() == "2026-01-01T00:01:05+00:00"  # without waiting for the hour
    await iterator.aclose()
    assert clock.next_alarm_ns() is None
    assert [tick async for tick in iterator] == []


async def test_context_manager_closes(clock: VirtualClock) -> None:
    """For those who like to see the end in the code."""
    async with ticks(Every(seconds=10), clock=clock) as iterator:
        await anext(iterator)
    with pytest.raises(StopAsyncIteration):
        await anext(iterator)


async def test_one_reader_at_a_time(clock: VirtualClock) -> None:
    """Two tasks in one iterator would each get half of the ticks; better told than found out."""
    iterator = ticks(Every(seconds=10), clock=clock)
    waiting = asyncio.create_task(iterator.__anext__())
    await clock.settle()
    with pytest.raises(UsageError, match="each its own"):
        await anext(iterator)
    assert seconds([await waiting]) == [10]


# -- many ---------------------------------------------------------------------------


async def test_many_side_by_side_wait_on_one_timer(clock: VirtualClock) -> None:
    """A hundred loops cost one alarm and do not disturb each other's grid."""
    periods = range(1, 101)
    tasks = [asyncio.create_task(take(ticks(Every(seconds=period), clock=clock), 20)) for period in periods]
    began = clock.now_ns()
    await clock.settle()
    assert len(clock._alarms) == 1
    for period, task in zip(periods, tasks, strict=True):
        step = period * S
        first = (began // step + 1) * step
        assert [tick.nominal_ns for tick in await task] == list(range(first, first + 20 * step, step))


async def test_body_without_an_await_starves_nobody(clock: VirtualClock) -> None:
    """Catching up is done one turn at a time, so others get theirs, and a cancel is heard."""
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    iterator = ticks(Every(seconds=1), clock=clock, missed="all")
    await anext(iterator)
    await asyncio.sleep(50)
    task = asyncio.create_task(other())
    for _ in range(50):
        await anext(iterator)
    task.cancel()
    assert turns >= 49


# -- refused ------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", [Forever(), OnStartup()])
def test_triggers_without_fire_times_of_their_own_are_refused(trigger: Trigger) -> None:
    """They are known only to an application that sees their runs end."""
    with pytest.raises(NotPeriodic, match="use Every"):
        ticks(trigger)


def test_bad_arguments_are_refused_with_what_would_do() -> None:
    """At once, not at the first tick an hour later."""
    with pytest.raises(InvalidOption, match="trigger such as Every"):
        ticks(30)  # type: ignore[arg-type]  # what is tested
    with pytest.raises(InvalidOption, match="latest, earliest, all, skip"):
        ticks(Every(seconds=1), missed="newest")  # type: ignore[arg-type]  # what is tested
    with pytest.raises(InvalidOption, match="max_catchup"):
        ticks(Every(seconds=1), max_catchup=0)
    with pytest.raises(NaiveDatetime, match="tzinfo"):
        ticks(Every(seconds=1), start=datetime(2026, 1, 1))  # what is tested


# -- real time ----------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_on_the_real_clock(loop: str) -> None:
    """Never early, none missed or doubled on an idle machine's scale, and no descriptor left, break or not."""

    async def main() -> None:
        taken: list[Tick] = []
        async for tick in ticks(Every(milliseconds=20), missed="all"):
            assert SYSTEM_CLOCK.now_ns() >= tick.nominal_ns
            taken.append(tick)
            if tick.index == 9:
                break
        assert timerfds() == set()
        nominals = [tick.nominal_ns for tick in taken]
        assert nominals == [nominals[0] + index * 20_000_000 for index in range(10)]

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())


@pytest.mark.skipif(bool(os.environ.get(PORTABLE)), reason="timerfd is Linux's")
@pytest.mark.leaks("tasks")  # to be cancelled by the loop's end
@pytest.mark.parametrize("loop", LOOPS)
def test_loop_that_ends_in_the_middle_of_a_wait(loop: str) -> None:
    """The loop's end cancels the wait, and the descriptor goes; the iterator goes on in another loop."""
    iterator = ticks(Every(milliseconds=50))

    async def main() -> None:
        task = asyncio.create_task(take(iterator, 5))
        while not timerfds():  # until it waits
            await asyncio.sleep(0)
        del task

    for _ in range(2):
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(main())
        gc.collect()
        assert timerfds() == set()


@pytest.mark.parametrize(
    "options", [{"max_catchup": math.nan}, {"max_catchup": 1.5}, {"max_catchup": True}, {"start": "x"}], ids=str
)
def test_wrong_options_are_refused_in_our_words(options: dict[str, Any]) -> None:
    """An AttributeError from within says nothing."""
    with pytest.raises(InvalidOption):
        ticks(Every(seconds=1), **options)
