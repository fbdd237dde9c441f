"""Waits that hold slots: who awaits what while it keeps a gate closed for others.

A job that awaits a child keeps its slots meanwhile. If the child needs one of
them, and everybody else who holds one waits in the same way, nobody will ever
go on. Such a wait ends with `WouldDeadlock`, in the task that closes the
circle. At a gate that lends (`Gate.lends`) the slots are free for others
meanwhile, and come back before the job goes on.

A wait is *stuck* if something it awaits is: a job that waits at a gate which
stays closed as long as stuck waits hold what they hold, or one that runs and is
at a stuck wait itself. So nobody is told while any holder still works, nor for
what a rate limit only puts off.

To begin and to end a wait costs O(gates); the circle is looked for only when
the gate would be full with those who wait."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final

from quarterjack.errors import WouldDeadlock

from .outcome import NOT_STARTED
from .room import WaitingRoom
from .waiting import Phase, Waiting

if TYPE_CHECKING:
    from .base import Gate
    from .dispatcher import Dispatcher, Post
    from .permit import Turnstile

__all__ = ["Wait", "Waits", "held_by", "waits_of"]

_INSIDE: Final = frozenset({Phase.TAKEN, Phase.STARTED})
_WAITING: Final = Phase.WAITING


class Wait:
    """A task that awaits jobs, or a gate."""

    __slots__ = ("_waits", "awaited", "holder", "task", "waiter")

    def __init__(
        self, waits: Waits, holder: Waiting | None, awaited: Sequence[Waiting], waiter: asyncio.Future[None]
    ) -> None:
        self._waits = waits
        self.holder = holder
        """The job in whose body it is."""
        self.awaited = awaited
        self.waiter = waiter
        self.task = asyncio.current_task()

    async def end(self, *, at_once: bool = False) -> None:
        """It is over: wait until the holder has its slots again, or take them back *at_once*, free or not."""
        await self._waits.end(self, at_once)


class Waits:
    """The waits of one loop."""

    __slots__ = ("_by_holder", "_by_task", "_held", "_loans", "_waits", "_weight")

    def __init__(self) -> None:
        self._waits: dict[Wait, None] = {}
        self._by_task: dict[asyncio.Task[object] | None, Wait] = {}
        self._by_holder: dict[Waiting, list[Wait]] = {}
        self._held: dict[Waiting, list[Gate]] = {}
        """The gates of a job that waits; the next three are of the same jobs."""
        self._loans: dict[Waiting, list[Gate]] = {}
        """Those of its gates that lend, while others have its slots."""
        self._weight: dict[Gate, float] = {}
        """How much of each gate jobs hold that wait."""

    def begin(
        self, holder: Waiting | None, awaited: Sequence[Waiting], waiter: asyncio.Future[None], *, lends: bool = True
    ) -> Wait:
        """Note a wait of the running task; *waiter* gets `WouldDeadlock` if it can never end.

        The holder's slots of gates that lend serve others from the first wait of its body that *lends* to the end
        of the last one.
        """
        wait = Wait(self, holder, awaited, waiter)
        self._waits[wait] = None
        self._by_task[wait.task] = wait
        if holder is not None and holder._phase in _INSIDE:
            if holder not in self._by_holder:
                self._by_holder[holder] = []
                self._hold(holder)
            self._by_holder[holder].append(wait)
            if lends:
                self._lend(holder)
        self._fail_if_stuck(wait)
        return wait

    async def end(self, wait: Wait, at_once: bool) -> None:
        """See `Wait.end`."""
        holder = wait.holder
        self._forget(wait)
        # Of several tasks of one body the last has the slots back.
        while holder is not None and holder not in self._by_holder and (loans := self._loans.get(holder)):
            try:
                await self._regain(loans[-1], holder, at_once)
            except BaseException:  # interrupted, it has those of the other gates back at once
                self._repay_all(holder)
                raise
        self.look_again()

    def _repay_all(self, holder: Waiting) -> None:
        while holder not in self._by_holder and (loans := self._loans.get(holder)):
            self._repay(loans[-1], holder)

    def _forget(self, wait: Wait) -> None:
        del self._waits[wait]
        if self._by_task.get(wait.task) is wait:
            del self._by_task[wait.task]
        holder = wait.holder
        if holder is not None and (of_holder := self._by_holder.get(holder)) is not None:
            of_holder.remove(wait)
            if not of_holder:
                self._let_go(holder)

    def look_again(self) -> None:
        """Something may have made a wait one without end: a limit that shrank, a retry that came back."""
        for wait in tuple(self._waits):
            if self._fail_if_stuck(wait):
                return  # it will let go of what it holds

    def look_at(self, wait: Wait, one: Waiting) -> None:
        """*one*, which *wait* awaits, has come to its gates."""
        if self.is_held_up(one):
            self._fail_if_stuck(wait)

    def look_at_gate(self, gate: Gate, job: Waiting) -> None:
        """*job* has found *gate* closed: those who wait may hold it, and await one who stands behind *job*."""
        held = self._held_of(gate, None)
        if held and gate.stays_closed(job, held):
            self.look_again()

    def is_held_up(self, one: Waiting) -> bool:
        """Say whether *one* may be stuck: it cannot go on while all who wait keep what they hold."""
        return self._is_stuck(one, None)

    # -- who holds what ----------------------------------------------------------------

    def _hold(self, holder: Waiting) -> None:
        lent = self._loans.get(holder, ())
        held = self._held[holder] = [post.gate for post in holder._lane.posts if post.gate not in lent]
        for gate in held:
            self._weight[gate] = self._weight.get(gate, 0.0) + holder.cost

    def _lend(self, holder: Waiting) -> None:
        """Let others have what *holder* still has of gates that lend."""
        for gate in [gate for gate in self._held[holder] if gate.lends]:
            self._held[holder].remove(gate)
            self._lighten(gate, holder)
            gate.lend(holder)
            self._loans.setdefault(holder, []).append(gate)
            if gate._post is not None:
                gate._post.dispatcher.open(gate._post)

    def _let_go(self, holder: Waiting) -> None:
        del self._by_holder[holder]
        for gate in self._held.pop(holder):
            self._lighten(gate, holder)

    def _lighten(self, gate: Gate, holder: Waiting) -> None:
        self._weight[gate] -= holder.cost
        if self._weight[gate] <= 0:
            del self._weight[gate]

    async def _regain(self, gate: Gate, holder: Waiting, at_once: bool) -> None:
        """Wait until *holder* has its slots of *gate* again; it goes before all who came later."""
        post = next(post for post in holder._lane.posts if post.gate is gate)
        dispatcher = post.dispatcher
        now = dispatcher.monotonic()
        if holder._phase not in _INSIDE or at_once or gate.eta(holder, now) <= now:
            self._repay(gate, holder)
            return
        back = _Back(holder, dispatcher.loop.create_future())
        room = WaitingRoom(dispatcher, (gate,), None, start=_come_back, refuse=_turn_away)
        room.put(back)
        wait = self.begin(holder, (back,), back.waiter, lends=False)
        try:
            await back.waiter
        finally:
            self._forget(wait)
            if not room.remove(back) and back._phase is Phase.TAKEN:
                dispatcher.give(back, NOT_STARTED)
            if holder not in self._by_holder:  # else another task of its body waits: it will see to that
                self._repay(gate, holder)

    def _repay(self, gate: Gate, holder: Waiting) -> None:
        loans = self._loans[holder]
        loans.remove(gate)
        if not loans:
            del self._loans[holder]
        if holder._phase in _INSIDE:  # else it was left behind by its body
            gate.take_back(holder)

    def _held_of(self, gate: Gate, among: Collection[Wait] | None) -> float:
        """Return how much of *gate* is held by those who wait, or by some of them."""
        if among is None:
            held = self._weight.get(gate, 0.0)
        else:
            holders = {wait.holder for wait in among if wait.holder is not None}
            held = sum(holder.cost for holder in holders if gate in self._held.get(holder, ()))
        for task in {task for turnstile in _turnstiles_at(gate) for task in turnstile.inside}:
            wait = self._by_task.get(task)
            if wait is not None and (among is None or wait in among):
                held += held_by(None, task, gate)
        return held

    # -- the circle ----------------------------------------------------------------------

    def _fail_if_stuck(self, wait: Wait) -> bool:
        if wait.waiter.done() or not any(self._is_stuck(one, None) for one in wait.awaited):
            return False
        stuck = dict.fromkeys(other for other in self._waits if not other.waiter.done())
        going_on = list(stuck)
        while going_on:
            going_on = [other for other in stuck if not any(self._is_stuck(one, stuck) for one in other.awaited)]
            for other in going_on:
                del stuck[other]
        if wait not in stuck:
            return False
        wait.waiter.set_exception(self._error(wait, stuck))
        return True

    def _is_stuck(self, one: Waiting, among: Collection[Wait] | None) -> bool:
        one = one.stands_in or one
        if one._phase is _WAITING:
            return self._closed_gate(one, among) is not None
        waits = self._by_holder.get(one, ())
        return bool(waits) if among is None else any(wait in among for wait in waits)

    def _closed_gate(self, one: Waiting, among: Collection[Wait] | None) -> Gate | None:
        """Return the gate that stays closed, for *one* or for who is before it, while those who wait hold it."""
        for post in one._lane.posts:
            gate = post.gate
            held = self._held_of(gate, among)
            if held and any(gate.stays_closed(other, held) for other in _up_to(one, post)):
                return gate
        return None

    def _error(self, wait: Wait, stuck: Collection[Wait]) -> WouldDeadlock:
        one = next(one for one in wait.awaited if self._is_stuck(one, stuck))
        one, seen = one.stands_in or one, {one}
        while one._phase is not _WAITING:  # it runs, and awaits another
            waits = [further for further in self._by_holder[one] if further in stuck]
            one = next(other for further in waits for other in further.awaited if self._is_stuck(other, stuck))
            one = one.stands_in or one
            if one in seen:
                return WouldDeadlock(_name(wait.holder), _name(one), "")
            seen.add(one)
        gate = self._closed_gate(one, stuck)
        return WouldDeadlock(_name(wait.holder), _name(one), "" if gate is None else gate.label)


def waits_of(dispatcher: Dispatcher) -> Waits:
    """Return the waits of its loop."""
    waits = dispatcher.waits
    if waits is None:
        waits = dispatcher.waits = Waits()
    return waits


def _up_to(one: Waiting, post: Post) -> list[Waiting]:
    """Return *one*, and who is asked before it: the first of its lane, and the first that is parked at the gate."""
    best = post.best
    lanes = [one._lane] if best is None or best[:2] > (one._rank, one._seq) else [one._lane, best[2]]
    return [one, *(head for lane in lanes if (head := lane.head()) is not None)]


def held_by(holder: Waiting | None, task: asyncio.Task[object] | None, gate: Gate) -> float:
    """Return how much of *gate* a job holds by its flow, and its task by ``async with``."""
    held = 0.0
    if holder is not None and holder._phase in _INSIDE and any(post.gate is gate for post in holder._lane.posts):
        held = holder.cost
    for turnstile in _turnstiles_at(gate):
        one = turnstile.inside.get(task)
        while one is not None:
            held += one.cost
            one = one.below
    return held


def _turnstiles_at(gate: Gate) -> list[Turnstile]:
    """Return where tasks pass *gate* by ``async with``: alone, or with others of a flow."""
    own, post = gate._turnstile, gate._post
    flows = () if post is None else post.dispatcher.flows
    return [
        *(() if own is None else (own,)),
        *(one for one in flows if any(other.gate is gate for other in one.posts)),
    ]


def _name(one: Waiting | None) -> str:
    if one is None or not one.task:
        return "this task" if one is None else "a pass"
    return f"{one.task} {one.id}"


class _Back(Waiting):
    """A job that wants its slots again, as the gate sees it."""

    __slots__ = ("_lane", "_phase", "_rank", "_seq", "cost", "enqueued_at", "waiter")

    def __init__(self, holder: Waiting, waiter: asyncio.Future[None]) -> None:
        self.cost, self.enqueued_at, self.waiter = holder.cost, holder.enqueued_at, waiter


def _come_back(back: _Back) -> None:
    if not back.waiter.done():
        back.waiter.set_result(None)


def _turn_away(back: _Back, error: Exception) -> None:
    if not back.waiter.done():
        back.waiter.set_exception(error)
