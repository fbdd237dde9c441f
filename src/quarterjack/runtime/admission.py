"""What the worker asks about flows: whom to claim for them, who waits, who goes back.

A closed gate must not swallow the store: of each flow a few jobs are claimed
ahead, and no more before some of them have begun. Whether there is a slot is
one more gate, the last one, so that no job holds a slot while it waits and none
is let through to a full executor.

With gates that have a key those few may all be of one key that is closed for
long; they then go back to the store until their time has come, so that others
are found behind them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from quarterjack._why_words import span
from quarterjack.errors import InvalidOption
from quarterjack.executors import Executor
from quarterjack.flow.alarms import Alarm
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.flow import Flow
from quarterjack.flow.waiting import Waiting
from quarterjack.model import TICK_LANE, JobRecord, Outcome, OutcomeKind
from quarterjack.stores.base import Want
from quarterjack.task import TaskDefinition
from quarterjack.why_waiting import Held

from .awaits import Awaits
from .entrance import Entrance, EntranceHost, Entry
from .flows import Flows
from .run import Attempt
from .slots import Slot, Slots, SlotsHost

if TYPE_CHECKING:
    from .worker_host import Lanes

__all__ = ["Admission", "AdmissionHost"]

AHEAD: Final = 32
"""Jobs of a flow that are claimed before they may start: enough for its Order to choose among."""
AHEAD_SHARED: Final = 8
"""The same on a store that others claim from: what waits here, nobody else can begin."""
TICKS_AHEAD: Final = 4
"""Scheduled runs that are claimed beyond that, so that they do not stand behind a flood in the store."""
FAR_S: Final = 2.0
"""Whose gate opens later than that goes back, if others could use its place."""
LOOK_S: Final = 0.05
"""A full room is looked at so long after it was filled: at most some hundreds a second go back and come again."""


class AdmissionHost(EntranceHost, SlotsHost, Protocol):
    """What is asked of the worker."""

    held_by_id: dict[str, Attempt]


class _Lanes(NamedTuple):
    """The lanes of the tasks with one flow."""

    all: frozenset[str]
    ticks: frozenset[str]


class Admission:
    """The flows of one worker. Belongs to its loop.

    Raises:
        WrongLoop: If a gate belongs to another loop that is still open.
    """

    def __init__(
        self,
        host: AdmissionHost,
        dispatcher: Dispatcher,
        flows: Flows,
        tasks: Mapping[str, TaskDefinition],
        *,
        is_shared: bool,
    ) -> None:
        self._host = host
        self._dispatcher = dispatcher
        self._flows = flows
        self._tasks = tasks
        self._ahead = AHEAD_SHARED if is_shared else AHEAD
        self._slots = Slots(host)
        self._entrances: dict[tuple[Flow | None, Flow | None], Entrance] = {}
        self._lanes: dict[Flow | None, _Lanes] = {}
        self._looks: dict[Entrance, Alarm] = {}
        self._is_shared = is_shared
        self.awaits: Final = Awaits(dispatcher, host.held_by_id.get, self.entry_of, self._head_before)
        of_tasks = [flow for task in tasks.values() for flow in (task.flow, task.batch_flow) if flow is not None]
        dispatcher.posts([gate for flow in (*flows.by_queue.values(), *of_tasks) for gate in flow.gates])

    # -- claiming ----------------------------------------------------------------------

    def regroup(self, lanes: Sequence[Lanes]) -> list[Lanes]:
        """Learn which lanes of jobs there are; return those of tasks without a flow, by executor."""
        found: dict[Flow | None, set[str]] = {}
        for lane in {lane for one in lanes for lane in one.all}:
            found.setdefault(self._flow_of(lane), set()).add(lane)
        self._lanes = {
            flow: _Lanes(frozenset(those), frozenset(lane for lane in those if lane.startswith(TICK_LANE)))
            for flow, those in found.items()
        }
        plain = frozenset(found.get(None, ()))
        return [one._replace(all=one.all & plain, ticks=one.ticks & plain) for one in lanes]

    def _flow_of(self, lane: str) -> Flow | None:
        return self._tasks[lane.removeprefix(TICK_LANE).partition("\x1f")[0]].flow

    def plain(self, queues: Iterable[str]) -> list[str]:
        """Return those of *queues* that have no flow."""
        by_queue = self._flows.by_queue
        return [queue for queue in queues if queue not in by_queue]

    def wants(self, queues: Iterable[str], *, most: int, for_ticks: bool = False) -> list[Want]:
        """Return what the flows have room for, at most *most* of each."""
        wants: list[Want] = []
        names: dict[Flow | None, list[str]] = {}
        for queue in queues:
            names.setdefault(self._flows.by_queue.get(queue), []).append(queue)
        for of_queue, those in names.items():
            for of_task, lanes in self._lanes.items():
                if of_queue is None and of_task is None:
                    continue
                entrance = self._entrances.get((of_queue, of_task))
                left = self._ahead if entrance is None else self._ahead - entrance.room.size
                if left > 0:
                    wants.append(Want(tuple(those), lanes.all, min(left, most)))
                elif for_ticks or left > -TICKS_AHEAD:
                    wants.append(Want(tuple(those), lanes.ticks, min(max(1, TICKS_AHEAD + left), most)))
        return wants

    def reserved(self, executor: Executor) -> int:
        """Return how many jobs wait for nothing but a slot of *executor*: they go before what is claimed next."""
        return sum(slot.wanted for slot in self._slots if slot.executor is executor)

    def look_at_slots(self) -> bool:
        """Ask who waits for a slot, where there are some; say whether anybody is asked."""
        is_any = False
        for slot in self._slots:
            post = slot._post
            if post is not None and post.best is not None and slot.is_free:
                self._dispatcher.open(post)
                is_any = True
        return is_any

    # -- waiting -----------------------------------------------------------------------

    def receive(self, run: Attempt) -> bool:
        """Let a leased job wait in its flow; False if it has none."""
        both = of_queue, of_task = self._flows.by_queue.get(run.record.queue), run.definition.flow
        if of_queue is None and of_task is None:
            return False
        entrance = self._entrances.get(both)
        if entrance is None:
            try:
                entrance = self._entrances[both] = self._open(run)
            except InvalidOption as error:  # the two do not go together
                run.finished(Outcome(OutcomeKind.REJECTED, error=error, reason=str(error)))
                return True
        entrance.receive(run, self._flows.fn_of(run.definition))
        entry = entrance.entries.get(run)
        if entry is not None:
            self.awaits.received(entry)
        head = self._head_of(entrance)
        if head is not None:
            self.awaits.is_full(head)
        if entrance.room.size >= self._ahead and entrance not in self._looks and _is_keyed(entrance.flow):
            self._look_later(entrance, LOOK_S)
        return True

    def _open(self, run: Attempt) -> Entrance:
        flow = self._flows.of(run.record) or Flow()
        both = self._flows.both(run.record)
        longest = [one.max_wait_s for one in both if one is not None and one.max_wait_s is not None]
        return Entrance(self._host, self._dispatcher, flow, self._slots, min(longest, default=None))

    def entry_of(self, run: Attempt) -> Entry | None:
        """Return what stands for *run* in its flow, from its claim to its body's end."""
        for entrance in self._entrances.values():
            if (entry := entrance.entries.get(run)) is not None:
                return entry
        return None

    def _head_before(self, record: JobRecord) -> Waiting | None:
        """Return who waits first where *record*, which is not claimed, would be, if it will not be before that one."""
        entrance = self._entrances.get(self._flows.both(record))
        return None if entrance is None else self._head_of(entrance)

    def _head_of(self, entrance: Entrance) -> Waiting | None:
        """Return who waits first in a flow that claims no more.

        None if it does, if others claim from the store as well, and where keys are: those that wait for long go back.
        """
        if self._is_shared or entrance.room.size < self._ahead or _is_keyed(entrance.flow):
            return None
        return next((entry._lane.head() for entry in entrance.waiting()), None)

    def _look_later(self, entrance: Entrance, after_s: float) -> None:
        at = self._dispatcher.monotonic() + after_s
        self._looks[entrance] = self._dispatcher.call_at(at, lambda: self._look(entrance))

    def _look(self, entrance: Entrance) -> None:
        """Give back who waits for long, if the room is still full."""
        del self._looks[entrance]
        if entrance.room.size < self._ahead:
            return
        for _, eta, entry in sorted(_far(entrance, self._dispatcher.monotonic()), key=lambda one: one[:2]):
            if entrance.room.size <= self._ahead // 2:
                break
            if entry.leave():
                gate_closed_s = -eta
                reason = f"its flow lets it start in {span(gate_closed_s)}"
                self._host.give_back(entry.run, reason, round(gate_closed_s * 1e9))
                entrance.forget(entry)
        if entrance.room.size >= self._ahead:
            self._look_later(entrance, FAR_S / 2)
        self._host.claim_more()

    # -- the end -----------------------------------------------------------------------

    def give_back_all(self, reason: str) -> None:
        """The worker stops: who has not begun waits elsewhere."""
        for entrance in self._entrances.values():
            for entry in entrance.waiting():
                entry.cancel(reason)

    def close(self) -> None:
        """Bodies that are left behind hold no gates any more: nobody will hear of their end."""
        for alarm in self._looks.values():
            alarm.cancel()
        for entrance in self._entrances.values():
            for entry in tuple(entrance.entries.values()):
                entry.disarm()
                entrance.room.remove(entry)
                entry.give(entry.ended_as)
                entrance.forget(entry)

    # -- views -------------------------------------------------------------------------

    def held_up(self, run: Attempt) -> Held | None:
        """Return which gate holds a job up, if one does."""
        entry = self.entry_of(run)
        held = None if entry is None else entry.entrance.room.why_or_behind(entry)
        return None if held is None else Held(held.label, held.until - self._dispatcher.monotonic(), held.words)

    def ahead_of(self, record: JobRecord) -> int:
        """Return how many jobs wait in the flow of one that is not claimed."""
        entrance = self._entrances.get(self._flows.both(record))
        return 0 if entrance is None else entrance.room.size


def _is_keyed(flow: Flow) -> bool:
    return any(gate.by is not None for gate in flow.gates)


def _far(entrance: Entrance, now: float) -> Iterator[tuple[bool, float, Entry]]:
    """Yield who waits for long at a gate that others may pass: (is it the first of its key, minus how long, who).

    Not those with a limit to their waiting, which counts from when they are due: they would gain time by it.
    """
    if entrance.max_wait_s is not None:
        return
    for entry in entrance.waiting():
        held = entrance.room.why(entry)
        if held is None or isinstance(held.gate, Slot) or entry.run.record.options.start_deadline_s is not None:
            continue
        wait_s = held.until - now
        if wait_s > FAR_S:
            yield entry._lane.head() is entry, -(FAR_S if math.isinf(wait_s) else wait_s), entry
