"""One item of a stream: checked, stored as a job, acknowledged; or refused, with its reason.

From the moment an item is here until its job is stored nothing lets go of it: a
store that fails is asked again, after growing pauses, until it has the job."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from quarterjack.errors import FlowRefused, UsageError
from quarterjack.events import EventStream, StreamEvent, StreamEventKind
from quarterjack.model import NO_KWARGS, JobIds, JobRecord, RunOptions, SubmittedBy, Unique
from quarterjack.policies.backoff import Retry, full_jitter
from quarterjack.stores.base import Store
from quarterjack.task import TaskDefinition
from quarterjack.triggers import Stream

if TYPE_CHECKING:
    from contextvars import Context

    from quarterjack.clock import Clock

    from .flows import Flows

__all__ = ["DeclaredStream", "Intake", "StreamHost", "is_ours", "waited", "words"]

log = logging.getLogger("quarterjack.streams")

PAUSES: Final = Retry(on=Exception, attempts=1_000_000, base=1.0, cap=60.0, jitter="none")
"""Ceilings of the pauses after failures in a row; half of each is left to chance, so that a fleet does not
come back to its broker at one moment."""


class DeclaredStream(NamedTuple):
    """A stream as the code declares it."""

    id: str
    definition: TaskDefinition
    trigger: Stream


class StreamHost(Protocol):
    """What streams need of the app around them."""

    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def events(self) -> EventStream: ...
    @property
    def context(self) -> Context: ...
    @property
    def ids(self) -> JobIds: ...
    @property
    def owner(self) -> str: ...
    @property
    def flows(self) -> Flows | None: ...
    def is_watched(self, record: JobRecord) -> bool: ...
    def on_submitted(self, record: JobRecord) -> None: ...
    def watch(self, records: Iterable[JobRecord], notify: Callable[[JobRecord], None]) -> int: ...
    def check_item(self, definition: TaskDefinition, item: Any) -> tuple[Any, ...]: ...
    def fatal(self, error: BaseException) -> None: ...


class Intake:
    """Makes jobs of the items of one stream, and counts what became of them."""

    def __init__(self, host: StreamHost, declared: DeclaredStream) -> None:
        self._host = host
        self._declared = declared
        self._definition, self._trigger = declared.definition, declared.trigger
        self.taken = self.stored = self.duplicates = self.refused = self.unacknowledged = 0
        self.unfinished = 0
        """Jobs stored here that have not ended."""
        self._freed = asyncio.Event()
        self._is_stopping = False
        self._patience: asyncio.Timeout | None = None
        self._rng = Random()  # noqa: S311  # spreads pauses, guards nothing

    @property
    def is_full(self) -> bool:
        """True while there is no room for another job."""
        return self.unfinished >= self._trigger.max_waiting

    async def room(self) -> None:
        """Wait until fewer jobs are unfinished than may be."""
        while self.is_full:
            self._freed.clear()
            await self._freed.wait()

    def _on_settled(self, _: JobRecord) -> None:
        self.unfinished -= 1
        self._freed.set()

    def hurry(self) -> None:
        """Wait no longer for room in a flow: the app stops, and what is in hand is stored all the same."""
        self._is_stopping = True
        if self._patience is not None:
            self._patience.reschedule(0)

    async def take(self, item: Any) -> None:
        """Make a job of *item*, and acknowledge it; or refuse it.

        Cancelling it may leave the job stored, and the item unacknowledged.
        """
        self.taken += 1
        try:
            record = self._job_of(item)
        except Exception as error:  # users' code: value, key, the validators of the argument's type
            await self._refuse(item, error)
            return
        try:
            row = await self._stored(record)
        except (UsageError, FlowRefused) as error:
            self._leave_flow(record)
            await self._refuse(item, error)
            return
        except BaseException:
            self._leave_flow(record)
            raise
        if row.id != record.id:
            self._leave_flow(record)
            self.duplicates += 1
        else:
            if self._host.flows is not None:
                self._host.flows.stored(record.id)
            self.stored += 1
            self.unfinished += self._host.watch((record,), self._on_settled)
            if self._host.is_watched(record):
                self._host.on_submitted(record)
        await self._acknowledge(item)

    def _job_of(self, item: Any) -> JobRecord:
        trigger, definition, host = self._trigger, self._definition, self._host
        options = definition.options
        if trigger.key is not None:
            options = _with_key(options, trigger.key(item))
        value = item if trigger.value is None else trigger.value(item)
        args = host.check_item(definition, value)
        by = SubmittedBy(host.owner, text=options.submitted_by or f"stream {self._declared.id}")
        record = JobRecord(host.ids(), definition.name, args, NO_KWARGS, options, by)
        if host.flows is not None:
            host.flows.check(record)
        return record

    async def _stored(self, record: JobRecord) -> JobRecord:
        """Store the job, however often that takes; return the row that stands for it.

        Raises:
            UsageError: If the store refuses it: its unique key is taken, say.
            FlowRefused: If its flow turns it away.
        """
        tries, has_room = 0, False
        try:
            while True:
                try:
                    if tries and (await self._host.store.jobs_get([record.id]))[0] is not None:
                        return record  # the last try has stored it, and only its answer was lost
                    if not has_room:
                        await self._room_in_flow(record)
                        has_room = True
                    (row,) = await self._host.store.jobs_put((record,))
                except (UsageError, FlowRefused):
                    raise
                except Exception as error:  # the item is in our hands: whatever the store has, ask again
                    tries += 1
                    pause_s = self.pause_s(tries)
                    self.tell("failed", f"the store: {words(error)}", error, pause_s)
                    await asyncio.sleep(pause_s)
                else:
                    return row
        except asyncio.CancelledError:
            self.refused += 1
            self.tell("refused", "the app ended before its job could be stored")
            raise

    async def _room_in_flow(self, record: JobRecord) -> None:
        """Wait until the job's flow has room for it, or the app stops.

        Raises:
            QueueFull: If the flow turns away what is too much.
        """
        flows = self._host.flows
        bounds = [] if flows is None else flows.bounds_of(record)
        if flows is None or not bounds or self._is_stopping:
            return
        self._patience = asyncio.timeout(None)
        try:
            async with self._patience:
                await flows.enter(record.id, bounds)
        except TimeoutError:
            if not self._patience.expired():  # the store's own
                raise
        finally:
            self._patience = None

    def _leave_flow(self, record: JobRecord) -> None:
        if self._host.flows is not None:
            self._host.flows.left(record.id)

    async def _acknowledge(self, item: Any) -> None:
        try:
            ack = self._trigger.ack
            if ack is not None:
                await waited(ack(item))
            elif callable(own := getattr(item, "ack", None)):
                await waited(own())
        except (Exception, asyncio.CancelledError) as error:  # users' code; the job is stored, and the stream goes on
            if is_ours(error):
                raise
            self.unacknowledged += 1
            self.tell("unacknowledged", words(error), error)

    async def _refuse(self, item: Any, why: Exception) -> None:
        self.refused += 1
        self.tell("refused", words(why))
        if self._trigger.reject is None:
            return
        try:
            await waited(self._trigger.reject(item, why))
        except (Exception, asyncio.CancelledError) as error:  # users' code; the stream goes on
            if is_ours(error):
                raise
            self.tell("unacknowledged", f"reject raised {words(error)}", error)

    # -- telling ---------------------------------------------------------------------

    def pause_s(self, failures: int) -> float:
        """Return how long to wait after so many failures in a row."""
        half = PAUSES.pause_s(failures, self._rng) / 2
        return half + full_jitter(half, self._rng)

    def tell(
        self,
        kind: StreamEventKind,
        reason: str | None,
        error: BaseException | None = None,
        pause_s: float | None = None,
    ) -> None:
        """Tell events, and what went wrong the log too."""
        stream, host = self._declared.id, self._host
        if kind not in {"started", "ended"}:
            said = _TOLD[kind] + ("" if pause_s is None else f"; again in {pause_s:.1f} s")
            log.warning("stream %s: %s: %s", stream, said, reason, exc_info=error, extra={"stream": stream})
        if host.events.has_listeners:
            task = self._definition.name
            at = host.clock.now_ns()
            host.events.send(
                StreamEvent(at_ns=at, kind=kind, stream_id=stream, task=task, reason=reason, pause_s=pause_s)
            )


_TOLD: Final = {
    "refused": "an item was refused",
    "unacknowledged": "the acknowledgement of an item failed",
    "failed": "failed",
}


def _with_key(options: RunOptions, key: str) -> RunOptions:
    own = options.unique
    return replace(options, unique=Unique(key) if own is None else replace(own, key=key))


async def waited(result: Any) -> Any:
    """Return *result*, awaited if it is to be."""
    return await result if inspect.isawaitable(result) else result


def is_ours(error: BaseException) -> bool:
    """Say whether *error* is our own task's cancellation, not one that the users' code was hit by and passed on."""
    task = asyncio.current_task()
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0


def words(error: BaseException) -> str:
    """Return an exception in a line."""
    return f"{type(error).__name__}: {error}".removesuffix(": ")
