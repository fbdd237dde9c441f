"""What a process does for a shared store now and then: look at its clock and its schedules, and delete what is too old.

Every process does, at random moments: there is no leader to be lost, and what
one has deleted the next does not find. A store that cannot delete is no outage:
jobs run all the same, so it is told, and tried again when it is time anyhow."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from random import Random
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from quarterjack._durations import NS_PER_S
from quarterjack.errors import StoreError
from quarterjack.stores.base import Store

from .outage import Outage

if TYPE_CHECKING:
    from .declarations import Declarations
    from .store_time import StoreTime

__all__ = ["Retention", "Upkeep", "UpkeepHost", "purge"]

log = logging.getLogger("quarterjack")

LOOK_S: Final = 30.0
"""How often the store's clock is looked at: a machine's counter drifts by 3 ms in that time, at worst."""
PURGE_S: Final = 60.0
AT_ONCE: Final = 5_000
"""Rows deleted in one call, so that no call takes long."""
GONE_S: Final = 3_600.0
"""A worker that has given no sign of life for so long is struck off the registry."""
DOING: Final = "looking after it"
TOLD_AFTER: Final = 2
"""A purge that fails so often in a row is told: the first failure may begin an outage, which is told as such."""


class Retention(NamedTuple):
    """How many finished jobs a shared store keeps: those of *age*, and no more than *rows*."""

    age: timedelta = timedelta(days=7)
    rows: int = 100_000


class UpkeepHost(Protocol):
    """What is needed of the app around it."""

    @property
    def store(self) -> Store: ...
    @property
    def time(self) -> StoreTime: ...
    @property
    def declarations(self) -> Declarations: ...
    @property
    def outage(self) -> Outage: ...
    @property
    def owner(self) -> str: ...
    def fatal(self, error: BaseException) -> None: ...


class Upkeep:
    """Looks after one store, on the app's loop.

    Args:
        host: The app.
        retention: What is kept; None where this process deletes nothing.
    """

    def __init__(self, host: UpkeepHost, retention: Retention | None) -> None:
        self._host = host
        self._retention = retention
        self._failures = 0
        """Purges in a row that failed while the store answered other calls."""
        self._rng = Random()  # noqa: S311  # spreads the rounds, guards nothing
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="quarterjack-upkeep")

    async def stop(self) -> None:
        """End; a purge under way may be cut short, which loses nothing."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await self._rounds()
        except Exception as error:  # nothing of ours should raise here; a third party's store may
            self._host.fatal(error)

    async def _rounds(self) -> None:
        purge_in_s = PURGE_S * self._rng.random()
        pause_s = LOOK_S * self._rng.random()
        while True:
            await asyncio.sleep(pause_s)
            purge_in_s -= pause_s
            pause_s = await self._look()
            if self._retention is not None and purge_in_s <= 0:
                purge_in_s = PURGE_S
                await self._purge(self._retention)

    async def _look(self) -> float:
        """Look at the clock, and whose schedules count; return how many seconds to wait before the next look."""
        try:
            await self._host.time.look()
            await self._host.declarations.look()
        except StoreError as error:
            return self._host.outage.failed(DOING, error)
        self._host.outage.worked(DOING)
        return LOOK_S * self._rng.uniform(0.8, 1.2)

    async def _purge(self, retention: Retention) -> None:
        try:
            await self.purge(retention)
        except StoreError as error:
            if self._host.outage.since is None:
                self._failures += 1
                if self._failures == TOLD_AFTER:
                    log.warning("old jobs cannot be deleted: %s; it is tried again each minute", error)
            return
        if self._failures >= TOLD_AFTER:
            log.warning("old jobs are deleted again")
        self._failures = 0

    async def purge(self, retention: Retention) -> int:
        """Delete what is beyond *retention*; return how many jobs that were.

        Raises:
            StoreError: If the store does not answer.
        """
        store = self._host.store
        deleted = await purge(store, retention.age, keep=retention.rows)
        before = self._host.time.now_ns() - round(GONE_S * NS_PER_S)
        for worker in await store.workers_list():
            if worker.seen_at_ns < before and worker.id != self._host.owner:
                await store.workers_remove(worker.id)
        return deleted


async def purge(store: Store, older_than: timedelta, *, keep: int | None = None) -> int:
    """Delete finished jobs that ended longer ago than *older_than*, or are beyond the newest *keep*; return how many.

    Raises:
        StoreError: If the store does not answer.
    """
    deleted = 0
    while n := await store.jobs_purge(older_than, AT_ONCE, keep=keep):
        deleted += n
        if n < AT_ONCE:
            break
    return deleted
