"""Which flow a job of an app passes, and whether one more may wait for it.

A job passes the flow of its task and that of its queue, as one. ``max_queue`` is
asked here, where jobs are submitted, and not in the waiting room behind the
worker: there only those wait that were claimed already. It counts what this
process submitted and what has not begun, been cancelled or ended since; the
store is asked only when it seems full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any, Final, Protocol

from quarterjack._chosen import is_sought, may_choose, not_routed
from quarterjack.errors import QueueFull
from quarterjack.flow.flow import Flow
from quarterjack.flow.for_apps import merged
from quarterjack.flow.waiting import NO_KEY, Waiting
from quarterjack.model import JobRecord, JobState
from quarterjack.stores.base import Store
from quarterjack.task import TaskDefinition

__all__ = ["Candidate", "Flows", "FlowsHost", "refuse_unrouted"]

LOOK_AGAIN_S: Final = 1.0
"""How often a submitter that waits for room looks whether another process began one of the jobs before it."""
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

    def __init__(self, record: JobRecord, fn: Callable[..., Any], enqueued_at: float) -> None:
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
            InvalidOption: If a gate can never let it through or finds no key, or its order has no place for it.
        """
        flow = self.of(record)
        if flow is None:
            return
        candidate = Candidate(record, self.fn_of(self._host.tasks[record.task]), 0.0)
        for gate in flow.gates:
            gate.check(candidate)
            gate.key_of(candidate)
        if flow.order is not None:
            flow.order.check(candidate)

    def bounds_of(self, record: JobRecord) -> list[Flow]:
        """Return the flows in which a job may have to wait for room; of those that wait for their time, none."""
        if record.options.delay_ns or record.options.run_at_ns is not None:
            return []
        return [flow for flow in dict.fromkeys(self.both(record)) if flow is not None and flow.max_queue is not None]

    async def enter(self, job_id: str, flows: list[Flow]) -> None:
        """Count one more, once there is room for it. Cancelled meanwhile, it counts nowhere.

        Raises:
            QueueFull: If one of the flows turns away what is too much.
        """
        async with AsyncExitStack() as turns:
            # Whoever comes first has the next room; in one order, lest two wait for each other.
            for flow in sorted(flows, key=id):
                if flow.overflow == "block":
                    await turns.enter_async_context(self._turns.setdefault(flow, asyncio.Lock()))
            while (full := next(filter(self._is_full, flows), None)) is not None:
                await self._look(full)
                if self._is_full(full):
                    await self._make_room(full)
            for flow in flows:
                self._waiting.setdefault(flow, {})[job_id] = None
            self._bounded_of[job_id] = flows

    def _is_full(self, flow: Flow) -> bool:
        return len(self._waiting.get(flow, ())) >= (flow.max_queue or 0)

    async def _look(self, flow: Flow) -> None:
        """Ask the store which of the jobs still wait: another process may have begun them."""
        ids = list(self._waiting[flow])
        for job_id, row in zip(ids, await self._host.store.jobs_get(ids), strict=True):
            if row is None or row.state not in _WAITS:
                self.left(job_id)

    async def _make_room(self, flow: Flow) -> None:
        most = flow.max_queue or 0
        if flow.overflow == "reject":
            raise QueueFull(most)
        if flow.overflow == "drop_oldest":
            oldest = next(iter(self._waiting[flow]))
            self.left(oldest)
            reason = f"a newer one came while max_queue={most} jobs waited"
            await self._host.store.jobs_request_cancel([oldest], reason)
            return
        self._vacancy.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S if self._host.store.is_shared else None):
                await self._vacancy.wait()

    def left(self, job_id: str) -> None:
        """A job waits no more: it began, ended, or was not stored after all."""
        for flow in self._bounded_of.pop(job_id, ()):
            self._waiting[flow].pop(job_id, None)
            self._vacancy.set()
