"""The end of a running app: nothing more begins, what runs may end, the rest is cancelled or given back.

`Stopping.drain` waits for what runs, `Stopping.end_work` ends what is left and
has it recorded, `Stopping.close` lets go of everything else. Each step takes
place though one before it failed or was cancelled, and the last calls of the
store share one deadline (`patience`)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

from quarterjack.errors import StoreError
from quarterjack.model import JobFilter, JobRecord, JobState

from .patience import CLOSING_S, Patience

if TYPE_CHECKING:
    from quarterjack.stores.base import Store
    from quarterjack.timer import Timer

    from .fleet import Fleet
    from .handles import Handles
    from .hints import Hints
    from .places import Places
    from .renewal import Renewer
    from .scheduler import Scheduler
    from .streams import Streams
    from .upkeep import Upkeep
    from .worker import Worker

__all__ = ["Stopping"]

log = logging.getLogger("quarterjack")

NAMED_MOST: Final = 5
"""Jobs named in one log line; the others are counted."""


class Stopping:
    """The half of a `Service` that ends it."""

    loop: asyncio.AbstractEventLoop
    store: Store
    owner: str
    timer: Timer
    handles: Handles
    places: Places
    streams: Streams
    worker: Worker | None
    scheduler: Scheduler | None
    _hints: Hints
    _upkeep: Upkeep | None
    _fleet: Fleet | None = None
    _renewer: Renewer | None = None

    def __init__(self) -> None:
        self.patience = Patience()
        self.is_draining = False
        """True once nothing more begins here."""
        self.is_held = False
        """True while nothing more begins here because an operator has said so."""
        self.is_closed_to_jobs = False
        """Set at the end on a store that ends with the app: what is submitted now would never run."""
        self._is_open = False

    def stop_beginning(self) -> None:
        """Begin no body from now on: flags only, for a signal's handler. `drain` follows."""
        self.is_draining = True
        self.streams.hold()
        if self.scheduler is not None:
            self.scheduler.stop_firing()
        if self.worker is not None:
            self.worker.stop_claiming()
        self.places.loop.hold()

    async def drain(self, grace_s: float) -> str:
        """Take, fire and claim no more, wait up to *grace_s* for what runs; return the jobs that are left, in words."""
        self.is_draining = True
        self.streams.stop()
        if self.scheduler is not None:
            if self.worker is not None and self.scheduler.is_firing:  # what it brings is given back
                self.worker.stop_claiming()
            await self.scheduler.stop(self.hurried)
        if self.worker is not None:
            self.worker.stop_claiming()
            self.worker.leave_flows()
        self.places.flush_batches()
        is_busy = not self.streams.are_ended or (self.worker is not None and self.worker.running)
        if is_busy and grace_s > 0 and not self.hurried.is_set():
            idle = self.loop.create_task(self._until_ended())
            hurry = self.loop.create_task(self.hurried.wait())
            await asyncio.wait({idle, hurry}, timeout=grace_s, return_when=asyncio.FIRST_COMPLETED)
            for task in (idle, hurry):
                task.cancel()
            await asyncio.gather(idle, hurry, return_exceptions=True)
        return "" if self.worker is None else _named([attempt.record for attempt in self.worker.attempts()])

    async def _until_ended(self) -> None:
        await self.streams.ended()
        if self.worker is not None:
            await self.worker.idle()

    @property
    def hurried(self) -> asyncio.Event:
        """Set once the stop was asked for twice."""
        return self.patience.hurried

    @property
    def is_hurried(self) -> bool:
        """Say whether the stop was asked for twice."""
        return self.hurried.is_set()

    def hurry(self) -> None:
        """Wait no longer for what runs, nor for a store that does not answer."""
        self.patience.hurry()

    async def end_work(self, cancel_grace_s: float) -> None:
        """Cancel what still runs and record how it ended. After `drain`."""
        async with AsyncExitStack() as steps:  # last one first; each takes place though one before it was cancelled
            steps.push_async_callback(self._sign_off)
            steps.push_async_callback(self._end_jobs, cancel_grace_s)
            if self._upkeep is not None:
                steps.push_async_callback(self._upkeep.stop)
            if self._renewer is not None:  # after the worker: what it could not record yet is its own until then
                steps.push_async_callback(self._renewer.stop)
            if self.worker is not None:
                steps.push_async_callback(self.worker.stop)
                self.worker.interrupt_all()
            steps.push_async_callback(self.places.stop, cancel_grace_s)
            await self.streams.close(cancel_grace_s)

    async def _sign_off(self) -> None:
        try:
            async with self.patience.limit():
                await self.store.workers_remove(self.owner)
                return
            why = "the store did not answer in time"
        except StoreError as error:
            why = str(error)
        log.warning("this process could not be struck off the registry, which is done in an hour: %s", why)

    async def _end_jobs(self, grace_s: float) -> None:
        """Let callbacks end, and then those of the jobs that are left over."""
        await self.handles.drain(grace_s, self.hurried)
        await self._leftovers()
        await self._hints.settled(grace_s)
        await self.handles.drain(grace_s, self.hurried)

    async def close(self) -> None:
        """Let go of everything else; also after a start that failed half-way."""
        await self.places.stop(0)
        await self.places.all_settled()
        if self._is_open:  # else another app has the store, and its rows are not ours to clear
            await self._leftovers()
            await self._hints.settled(0)
            await self.handles.drain(0, self.hurried)
            self._hints.stop()
            if self.handles.afar is not None:
                await self.handles.afar.close()
            if self._fleet is not None:
                await self._fleet.close()
            self.patience = Patience(CLOSING_S, self.hurried)
            async with self.patience.limit():
                await self.store.close()
        self.timer.release()

    async def _leftovers(self) -> None:
        """End what will never run: on a store that dies with us, waiting jobs are cancelled and counted."""
        if self.store.is_shared or self.is_closed_to_jobs:
            return
        self.is_closed_to_jobs = True
        waiting = await self.store.jobs_list(JobFilter(states=frozenset({JobState.SUBMITTED})), limit=10**9)
        if waiting.jobs:
            log.warning(
                "at shutdown %d waiting jobs are cancelled, as the %s store ends with the app: %s",
                len(waiting.jobs),
                self.store.name,
                _named(waiting.jobs),
            )
            await self.store.jobs_request_cancel([job.id for job in waiting.jobs], "shutdown")


def _named(records: Sequence[JobRecord]) -> str:
    """Return jobs in words for a log line: the first few by task and id."""
    names = [f"{record.task} {record.id}" for record in records[:NAMED_MOST]]
    more = len(records) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")
