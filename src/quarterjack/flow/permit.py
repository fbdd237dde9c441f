"""A pass through gates without a job: ``async with gate`` and ``async with gate.permit(tenant=…)``."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from quarterjack.errors import WrongLoop

from .dispatcher import Dispatcher
from .outcome import CANCELLED, NOT_STARTED, RETURNED, Ended, EndKind
from .room import WaitingRoom
from .waiting import NO_KEY, Phase, Waiting

if TYPE_CHECKING:
    from .base import Gate

__all__ = ["Pass", "Permit", "Turnstile"]


class Pass(Waiting):
    """One way through: what the gates see in place of a job."""

    __slots__ = ("_lane", "_phase", "_rank", "_seq", "cost", "enqueued_at", "key", "resource", "started_at", "waiter")

    def __init__(self, key: Mapping[str, Hashable] = NO_KEY, cost: float = 1.0) -> None:
        self.key = key
        self.cost = cost
        self.resource = None
        self.waiter: asyncio.Future[None] | None = None


class Turnstile:
    """The waiting room of bare passes through some gates, on one loop."""

    __slots__ = ("_room", "dispatcher", "inside")

    def __init__(self, gates: Sequence[Gate], loop: asyncio.AbstractEventLoop) -> None:
        self.dispatcher = Dispatcher.of(loop)
        self._room = WaitingRoom(self.dispatcher, gates, None, start=_let_in, refuse=_turn_away)
        self.inside: dict[asyncio.Task[Any] | None, list[Pass]] = {}
        """Passes by the task that holds them, for ``async with gate``."""

    async def enter(self, one: Pass) -> None:
        """Wait until every gate lets *one* through. Cancelled meanwhile, it leaves nothing taken."""
        dispatcher = self.dispatcher
        now = one.enqueued_at = dispatcher.monotonic()
        if not self._room.pass_at_once(one, now):
            one.waiter = dispatcher.loop.create_future()
            self._room.put(one)
            try:
                await one.waiter
            except BaseException:  # cancelled, turned away, or its coroutine was closed
                if not self._room.remove(one) and one._phase is Phase.TAKEN:  # let in, and cancelled in the same turn
                    dispatcher.give(one, NOT_STARTED)
                raise
            now = dispatcher.monotonic()
        dispatcher.started(one, now)

    def leave(self, one: Pass, error: BaseException | None) -> None:
        """Give back what was taken."""
        if error is None:
            ended = RETURNED
        elif isinstance(error, asyncio.CancelledError):
            ended = CANCELLED
        else:
            ended = Ended(EndKind.RAISED, error)
        self.dispatcher.give(one, ended)

    @classmethod
    def of(cls, known: Turnstile | None, gates: Sequence[Gate]) -> Turnstile:
        """Return *known* if it is the running loop's, else a new one."""
        loop = asyncio.get_running_loop()
        if known is not None and known.dispatcher.loop is loop:
            return known
        if known is not None and not known.dispatcher.loop.is_closed():
            raise WrongLoop(
                f"{gates[0]!r} belongs to the event loop that used it first; make one for each loop, "
                'or a limit for all processes with scope="fleet"'
            )
        return cls(gates, loop)


def _let_in(one: Pass) -> None:
    if one.waiter is not None and not one.waiter.done():
        one.waiter.set_result(None)


def _turn_away(one: Pass, error: Exception) -> None:
    if one.waiter is not None and not one.waiter.done():
        one.waiter.set_exception(error)


class Permit:
    """``async with gate.permit(…)``: one pass, to be entered once."""

    __slots__ = ("_owner", "_pass", "_turnstile")

    def __init__(self, owner: Any, one: Pass) -> None:
        self._owner = owner
        self._pass = one
        self._turnstile: Turnstile | None = None

    async def __aenter__(self) -> Pass:
        """Wait for the gates; returns the pass, whose ``resource`` a router has set."""
        self._turnstile = turnstile = self._owner._turnstile_here()
        await turnstile.enter(self._pass)
        return self._pass

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._turnstile is not None:
            self._turnstile.leave(self._pass, error)
