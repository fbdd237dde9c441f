"""Batches at work: items gather, pass a flow together, and end one by one.

    seat ─▶ basket ─▶ group ─▶ (gates) ─▶ body ─▶ each seat its outcome
                        ▲                   │ raised, and on_error says so
                        └──── its parts ◀───┘

A *seat* is one item's job as seen from here; whoever makes seats (a
`TaskManager`, an app's executor) tells what an outcome means for its job. A
*group* is a batch on its way: it passes the gates as one job. A seat may leave
at any time. It is then not in the list that the body gets, or its result is
thrown away; only when the last one leaves is a running body interrupted."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from contextvars import Context
from functools import partial
from typing import Any, Final

from quarterjack.context import CURRENT
from quarterjack.errors import BatchMismatch
from quarterjack.flow.alarms import Alarm
from quarterjack.flow.batch import Basket, Batch, results_of, size_of
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.flow import Flow
from quarterjack.flow.outcome import CANCELLED, NOT_STARTED, RETURNED, TIMED_OUT, Ended, EndKind
from quarterjack.flow.room import HeldUp, WaitingRoom
from quarterjack.flow.waiting import NO_KEY, Phase, Waiting
from quarterjack.model import OutcomeKind

from ._ends import one_failure

__all__ = ["Batcher", "Group", "Seat"]

log = logging.getLogger("quarterjack.batch")

SWEEP_ABOVE: Final = 64
"""Baskets that are left as they are, empty or not."""
_OUTCOMES: Final = {EndKind.CANCELLED: OutcomeKind.CANCELLED, EndKind.TIMED_OUT: OutcomeKind.TIMED_OUT}


class Seat(ABC):
    """One item of a batch."""

    __slots__ = ("basket", "group")

    item: Any
    priority: int = 2
    cost: float = 1.0
    enqueued_at: float = 0.0
    key: Mapping[str, Hashable] = NO_KEY

    def __init__(self) -> None:
        self.basket: Basket[Seat] | None = None
        self.group: Group | None = None

    @property
    @abstractmethod
    def context(self) -> Context:
        """Where the body runs, if this is the first of its batch."""

    @abstractmethod
    def body(self, items: list[Any]) -> Awaitable[Any]:
        """Call the body."""

    def chosen(self, resource: Any) -> None:
        """A router of the flow chose *resource* for the batch."""

    @abstractmethod
    def began(self, now: float) -> None:
        """The body begins, with this item; once, however often it is tried in parts."""

    @abstractmethod
    def returned(self, result: Any) -> None:
        """This is the item's result."""

    @abstractmethod
    def failed(self, kind: OutcomeKind, error: BaseException | None) -> None:
        """The item raised, or its batch did; the body was cancelled, or ran too long."""

    @abstractmethod
    def refused(self, error: Exception) -> None:
        """The flow turned its batch away."""

    def why(self) -> HeldUp | None:
        """Return what holds the item up; None if nothing does."""
        if self.basket is not None:
            return HeldUp("its batch", self.basket.due, "gathers")
        return None if self.group is None else self.group.batcher.why(self.group)

    def leave(self) -> bool:
        """Be no part of the batch any more; False for the last one of a running body, which is interrupted."""
        if self.basket is not None:
            self.basket.remove(self)
            self.basket = None
        elif self.group is not None:
            return self.group.batcher.leave(self.group, self)
        return True


class Group(Waiting):
    """A batch on its way, as the flow sees it."""

    __slots__ = (
        "__dict__",
        "_lane",
        "_phase",
        "_rank",
        "_seq",
        "alarm",
        "args",
        "batcher",
        "cost",
        "enqueued_at",
        "is_part",
        "key",
        "priority",
        "seats",
        "started_at",
        "task",
        "timed_out",
        "worker",
    )

    def __init__(self, batcher: Batcher, seats: list[Seat], *, is_part: bool = False) -> None:
        self.batcher = batcher
        self.seats: dict[Seat, None] = dict.fromkeys(seats)
        self.task = batcher.name
        self.args = ([seat.item for seat in seats],)
        self.key = seats[0].key
        self.cost = max(seat.cost for seat in seats)
        self.priority = min(seat.priority for seat in seats)
        self.enqueued_at = min(seat.enqueued_at for seat in seats)
        self.started_at = None
        self.is_part = is_part
        """Its body was called before, with these items and others."""
        self.timed_out = False
        self.alarm: Alarm | None = None
        self.worker: asyncio.Task[None] | None = None
        self._phase = Phase.NEW
        for seat in seats:
            seat.basket, seat.group = None, self


class Batcher:
    """Makes batches of the items of one body, and runs them. Belongs to one loop.

    Args:
        batch: When items go together.
        flow: What a batch passes: its gates, order, wraps and timeout.
        dispatcher: The loop's.
        name: The body's, for people.
    """

    def __init__(self, batch: Batch, flow: Flow, dispatcher: Dispatcher, name: str) -> None:
        self.batch = batch
        self.name = name
        self._flow = flow
        self._dispatcher = dispatcher
        self._room = flow.room(dispatcher, self._start, self._refuse)
        self._baskets: dict[frozenset[tuple[str, Hashable]], Basket[Seat]] = {}
        self._sweep_at = SWEEP_ABOVE
        self._groups: set[Group] = set()
        self._outside: deque[Group] = deque()
        """Batches that wait for room, where the flow has them do so."""
        self._porter: asyncio.Task[None] | None = None
        """Who lets them in."""
        self._idle = asyncio.Event()
        self.is_draining = False
        """Items go as they come."""

    # -- gathering ---------------------------------------------------------------------

    def add(self, seat: Seat) -> None:
        """Take an item. Those with different keys go separately: a batch has one key at its gates."""
        key = frozenset(seat.key.items())
        basket = self._baskets.get(key)
        if basket is None:
            self._sweep()
            basket = self._baskets[key] = Basket(
                self.batch, self._dispatcher.monotonic, self._dispatcher.call_at, self._go
            )
        size = 0 if self.batch.max_bytes is None else size_of(seat.item)
        seat.basket = basket
        basket.add(seat, size)
        if self.is_draining:
            basket.flush()

    def _sweep(self) -> None:
        """Forget empty baskets, once they may be as many as the others: tenants come and go."""
        if len(self._baskets) >= self._sweep_at:
            self._baskets = {key: basket for key, basket in self._baskets.items() if len(basket)}
            self._sweep_at = max(SWEEP_ABOVE, 2 * len(self._baskets))

    def flush(self) -> None:
        """Wait for no more items: what has gathered goes now."""
        for basket in tuple(self._baskets.values()):
            basket.flush()

    @property
    def gathering(self) -> int:
        """Items that wait for others."""
        return sum(map(len, self._baskets.values()))

    @property
    def batches(self) -> int:
        """Batches that wait for their flow, or run."""
        return len(self._groups)

    def runs(self, task: asyncio.Task[Any] | None) -> bool:
        """Say whether *task* runs a body."""
        return any(group.worker is task for group in self._groups)

    def _go(self, seats: list[Seat]) -> None:
        self._put(Group(self, seats))

    @property
    def room(self) -> WaitingRoom:
        """Where its batches wait for their gates."""
        return self._room

    def _put(self, group: Group) -> None:
        self._groups.add(group)
        if self._room.overflow == "block" and (self._outside or self._room.is_full):
            self._outside.append(group)
            if self._porter is None:
                self._porter = self._dispatcher.loop.create_task(self._let_in(), context=Context())
        else:
            self._enter(group)

    def _enter(self, group: Group) -> None:
        try:
            self._room.put(group)
        except Exception as error:  # the room is full, or a user's gate runs here: it fails this batch alone
            self._refuse(group, error)
        else:
            self._dispatcher.look_again()  # who awaits one of its items may hold what it waits for

    async def _let_in(self) -> None:
        """Have batches wait for room before their gates: their items have come already, and cannot be asked to."""
        try:
            while self._outside:
                await self._room.wait_for_room(first=True)
                self._enter(self._outside.popleft())
        finally:
            if self._porter is asyncio.current_task():
                self._porter = None

    def _refuse(self, group: Group, error: Exception) -> None:
        self._forget(group)
        for seat in self._emptied(group):
            seat.refused(error)

    def why(self, group: Group) -> HeldUp | None:
        """Return the gate that holds a batch up; see `WaitingRoom.why`."""
        return self._room.why(group)

    # -- running -----------------------------------------------------------------------

    def _start(self, group: Group) -> None:
        """Its gates are taken: call the body, in the context of its first item."""
        first = next(iter(group.seats))
        group.worker = self._dispatcher.loop.create_task(self._drive(group, first), context=first.context)
        group.worker.add_done_callback(partial(self._never_began, group))

    def _never_began(self, group: Group, worker: asyncio.Task[None]) -> None:
        """The task of a batch is over; if that was before its first step, somebody else has cancelled it."""
        if group.worker is worker and group._phase is Phase.TAKEN:
            self._dispatcher.give(group, NOT_STARTED)
            self._forget(group)
            for seat in self._emptied(group):
                seat.failed(OutcomeKind.CANCELLED, None)

    async def _drive(self, group: Group, first: Seat) -> None:
        now = self._dispatcher.monotonic()
        self._dispatcher.started(group, now)
        seats = list(group.seats)
        if first not in group.seats:  # it left in between: the body is to find a job that is inside
            first = seats[0]
            CURRENT.set(first.context.get(CURRENT))
        if self._flow.timeout is not None:
            group.alarm = self._dispatcher.call_at(now + self._flow.timeout.seconds, partial(self._time_out, group))
        if group.resource is not None:
            for seat in seats:
                seat.chosen(group.resource)
        if not group.is_part:
            for seat in seats:
                seat.began(now)
        try:
            returned = await self._call(group, first, [seat.item for seat in seats])
            results = results_of(returned, len(seats), self.name)
        except asyncio.CancelledError:
            self._interrupted(group)
        except BaseException as error:  # the user's code runs here, and whatever it raises is its items' outcome
            if isinstance(error, GeneratorExit) and self._dispatcher.loop.is_closed():
                raise  # the loop was closed under the body: nobody is there to hear of it
            self._raised(group, error, len(seats))
        else:
            self._returned(group, zip(seats, results, strict=True))

    async def _call(self, group: Group, first: Seat, items: list[Any]) -> Any:
        async def body() -> Any:
            return await first.body(items)

        proceed: Callable[[], Any] = body
        for wrap in reversed(self._flow.wraps):
            proceed = partial(wrap, group, proceed)
        return await proceed()

    def _returned(self, group: Group, pairs: zip[tuple[Seat, Any]]) -> None:
        self._over(group, RETURNED)
        for seat, result in pairs:
            if seat.group is not group:  # it left meanwhile
                continue
            seat.group = None
            if isinstance(result, BaseException):
                seat.failed(OutcomeKind.RAISED, result)
            else:
                seat.returned(result)

    def _raised(self, group: Group, error: BaseException, called_with: int) -> None:
        self._over(group, Ended(EndKind.RAISED, error))
        seats = self._emptied(group)
        may_split = isinstance(error, Exception) and not isinstance(error, BatchMismatch)
        parts = self.batch.parts(seats, called_with) if may_split else []
        for part in parts:
            self._put(Group(self, part, is_part=True))
        if parts:
            return
        with one_failure():
            for seat in seats:
                seat.failed(OutcomeKind.RAISED, error)

    def _interrupted(self, group: Group) -> None:
        ended = TIMED_OUT if group.timed_out else CANCELLED
        self._over(group, ended)
        for seat in self._emptied(group):
            seat.failed(_OUTCOMES[ended.kind], None)

    def _time_out(self, group: Group) -> None:
        group.alarm = None
        if group.worker is not None:
            group.timed_out = True
            group.worker.cancel("the batch ran longer than its timeout")

    def _over(self, group: Group, ended: Ended) -> None:
        if group.alarm is not None:
            group.alarm.cancel()
        self._dispatcher.give(group, ended)
        self._forget(group)

    def _forget(self, group: Group) -> None:
        self._groups.discard(group)
        if not self._groups:
            self._idle.set()

    @staticmethod
    def _emptied(group: Group) -> list[Seat]:
        seats = list(group.seats)
        group.seats.clear()
        for seat in seats:
            seat.group = None
        return seats

    # -- leaving -----------------------------------------------------------------------

    def leave(self, group: Group, seat: Seat) -> bool:
        """*seat* wants to end: see `Seat.leave`."""
        if len(group.seats) == 1 and group._phase is Phase.STARTED and group.worker is not None:
            group.worker.cancel("nobody waits for the batch")
            return False
        group.seats.pop(seat, None)
        seat.group = None
        if not group.seats:
            self._withdraw(group)
        return True

    def _withdraw(self, group: Group) -> None:
        """No item is left of a batch that has not begun."""
        if group._phase is Phase.TAKEN and group.worker is not None:
            group.worker.cancel()  # before its first step: its coroutine is never entered
            self._dispatcher.give(group, NOT_STARTED)
        elif group in self._outside:
            self._outside.remove(group)
            if self._porter is not None and not self._outside:
                self._porter.cancel()
                self._porter = None
        else:
            self._room.remove(group)
        self._forget(group)

    async def stop(self, grace_s: float) -> None:
        """End what is left: items that wait are cancelled, bodies interrupted, and left behind after *grace_s*."""
        for basket in tuple(self._baskets.values()):
            for seat in list(basket):
                if seat.leave():
                    seat.failed(OutcomeKind.CANCELLED, None)
        for group in tuple(self._groups):
            if group._phase is Phase.STARTED and group.worker is not None:
                group.worker.cancel("stopped")
                continue
            for seat in list(group.seats):
                if seat.leave():
                    seat.failed(OutcomeKind.CANCELLED, None)
        try:
            async with asyncio.timeout(grace_s):
                await self.idle()
        except TimeoutError:
            self._give_up()

    def _give_up(self) -> None:
        for group in tuple(self._groups):
            log.warning("a batch of %s did not end when it was cancelled; it is left behind", self.name)
            for seat in self._emptied(group):  # its gates come back when the body has really ended
                seat.failed(OutcomeKind.CANCELLED, None)

    async def idle(self) -> None:
        """Wait until no batch waits or runs."""
        while self._groups:
            self._idle.clear()
            await self._idle.wait()
