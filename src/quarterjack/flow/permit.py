"""A pass through gates without a job: ``async with gate`` and ``async with gate.permit(tenant=…)``."""

from __future__ import annotations

import asyncio
from asyncio import current_task
from collections.abc import Callable, Hashable, Mapping
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from quarterjack._fast import EAGER_TASKS
from quarterjack._numbers import number
from quarterjack.context import CURRENT
from quarterjack.errors import UsageError

from .deadlock import held_by, waits_of
from .dispatcher import Dispatcher, Post
from .lane import says
from .outcome import NOT_STARTED, RETURNED, ended_by
from .room import WaitingRoom
from .waiting import NO_KEY, Phase, Waiting

if TYPE_CHECKING:
    from .base import Gate

__all__ = ["ANY_ONE", "BarePass", "Pass", "Passable", "Permit", "Turnstile"]


MakeRoom = Callable[[Dispatcher, Callable[[Any], None], Callable[[Any, Exception], None]], WaitingRoom]
"""Makes a waiting room on a loop, from who is told of each that is let in, or turned away and why."""


_ONE: Final = 1.0
_NEW: Final = Phase.NEW
_STARTED: Final = Phase.STARTED
_OVER: Final = Phase.OVER
_IN_USE: Final = frozenset({Phase.WAITING, Phase.TAKEN, Phase.STARTED})


class BarePass(Waiting):
    """One way through: what the gates see in place of a job. What it does not set, `Waiting` has."""

    __slots__ = ("_lane", "_phase", "_rank", "_seq", "below", "enqueued_at", "resource", "started_at", "waiter")

    how_keyed = "permit({name}=…)"

    waiter: asyncio.Future[None]
    """Set when it has to wait."""
    below: BarePass | None
    """Which its task took before at the same gate, and still holds."""


ANY_ONE: Final = BarePass()
"""Stands for each pass that costs 1 and that no gate need tell from another."""
ANY_ONE.below = None


class Pass(BarePass):
    """A pass with a key and a cost."""

    __slots__ = ("cost", "key")

    def __init__(self, key: Mapping[str, Hashable] = NO_KEY, cost: float = 1.0) -> None:
        self.key = key
        self.cost = cost
        self.resource = None
        self._phase = _NEW


class Turnstile:
    """The waiting room of bare passes through some gates, on one loop."""

    __slots__ = (
        "__weakref__",
        "_giving",
        "_taking",
        "dispatcher",
        "inside",
        "is_fast",
        "left_behind",
        "loop",
        "posts",
        "room",
        "thread",
    )

    def __init__(self, make_room: MakeRoom, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = get_ident()
        self.dispatcher = Dispatcher.of(loop)
        self.room = make_room(self.dispatcher, _let_in, _turn_away)
        lane = self.room.only
        self.posts: Final[tuple[Post, ...]] = () if lane is None else lane.posts
        """Those of the lane of all passes; none where gates go by keys."""
        gates = [post.gate for post in self.posts]
        self.is_fast: Final = bool(gates) and all(gate._has_fast_path for gate in gates)
        """A pass that costs 1 may go by `pass_fast` and `leave_fast`."""
        self._taking: Final = [(post, post.gate) for post in self.posts]
        self._giving: Final = [(post, post.gate) for post in self.posts if says(post.gate, "_give_one")]
        self.inside: dict[asyncio.Task[Any] | None, BarePass] = {}
        """The last pass of each task, for ``async with gate``."""
        self.left_behind: list[object] = []
        """Tasks whose loop was closed while they were inside. Python would close their coroutines at any moment, and
        those leave their blocks then: kept here, they cannot be taken for somebody who is inside now."""

    def pass_fast(self, now: float) -> bool:
        """Let a pass that costs 1 in, if it `is_fast`, nobody waits and every gate is open. The caller is on this loop.

        It keeps nothing of the pass, as the general way does, `WaitingRoom.pass_at_once`.
        """
        dispatcher = self.dispatcher
        if dispatcher._ready or (EAGER_TASKS and dispatcher._advancing):  # somebody is about to be asked for
            return False
        for post, gate in self._taking:
            if post.entries or not gate._take_one(now):
                self._untake(gate)
                return False
        return True

    def _untake(self, closed: Gate) -> None:
        """Undo what the gates before *closed* took."""
        for _, gate in self._taking:
            if gate is closed:
                return
            gate._untake_one()

    def leave_fast(self) -> None:
        """A pass is over that came in by `pass_fast`."""
        for post, gate in self._giving:
            gate._give_one()
            if post.entries:
                self.dispatcher.open(post)

    async def wait(self, one: BarePass) -> None:
        """Wait until every gate lets *one* through. Cancelled meanwhile, it leaves nothing taken."""
        dispatcher, room = self.dispatcher, self.room
        if room.overflow == "block":
            await room.wait_for_room()
        one.waiter = dispatcher.loop.create_future()
        room.put(one)
        attempt = CURRENT.get()
        holder = None if attempt is None else attempt.passing
        if holder is not None and holder._lane.room.dispatcher is not dispatcher:
            holder = None
        if self._needs_none(one, holder):
            room.remove(one)
            WaitingRoom(dispatcher, (), None, start=_let_in, refuse=_turn_away).pass_at_once(one)
            return
        wait = waits_of(dispatcher).begin(holder, (one,), one.waiter, lends=False)
        try:
            await one.waiter
        except BaseException:  # cancelled, turned away, or its coroutine was closed
            if dispatcher.loop.is_closed():  # under it: nothing of that loop counts any more
                raise
            self._withdraw(one)
            await wait.end(at_once=True)
            raise
        try:
            await wait.end()
        except BaseException:  # cancelled while its job waited for slots that it had lent
            self._withdraw(one)
            raise
        dispatcher.started(one, dispatcher.monotonic())

    def _withdraw(self, one: BarePass) -> None:
        if not self.room.remove(one) and one._phase is Phase.TAKEN:  # let in, and cancelled in the same turn
            self.dispatcher.give(one, NOT_STARTED)

    def _needs_none(self, one: BarePass, holder: Waiting | None) -> bool:
        """Say whether the task holds as much of gates that lend already: it passes in the slots it has."""
        task = asyncio.current_task()
        return all(post.gate.lends and held_by(holder, task, post.gate) >= one.cost for post in one._lane.posts)

    def held_by_another(self) -> BarePass:
        """Return a pass that was taken in another task to be left here: by a fixture, by a generator."""
        return self.inside.pop(next(reversed(self.inside)))

    @classmethod
    def of(cls, known: Turnstile | None, make_room: MakeRoom) -> Turnstile:
        """Return *known* if it is the running loop's, else a new one.

        Raises:
            WrongLoop: If a gate belongs to another loop that is still open.
        """
        loop = asyncio.get_running_loop()
        if known is not None and known.dispatcher.loop is loop:
            return known
        turnstile = cls(make_room, loop)
        if known is not None:
            turnstile.left_behind = [*known.left_behind, *known.inside]
        return turnstile


def _let_in(one: BarePass) -> None:
    if not one.waiter.done():
        one.waiter.set_result(None)


def _turn_away(one: BarePass, error: Exception) -> None:
    if not one.waiter.done():
        one.waiter.set_exception(error)


class Passable:
    """What is passed by ``async with``: a gate, or all gates of a flow at once."""

    _turnstile: Turnstile | None = None

    async def __aenter__(self) -> Any:
        """Wait until it lets this task through; leaving the block is the end of the pass.

        Returns what a router chose, None without one.
        """
        turnstile = self._turnstile
        # On 3.11 to ask for the running loop costs as much as a whole pass through a semaphore. A loop that
        # runs a task in this very thread is the running one, and to ask for its task is cheap.
        task = None if turnstile is None else current_task(turnstile.loop)
        if turnstile is None or task is None or turnstile.thread != get_ident():
            turnstile, task = self._turnstile_here(), current_task()
        inside = turnstile.inside
        if turnstile.is_fast and task not in inside and turnstile.pass_fast(turnstile.dispatcher.monotonic()):
            inside[task] = ANY_ONE
            return None
        one = BarePass()
        one.resource = None
        if not turnstile.room.pass_at_once(one):
            await turnstile.wait(one)
        one.below = inside.get(task) if inside else None
        inside[task] = one
        return one.resource

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        turnstile = self._turnstile or self._turnstile_here()
        inside = turnstile.inside
        if kind is GeneratorExit and (turnstile.loop.is_closed() or not inside):
            return  # its loop was closed under it, and its pass went with that
        if len(inside) == 1:  # whoever took it: there is no other
            task, one = inside.popitem()
        else:
            task = current_task(turnstile.loop)
            mine: BarePass | None = inside.pop(task, None)
            one = turnstile.held_by_another() if mine is None else mine
        if one.below is not None:
            inside[task] = one.below
        if one is ANY_ONE:
            self._leave_fast(turnstile)
        else:
            turnstile.dispatcher.give(one, RETURNED if error is None else ended_by(error))

    def _leave_fast(self, turnstile: Turnstile) -> None:
        turnstile.leave_fast()

    def permit(self, *, cost: float = _ONE, **key: Hashable) -> Permit:
        """Return a pass of its own for ``async with``: with a *cost*, and the key that ``by=`` looks for.

        Raises:
            InvalidOption: If *cost* is no finite number above 0.
        """
        return Permit(self, key, cost if cost is _ONE else number(cost, "cost", 0, exclusive=True))

    def _turnstile_here(self) -> Turnstile:
        """Return the turnstile on the running loop.

        Raises:
            WrongLoop: If a gate belongs to another loop that is still open.
        """
        self._turnstile = turnstile = Turnstile.of(self._turnstile, self._room_of_passes)
        return turnstile

    def _room_of_passes(
        self, dispatcher: Dispatcher, start: Callable[[Any], None], refuse: Callable[[Any, Exception], None]
    ) -> WaitingRoom:
        """Return where those wait who pass on their own."""
        raise NotImplementedError


class Permit(Pass):
    """``async with gate.permit(…)``: a pass with a key and a cost, not to be entered again before it was left."""

    __slots__ = ("_came_fast", "_owner", "_turnstile")

    def __init__(self, owner: Passable, key: Mapping[str, Hashable], cost: float) -> None:
        self._owner = owner
        self.key = key
        self.cost = cost
        self.resource = None
        self._phase = _NEW
        self._turnstile: Turnstile | None = None

    async def __aenter__(self) -> Self:
        """Wait for the gates; returns the pass, whose ``resource`` a router has set.

        Raises:
            UsageError: If somebody is inside with it, or waits.
        """
        if self._phase in _IN_USE:
            raise UsageError("this pass is in use: it lets one in at a time; make another one, by permit(…)")
        turnstile = self._owner._turnstile
        if turnstile is None or current_task(turnstile.loop) is None or turnstile.thread != get_ident():
            turnstile = self._owner._turnstile_here()  # see `Passable`
        self._turnstile = turnstile
        if turnstile.is_fast and self.cost == 1.0 and turnstile.pass_fast(now := turnstile.dispatcher.monotonic()):
            self.enqueued_at = self.started_at = now
            self._phase = _STARTED
            self._came_fast = True
            return self
        self._came_fast = False
        if not turnstile.room.pass_at_once(self):
            await turnstile.wait(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        turnstile = self._turnstile
        if turnstile is None or turnstile.loop.is_closed():  # its pass went with the loop
            return
        if self._came_fast:
            self._phase = _OVER
            turnstile.leave_fast()
        else:
            turnstile.dispatcher.give(self, RETURNED if error is None else ended_by(error))
