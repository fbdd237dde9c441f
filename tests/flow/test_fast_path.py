"""The fast path of passes without a job lets through whom the general way does, and the gates tell the same of it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import ConcurrencyLimit, FixedWindow, Flow, SlidingWindow, TaskManager, TokenBucket, Waiting
from quarterjack._fast import EAGER_TASKS
from quarterjack.flow._rate import RateGate
from quarterjack.flow.base import Gate
from quarterjack.flow.permit import Permit
from quarterjack.flow.room import WaitingRoom
from quarterjack.testing import VirtualClock, virtual_loop


class SlowLimit(ConcurrencyLimit):
    """Goes the general way, as each subclass does: it might say otherwise than its base."""


class SlowWindow(SlidingWindow):
    """As `SlowLimit`."""


class SlowFixed(FixedWindow):
    """As `SlowLimit`."""


class SlowBucket(TokenBucket):
    """As `SlowLimit`."""


MAKERS: dict[str, tuple[Callable[[], Gate], Callable[[], Gate]]] = {
    "limit": (lambda: ConcurrencyLimit(3), lambda: SlowLimit(3)),
    "window": (lambda: SlidingWindow(3, per=1), lambda: SlowWindow(3, per=1)),
    "smooth": (lambda: SlidingWindow(3, per=1, smooth=True), lambda: SlowWindow(3, per=1, smooth=True)),
    "fixed": (lambda: FixedWindow(3, per=1), lambda: SlowFixed(3, per=1)),
    "first": (lambda: FixedWindow(3, per=1, anchor="first"), lambda: SlowFixed(3, per=1, anchor="first")),
    "bucket": (lambda: TokenBucket(2, 3), lambda: SlowBucket(2, 3)),
}

KINDS = ("alone", "alone", "permit", "permit", "together", "heavy", "raises", "cancelled", "job", "penalty", "update")

SETTINGS = {"max_concurrent", "max_requests", "burst"}

Step = tuple[float, str, int, float]
"""Seconds after the last one, what kind of pass or event, at which gate, and how many seconds it stays inside."""


def plays() -> st.SearchStrategy[list[Step]]:
    """Return passes, several at one instant, that stay inside for no time or for a while."""
    pauses = st.sampled_from([0.0, 0.0, 0.0, 0.1, 0.25, 0.5, 1.0, 2.0])
    stays = st.sampled_from([0.0, 0.1, 0.3, 0.7])
    step = st.tuples(pauses, st.sampled_from(KINDS), st.integers(0, 2), stays)
    return st.integers(1, 30).flatmap(lambda size: st.lists(step, min_size=size, max_size=size))


class Play:
    """Passes through some gates, and what they and the gates tell."""

    def __init__(self, gates: list[Gate]) -> None:
        self.clock = VirtualClock()
        self.gates = gates
        self.flow = Flow(*gates)
        self.told: list[Any] = []
        self.seen: dict[Gate | None, list[Any]] = defaultdict(list)
        """Of each line what happened in it: before one gate, or before all of the flow; who is first of two that
        open at the same instant is nobody's promise."""
        self.tasks: list[asyncio.Task[None]] = []
        for gate in gates:
            gate.clock = self.clock  # as from its first pass on: `stats` goes by it

    async def run(self, steps: list[Step]) -> None:
        """Play."""
        with virtual_loop(self.clock):
            async with asyncio.timeout(1_000), TaskManager(self.gates[0]) as manager:  # who is forgotten fails here
                for number, (pause, kind, place, stay) in enumerate(steps):
                    if pause:
                        await asyncio.sleep(pause)
                    self.step(manager, number, kind, self.gates[place % len(self.gates)], stay)
                    if number % 3:  # else the next one comes in the same turn of the loop
                        await asyncio.sleep(0)
                    if kind == "cancelled":
                        self.tasks[-1].cancel()
                    self.told.append([gate.stats() for gate in self.gates])
                ends = await asyncio.gather(*self.tasks, return_exceptions=True)
            self.told.append([type(end).__name__ for end in ends])
            self.told.append([gate.stats() for gate in self.gates])

    def step(self, manager: TaskManager, number: int, kind: str, gate: Gate, stay: float) -> None:
        """Begin something."""
        if kind == "job":
            manager.submit(self.inside, number, self.gates[0], stay, fails=False)
        elif kind == "penalty":
            if isinstance(gate, RateGate):
                gate.penalise(for_=stay)
        elif kind == "update":
            gate.update(**dict.fromkeys(SETTINGS & set(gate.stats()), 2 if number % 2 else 3))
        else:
            self.tasks.append(asyncio.create_task(self.passing(number, kind, gate, stay)))

    async def passing(self, number: int, kind: str, gate: Gate, stay: float) -> None:
        """Be a task that passes."""
        around: Any = {"alone": gate, "together": self.flow, "heavy": gate.permit(cost=2.0)}.get(kind)
        async with around or self.flow.permit():
            await self.inside(number, gate if kind in {"alone", "heavy"} else None, stay, fails=kind == "raises")

    async def inside(self, number: int, line: Gate | None, stay: float, *, fails: bool) -> None:
        """Be inside."""
        self.seen[line].append((number, "in", self.clock.monotonic()))
        if stay:
            await asyncio.sleep(stay)
        if fails:
            raise ArithmeticError
        self.seen[line].append((number, "out", self.clock.monotonic()))


def told(gates: list[Gate], steps: list[Step]) -> tuple[list[Any], dict[int | None, list[Any]]]:
    """Return what the gates told after each step, and what happened in each line."""
    play = Play(gates)
    asyncio.run(play.run(steps))
    return play.told, {None if gate is None else gates.index(gate): seen for gate, seen in play.seen.items()}


@settings(max_examples=150, deadline=None)
@given(names=st.lists(st.sampled_from(sorted(MAKERS)), min_size=1, max_size=3), steps=plays())
def test_fast_path_lets_through_whom_the_general_way_lets_through(names: list[str], steps: list[Step]) -> None:
    """Who waits, who is turned away, when each begins, and every count, to the last digit."""
    fast, slow = ([MAKERS[name][way]() for name in names] for way in (0, 1))
    assert told(fast, steps) == told(slow, steps)


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"smooth"}))
async def test_open_gate_is_passed_without_a_word_to_the_general_way(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the tests above would compare the general way with itself."""
    gate, flow = MAKERS[name][0](), Flow(MAKERS[name][0](), MAKERS["limit"][0]())
    async with gate, flow:
        monkeypatch.setattr(WaitingRoom, "pass_at_once", None)
    ways: list[Gate | Flow | Permit] = [gate, flow, gate.permit(), flow.permit()]
    for around in ways:
        async with around:
            pass


async def test_closed_gate_takes_nothing_of_those_before_it() -> None:
    """All or none: a slot, or a start, is not spent on a pass that another gate has not let in yet."""
    with virtual_loop():
        for name, (make, _) in MAKERS.items():
            first, closed = make(), ConcurrencyLimit(1)
            flow = Flow(first, closed)
            async with flow.permit():
                before = first.stats()
                waiting = asyncio.create_task(flow.permit().__aenter__())
                await asyncio.sleep(0)
                assert first.stats() == before, name
                waiting.cancel()


async def test_subclass_is_asked_itself() -> None:
    """What it says of a pass counts, not what its base would have."""

    class Never(ConcurrencyLimit):
        def eta(self, job: Waiting, now: float) -> float:
            raise ArithmeticError

    gate = Never(5)
    ways: list[Gate | Flow | Permit] = [gate, gate.permit(), Flow(gate), Flow(gate).permit()]
    for around in ways:
        with pytest.raises(ArithmeticError):
            async with around:
                pass


RATES = sorted(set(MAKERS) - {"limit"})


@pytest.mark.parametrize("name", RATES)
async def test_job_that_was_admitted_and_has_not_begun_is_counted(name: str) -> None:
    """Its start will fall into any window that a pass begins in before it does."""
    gate = MAKERS[name][0]()
    clock = VirtualClock()

    async def passing() -> float:
        async with gate:
            return clock.monotonic()

    with virtual_loop(clock):
        begins = clock.monotonic()
        async with TaskManager(gate) as manager:
            await passing()  # from the second pass on there is a fast path
            for _ in range(2):
                manager.submit(asyncio.sleep, 0)
            passes = asyncio.create_task(passing())  # asked after they are admitted, before their bodies begin
            assert await passes > begins


@pytest.mark.parametrize("name", RATES)
async def test_penalty_holds_passes_up(name: str) -> None:
    """The other side has said so, however open the gate is by its own count."""
    gate = MAKERS[name][0]()
    assert isinstance(gate, RateGate)
    clock = VirtualClock()
    with virtual_loop(clock):
        async with gate:
            begins = clock.monotonic()
        gate.penalise(for_=5)
        for around in (gate, Flow(gate).permit()):
            async with around:
                assert clock.monotonic() - begins >= 5


@pytest.mark.parametrize("name", sorted(set(MAKERS) - {"smooth"}))
async def test_job_that_came_before_a_pass_goes_first(name: str) -> None:
    """It is about to be asked for, in the loop's next turn: nobody may slip in before."""
    gate, order = MAKERS[name][0](), list[str]()

    async def one(who: str) -> None:
        order.append(who)
        await asyncio.sleep(5)

    async def passing() -> None:
        async with gate:
            await one("pass")

    with virtual_loop():
        async with TaskManager(gate) as manager:
            async with gate:  # from the second pass on there is a fast path
                await manager.submit(asyncio.sleep, 0)
            if name == "limit":
                for _ in range(2):
                    manager.submit(asyncio.sleep, 5)
            passes = asyncio.create_task(passing())
            manager.submit(one, "job")  # before the pass, whose task begins in the next turn
            await passes
    assert order == ["job", "pass"]


async def test_window_that_begins_with_the_first_start_does_not_begin_with_a_pass_that_waits() -> None:
    """A gate behind it is closed: it has not started."""
    gate, closed = FixedWindow(3, per=10, anchor="first"), ConcurrencyLimit(1)
    flow, clock = Flow(gate, closed), VirtualClock()
    with virtual_loop(clock):
        async with closed:
            waiting = asyncio.create_task(flow.permit().__aenter__())
            await asyncio.sleep(4)
        await waiting
        assert gate.stats() == {"max_requests": 3, "used": 1.0, "ends_in": 10.0}


@pytest.mark.skipif(not EAGER_TASKS, reason="bodies begin eagerly from Python 3.12 on")
@pytest.mark.parametrize(
    "make", [lambda: ConcurrencyLimit(2), lambda: SlidingWindow(2, per=10), lambda: Flow(ConcurrencyLimit(2))]
)
async def test_body_that_begins_eagerly_does_not_overtake_who_waits(make: Callable[[], Any]) -> None:
    """In the turn that starts it the others of its lane stand nowhere else: neither among the ready nor at a gate."""
    with virtual_loop():
        gate, order = make(), list[str]()
        async with gate:  # from now on passes know their loop, and are quick
            pass
        await asyncio.sleep(20)

        async def first() -> None:
            async with gate:
                order.append("the first one's pass")

        async def second() -> None:
            order.append("second")
            await asyncio.sleep(1)

        async with TaskManager(gate) as manager:
            manager.submit(first)
            manager.submit(second)
    assert order == ["second", "the first one's pass"]
