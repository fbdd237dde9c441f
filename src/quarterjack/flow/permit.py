"""A pass through gates without a job: ``async with gate`` and ``async with gate.permit(tenant=…)``."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping
from threading import get_ident
from types import TracebackType
from typing import Any, Final

from quarterjack.context import CURRENT
from quarterjack.errors import UsageError

from .deadlock import held_by, waits_of
from .dispatcher import Dispatcher
from .outcome import NOT_STARTED, RETURNED, ended_by
from .room import WaitingRoom
from .waiting import NO_KEY, Phase, Waiting

__all__ = ["BarePass", "Pass", "Permit", "Turnstile"]


MakeRoom = Callable[[Dispatcher, Callable[[Any], None], Callable[[Any, Exception], None]], WaitingRoom]
"""Makes a waiting room on a loop, from who is told of each that is let in, or turned away and why."""


_IN_USE: Final = frozenset({Phase.WAITING, Phase.TAKEN, Phase.STARTED})


class BarePass(Waiting):
    """One way through: what the gates see in place of a job. What it does not set, `Waiting` has."""

    __slots__ = ("_lane", "_phase", "_rank", "_seq", "below", "enqueued_at", "resource", "started_at", "waiter")

    waiter: asyncio.Future[None]
    """Set when it has to wait."""
    below: BarePass | None
    """Which its task took before at the same gate, and still holds."""


class Pass(BarePass):
    """A pass with a key and a cost."""

    __slots__ = ("cost", "key")

    how_keyed = "permit({name}=…)"

    def __init__(self, key: Mapping[str, Hashable] = NO_KEY, cost: float = 1.0) -> None:
        self.key = key
        self.cost = cost
        self.resource = None
        self._phase = Phase.NEW


class Turnstile:
    """The waiting room of bare passes through some gates, on one loop."""

    __slots__ = ("dispatcher", "inside", "left_behind", "loop", "room", "thread")

    def __init__(self, make_room: MakeRoom, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.thread = get_ident()
        self.dispatcher = Dispatcher.of(loop)
        self.room = make_room(self.dispatcher, _let_in, _turn_away)
        self.inside: dict[asyncio.Task[Any] | None, BarePass] = {}
        """The last pass of each task, for ``async with gate``."""
        self.left_behind: list[object] = []
        """Tasks whose loop was closed while they were inside. Python would close their coroutines at any moment, and
        those leave their blocks then: kept here, they cannot be taken for somebody who is inside now."""

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


class Permit:
    """``async with gate.permit(…)``: one pass, not to be entered again before it was left."""

    __slots__ = ("_owner", "_pass", "_turnstile")

    def __init__(self, owner: Any, one: Pass) -> None:
        self._owner = owner
        self._pass = one
        self._turnstile: Turnstile | None = None

    async def __aenter__(self) -> Pass:
        """Wait for the gates; returns the pass, whose ``resource`` a router has set.

        Raises:
            UsageError: If somebody is inside with it, or waits.
        """
        if self._pass._phase in _IN_USE:
            raise UsageError("this pass is in use: it lets one in at a time; make another one, by permit(…)")
        self._turnstile = turnstile = self._owner._turnstile_here()
        if not turnstile.room.pass_at_once(self._pass):
            await turnstile.wait(self._pass)
        return self._pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._turnstile is not None and not self._turnstile.loop.is_closed():  # else its pass went with the loop
            self._turnstile.dispatcher.give(self._pass, RETURNED if error is None else ended_by(error))
