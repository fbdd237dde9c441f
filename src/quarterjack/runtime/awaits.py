"""Jobs of an app that await others in their bodies: deadlocks are told, slots lent, urgency passed on.

What a `TaskManager`'s jobs have at hand has to be found here: a job that is
awaited may stand in the store, wait in its flow, gather in a batch, or run, and
stand elsewhere after its next claim. `Awaited` is that job wherever it is. One that no
flow of this process knows is never taken for stuck: another process may run it.

What is not claimed because its flow holds as many as are claimed ahead stands
behind those: it is stuck if they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from quarterjack.flow.deadlock import Wait, waits_of
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.inheritance import lift, wait_begins, wait_ends
from quarterjack.flow.outcome import RETURNED
from quarterjack.flow.room import WaitingRoom
from quarterjack.flow.waiting import Waiting
from quarterjack.model import JobRecord

from .batching import Seat

if TYPE_CHECKING:
    from .entrance import Entry
    from .run import Attempt

__all__ = ["Awaited", "Awaits", "Loan"]


class Awaited(Waiting):
    """A job that a body awaits."""

    __slots__ = ("_awaits", "_record", "awaits", "id", "lifted_to", "priority", "task")

    def __init__(self, awaits: Awaits, record: JobRecord) -> None:
        self._awaits = awaits
        self._record = record
        self.id, self.task, self.priority = record.id, record.task, record.priority
        self.lifted_to: int | None = None
        self.awaits = ()

    @property
    def stands_in(self) -> Waiting | None:  # type: ignore[override]
        """What the flow sees of it now; None if nothing."""
        return self._awaits.found(self._record)


class _Onlooker(Waiting):
    """A job without a flow, while it awaits others: it holds nothing, and others may await it."""

    __slots__ = ("__dict__",)


class Loan:
    """One wait of a body."""

    __slots__ = ("_awaited", "_awaits", "_holder", "_wait")

    def __init__(self, awaits: Awaits, holder: Waiting, awaited: list[Any], wait: Wait) -> None:
        self._awaits, self._holder, self._awaited, self._wait = awaits, holder, awaited, wait

    async def end(self, *, at_once: bool) -> None:
        """The body goes on, once it has its slots again; *at_once* where it was interrupted."""
        self._awaits.forget(self._holder, self._awaited, self._wait)
        await self._wait.end(at_once=at_once)


class Awaits:
    """The waits of one worker's jobs. Belongs to its loop.

    Args:
        dispatcher: The loop's.
        attempt_of: Finds what this worker has claimed, by its id.
        entry_of: Finds what stands for that in its flow.
        before: Finds who waits in a flow that claims no more, before a job that is not claimed.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        attempt_of: Callable[[str], Attempt | None],
        entry_of: Callable[[Attempt], Entry | None],
        before: Callable[[JobRecord], Waiting | None],
    ) -> None:
        self._waits = waits_of(dispatcher)
        self._dispatcher = dispatcher
        self._attempt_of, self._entry_of, self._before = attempt_of, entry_of, before
        self._nowhere = WaitingRoom(dispatcher, (), None, start=_never, refuse=_never)
        self._onlookers: dict[str, tuple[_Onlooker, list[Wait]]] = {}
        self._waits_for: dict[str, dict[Wait, Awaited]] = {}
        """Who awaits a job, by its id."""

    def begin(self, attempt: Attempt, records: Sequence[Any], waiter: asyncio.Future[None]) -> Loan:
        """The body of *attempt* awaits these jobs from now on; *waiter* is told if that could never end."""
        awaited = [record if isinstance(record, Waiting) else Awaited(self, record) for record in records]
        holder = self._entry_of(attempt) or self._onlooker(attempt)
        wait_begins(holder, awaited)
        wait = self._waits.begin(holder, awaited, waiter)
        if isinstance(holder, _Onlooker):
            self._onlookers[holder.id][1].append(wait)
        for one in awaited:
            if isinstance(one, Awaited):
                self._waits_for.setdefault(one.id, {})[wait] = one
        return Loan(self, holder, awaited, wait)

    def forget(self, holder: Waiting, awaited: list[Any], wait: Wait) -> None:
        """The wait is over."""
        wait_ends(holder, awaited)
        for one in awaited:
            waits = self._waits_for.get(one.id) if isinstance(one, Awaited) else None
            if waits is not None:
                waits.pop(wait, None)
                if not waits:
                    del self._waits_for[one.id]
        if isinstance(holder, _Onlooker):
            of_holder = self._onlookers[holder.id][1]
            of_holder.remove(wait)
            if not of_holder:
                del self._onlookers[holder.id]
                self._dispatcher.give(holder, RETURNED)

    def _onlooker(self, attempt: Attempt) -> _Onlooker:
        record = attempt.record
        known = self._onlookers.get(record.id)
        if known is not None:
            return known[0]
        onlooker = _Onlooker()
        onlooker.id, onlooker.task, onlooker.priority = record.id, record.task, record.priority
        self._nowhere.pass_at_once(onlooker)
        self._onlookers[record.id] = onlooker, []
        self._inherit(record.id, onlooker)
        return onlooker

    def _inherit(self, job_id: str, one: Waiting) -> None:
        for awaited in self._waits_for.get(job_id, {}).values():
            lift(one, awaited.urgency)

    def received(self, entry: Entry) -> None:
        """A job waits in its flow from now on: somebody may have awaited it before."""
        if entry.id in self._waits_for:
            self._inherit(entry.id, entry)
            for wait in tuple(self._waits_for[entry.id]):
                self._waits.look_at(wait, entry)

    def is_full(self, head: Waiting) -> None:
        """No more is claimed for a flow in which *head* is the first: whoever is behind waits for it."""
        if self._waits_for and self._waits.is_held_up(head):
            self._waits.look_again()

    def found(self, record: JobRecord) -> Waiting | None:
        """Return what stands for a job in its flow, or before it there."""
        attempt = self._attempt_of(record.id)
        if attempt is None:
            return None if record.state.is_finished else self._before(record)
        handle = attempt.handle
        if isinstance(handle, Seat) and handle.group is not None:
            return handle.group
        known = self._onlookers.get(record.id)
        return self._entry_of(attempt) or (None if known is None else known[0])


def _never(*what: object) -> None:
    """Nobody waits in a room without gates."""
    raise AssertionError(what)
