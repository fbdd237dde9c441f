"""Limits of a fleet and what comes late: a start after its moment, an answer nobody waits for, a body left behind."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Gate,
    Job,
    JobState,
    SlidingWindow,
    TaskManager,
    Waiting,
    WrongLoop,
    fleet,
)
from quarterjack.flow._fleet import FleetRate
from quarterjack.flow._purse import CreditPurse
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.sliding_window import FleetSlidingWindow
from quarterjack.stores.memory import MemoryStore
from quarterjack.testing import VirtualClock, virtual_loop
from tests.flow.fleets import FORMS, Line, Place, entered


async def _when(clock: Any) -> float:
    return float(clock.monotonic())


async def _stay(clock: Any) -> float:
    began = float(clock.monotonic())
    await asyncio.sleep(60)
    return began


async def test_slots_of_bodies_that_were_left_behind_are_nobody_elses_before_their_lease_is_over() -> None:
    """A deploy must not double what runs: what a process leaves behind at its stop is at work still."""

    async def stubborn() -> None:
        for _ in range(2):
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(15)

    with virtual_loop() as clock:
        place = Place()
        async with AsyncExitStack() as stack:
            two = await entered(stack, ConcurrencyLimit(2, scope="fleet", name="l"), Line(place))
            Dispatcher._by_loop.pop(id(asyncio.get_running_loop()), None)
            async with TaskManager(ConcurrencyLimit(2, scope="fleet", name="l"), store=Line(place), grace=0) as one:
                one.submit(stubborn)
                await one.submit(asyncio.sleep, 1)
                await one.stop(drain=False)
            stopped = clock.monotonic()
            waits = [two.submit(_stay, clock) for _ in range(2)]
            times = [await job - stopped for job in waits]
            assert times[0] < 1
            assert 19 <= times[1] <= 31


async def admitted(purse: CreditPurse) -> None:
    """Wait until a job is let in whose body has not begun."""
    while not purse._spent:
        await asyncio.sleep(0)


async def test_start_that_came_late_counts_from_when_it_was() -> None:
    """A loop that stood still between the grant and the body would else let one more into the second after."""
    with virtual_loop() as clock:
        begin_later()
        place, gate = Place(), SlidingWindow(1, 1, scope="fleet", name="w")
        async with TaskManager(gate, store=Line(place)) as manager:
            assert isinstance(gate, FleetSlidingWindow)
            job = manager.submit(asyncio.sleep, 0)
            await admitted(gate._purse)
            clock.move_to(clock.monotonic_ns() + 500_000_000)
            await job
            began = clock.now_ns()
            await asyncio.sleep(0.01)
            (until,) = place.slots("log:w").values()
            assert until >= began + 10**9


@pytest.mark.parametrize(("kind", "limit"), [("SlidingWindow", "log:l"), ("FixedWindow", "window:l@")])
async def test_start_that_came_after_its_row_ran_out_counts_all_the_same(kind: str, limit: str) -> None:
    """It was made: in the time that follows there is room for one less, whatever became of what granted it."""
    with virtual_loop(start="2026-03-02T09:00:00Z") as clock:
        begin_later()
        place, gate = Place(), FORMS[kind](name="l", batch=1)
        async with TaskManager(gate, store=Line(place)) as manager:
            assert isinstance(gate, FleetRate)
            job = manager.submit(asyncio.sleep, 0)
            await admitted(gate._purse)
            clock.move_to(clock.monotonic_ns() + 31 * 10**9)
            await job
            since = clock.monotonic()
            await asyncio.sleep(0.01)
            assert sum(len(rows) for rows in place.slots_of(limit, clock.now_ns()).values()) == 1
            times = [await manager.submit(_when, clock) - since for _ in range(2)]
            assert times[0] == pytest.approx(0.01, abs=0.01)
            assert times[1] >= 8.9


class Slow(Gate):
    """Takes half a minute to say that it is open, once."""

    def __init__(self, clock: VirtualClock) -> None:
        super().__init__()
        self._clock, self._pause_ns = clock, 31 * 10**9

    def eta(self, job: Waiting, now: float) -> float:
        self._clock.move_to(self._clock.monotonic_ns() + self._pause_ns)
        self._pause_ns = 0
        return now


@pytest.mark.parametrize(("kind", "limit"), [("SlidingWindow", "log:l"), ("FixedWindow", "window:l@")])
async def test_start_whose_moment_passes_while_another_gate_is_asked_counts(kind: str, limit: str) -> None:
    """All gates are asked before any is taken, and a busy machine may stand still between the two."""
    with virtual_loop(start="2026-03-02T09:00:00Z") as clock:
        place, gate = Place(), FORMS[kind](name="l", batch=1)
        async with TaskManager(gate, Slow(clock), store=Line(place)) as manager:
            await manager.submit(asyncio.sleep, 0)
            await asyncio.sleep(0.01)
            assert sum(len(rows) for rows in place.slots_of(limit, clock.now_ns()).values()) == 1


@pytest.mark.parametrize(("kind", "limit"), [("SlidingWindow", "log:l"), ("FixedWindow", "window:l@")])
async def test_start_whose_moment_passes_while_the_store_is_asked_goes_back(kind: str, limit: str) -> None:
    """Nobody waits any more when the answer comes: what is left of the window belongs to the other processes."""
    with virtual_loop(start="2026-03-02T09:00:00Z") as clock:
        begin_later()
        place = Place()
        async with AsyncExitStack() as stack:
            own, other = Line(place), Line(place)
            gate = FORMS[kind](name="l", batch=1)
            one, two = await entered(stack, gate, own), await entered(stack, FORMS[kind](name="l"), other)
            await two.submit(asyncio.sleep, 0)
            assert isinstance(gate, FleetRate)
            unused = one.submit(asyncio.sleep, 0)
            await admitted(gate._purse)
            one._jobs.running().cancel(unused._record)  # type: ignore[arg-type]  # as above
            own.delay_s = 2.0
            heavy = one.options(cost=2).submit(asyncio.sleep, 0)
            await asyncio.sleep(1.5)
            await heavy.cancel()
            own.delay_s = 0.0
            await asyncio.sleep(1.5)
            rows = place.slots_of(limit, clock.now_ns())
            assert sum(map(len, rows.values())) == 1, "that of the other process"


@pytest.mark.parametrize("kind", ["SlidingWindow", "FixedWindow", "TokenBucket"])
async def test_job_that_never_began_leaves_its_start_to_the_next(kind: str) -> None:
    """It was let in and cancelled before its first line: nobody has seen it."""
    with virtual_loop(start="2026-03-02T09:00:00Z") as clock:
        begin_later()
        gate = FORMS[kind](name="l", batch=1)
        async with TaskManager(gate, store=Line(Place())) as manager:
            assert isinstance(gate, FleetRate)
            jobs = [manager.submit(_when, clock) for _ in range(3)]
            await admitted(gate._purse)
            manager._jobs.running().cancel(jobs[0]._record)  # type: ignore[arg-type]  # a manager's job has its run there
            since = clock.monotonic()
            assert [await job - since for job in jobs[1:]] == pytest.approx([0, 0], abs=0.001)


def begin_later() -> None:
    """Have bodies begin a turn of the loop after their admission, on every Python."""
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coro, **how: asyncio.Task(coro, loop=loop, **how))


async def test_gate_is_free_for_another_store_though_the_end_of_the_first_was_cancelled() -> None:
    """Whoever loses patience with a store that does not answer may still turn to another one."""
    with virtual_loop():
        place, gate = Place(), ConcurrencyLimit(1, scope="fleet", name="l")
        line = Line(place)

        async def hold() -> None:
            async with fleet(line, gate), gate:
                line.delay_s = 10.0

        holding = asyncio.create_task(hold())
        await asyncio.sleep(0.3)
        holding.cancel()
        await asyncio.wait({holding})
        assert holding.cancelled()
        async with fleet(Line(place), gate), asyncio.timeout(60), gate:
            assert len(place.slots("slots:l")) == 1


class Leisurely(MemoryStore):
    """A store that takes a second to close."""

    is_closed = False
    pause_s = 1.0

    async def close(self) -> None:
        await asyncio.sleep(self.pause_s)
        await super().close()
        self.is_closed = True


@pytest.mark.parametrize("cancels", [1, 2, 3, 4, 5])
async def test_end_that_is_cancelled_again_and_again_closes_all(cancels: int) -> None:
    """Who presses Ctrl-C twice waits no longer for bodies; the bug: the store stayed open and slots were renewed."""
    free, store = asyncio.Event(), Leisurely()
    jobs: list[Job[Any]] = []

    async def stubborn() -> None:
        while not free.is_set():
            with suppress(asyncio.CancelledError):
                await free.wait()

    async def note(job: Job[Any]) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.5)

    async def main() -> None:
        gate = ConcurrencyLimit(1, scope="fleet", name="l")
        async with TaskManager(gate, store=store, grace=60) as manager:
            jobs.append(manager.submit(stubborn))
            jobs[0].on_cancel(note)
            await asyncio.sleep(3600)

    with virtual_loop() as clock:
        running = asyncio.create_task(main())
        await asyncio.sleep(1)
        began = clock.monotonic()
        for _ in range(cancels):  # while bodies, then callbacks, then the slots, then the store are waited for
            running.cancel()
            await asyncio.sleep(0.3)
        await asyncio.wait({running})
        free.set()
        assert running.cancelled()
        assert store.is_closed
        assert jobs[0].state is JobState.CANCELLED
        assert (clock.monotonic() - began > 60) == (cancels == 1)
        assert cancels == 1 or clock.monotonic() - began < 5
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("fleet ")]


async def test_whoever_stops_it_too_comes_back_when_all_is_closed() -> None:
    """The block's end may find the store half closed, by a task that was told to stop the manager."""
    with virtual_loop():
        store = Leisurely()
        async with TaskManager(ConcurrencyLimit(1, scope="fleet", name="l"), store=store) as manager:
            stopping = asyncio.create_task(manager.stop())
            await asyncio.sleep(0.1)
        assert store.is_closed
        await stopping


def test_store_is_closed_if_the_block_cannot_be_entered() -> None:
    """Nobody else would: a block that was not entered is not left."""
    gate, store = ConcurrencyLimit(1), Leisurely()
    store.pause_s = 0.01  # these loops keep real time

    async def use() -> None:
        async with gate:
            pass

    async def enter() -> None:
        with pytest.raises(WrongLoop):
            async with TaskManager(gate, ConcurrencyLimit(1, scope="fleet", name="l"), store=store):
                pytest.fail("it holds a gate of another loop")
        assert store.is_closed  # the loop's own end would close it, too

    with asyncio.Runner() as one, asyncio.Runner() as other:
        one.run(use())
        other.run(enter())
