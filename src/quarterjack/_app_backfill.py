"""The app's backfills: jobs for fire times that have passed. What they are is decided in `backfill`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal, get_args, overload

from ._app_base import AppBase, known_schedule
from ._numbers import whole_number
from .backfill import MOST, BackfillOverlap, backfill_plan
from .context import CURRENT
from .errors import InvalidOption, NotRunning
from .job import Job
from .model import Schedule, SubmittedBy
from .options import instant_ns
from .runtime.service import Service
from .stores.base import Backfilled
from .triggers.base import from_ns

__all__ = ["AppBackfill"]


class AppBackfill(AppBase):
    """Making up for what did not run."""

    @overload
    async def backfill(
        self,
        schedule_id: str,
        start: datetime,
        end: datetime,
        *,
        limit: int = 1_000,
        overlap: BackfillOverlap = "queue_all",
        dry_run: Literal[False] = False,
    ) -> list[Job[Any]]: ...
    @overload
    async def backfill(
        self,
        schedule_id: str,
        start: datetime,
        end: datetime,
        *,
        limit: int = 1_000,
        overlap: BackfillOverlap = "queue_all",
        dry_run: Literal[True],
    ) -> list[datetime]: ...
    async def backfill(
        self,
        schedule_id: str,
        start: datetime,
        end: datetime,
        *,
        limit: int = 1_000,
        overlap: BackfillOverlap = "queue_all",
        dry_run: bool = False,
    ) -> list[Job[Any]] | list[datetime]:
        """Make jobs for a schedule's fire times in ``[start, end)``, which have passed; all of them or none.

        They go by the schedule's rule, its ``start=`` and ``end=``, and run as its jobs
        do, with priority 4 and without its ``start_deadline=``; ``job.nominal`` is the
        fire time. The same range again makes no job twice (`Job.is_duplicate`; `retry`
        repeats what failed; one whose row was purged is not made anew, and not among
        those returned), but a fire time that the schedule ran itself is run once
        more. The schedule goes on: none of its runs is left out or counted because one
        of these is open, and one that is due while they wait goes first. It waits for
        the one that runs, though, and may end late for the next run of its own;
        ``overlap="allow"`` lets none wait for another.

        Args:
            schedule_id: Which schedule.
            start: The first instant, inclusive; aware.
            end: The last instant, exclusive; aware, and not in the future.
            limit: Most jobs to make, 1 to 10,000; beyond, nothing is made.
            overlap: ``"queue_all"`` runs them one after the other, in turn with the
                schedule's own; ``"allow"`` side by side.
            dry_run: Only return the fire times, made already or not.

        Returns:
            The jobs, oldest fire time first; the fire times for a dry run.

        Raises:
            UnknownSchedule: If there is none of this id.
            NotPeriodic: If its fire times depend on how its runs end.
            InvalidOption: If the range is empty, lies in the future or holds more fire times than *limit*;
                NaiveDatetime, one of these, if an end of it has no zone.
        """
        _check_backfill(limit, overlap)
        start_ns, end_ns = instant_ns(start, "start"), instant_ns(end, "end")
        if start_ns >= end_ns:
            raise InvalidOption(f"a backfill goes from start to a later end, got {start} to {end}")
        service, parent = self._running(), CURRENT.get()
        if service.is_closed_to_jobs:
            raise NotRunning(f"the app is shutting down and runs nothing more: {schedule_id} was not backfilled")

        async def there() -> list[Job[Any]] | list[datetime]:
            if end_ns > await service.store.now_ns():
                raise InvalidOption(
                    f"end={end} lies in the future, where the schedule runs by itself; a backfill is of what has passed"
                )
            while True:
                row = await self._row(service, schedule_id)
                plan = backfill_plan(row, start_ns, end_ns, limit=limit, overlap=overlap)
                if dry_run:
                    zone = row.trigger.zone or start.tzinfo
                    return [from_ns(nominal, zone) for nominal in plan.nominals]
                by = SubmittedBy(service.owner, row.id, None if parent is None else parent.record.id)
                done = await service.store.schedules_backfill(plan, by)
                if done is not None:  # else the rule was changed meanwhile
                    return self._backfilled(service, row, done)

        return await self._carry(service, there)

    def _backfilled(self, service: Service, row: Schedule, done: Backfilled) -> list[Job[Any]]:
        if service.scheduler is not None and done.new:
            service.scheduler.tell("backfilled", row, count=len(done.new))
        for record in done.rows:
            if record.id in done.new and not record.state.is_finished and service.is_watched(record):
                service.on_submitted(record)
        return [Job(record, service, record.id not in done.new) for record in done.rows]

    async def _row(self, service: Service, schedule_id: str) -> Schedule:
        return known_schedule(service, await service.store.schedules_get(schedule_id), schedule_id)


def _check_backfill(limit: object, overlap: object) -> None:
    whole_number(limit, "limit", 1, MOST)
    if overlap not in get_args(BackfillOverlap):
        raise InvalidOption(
            "overlap of a backfill is 'queue_all' (its jobs run one after the other) or 'allow' (side by side), "
            f"got {overlap!r}: other policies would leave out or end most of its jobs"
        )
