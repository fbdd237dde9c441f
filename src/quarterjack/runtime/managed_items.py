"""Batches of a `TaskManager`: a body that takes many items, submitted with one, and each item's job."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from quarterjack._signatures import label_of
from quarterjack.context import CURRENT
from quarterjack.errors import InvalidArguments
from quarterjack.flow.batch import Batch
from quarterjack.model import JobState, OutcomeKind

from .batching import Batcher, Seat

if TYPE_CHECKING:
    from quarterjack.flow.dispatcher import Dispatcher
    from quarterjack.flow.flow import Flow
    from quarterjack.job import Job

    from .managed import ManagedRun

__all__ = ["Batched", "Batches", "ItemSeat", "check_item", "is_batched"]

Item = TypeVar("Item")
Res = TypeVar("Res")


class Batched(Generic[Item, Res]):
    """A body that takes many items at once, to be submitted with one: ``manager.submit(insert, row)``.

    Made by `TaskManager.batch`. Awaiting a call of it, ``await insert(row)``, submits the item and
    returns its result; cancelling that cancels the item's job.
    """

    def __init__(
        self,
        fn: Callable[[list[Item]], Awaitable[Sequence[Res]]],
        batch: Batch,
        submit: Callable[[Batched[Item, Res], Item], Awaitable[Job[Res]]],
    ) -> None:
        self.fn: Final = fn
        self.batch: Final = batch
        self._submit = submit
        self.__name__ = self.__qualname__ = label_of(fn)

    async def __call__(self, item: Item, /) -> Res:
        """Submit *item*, once there is room for it, and return its result."""
        job = await self._submit(self, item)
        try:
            return await job
        except asyncio.CancelledError:
            await job.cancel(0)
            raise

    def __repr__(self) -> str:
        return f"<batch {self.__qualname__}>"


def is_batched(fn: object) -> bool:
    """Say whether *fn* takes many items at once."""
    return isinstance(fn, Batched)


def check_item(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Raise `InvalidArguments` unless *fn* is submitted with one item."""
    if kwargs or len(args) != 1:
        given = len(args) + len(kwargs)
        raise InvalidArguments(f"{label_of(fn)} is submitted with one item, by position; got {given} arguments")


class Batches:
    """Those of one manager: each body gathers its items by itself."""

    def __init__(self, flow: Flow, dispatcher: Dispatcher) -> None:
        self._flow = flow
        self._dispatcher = dispatcher
        self._batchers: dict[Batched[Any, Any], Batcher] = {}
        self._is_draining = False

    def of(self, fn: Callable[..., Any]) -> Batcher:
        """Return what gathers the items of *fn*, which `is_batched`."""
        batched = cast("Batched[Any, Any]", fn)
        batcher = self._batchers.get(batched)
        if batcher is None:
            batcher = self._batchers[batched] = Batcher(
                batched.batch, self._flow, self._dispatcher, batched.__qualname__
            )
            batcher.is_draining = self._is_draining
        return batcher

    def has_body(self, task: asyncio.Task[Any] | None) -> bool:
        """Say whether *task* runs a body of one of them."""
        return any(batcher.runs(task) for batcher in self._batchers.values())

    def flush(self, *, drain: bool = False) -> None:
        """Wait for no more items; *drain*: nor for those to come."""
        self._is_draining = self._is_draining or drain
        for batcher in self._batchers.values():
            batcher.is_draining = self._is_draining
            batcher.flush()

    async def end(self, grace_s: float) -> None:
        """Interrupt the bodies, and wait for them."""
        for batcher in tuple(self._batchers.values()):
            await batcher.stop(grace_s)


class ItemSeat(Seat):
    """The job of one item."""

    __slots__ = ("_run", "cost", "enqueued_at", "item", "key", "priority")

    def __init__(self, run: ManagedRun) -> None:
        super().__init__()
        self._run = run
        self.item = run.args[0]
        self.key, self.cost = run.chosen.key, run.chosen.cost
        self.priority, self.enqueued_at = run.urgency, run.enqueued_at

    @property
    def context(self) -> Context:
        context = Context() if self._run.context is None else self._run.context.copy()
        context.run(CURRENT.set, cast("Any", self._run))
        return context

    def body(self, items: list[Any]) -> Awaitable[Any]:
        fn = self._run.fn.fn
        body = fn(items)
        if not inspect.isawaitable(body):
            raise InvalidArguments(
                f"{self._run.task} returned {type(body).__name__}, not something to await: a batch's body is a "
                "coroutine function"
            )
        return body

    def chosen(self, resource: Any) -> None:
        self._run.resource = resource

    def began(self, now: float) -> None:
        run = self._run
        if run.alarm is not None:  # of the retry's deadline
            run.alarm.cancel()
            run.alarm = None
        run.state, run.scheduled_at, run.started_at = JobState.RUNNING, now, now
        run.attempt += 1
        run.engine.watch_over(run, now, run.chosen.run.timeout_s)

    def returned(self, result: Any) -> None:
        run = self._run
        if run.seat is not self:  # the job was left behind
            return
        run.seat = None
        run.engine.done(run, result, run.engine.monotonic())

    def failed(self, kind: OutcomeKind, error: BaseException | None) -> None:
        run = self._run
        if run.seat is not self:  # the job was left behind
            return
        run.seat = None
        if run.alarm is not None:
            run.alarm.cancel()
            run.alarm = None
        late = run.timed_out and kind is OutcomeKind.CANCELLED
        run.engine.over(run, OutcomeKind.TIMED_OUT if late else kind, error)

    def refused(self, error: Exception) -> None:
        self._run.seat = None
        self._run.engine.refuse(self._run, error)
