"""What the store and the clock tell a running app, passed on to whom it concerns."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import Context
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from quarterjack.clock import Clock
from quarterjack.errors import StoreError
from quarterjack.events import ClockJumped, EventStream
from quarterjack.model import JobRecord
from quarterjack.stores.base import Hint, Store
from quarterjack.task import TaskDefinition
from quarterjack.timer import ClockJump, Timer

from .job_events import FINAL_KINDS, job_event
from .scheduler import Scheduler, run_at_once

if TYPE_CHECKING:
    from .flows import Flows
    from .handles import Handles
    from .outage import Outage
    from .worker import Worker

__all__ = ["Hints", "HintsHost"]

log = logging.getLogger("quarterjack")

SETTLING: Final = "reading jobs that ended"
PAUSING: Final = "reading schedules that were paused"
PAUSED: Final = "schedule %s is paused: %s; `await app.resume(%r)` lets it go on"


class HintsHost(Protocol):
    """What is needed of the app around it."""

    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def timer(self) -> Timer: ...
    @property
    def events(self) -> EventStream: ...
    @property
    def handles(self) -> Handles: ...
    @property
    def outage(self) -> Outage: ...
    @property
    def context(self) -> Context: ...
    @property
    def tasks(self) -> Mapping[str, TaskDefinition]: ...
    @property
    def flows(self) -> Flows | None: ...
    @property
    def worker(self) -> Worker | None: ...
    @property
    def scheduler(self) -> Scheduler | None: ...
    def known(self, record: JobRecord) -> JobRecord: ...
    def fatal(self, error: BaseException) -> None: ...


class Hints:
    """Listens for one app."""

    def __init__(self, host: HintsHost) -> None:
        self._host = host
        self._unlisten: list[Callable[[], None]] = []
        self._settling: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Listen from now on; the store is open."""
        host = self._host
        self._unlisten = [host.store.listen(self._on_hint), host.timer.on_jump(self._on_jump)]

    def stop(self) -> None:
        """Listen no more."""
        for end in self._unlisten:
            end()

    def _on_hint(self, hint: Hint, ids: Sequence[str]) -> None:
        worker, scheduler = self._host.worker, self._host.scheduler
        if hint is Hint.JOBS:
            if worker is not None:
                worker.poke()
        elif hint is Hint.SCHEDULES:
            if scheduler is not None:
                scheduler.on_change(ids)
        elif hint is Hint.PAUSED:
            if scheduler is not None:
                scheduler.on_change(ids)
            self._soon(self._surely(partial(self._tell_paused, ids), PAUSING))
        elif hint is Hint.CANCELS:
            if worker is not None:
                worker.cancel_local(ids)
        elif hint is Hint.ENDED:
            self._on_left(ids)
            self._on_ended_elsewhere(ids)
        elif hint is Hint.FINISHED:
            self._on_left(ids)
            self._on_ended_by_store(ids)
            if worker is not None:
                worker.notice()

    def _soon(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it at once where the store's calls end at once, else as a task that `settled` waits for."""
        if self._host.store.never_suspends:  # a moment later the store may have purged the row
            run_at_once(coroutine)
            return
        task = asyncio.get_running_loop().create_task(coroutine, context=self._host.context.copy())
        self._settling.add(task)
        task.add_done_callback(self._on_told)

    def _on_told(self, task: asyncio.Task[None]) -> None:
        self._settling.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:  # nothing of ours should raise here; a third party's store may
            self._host.fatal(error)

    async def _tell_paused(self, schedule_ids: Sequence[str]) -> None:
        """A schedule that stops by itself is told: its silence would look like health."""
        scheduler = self._host.scheduler
        for schedule_id in schedule_ids:
            row = await self._host.store.schedules_get(schedule_id)
            if row is None or row.paused_at_ns is None:
                continue
            log.warning(PAUSED, row.id, row.pause_note, row.id, extra={"schedule": row.id})
            if scheduler is not None:
                scheduler.tell("paused", row, reason=row.pause_note)

    def _on_left(self, job_ids: Sequence[str]) -> None:
        """Who waits to submit one more to the flows of these jobs may."""
        if self._host.flows is not None:
            for job_id in job_ids:
                self._host.flows.left(job_id)

    def _on_ended_elsewhere(self, job_ids: Sequence[str]) -> None:
        if self._host.handles.afar is not None:
            self._host.handles.afar.hint(job_ids)

    def _on_ended_by_store(self, job_ids: Sequence[str]) -> None:
        host = self._host
        if not host.store.never_suspends:
            host.handles.expect(job_ids)
            self._soon(self._surely(partial(self._settle, job_ids), SETTLING))
        else:
            self._soon(self._settle(job_ids))

    async def _surely(self, tell: Callable[[], Coroutine[Any, Any, None]], doing: str) -> None:
        """Tell it, however often the store must be asked: nobody hears of it anywhere else."""
        while True:
            try:
                await tell()
            except StoreError as error:
                await asyncio.sleep(self._host.outage.failed(doing, error))
            else:
                self._host.outage.worked(doing)
                return

    async def settled(self, grace_s: float) -> None:
        """Wait up to *grace_s* seconds until the ends the store told of are told on."""
        if self._settling:
            _, late = await asyncio.wait(self._settling, timeout=grace_s)
            for task in late:
                task.cancel()

    async def _settle(self, job_ids: Sequence[str]) -> None:
        """The store ended these jobs itself: tell events, callbacks and waiters."""
        host = self._host
        if not job_ids:
            return
        for job_id, record in zip(job_ids, await host.store.jobs_get(job_ids), strict=True):
            if record is None:
                host.handles.forget(job_id)
                continue
            if host.events.has_listeners:
                host.events.send(job_event(FINAL_KINDS[record.state], record))
            host.handles.settle(host.known(record), host.tasks.get(record.task))

    def _on_jump(self, jump: ClockJump) -> None:
        host = self._host
        log.warning("the clock jumped: %s of %+.3f s; schedules are looked at again", jump.kind, jump.delta_s)
        if host.events.has_listeners:
            host.events.send(ClockJumped(at_ns=host.clock.now_ns(), kind=jump.kind, delta_s=jump.delta_s))
        if jump.kind == "step" and host.store.uses_local_clock:
            host.store.clock_stepped(round(jump.delta_s * 1e9))
        if host.scheduler is not None:
            host.scheduler.wake()
        if host.worker is not None:
            host.worker.poke()
