"""The dispatcher beside a plain model of it: who may start does, in order, and everything comes back.

Up to three rooms of one to three gates that they share, some of them one per
key. Jobs come, are cancelled, begin, end and are ranked anew in any order, while
gates close, change, wake those who wait and raise in each of their methods."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from quarterjack.flow.base import Gate
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.lane import Lane
from quarterjack.flow.outcome import CANCELLED, NOT_STARTED, RETURNED
from quarterjack.flow.room import WaitingRoom
from quarterjack.flow.waiting import Phase

from .toys import HandLoop, Job, Levels, Pace, Slots, Switch, Toy

KEYS = st.integers(0, 5)
PICK = st.integers(0, 10**6)
METHODS = ("eta", "take", "started", "give")


class Traffic(RuleBasedStateMachine):
    """Rooms on shared gates."""

    kinds: ClassVar[tuple[type[Toy], ...]] = (Slots, Switch, Pace)
    faults: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.loop = HandLoop()
        self.dispatcher = Dispatcher.of(self.loop.as_loop)
        self.gates: list[Toy] = []
        self.rooms: list[WaitingRoom] = []
        self.jobs: list[Job] = []
        self.disorder: list[str] = []

    @initialize(
        gates=st.lists(st.tuples(PICK, st.booleans()), min_size=1, max_size=4),
        flows=st.lists(st.tuples(st.lists(PICK, min_size=1, max_size=3), st.booleans()), min_size=1, max_size=3),
    )
    def build(self, gates: list[tuple[int, bool]], flows: list[tuple[list[int], bool]]) -> None:
        kinds = self.kinds
        self.gates = [
            kinds[kind % len(kinds)](f"g{n}", by="k" if keyed else None) for n, (kind, keyed) in enumerate(gates)
        ]
        for picks, ordered in flows:
            chosen = tuple(dict.fromkeys(self.gates[pick % len(self.gates)] for pick in picks))
            order = Levels() if ordered else None
            self.rooms.append(WaitingRoom(self.dispatcher, chosen, order, start=self.admitted, refuse=self.refused))

    # -- what the rooms tell ---------------------------------------------------------

    def admitted(self, job: Job) -> None:
        """Nobody better waits in its lane, nor at a gate of it for that gate alone."""
        mine = self.gates_of(job)
        for other in self.waiting():
            if other.place < job.place:
                theirs = self.gates_of(other)
                if (other.room == job.room and theirs == mine) or (len(theirs) == 1 and theirs[0] in mine):
                    self.disorder.append(f"{job.id} went before {other.id}")

    def refused(self, job: Job, error: Exception) -> None:
        job.error = error
        assert isinstance(error, OSError), error

    def gates_of(self, job: Job) -> list[Toy]:
        gates: Any = [post.gate for post in job._lane.posts]
        return list(gates)

    def waiting(self) -> list[Job]:
        return [job for job in self.jobs if job.phase is Phase.WAITING]

    def those(self, phase: Phase) -> list[Job]:
        return [job for job in self.jobs if job.phase is phase]

    def new(self, room: int, key: int, cost: int, level: int) -> tuple[Job, WaitingRoom]:
        room %= len(self.rooms)
        job = Job(len(self.jobs), room, key, cost, level, self.loop.now)
        self.jobs.append(job)
        return job, self.rooms[room]

    # -- what happens ----------------------------------------------------------------

    @rule(room=PICK, key=KEYS, cost=st.integers(1, 2), level=st.integers(0, 3))
    def put(self, room: int, key: int, cost: int, level: int) -> None:
        job, into = self.new(room, key, cost, level)
        into.put(job)

    @rule(room=PICK, keys=st.lists(KEYS, min_size=3, max_size=6))
    def crowd(self, room: int, keys: list[int]) -> None:
        """Many at once in several rooms, so that some wait; what is inside begins."""
        for n, key in enumerate(keys):
            self.put(room + n % 3, key, 1 + key % 2, key % 4)
        self.loop.settle()
        for job in self.those(Phase.TAKEN):
            self.dispatcher.started(job, self.loop.now)

    @rule(room=PICK, key=KEYS, cost=st.integers(1, 2))
    def come_in_person(self, room: int, key: int, cost: int) -> None:
        """As a bare pass does, which does not wait for the loop's next turn if it need not."""
        job, into = self.new(room, key, cost, 0)
        if into.order is not None:
            into.put(job)
            return
        try:
            if into.pass_at_once(job):
                job._rank, job._seq = self.loop.now, next(self.dispatcher.seq)
                self.admitted(job)
            else:
                into.put(job)
        except OSError:
            job._phase = Phase.OVER

    @rule()
    def turn(self) -> None:
        self.loop.turn()

    @rule(seconds=st.sampled_from((0.3, 1.0, 5.0)))
    def advance(self, seconds: float) -> None:
        self.loop.advance(seconds)
        self.nobody_hangs()

    @rule(seconds=st.sampled_from((0.5, 2.0)))
    def stall(self, seconds: float) -> None:
        self.loop.now += seconds

    @rule(pick=PICK)
    def begin(self, pick: int) -> None:
        if found := self.those(Phase.TAKEN):
            self.dispatcher.started(found[pick % len(found)], self.loop.now)

    @rule(pick=PICK)
    def give_up(self, pick: int) -> None:
        if found := self.those(Phase.TAKEN):
            self.dispatcher.give(found[pick % len(found)], NOT_STARTED)

    @rule(pick=PICK, ended=st.sampled_from((RETURNED, CANCELLED)))
    def end(self, pick: int, ended: Any) -> None:
        if found := self.those(Phase.STARTED):
            self.dispatcher.give(found[pick % len(found)], ended)

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        if found := self.waiting():
            job = found[pick % len(found)]
            assert self.rooms[job.room].remove(job)
            assert not self.rooms[job.room].remove(job)

    @rule(pick=PICK, level=st.integers(0, 3))
    def rerank(self, pick: int, level: int) -> None:
        if found := self.waiting():
            job = found[pick % len(found)]
            job.priority = level
            self.rooms[job.room].rerank(job)

    @rule(pick=PICK, limit=st.integers(2, 4), is_on=st.booleans())
    def change(self, pick: int, limit: int, is_on: bool) -> None:
        gate = self.gates[pick % len(self.gates)]
        for one in gate._all():
            if isinstance(one, Slots):
                one.limit = limit
            elif isinstance(one, Switch):
                one.is_on = is_on
        gate.wake()

    @precondition(lambda self: self.faults)
    @rule(pick=PICK, method=st.sampled_from(METHODS))
    def break_once(self, pick: int, method: str) -> None:
        gates = [one for gate in self.gates for one in gate._all()]
        one: Any = gates[pick % len(gates)]
        one.faults.add(method)

    # -- what holds ------------------------------------------------------------------

    @invariant()
    def order_is_kept(self) -> None:
        assert not self.disorder, self.disorder

    @invariant()
    def one_give_per_take(self) -> None:
        for gate in self.gates:
            for one in gate._all():
                assert not one.complaints, one.complaints  # type: ignore[attr-defined]

    @invariant()
    def a_key_has_one_gate(self) -> None:
        for job in self.jobs:
            if Phase.WAITING <= job.phase <= Phase.STARTED:
                for gate in self.rooms[job.room]._keyed:
                    assert gate._by_key is not None
                    assert gate._by_key.get(job.key["k"]) in self.gates_of(job)

    @invariant()
    def rooms_count_who_waits(self) -> None:
        for n, room in enumerate(self.rooms):
            assert room.size == sum(job.room == n for job in self.waiting())
            assert len(room._faded) <= len(room._lanes)

    @rule()
    def nobody_hangs(self) -> None:
        """Once the loop is quiet, whoever is first in its lane has a gate that is closed to it or to a better one."""
        self.loop.settle()
        waiting = sorted(self.waiting(), key=lambda job: job.place)
        seen: set[tuple[int, tuple[int, ...]]] = set()
        now = self.loop.now
        for job in waiting:
            gates = self.gates_of(job)
            lane = (job.room, tuple(map(id, gates)))
            if lane in seen:
                continue
            seen.add(lane)
            held = [gate for gate in gates if gate.opens(job, now) > now]
            for other in waiting:
                if other.place < job.place:
                    held += [gate for gate in self.gates_of(other) if gate in gates and gate.opens(other, now) > now]
            assert held, f"{job.id} waits for nothing"

    def teardown(self) -> None:
        """Opened and left to itself, everything comes to an end and is as at the start."""
        for gate in self.gates:
            for one in gate._all():
                one.faults.clear()  # type: ignore[attr-defined]
                if isinstance(one, Slots):
                    one.limit = 4
                elif isinstance(one, Switch):
                    one.is_on = True
            gate.wake()
        for _ in range(4 * len(self.jobs) + 4):
            self.loop.advance(1.0)
            for job in self.those(Phase.STARTED):
                self.dispatcher.give(job, RETURNED)
            for job in self.those(Phase.TAKEN):
                self.dispatcher.started(job, self.loop.now)
        assert not [job.id for job in self.jobs if job.phase is not Phase.OVER]
        for gate in self.gates:
            assert not [one.inside for one in gate._all() if one.inside]  # type: ignore[attr-defined]
        self.order_is_kept()
        self.one_give_per_take()


class Paced(Traffic):
    """The same without what else would wake those who wait for a start."""

    kinds = (Pace,)
    faults = False


class Narrow(Traffic):
    """The same, mostly waiting, each room before one gate and another."""

    kinds = (Slots,)
    faults = False

    @initialize(shared=st.booleans())
    def build(self, shared: bool) -> None:
        self.gates = [Slots("g0"), Slots("g1"), Slots("g2", by=None if shared else "k")]
        for picks in ((0,), (0, 1), (0, 2), (1, 2)):
            gates = [self.gates[pick] for pick in picks]
            self.rooms.append(WaitingRoom(self.dispatcher, gates, None, start=self.admitted, refuse=self.refused))


def play(machine: type[Traffic], number: int) -> None:
    """Play one game that follows from *number*, without the search that Hypothesis makes."""
    rng = Random(number)
    game = machine()
    if machine is Narrow:
        game.build(shared=rng.random() < 0.5)
    else:
        flows = [([rng.randrange(9), rng.randrange(9)], rng.random() < 0.5) for _ in range(rng.randint(1, 3))]
        game.build(gates=[(rng.randrange(9), rng.random() < 0.5) for _ in range(3)], flows=flows)
    for _ in range(40):
        _move(game, rng)
        game.order_is_kept()
        game.one_give_per_take()
        game.rooms_count_who_waits()
        game.a_key_has_one_gate()
    game.teardown()


def play_many(machine: type[Traffic], games: int) -> None:
    for number in range(games):
        play(machine, number)


def _move(game: Traffic, rng: Random) -> None:
    pick = rng.randrange(10**6)
    moves: list[Callable[[], None]] = [
        lambda: game.put(pick, rng.randrange(6), rng.randint(1, 2), rng.randrange(4)),
        lambda: game.crowd(pick, [rng.randrange(6) for _ in range(5)]),
        lambda: game.come_in_person(pick, rng.randrange(6), rng.randint(1, 2)),
        game.turn,
        lambda: game.advance(rng.choice((0.3, 1.0, 5.0))),
        lambda: game.stall(0.5),
        lambda: game.begin(pick),
        lambda: game.give_up(pick),
        lambda: game.end(pick, RETURNED),
        lambda: game.cancel(pick),
        lambda: game.rerank(pick, rng.randrange(4)),
        lambda: game.change(pick, rng.randint(2, 4), rng.random() < 0.5),
        *([lambda: game.break_once(pick, rng.choice(METHODS))] if game.faults else []),
    ]
    rng.choice(moves)()


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Gates raise by the thousand here, as told."""
    log = logging.getLogger("quarterjack.flow")
    log.disabled = True
    yield
    log.disabled = False


@settings(max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
class Searched(Traffic):
    """As Hypothesis plays it, which makes a short story of what it finds."""


TestTraffic = Searched.TestCase


@pytest.mark.parametrize("machine", [Traffic, Narrow, Paced])
def test_traffic_through_shared_gates_keeps_order_and_comes_to_an_end(machine: type[Traffic]) -> None:
    """No wake-up is lost and nothing leaks, whatever happens in which order."""
    play_many(machine, 100)


# ---------------------------------------------------------------- the same, with one line of the core broken


@contextmanager
def who_leaves_tells_nobody() -> Iterator[None]:
    """A lane that leaves its place at a gate does not open the gate for those behind it."""

    def ready(self: Dispatcher, lane: Lane) -> None:
        lane.parked = None
        whole(self, lane)

    whole = Dispatcher.ready
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "ready", ready)
        yield


@contextmanager
def the_next_is_not_promoted() -> Iterator[None]:
    """Who got through a gate does not let the next one there be asked."""

    def advance(self: Dispatcher, lane: Lane, now: float) -> Any:
        lane.promoted = None
        return whole(self, lane, now)

    whole = Dispatcher._advance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "_advance", advance)
        yield


@contextmanager
def the_worst_is_promoted() -> Iterator[None]:
    """Lanes stand at a gate the wrong way round."""

    def park(self: Dispatcher, lane: Lane, post: Any, head: Any) -> None:
        lane.parked = post
        lane.entry = entry = (-head._rank, -head._seq, lane)
        post.entries.append(entry)
        post.entries.sort()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "_park", park)
        yield


@contextmanager
def what_was_taken_is_kept() -> Iterator[None]:
    """A job whose second gate raises in take keeps the first."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "undo", lambda *_: None)
        yield


@contextmanager
def a_refused_job_still_waits() -> Iterator[None]:
    """Who is turned away is not marked as gone."""

    def turn_away(self: WaitingRoom, job: Any, error: Exception) -> None:
        whole(self, job, error)
        job._phase = Phase.WAITING

    whole = WaitingRoom.turn_away
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(WaitingRoom, "turn_away", turn_away)
        yield


@contextmanager
def lanes_do_not_hold_their_gates() -> Iterator[None]:
    """A gate of one key is dropped as soon as nobody is inside."""

    def can_go(self: Gate, root: Any) -> bool:
        return self.is_idle(0.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Gate, "_can_go", can_go)
        yield


@contextmanager
def everything_is_given_twice() -> Iterator[None]:
    """The end of a pass is told once too often."""

    def give(self: Dispatcher, job: Any, ended: Any, now: float | None = None) -> None:
        whole(self, job, ended, now)
        for gate in job._lane.givers:
            gate.give(job, self.monotonic(), ended)

    whole = Dispatcher.give
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "give", give)
        yield


@contextmanager
def the_short_cut_overtakes() -> Iterator[None]:
    """A bare pass does not look who is about to be asked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "is_sought", lambda *_: False)
        yield


@contextmanager
def a_start_is_not_asked_about() -> Iterator[None]:
    """The gate that waited to know when a body began is not asked again."""

    def started(self: Dispatcher, job: Any, now: float) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Dispatcher, "open", lambda *_: None)
            whole(self, job, now)

    whole = Dispatcher.started
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Dispatcher, "started", started)
        yield


@pytest.mark.parametrize(
    ("broken", "machine"),
    [
        (who_leaves_tells_nobody, Narrow),
        (the_next_is_not_promoted, Narrow),
        (the_worst_is_promoted, Narrow),
        (what_was_taken_is_kept, Traffic),
        (a_refused_job_still_waits, Traffic),
        (lanes_do_not_hold_their_gates, Traffic),
        (everything_is_given_twice, Traffic),
        (the_short_cut_overtakes, Narrow),
        (a_start_is_not_asked_about, Paced),
    ],
)
def test_a_broken_line_of_the_core_does_not_go_unnoticed(broken: Callable[[], Any], machine: type[Traffic]) -> None:
    """Each rule of the dispatcher is one that this traffic needs."""
    with broken(), pytest.raises((AssertionError, KeyError)):
        play_many(machine, 1000)
