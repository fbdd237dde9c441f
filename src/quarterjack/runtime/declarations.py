"""The schedules that code declares: put at the start, and put again where other code had the last word and is gone.

The newest version counts (`declared.judged`), and a process leaves alone what
another version declared otherwise. After a deploy was taken back the newer
version is at work no more, and its schedules would be fired by nobody. So while
there are such rows the registry is looked at: the newest version of those at
work, and that fire, counts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from quarterjack._at_work import at_work
from quarterjack._versions import is_older
from quarterjack.clock import Clock
from quarterjack.declared import Verdict, why_not_fired
from quarterjack.events import EventStream
from quarterjack.model import Schedule
from quarterjack.planner import never_fires
from quarterjack.stores.base import Store
from quarterjack.task import TaskDefinition

from . import notices
from .agenda import lane_of

if TYPE_CHECKING:
    from .scheduler import Scheduler
    from .store_time import StoreTime
    from .worker import Worker

__all__ = ["Declarations", "DeclarationsHost"]

log = logging.getLogger("quarterjack")

NEVER_FIRES: Final = (
    "schedule %s will not run: %s; for one run now `await app.trigger_now(%r)`, or Once() without an instant"
)
TAKEN_BACK: Final = (
    "schedule %s was declared otherwise by version %s, and no process of a version newer than the one here is at work: "
    "the declaration of version %s counts again"
)


class DeclarationsHost(Protocol):
    """What is needed of the app around it."""

    @property
    def store(self) -> Store: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def time(self) -> StoreTime: ...
    @property
    def events(self) -> EventStream: ...
    @property
    def tasks(self) -> Mapping[str, TaskDefinition]: ...
    @property
    def version(self) -> str | None: ...
    @property
    def worker(self) -> Worker | None: ...
    @property
    def scheduler(self) -> Scheduler | None: ...


class Declarations:
    """Those of one app.

    Args:
        host: The app.
        declared: The schedules of its code.
    """

    def __init__(self, host: DeclarationsHost, declared: Sequence[Schedule]) -> None:
        self._host = host
        self._declared = {row.id: row for row in declared}
        self._code = {row.id: row.code_hash or "" for row in declared}
        self._others: dict[str, Schedule] = {}
        """Rows that other code declared otherwise than the code here."""

    async def start(self) -> None:
        """Put what is declared, and tell what this process does not fire."""
        if self._declared:
            await self.put(list(self._declared.values()))
        rows = await self._host.store.schedules_list()
        for row in rows:
            self.note(row)
        if self._others:
            await self.look()
            rows = await self._host.store.schedules_list()
        notices.tell_unfired(rows, self.why_not_fired)

    async def put(self, schedules: Sequence[Schedule]) -> None:
        """Upsert schedules; a broken trigger parks its own and is logged, and so is who disagrees with other code."""
        host = self._host
        puts = await host.store.schedules_put(schedules)
        if host.scheduler is not None and host.worker is not None:
            claimer = host.worker.claimer  # now: jobs may be claimed before the scheduler has read its rows
            claimer.keep_for_ticks(claimer.tick_lanes | set(map(lane_of, schedules)))
        for row, verdict in puts:
            if verdict is Verdict.OLDER:
                continue
            if verdict is Verdict.ALTERNATED:
                notices.tell_conflict(row, host.clock.now_ns(), host.events)
            if row.parked_reason is not None:
                log.error("schedule %s is parked: %s", row.id, row.parked_reason, extra={"schedule": row.id})
            elif (why := never_fires(row)) is not None:
                log.warning(NEVER_FIRES, row.id, why, row.id, extra={"schedule": row.id})
            if host.scheduler is not None:
                host.scheduler.tell("parked" if row.parked_reason else "put", row, reason=row.parked_reason)

    def why_not_fired(self, row: Schedule) -> str | None:
        """Return why this process does not fire a schedule; None if it does."""
        return why_not_fired(row, self._host.tasks, self._code)

    def note(self, row: Schedule) -> None:
        """Remember a row if other code declared it otherwise."""
        if row.in_code and row.id in self._code and row.code_hash != self._code[row.id]:
            self._others[row.id] = row

    async def look(self) -> None:
        """Put what is declared here where the version that declared it otherwise is older, or at work no more.

        Raises:
            StoreError: If the store does not answer.
        """
        if not self._others:
            return
        host = self._host
        workers = at_work(await host.store.workers_list(), host.time.now_ns())
        is_newest = not any(one.fires and is_older(host.version, one.version) for one in workers)
        rows, self._others = self._others, {}
        if is_newest:
            await self._take_back([row for row in rows.values() if is_older(host.version, row.version)])
        older = [self._declared[row.id] for row in rows.values() if is_older(row.version, host.version)]
        if older:
            await self.put(older)

    async def _take_back(self, rows: Sequence[Schedule]) -> None:
        for row in rows:
            log.warning(TAKEN_BACK, row.id, row.version, self._host.version, extra={"schedule": row.id})
        mine = [self._declared[row.id] for row in rows]
        if not mine:
            return
        await self._host.store.schedules_put([_as_order(row) for row in mine])
        await self.put(mine)


def _as_order(declared: Schedule) -> Schedule:
    """Return a declaration as somebody's order at run time: that counts, whatever version the row is of."""
    row = declared.copy()
    row.code_hash, row.in_code = None, False
    return row
