"""The app's answers: why a schedule runs or does not, why a job waits."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from ._app_base import AppBase, known_schedule
from ._at_work import unfired, why_nobody
from .errors import UsageError
from .executors import Executor
from .job import Job
from .model import JobFilter, JobRecord, Schedule, WorkerInfo
from .options import instant_ns
from .runtime.service import Service
from .why import Why, why_at, why_blocked, why_next, why_open
from .why_waiting import Cluster, Others, Place, why_waiting

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
            open_jobs = await _open_jobs(service, row.overlap_key)
            found = why_next(row, now, open_jobs, await _nobody(service, row))
            of = next((job for job in open_jobs if found.kind == "blocked" and job.id == found.job), None)
            return found if of is None else why_blocked(found, await _why_waiting(service, of))

        return await self._carry(service, there)

    async def why_waiting(self, job: Job[Any]) -> Why:
        """Say why a job has not begun: its time, its queue, its turn, the slots; or that it waits no more.

        Raises:
            UsageError: If *job* is no handle of a job.
        """
        if not isinstance(job, Job):
            raise UsageError(f"why_waiting takes a Job, got {job!r}; await app.job(id) finds the job of an id")
        service = self._running()

        async def there() -> Why:
            return await _why_waiting(service, await service.fetch(job._record))

        return await self._carry(service, there)


async def _why_waiting(service: Service, record: JobRecord) -> Why:
    holder = None
    if record.serial and record.overlap_key is not None:
        others = await _open_jobs(service, record.overlap_key)
        holder = next((other for other in others if other.serial and _has_turn(other)), None)
    workers = await _workers(service) if _is_others(service, record) else None
    return why_waiting(record, await service.store.now_ns(), _place(service, record, workers), holder)


async def _open_jobs(service: Service, overlap_key: str) -> list[JobRecord]:
    """Return the open jobs of an overlap key, oldest first."""
    page = await service.store.jobs_list(JobFilter(is_open=True), limit=_ALL)
    return [job for job in reversed(page.jobs) if job.overlap_key == overlap_key]


def _has_turn(job: JobRecord) -> bool:
    return job.state.is_held or job.zombie


def _is_others(service: Service, record: JobRecord) -> bool:
    """Say whether a job is held by another process, or will be run by one."""
    if record.state.is_held:
        return record.owner != service.owner
    return service.worker is None or record.queue not in service.worker.claimer.queues


async def _workers(service: Service) -> list[WorkerInfo]:
    """Return the registry; where nobody else sees the store, this process alone, which gives no signs of life."""
    if not service.store.is_shared:
        return [service.info()]
    return [service.info() if one.id == service.owner else one for one in await service.store.workers_list()]


async def _nobody(service: Service, row: Schedule) -> str | None:
    """Return why no process fires a schedule or runs its jobs; None if one does."""
    workers, now_ns = await _workers(service), await service.store.now_ns()
    unknown = service.declarations.why_not_fired(row)
    if unknown is not None and not service.store.is_shared and unfired(workers, now_ns) is None:
        return unknown
    return why_nobody(row, workers, now_ns)


def _place(service: Service, record: JobRecord, workers: list[WorkerInfo] | None) -> Place:
    worker, prepared = service.worker, service.places.prepared.get(record.task)
    others = None if workers is None else Others(workers, _gates(service, record))
    if prepared is None:
        return Place(knows_task=others is not None and not service.tasks, others=others)
    executor = prepared.executor if record.options.executor is None else service.places.of(record, prepared)
    slots, free = executor.slots, executor.free
    if worker is not None and (record.origin is None or record.is_backfill):
        free -= worker.kept_of(executor)
    held, ahead = (None, 0) if worker is None else worker.in_flow(record)
    parked = None if worker is None else worker.deaths.why(record.task)
    cluster = _cluster(executor, is_ours=others is None)
    deaf = 0 if worker is None else worker.zombies_at(executor)
    return Place(True, executor.name, slots, free, held, ahead, others, parked, cluster, deaf)


def _cluster(executor: Executor, *, is_ours: bool) -> Cluster | None:
    """Return whose queue bodies wait in there, None if they begin at once; what is wrong, its holder knows."""
    if not executor.handed_to:
        return None
    return Cluster(executor.handed_to, executor.capabilities.can_report_start, executor.trouble if is_ours else None)


def _gates(service: Service, record: JobRecord) -> tuple[str, ...] | None:
    """Return the names of the gates that a job passes; None if its task is not known here."""
    if record.task not in service.tasks:
        return None
    flow = None if service.flows is None else service.flows.of(record)
    return () if flow is None else tuple(gate.label for gate in flow.gates)
