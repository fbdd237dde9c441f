"""Where the items of a batch's task run: together, each with a report of its own.

To the worker it is an executor whose slots are items. It claims as many as make
`BATCHES` batches; those that wait for others hold a lease and have not begun."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextvars import Context
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from quarterjack._items import Items
from quarterjack.errors import ExecutorClosed, ExecutorFull
from quarterjack.executors import Executor
from quarterjack.executors.base import Call, Capabilities, Home, Report
from quarterjack.flow.batch import Batch
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.flow import Flow
from quarterjack.flow.waiting import NO_KEY
from quarterjack.model import Outcome, OutcomeKind

from .batching import Batcher, Seat

if TYPE_CHECKING:
    from .run import Attempt

__all__ = ["BATCHES", "BatchExecutor"]

BATCHES: Final = 10
"""Batches of one task that a process gathers and runs at once; a flow may allow fewer."""


class BatchExecutor(Executor):
    """Runs the items of one task in batches, on the app's loop."""

    capabilities: ClassVar[Capabilities] = Capabilities(
        can_cancel_queued=True,
        can_interrupt=False,
        can_kill=False,
        can_report_start=True,
        can_report_progress=True,
        survives_worker_restart=False,
        submit_is_idempotent=False,
        runs_coroutines=True,
    )

    def __init__(self, name: str, batch: Batch, flow: Flow | None) -> None:
        self.name = f"batch {name}"
        self.slots = BATCHES * batch.max_size
        self._task = name
        self._batch = batch
        self._flow = flow or Flow()
        self.key_names: Final = frozenset(gate.by for gate in self._flow.gates if isinstance(gate.by, str))
        """What its gates go by: items that differ in that go in different batches."""
        self._batcher: Batcher | None = None
        self.held: set[ItemCall] = set()

    async def start(self, home: Home) -> None:
        """Bind to the running loop."""
        del home
        self._batcher = Batcher(self._batch, self._flow, Dispatcher.of(asyncio.get_running_loop()), self._task)

    @property
    def free(self) -> int:
        """Items that may still come."""
        return self.slots + self.lent - len(self.held)

    def submit(self, call: Call, report: Report) -> ItemCall:
        """Let an item wait for others."""
        batcher = self._batcher
        if batcher is None:
            raise ExecutorClosed(f"the executor of {self._task} is not started, or was stopped")
        if self.free <= 0:
            raise ExecutorFull(f"all {self.slots} slots of the executor of {self._task} are taken")
        item = ItemCall(self, call, report)
        self.held.add(item)
        batcher.add(item)
        return item

    def flush(self) -> None:
        """Wait for no more items."""
        if self._batcher is not None:
            self._batcher.flush()

    async def stop(self, grace_s: float) -> None:
        """Cancel every item, and interrupt the bodies."""
        batcher, self._batcher = self._batcher, None
        if batcher is not None:
            await batcher.stop(grace_s)


class ItemCall(Seat):
    """One item; the handle the runtime holds."""

    __slots__ = (
        "_alarm",
        "_call",
        "_executor",
        "_kind",
        "_loop",
        "_reason",
        "_report",
        "_reported",
        "cost",
        "enqueued_at",
        "item",
        "key",
        "priority",
    )

    def __init__(self, executor: BatchExecutor, call: Call, report: Report) -> None:
        super().__init__()
        self._executor = executor
        self._call = call
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._alarm: asyncio.TimerHandle | None = None
        self._kind: OutcomeKind | None = None
        self._reason = ""
        self._reported = False
        self.item = call.args[0] if call.args else next(iter(call.kwargs.values()))
        self.enqueued_at = self._loop.time()
        record = self._attempt.record
        self.cost, self.priority = record.options.cost, record.priority
        metadata = record.options.metadata or NO_KEY
        self.key = {name: metadata[name] for name in executor.key_names if name in metadata}

    # -- what the batch tells ------------------------------------------------------------

    @property
    def context(self) -> Context:
        return self._call.context.copy()

    @property
    def _attempt(self) -> Attempt:
        return cast("Attempt", self._call)  # what the worker hands over

    def chosen(self, resource: Any) -> None:
        self._attempt.resource = resource

    def body(self, items: list[Any]) -> Awaitable[Any]:
        body: Awaitable[Any] = self._call.fn(Items(items))
        return body

    def began(self, now: float) -> None:
        del now  # the report stamps it by the app's clock
        self._report.began()
        if self._call.timeout_s is not None:
            self._alarm = self._loop.call_later(self._call.timeout_s, self._time_out)

    def returned(self, result: Any) -> None:
        self._end(Outcome(OutcomeKind.DONE, result))

    def failed(self, kind: OutcomeKind, error: BaseException | None) -> None:
        if kind is OutcomeKind.RAISED:
            self._end(Outcome(kind, error=error))
        elif kind is OutcomeKind.TIMED_OUT:
            self._end(Outcome(kind, reason="the batch ran longer than its timeout"))
        else:
            self._end(Outcome(self._kind or kind, reason=self._reason or "the batch's body was cancelled"))

    def refused(self, error: Exception) -> None:
        self._end(Outcome(OutcomeKind.REJECTED, error=error, reason=str(error)))

    def _end(self, outcome: Outcome) -> None:
        self._disarm()
        self._executor.held.discard(self)
        if self._reported:
            self._report.ended()
            return
        self._reported = True
        self._report.finished(outcome)

    # -- what the runtime asks -------------------------------------------------------------

    def cancel(self, reason: str) -> None:
        """Take the item out of its batch; the others go on. The last one of all interrupts the body."""
        self._stop(OutcomeKind.CANCELLED, reason)

    def _time_out(self) -> None:
        self._alarm = None
        self._stop(OutcomeKind.TIMED_OUT, f"ran longer than its timeout of {self._call.timeout_s:g} s")

    def _stop(self, kind: OutcomeKind, reason: str) -> None:
        if self._kind is not None or self._reported:
            return
        self._kind, self._reason = kind, reason
        if self.leave():
            self._end(Outcome(kind, reason=reason))
            return
        self._disarm()
        self._alarm = self._loop.call_later(self._call.cancel_grace_s, self._give_up)

    def _give_up(self) -> None:
        """The body ignores that it was interrupted: it keeps the slot until it really ends."""
        self._alarm = None
        self._reported = True
        self._report.finished(Outcome(self._kind or OutcomeKind.CANCELLED, reason=self._reason, stopped=False))

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
