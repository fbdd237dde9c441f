"""The app's answers: why a schedule runs or does not, why a job waits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ._app_base import AppBase, known_schedule
from .job import Job
from .model import JobFilter, JobRecord, Schedule
from .options import instant_ns
from .runtime.service import Service
from .why import Place, Why, why_at, why_next, why_open, why_waiting

__all__ = ["AppWhy"]

_ALL = 10**9


class AppWhy(AppBase):
    """Questions that people ask a scheduler."""

    async def why(self, schedule_id: str, at: datetime | None = None) -> Why:
        """Say whether and when a schedule runs next, and why; or what became of the instant *at*.

        Args:
            schedule_id: The schedule.
            at: An instant: was it a fire time, and what became of it; if it was none, which
                are the nearest, and which filter, clock or field is the cause. The answer knows
                the jobs that the store keeps.

        Raises:
            UnknownSchedule: If there is none of this id.
            NaiveDatetime: If *at* has no zone.
        """
        service = self._running()
        if at is not None:
            instant_ns(at, "at")

        async def there() -> Why:
            store = service.store
            row = known_schedule(service, await store.schedules_get(schedule_id), schedule_id)
            now = await store.now_ns()
            if at is not None:
                page = await store.jobs_list(JobFilter(schedule_id=schedule_id), limit=_ALL)
                found = why_at(row, at, now, page.jobs, await _nobody(service, row))
                of = next((job for job in page.jobs if found.kind == "open" and job.id == found.job), None)
                return found if of is None else why_open(found, await _why_waiting(service, of))
            return why_next(row, now, await _open_jobs(service, row.overlap_key), await _nobody(service, row))

        return await self._carry(service, there)

    async def why_waiting(self, job: Job[Any]) -> Why:
        """Say why a job has not begun: its time, its queue, its turn, the slots; or that it waits no more."""
        service = self._running()

        async def there() -> Why:
            return await _why_waiting(service, await service.fetch(job._record))

        return await self._carry(service, there)


async def _why_waiting(service: Service, record: JobRecord) -> Why:
    holder = None
    if record.serial and record.overlap_key is not None:
        others = await _open_jobs(service, record.overlap_key)
        holder = next((other for other in others if other.serial and _has_turn(other)), None)
    return why_waiting(record, await service.store.now_ns(), _place(service, record), holder)


async def _open_jobs(service: Service, overlap_key: str) -> list[JobRecord]:
    """Return the open jobs of an overlap key, oldest first."""
    page = await service.store.jobs_list(JobFilter(is_open=True), limit=_ALL)
    return [job for job in reversed(page.jobs) if job.overlap_key == overlap_key]


def _has_turn(job: JobRecord) -> bool:
    return job.state.is_held or job.zombie


async def _nobody(service: Service, row: Schedule) -> str | None:
    """Return why no process fires a schedule or runs its jobs; None if one does."""
    workers = await service.store.workers_list()
    queue, unfired = row.payload.options.queue, service.why_not_fired(row)
    if not any(one.role in {"both", "scheduler"} for one in workers):
        return "no process fires schedules: start one whose role is 'both' or 'scheduler'"
    if unfired is not None and not service.store.is_shared:
        return unfired
    here = service.worker is not None and queue in service.worker.claimer.queues
    if not here and not any(one.role in {"both", "worker"} and queue in one.queues for one in workers):
        return f"no process serves the queue {queue!r} of its jobs"
    return None


def _place(service: Service, record: JobRecord) -> Place:
    worker, prepared = service.worker, service.places.prepared.get(record.task)
    serves = worker is not None and record.queue in worker.claimer.queues
    if prepared is None:
        return Place(knows_task=False, serves_queue=serves)
    executor = prepared.executor if record.options.executor is None else service.places.of(record, prepared)
    slots, free = executor.slots, executor.free
    if worker is not None and (record.origin is None or record.is_backfill):
        free -= worker.kept_of(slots)
    held, ahead = (None, 0) if worker is None else worker.in_flow(record)
    return Place(True, serves, executor.name, slots, free, held, ahead)
