"""Which flow a job of an app passes, and whether one more may wait for it.

A job passes the flow of its task and that of its queue, as one. ``max_queue`` is
asked here, where jobs are submitted, and not in the waiting room behind the
worker: there only those wait that were claimed already. It counts what this
process submitted and what has not begun, been cancelled or ended since; the
store is asked only when it seems full."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from itertools import chain
from typing import Any, Final, Protocol

from quarterjack._chosen import is_sought, may_choose, not_routed
from quarterjack.errors import QueueFull
from quarterjack.flow.flow import Flow
from quarterjack.flow.for_apps import check_wraps, merged
from quarterjack.flow.room import MadeWay
from quarterjack.flow.waiting import NO_KEY, Waiting
from quarterjack.model import JobRecord, JobState
from quarterjack.stores.base import Store
from quarterjack.task import TaskDefinition

__all__ = ["Candidate", "Flows", "FlowsHost", "refuse_unrouted", "refuses"]

LOOK_AGAIN_S: Final = 1.0
"""How often a submitter that waits for room looks whether another process began one of the jobs before it."""
_NO_ROOM: Final = "no room for {} more at once, only for {}; none of them was stored"
_WAITS: Final = frozenset({JobState.SUBMITTED, JobState.SCHEDULED})


class FlowsHost(Protocol):
    """What is asked of the app around."""

    @property
    def store(self) -> Store: ...
    @property
    def tasks(self) -> Mapping[str, TaskDefinition]: ...


class Candidate(Waiting):
    """A stored job as strategies see it."""

    __slots__ = (
        "args",
        "attempt",
        "cost",
        "enqueued_at",
        "fn",
        "id",
        "key",
        "kwargs",
        "metadata",
        "priority",
        "resource",
        "started_at",
        "task",
    )

    how_keyed = "metadata={{{name!r}: …}} in options(…), or in @app.task(…) for all its jobs"

    def __init__(self, record: JobRecord, fn: Callable[..., Any] | None, enqueued_at: float) -> None:
        self.id = record.id
        self.task = record.task
        self.fn = fn
        self.args = record.args
        self.kwargs = record.kwargs
        self.metadata = metadata = record.options.metadata
        self.key = NO_KEY if metadata is None else metadata
        self.priority = record.priority
        self.cost = record.options.cost
        self.attempt = record.attempt
        self.enqueued_at = enqueued_at
        self.started_at = self.resource = None


class _LoneItem(Candidate):
    """The item of a stored job as strategies will see its batch, should no other go with it."""

    __slots__ = ()

    def __init__(self, record: JobRecord, flow: Flow) -> None:
        super().__init__(record, None, 0.0)
        names = {gate.by for gate in flow.gates}
        self.key = {name: key for name, key in self.key.items() if name in names}
        self.args, self.kwargs, self.metadata = ([*record.args, *record.kwargs.values()],), NO_KEY, None


class _Signed:
    """In place of a function some of whose parameters are dependencies: callers pass the others."""

    def __init__(self, definition: TaskDefinition) -> None:
        self.__signature__ = definition.signature
        self.__wrapped__ = definition.fn

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)


def refuse_unrouted(tasks: Mapping[str, TaskDefinition], by_queue: Mapping[str, Flow]) -> None:
    """Refuse tasks that ask for a resource which no flow can choose: their jobs could only fail.

    Raises:
        InvalidOption: Naming the first of them.
    """
    if any(map(may_choose, by_queue.values())):
        return  # a job may be sent to any queue
    for task in tasks.values():
        is_routed = may_choose(task.flow) or may_choose(task.batch_flow)
        if not is_routed and is_sought(filling.needs.fn for filling in task.needs.filled.values()):
            raise not_routed(task.name)


def refuses(flow: Flow) -> bool:
    """Say whether a bounded flow turns away what is too much, and neither lets it wait nor drops another one."""
    return flow.overflow == "reject"


class Flows:
    """The flows of one running app."""

    def __init__(self, host: FlowsHost, by_queue: Mapping[str, Flow]) -> None:
        self._host = host
        self.by_queue = by_queue
        self._merged: dict[tuple[Flow | None, Flow | None], Flow | None] = {}
        self._fns: dict[TaskDefinition, Callable[..., Any]] = {}
        self._waiting: dict[Flow, dict[str, None]] = {}
        """Of each bounded flow the jobs that wait, in order of submission."""
        self._bounded_of: dict[str, list[Flow]] = {}
        self._coming: set[str] = set()
        """Those of them that are not stored yet."""
        self._turns: dict[Flow, asyncio.Lock] = {}
        self._vacancy = asyncio.Event()

    # -- which -----------------------------------------------------------------------

    def both(self, record: JobRecord) -> tuple[Flow | None, Flow | None]:
        """Return the flow of the job's queue and that of its task."""
        definition = self._host.tasks.get(record.task)  # none: it is another process's, and so is its flow
        return self.by_queue.get(record.queue), None if definition is None else definition.flow

    def of(self, record: JobRecord) -> Flow | None:
        """Return both as one, the same one each time; None if it has neither.

        Raises:
            InvalidOption: If they do not go together.
        """
        both = self.both(record)
        if both not in self._merged:
            self._merged[both] = merged(*both, f"job of {record.task!r} in queue {record.queue!r}")
        return self._merged[both]

    def fn_of(self, definition: TaskDefinition) -> Callable[..., Any]:
        """Return something with the signature that callers of the task see: gates look up arguments by name."""
        fn = self._fns.get(definition)
        if fn is None:
            fn = self._fns[definition] = _Signed(definition) if definition.dependencies else definition.fn
        return fn

    # -- submitting ------------------------------------------------------------------

    def check(self, record: JobRecord) -> None:
        """Refuse a job that could never start.

        Raises:
            InvalidOption: If a gate can never let it through or finds no key, its order has no place for it, or
                what surrounds bodies would do nothing where it runs.
        """
        flow, definition = self.of(record), self._host.tasks[record.task]
        if flow is not None:
            if flow.wraps:
                where = f"job of {record.task!r} in queue {record.queue!r}"
                check_wraps(flow, record.options.executor, where, is_coroutine=definition.is_coroutine)
            _check(flow, Candidate(record, self.fn_of(definition), 0.0))
        if definition.batch_flow is not None:
            _check(definition.batch_flow, _LoneItem(record, definition.batch_flow))

    def bounds_of(self, record: JobRecord) -> list[Flow]:
        """Return the flows in which a job may have to wait for room; of those that wait for their time, none."""
        if record.options.delay_ns or record.options.run_at_ns is not None:
            return []
        return [flow for flow in dict.fromkeys(self.both(record)) if flow is not None and flow.max_queue is not None]

    async def reserve(self, bounds: Mapping[str, Sequence[Flow]]) -> None:
        """Count jobs in those of their flows that refuse what is too much: all of them, or none.

        Raises:
            QueueFull: If one of the flows has no room for all that come to it.
        """
        refusing = {job_id: list(filter(refuses, flows)) for job_id, flows in bounds.items()}
        coming = Counter(chain.from_iterable(refusing.values()))
        for flow, n in coming.items():
            if self._room_in(flow) < n:
                await self._look(flow)
        for flow, n in coming.items():
            if (room := self._room_in(flow)) < n:
                raise QueueFull(flow.max_queue or 0, *([] if n == 1 else [_NO_ROOM.format(n, room)]))
        for job_id, flows in refusing.items():
            self._count(job_id, flows)

    async def enter(self, job_id: str, flows: Sequence[Flow]) -> None:
        """Count one more, once there is room for it. Refused or cancelled meanwhile, it counts nowhere.

        Raises:
            QueueFull: If one of the flows turns away what is too much.
        """
        await self.reserve({job_id: flows})
        patient = [flow for flow in flows if not refuses(flow)]
        try:
            async with AsyncExitStack() as turns:
                # Whoever comes first has the next room; in one order, lest two wait for each other.
                for flow in sorted(patient, key=id):
                    if flow.overflow == "block":
                        await turns.enter_async_context(self._turns.setdefault(flow, asyncio.Lock()))
                while (full := next(filter(self._is_full, patient), None)) is not None:
                    await self._look(full)
                    if self._is_full(full):
                        await self._make_room(full)
                self._count(job_id, patient)
        except BaseException:
            self.left(job_id)
            raise

    def _count(self, job_id: str, flows: Sequence[Flow]) -> None:
        if flows:
            self._bounded_of.setdefault(job_id, []).extend(flows)
            self._coming.add(job_id)
        for flow in flows:
            self._waiting.setdefault(flow, {})[job_id] = None

    def _is_full(self, flow: Flow) -> bool:
        return self._room_in(flow) <= 0

    def _room_in(self, flow: Flow) -> int:
        return (flow.max_queue or 0) - len(self._waiting.get(flow, ()))

    def _stored_in(self, flow: Flow) -> Iterator[str]:
        """Yield which of those that wait the store knows, the oldest first."""
        return (job_id for job_id in self._waiting.get(flow, ()) if job_id not in self._coming)

    async def _look(self, flow: Flow) -> None:
        """Ask the store which of the jobs still wait: another process may have begun them."""
        ids = list(self._stored_in(flow))
        for job_id, row in zip(ids, await self._host.store.jobs_get(ids), strict=True):
            if row is None or row.state not in _WAITS:
                self.left(job_id)

    async def _make_room(self, flow: Flow) -> None:
        oldest = next(self._stored_in(flow), None)
        if flow.overflow == "drop_oldest" and oldest is not None:
            self.left(oldest)
            await self._host.store.jobs_request_cancel([oldest], str(MadeWay(flow.max_queue or 0)))
            return
        self._vacancy.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S if self._host.store.is_shared else None):
                await self._vacancy.wait()

    def stored(self, job_id: str) -> None:
        """The store has a job: from now on it knows whether that waits."""
        self._coming.discard(job_id)
        if any(flow.overflow == "drop_oldest" for flow in self._bounded_of.get(job_id, ())):
            self._vacancy.set()  # it may be the one to drop

    def settle(self, job_ids: Iterable[str]) -> None:
        """Those of these jobs that the store has not got do not come any more."""
        for job_id in self._coming.intersection(job_ids):
            self.left(job_id)

    def left(self, job_id: str) -> None:
        """A job waits no more: it began, ended, or was not stored after all."""
        self._coming.discard(job_id)
        for flow in self._bounded_of.pop(job_id, ()):
            self._waiting[flow].pop(job_id, None)
            self._vacancy.set()


def _check(flow: Flow, candidate: Candidate) -> None:
    for gate in flow.gates:
        gate.check(candidate)
        gate.key_of(candidate)
    if flow.order is not None:
        flow.order.check(candidate)
