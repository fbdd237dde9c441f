"""The app's schedules at run time: put, change, pause, look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Unpack, cast, get_args

from ._app_backfill import AppBackfill
from ._app_base import known_schedule, unknown_schedule
from .context import CURRENT
from .errors import DuplicateName, InvalidOption, UnknownSchedule, UnknownTask
from .job import Job
from .model import NO_KWARGS, JobRecord, Origin, Payload, Schedule, SchedulePolicies, SubmittedBy, as_datetime
from .options import changed_options, instant_ns, is_remote, resolve_policies, schedule_id_of, split_options
from .policies.overlap import OverlapMode
from .runtime.service import Service
from .runtime.streams import StreamView
from .schedule import ScheduleView
from .task import Call, Task, TaskDefinition
from .triggers import Trigger

__all__ = ["AppSchedules"]


class AppSchedules(AppBackfill):
    """Schedules as rows: those declared in code and those made at run time alike."""

    async def schedule(
        self, call: Call[Any] | Task[[], Any], trigger: Trigger, /, **policies: Unpack[SchedulePolicies]
    ) -> str:
        """Put a standing order: run *call* whenever *trigger* says; return its id.

        The schedule's id is the task's name unless ``id=`` is given. Putting the
        same id again updates the one there is: an equal one changes nothing, another trigger
        starts a new generation from now on, other arguments or policies only
        change the runs to come.

        Raises:
            InvalidOption: Naming the policy, its value and what is allowed.
            DuplicateName: Without ``id=``, if the task's name is the id of a schedule
                declared in code, or of one with other arguments.
            UnknownTask: If the task belongs to another app.
            NotRunning: If the app is not running.
        """
        service = self._running()
        bound: Any = call
        row = self._runtime_row(service, bound, trigger, policies)

        async def there() -> str:
            if "id" not in policies:
                _refuse_another(await service.store.schedules_get(row.id), row, service.tasks[row.payload.task])
            service.serve_queue(row.payload.options.queue)
            await service.ensure_executor(row.payload.options.executor)
            await service.declarations.put([row])
            return row.id

        return await self._carry(service, there)

    def _runtime_row(
        self, service: Service, call: Any, trigger: Any, policies: Mapping[str, Any], in_code: bool = False
    ) -> Schedule:
        if isinstance(call, Task):
            call = cast("Task[[], Any]", call).bind()
        if not isinstance(call, Call):
            raise UnknownTask(f"schedule takes task.bind(…) or a task without arguments, got {call!r}")
        definition = call.definition
        if service.tasks.get(definition.name) is not definition:
            raise UnknownTask(
                f"task {definition.name!r} is not registered in this app; use @app.task or app.include_group"
            )
        if not isinstance(trigger, Trigger) or trigger.is_hook:
            of_process = (
                "; it belongs to the process: declare it with @app.task" if isinstance(trigger, Trigger) else ""
            )
            raise InvalidOption(f"schedule takes a trigger such as Every(minutes=5), got {trigger!r}{of_process}")
        job, own = split_options(policies, "schedule(…)")
        schedule_id = schedule_id_of(own, definition.name)
        if schedule_id in service.streams:
            raise DuplicateName(f"{schedule_id!r} is the id of a stream; give the schedule an id= of its own")
        own.pop("start_deadline", None)
        options = call.options(**job).run_options if job else call.run_options
        args, kwargs = call.args, call.kwargs
        if self._takes_json or is_remote(options.executor):
            args, kwargs = self._through_json(definition, args, kwargs)
        timing, payload = resolve_policies(
            trigger,
            own,
            f"schedule {schedule_id!r}",
            task=definition.name,
            args=args,
            kwargs=kwargs,
            options=options,
        )
        return Schedule(schedule_id, timing, payload, in_code=in_code, version=self.version)

    async def update_schedule(
        self,
        schedule_id: str,
        *,
        trigger: Trigger | None = None,
        call: Call[Any] | None = None,
        **policies: Unpack[SchedulePolicies],
    ) -> None:
        """Change a schedule's trigger, call or policies; what is not named stays.

        Raises:
            UnknownSchedule: If there is none of this id.
            InvalidOption: Naming the policy, its value and what is allowed.
        """
        service = self._running()
        if "id" in policies:
            raise InvalidOption("update_schedule cannot change the id; unschedule it and schedule it anew")
        job, own = split_options(policies, "update_schedule(…)", ("trigger", "call"))

        async def there() -> None:
            row = await self._row(service, schedule_id)
            updated = self._updated(service, row, trigger, call, job, own)
            service.serve_queue(updated.payload.options.queue)
            await service.ensure_executor(updated.payload.options.executor)
            await service.declarations.put([updated])

        await self._carry(service, there)

    def _updated(
        self,
        service: Service,
        row: Schedule,
        trigger: Trigger | None,
        call: Call[Any] | None,
        job: dict[str, Any],
        own: dict[str, Any],
    ) -> Schedule:
        definition = service.tasks.get(row.payload.task)
        named = job if call is None else {**call.named_options, **job}
        keeps_task = call is None or call.definition.name == row.payload.task
        if call is None and definition is not None:
            task: Task[..., Any] = Task(definition, {})
            call = Call(definition, row.payload.args, row.payload.kwargs, task)
        fresh = self._runtime_row(service, call, trigger or row.timing.trigger, {**_as_policies(row), **own, **job})
        payload = fresh.payload
        if keeps_task:
            payload = replace(payload, options=changed_options(row.payload.options, named, f"schedule {row.id!r}"))
        return Schedule(row.id, fresh.timing, payload, in_code=row.in_code, version=row.version)

    async def unschedule(self, schedule_id: str) -> None:
        """Remove a schedule; its jobs stay.

        Raises:
            UnknownSchedule: If there is none of this id.
        """
        service = self._running()

        async def there() -> None:
            row = await self._row(service, schedule_id)
            await service.store.schedules_remove([schedule_id])
            self._tell(service, "removed", row)

        await self._carry(service, there)

    async def pause(self, schedule_id: str, *, note: str | None = None, until: datetime | None = None) -> None:
        """Stop firing until `resume`, or until *until* (a fire time then runs). What passes meanwhile is not missed.

        Raises:
            UnknownSchedule: If there is none of this id.
        """
        service = self._running()
        until_ns = None if until is None else instant_ns(until, "until")

        async def there() -> None:
            row = await service.store.schedules_pause(schedule_id, note, until_ns)
            self._tell(service, "paused", known_schedule(service, row, schedule_id), note)

        await self._carry(service, there)

    async def resume(self, schedule_id: str, *, catch_up: bool = False) -> None:
        """Fire again from now on; with *catch_up* what passed meanwhile goes by the ``missed=`` policy.

        Raises:
            UnknownSchedule: If there is none of this id.
        """
        service = self._running()

        async def there() -> None:
            row = await service.store.schedules_resume(schedule_id, catch_up=catch_up)
            self._tell(service, "resumed", known_schedule(service, row, schedule_id))

        await self._carry(service, there)

    async def trigger_now(self, schedule_id: str, *, overlap: OverlapMode | None = None) -> Job[Any]:
        """Run a schedule once more, now, under its overlap policy or *overlap*; its fire times stay.

        Returns:
            The job; SKIPPED if the policy leaves it out.

        Raises:
            UnknownSchedule: If there is none of this id.
        """
        if overlap is not None and overlap not in get_args(OverlapMode):
            raise InvalidOption(
                f"overlap must be one of {', '.join(map(repr, get_args(OverlapMode)))}, got {overlap!r}"
            )
        service = self._running()

        async def there() -> Job[Any]:
            row = await self._row(service, schedule_id)
            payload = row.payload
            origin = Origin(row.id, row.generation, await service.store.now_ns(), trigger="manual")
            parent = CURRENT.get()
            by = SubmittedBy(service.owner, schedule=row.id, parent=None if parent is None else parent.record.id)
            record = JobRecord(
                service.ids(), payload.task, payload.args, payload.kwargs or NO_KWARGS, payload.options, by, origin
            )
            service.check_open(f"schedule {row.id} was not run")
            stored = await service.store.schedules_trigger(schedule_id, record, overlap)
            if stored is None:
                raise UnknownSchedule(unknown_schedule(service, schedule_id))
            if not stored.state.is_finished:  # its overlap policy may have left it out
                service.on_submitted(stored)
            return Job(stored, service)

        return await self._carry(service, there)

    async def schedules(self) -> list[ScheduleView]:
        """Return every schedule, by id."""
        service = self._running()

        async def there() -> list[ScheduleView]:
            rows = await service.store.schedules_list()
            return [ScheduleView(row, service.declarations.why_not_fired(row)) for row in rows]

        return await self._carry(service, there)

    async def streams(self) -> list[StreamView]:
        """Return every stream as it stands in this process, by id.

        Raises:
            NotRunning: If the app is not running.
        """
        service = self._running()

        async def there() -> list[StreamView]:
            return service.streams.views()

        return await self._carry(service, there)

    def _tell(self, service: Service, kind: Any, row: Schedule, reason: str | None = None) -> None:
        if service.scheduler is not None:
            service.scheduler.tell(kind, row, reason=reason)


def _refuse_another(known: Schedule | None, row: Schedule, definition: TaskDefinition) -> None:
    """Raise `DuplicateName` if *row*, whose id nobody chose, would replace a schedule that is another one."""
    if known is None:
        return
    old, new = known.payload, row.payload
    if known.in_code:
        what = "is declared in code"
    elif old.task != new.task or not _is_same_call(definition, old, new):
        what = "has other arguments"
    else:
        return
    raise DuplicateName(
        f"schedule {row.id!r} exists and {what}: give this one an id= of its own, "
        f"or change that one with app.update_schedule({row.id!r}, …)"
    )


def _is_same_call(definition: TaskDefinition, old: Payload, new: Payload) -> bool:
    """Say whether both pass the same arguments, be it by position or by name."""
    if (old.args, old.kwargs) == (new.args, new.kwargs):
        return True
    bind = definition.signature.bind
    try:
        return bind(*old.args, **old.kwargs) == bind(*new.args, **new.kwargs)
    except TypeError:  # the older one is of another version of the task
        return False


def _as_policies(row: Schedule) -> dict[str, Any]:
    """Return a row's policies as keywords, so that an update can change some of them."""
    timing, payload = row.timing, row.payload
    return {
        "id": row.id,
        "overlap": payload.overlap,
        "overlap_key": payload.overlap_key,
        "missed": payload.missed,
        "max_lateness": None if payload.max_lateness_ns is None else payload.max_lateness_ns / 1e9,
        "max_catchup": payload.max_catchup,
        "jitter": timing.jitter_ns / 1e9,
        "start": as_datetime(timing.start_ns),
        "end": as_datetime(timing.end_ns),
        "max_runs": payload.max_runs,
        "pause_on_failure": payload.pause_on_failure,
    }
