"""The app's jobs: submit, look up, act on many, watch."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from difflib import get_close_matches
from functools import partial
from typing import Any, Final, Never, ParamSpec, TypeVar, overload

from ._app_base import AppBase
from ._crossing import from_thread
from ._numbers import whole_number
from .context import CURRENT, RunningAttempt
from .errors import InvalidArguments, InvalidOption, JobGone, UnknownTask
from .events import Subscription
from .flow.inheritance import DEFAULT_PRIORITY
from .job import Job
from .model import FINISHED, NO_KWARGS, JobFilter, JobRecord, JobState, RunOptions, SubmittedBy
from .options import instant_ns, is_remote
from .runtime.direct import run_directly
from .runtime.flows import Flows
from .runtime.many import put_many
from .runtime.service import Service
from .stores.base import Hint
from .task import Call, Task, TaskDefinition

__all__ = ["AppJobs"]

P = ParamSpec("P")
T = TypeVar("T")

FLOOD: Final = 32
"""A submitter in a tight loop lets the event loop turn after this many, so that ticks stay punctual.

Measured: from 64 on, the jobs of one turn fill the garbage collector's youngest
generation, and each turn pays a collection (13 µs per job instead of 11.6)."""


class AppJobs(AppBase):
    """Submitting and looking."""

    _since_turn = 0

    # -- submit ----------------------------------------------------------------------

    @overload
    async def submit(self, call: Call[T], /) -> Job[T]: ...
    @overload
    async def submit(self, task: Task[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Job[T]: ...
    async def submit(self, task: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Store one job and return its handle; await the handle for the result.

        Returns when the job is stored. Options go with the task or the call:
        ``app.submit(fetch.options(delay=60), url)``. Where a ``unique`` key is
        taken the handle is the existing job's, and ``is_duplicate`` is true.
        Cancelling this call leaves the job stored or not stored, never half.
        Where the job's flow has ``max_queue`` and ``overflow="block"`` this waits for room.

        Raises:
            NotRunning: If the app is not running.
            QueueFull: If the flow of the task or of the queue turns away what is too much.
            InvalidOption: If a gate of its flow can never let it through.
            InvalidArguments: If the arguments do not fit the task.
            UnknownTask: If the task belongs to another app.
        """
        service = self._service
        if service is None or asyncio.get_running_loop() is not service.loop:
            return await self._submit_elsewhere(task, args, kwargs)
        record = self._record(service, task, args, kwargs)
        options = record.options
        if options.executor is not None:
            await service.ensure_executor(options.executor)
            service.check_open(f"{record.task} was not submitted")
        if service.flows is None:
            (row,) = await service.store.jobs_put((record,))
        else:
            row = await service.put_admitted(service.flows, record)
        if row is record and (service.events.has_listeners or task.definition.callbacks):
            service.on_submitted(record)
        self._since_turn += 1
        if self._since_turn >= FLOOD:
            self._since_turn = 0
            await asyncio.sleep(0)
        return Job(record, service) if row is record else Job(row, service, True)

    async def _submit_elsewhere(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job[Any]:
        """Submit from another event loop: the job goes to the app's."""
        service = self._running()
        parent = CURRENT.get()

        async def there() -> Job[Any]:
            token = CURRENT.set(parent)
            try:
                return await self.submit(task, *args, **kwargs)
            finally:
                CURRENT.reset(token)

        return await self._carry(service, there)

    async def submit_many(self, calls: Iterable[Call[T]], /, *others: Never) -> list[Job[T]]:
        """Store many jobs in few store calls; return their handles in order.

        All arguments are checked before the first is stored. Each lot of 500 is stored whole or not at all.
        A flow with ``max_queue`` that refuses what is too much takes all of them or none. With
        ``overflow="block"`` they come one by one as there is room, with ``"drop_oldest"`` the newest remain.
        Cancelling this call leaves those stored that are.

        Raises:
            NotRunning: If the app is not running, or stops before the last lot.
            QueueFull: If a flow has no room for all of them; none is stored.
            InvalidOption: If a gate of its flow can never let one of them through; none is stored.
            InvalidArguments: If arguments do not fit their task; none is stored.
            UnknownTask: If a task belongs to another app; none is stored.
        """
        _refuse(others, "submit_many takes calls: `app.submit_many(task.bind(item) for item in …)`")
        service = self._running()
        bound = list(calls)

        async def there() -> list[Job[T]]:
            records = [self._record(service, call, (), {}) for call in bound]
            for executor in {id(r.options): r.options.executor for r in records}.values():
                if executor is not None:
                    await service.ensure_executor(executor)
            rows = await put_many(service, service.flows, records)
            return [Job(row, service, row is not record) for record, row in zip(records, rows, strict=True)]

        return await self._carry(service, there)

    @overload
    def submit_sync(self, call: Call[T], /) -> Job[T]: ...
    @overload
    def submit_sync(self, task: Task[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Job[T]: ...
    def submit_sync(self, task: Any, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Submit from a thread or from code without a loop; blocks until the job is stored.

        An app that does not run needs a store that others share, who run the job. The first call then
        starts a client of it in a thread, which lasts until the app is started, or the process ends.

        Raises:
            WrongLoop: On the app's own thread, where blocking would stop the app.
            NotRunning: If the app is not running, and nobody else could ever run the job.
        """
        service = self._service_beside()
        refusal = "submit_sync would block the app's own event loop; write `await app.submit(…)` here"
        return from_thread(service.loop, refusal, partial(self.submit, **kwargs), task, *args)

    def _record(self, service: Service, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> JobRecord:
        definition, options, args, named = self._bound(service.tasks, task, args, kwargs)
        if service.is_closed_to_jobs:  # asked here too: the words cost more than the question
            service.check_open(f"{definition.name} was not submitted")
        if options.queue not in service.queues:  # nearly never; the call costs a frame per job
            service.serve_queue(options.queue)
        parent = CURRENT.get()
        if parent is not None and service.flows is not None:
            options = _inherited(service.flows, definition, options, parent)
        # Without a parent the submitter is the process, which the job's id names: see `context.submitter_of`.
        by = None if parent is None and options.submitted_by is None else _submitter(service, parent, options)
        return JobRecord(service.ids(), definition.name, args, named, options, by)

    def _bound(
        self, tasks: Mapping[str, TaskDefinition], task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[TaskDefinition, RunOptions, tuple[Any, ...], Mapping[str, Any]]:
        """Return definition, options and checked arguments of a task with arguments, or of a call."""
        named: Mapping[str, Any]
        if isinstance(task, Task):
            definition, options = task.definition, task.run_options
            named = kwargs or NO_KWARGS
            bounds = definition.positional
            if bounds is None or kwargs or not bounds[0] <= len(args) <= bounds[1]:
                definition.check_call(args, named)
        elif isinstance(task, Call):
            if args or kwargs:
                raise InvalidArguments(f"{task!r} has its arguments already; submit(call) takes no more")
            definition, options, args, named = task.definition, task.run_options, task.args, task.kwargs
        else:
            raise UnknownTask(_no_task(task, tasks))
        if tasks.get(definition.name) is not definition:
            raise UnknownTask(
                f"task {definition.name!r} is not registered in this app; use @app.task or app.include_group"
            )
        # Spelled out: a property costs a frame per job.
        if self.strict or self._is_durable or (options.executor is not None and is_remote(options.executor)):
            args, named = self._through_json(definition, args, named)
        return definition, options, args, named

    # -- without a queue -------------------------------------------------------------

    @overload
    async def call(self, call: Call[T], /) -> T: ...
    @overload
    async def call(self, task: Task[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    async def call(self, task: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Run a task's body here and now, with its dependencies and `around` wrappers, as no job.

        For tests, whether the app runs or not. It returns what the body returns
        and raises what it raises; no retry, timeout or callback applies. Plain
        functions run in a thread. Cancelling this call cancels the body.

        Raises:
            InvalidArguments: If the arguments do not fit the task.
            UnknownTask: If the task belongs to another app.
        """
        tasks = self._collect().tasks if self._service is None else self._service.tasks
        definition, options, bound, named = self._bound(tasks, task, args, kwargs)
        return await run_directly(self._preparer(), definition, bound, named, options, self.clock)

    async def drain(self) -> None:
        """Wait until no job runs and none that is due waits, here in this process.

        Jobs that are due later, retries among them, are not waited for; nor are
        those that nobody here may take (another queue, an unknown task).

        Raises:
            NotRunning: If the app is not running.
        """
        service = self._running()
        await self._carry(service, service.until_idle)

    # -- look up ---------------------------------------------------------------------

    async def job(self, job_id: str) -> Job[Any]:
        """Return the job of this id.

        Raises:
            JobGone: If the store does not have it (any more).
        """
        service = self._running()

        async def there() -> Job[Any]:
            (row,) = await service.store.jobs_get([job_id])
            if row is None:
                raise JobGone(job_id)
            return Job(service.known(row), service)

        return await self._carry(service, there)

    async def jobs(
        self,
        *,
        state: JobState | Collection[JobState] | None = None,
        task: str | Task[..., Any] | None = None,
        queue: str | None = None,
        schedule: str | None = None,
        since: datetime | None = None,
        text: str | None = None,
        limit: int = 100,
    ) -> list[Job[Any]]:
        """Return the newest jobs that match, at most *limit*.

        Raises:
            InvalidOption: If *state* is none, or *limit* is no whole number from 0.
            UnknownTask: If no task has this name (on a store of this process alone).
        """
        service = self._running()
        where = job_filter(service, state, task, queue, schedule, since, text)
        whole_number(limit, "limit", 0)

        async def there() -> list[Job[Any]]:
            page = await service.store.jobs_list(where, limit=limit)
            return [Job(service.known(row), service) for row in page.jobs]

        return await self._carry(service, there)

    async def slowest(self, n: int = 5) -> list[Job[Any]]:
        """Return the *n* jobs whose bodies ran, or have been running, longest.

        Raises:
            InvalidOption: If *n* is no whole number from 0.
        """
        service = self._running()
        whole_number(n, "n", 0)

        async def there() -> list[Job[Any]]:
            page = await service.store.jobs_list(JobFilter(), limit=n, order="slowest")
            return [Job(service.known(row), service) for row in page.jobs if row.has_run]

        return await self._carry(service, there)

    async def dump(self, limit: int = 100) -> str:
        """Return the newest jobs as a table in plain text."""
        return jobs_table(await self.jobs(limit=limit))

    # -- act on many -----------------------------------------------------------------

    async def retry(
        self,
        *others: Never,
        state: JobState | Collection[JobState] | None = None,
        task: str | Task[..., Any] | None = None,
        queue: str | None = None,
        schedule: str | None = None,
        since: datetime | None = None,
        ids: Collection[str] | None = None,
    ) -> int:
        """Run finished jobs again, with *ids* only those of them; return how many.

        Their failures are forgotten, so that every retry is theirs again; ``attempt`` counts on.
        A job whose unique key another one has by now stays as it is.

        Raises:
            InvalidOption: Without any filter.
        """
        _refuse(others, "retry takes filters by name, such as task=…, state=… or ids=[…]")
        service = self._running()
        where = job_filter(service, state, task, queue, schedule, since, None)
        if ids is None:
            _required(where, "retry")
        elif isinstance(ids, str):
            raise InvalidOption(f"ids must be a list of jobs' ids, got {ids!r}")
        chosen = None if ids is None else list(ids)

        async def there() -> int:
            service.check_open("nothing was repeated")
            again = await service.store.jobs_retry(where, chosen)
            if service.events.has_listeners:
                service.on_repeated([row for row in await service.store.jobs_get(again) if row is not None])
            return len(again)

        return await self._carry(service, there)

    async def cancel(
        self,
        *others: Never,
        state: JobState | Collection[JobState] | None = None,
        task: str | Task[..., Any] | None = None,
        queue: str | None = None,
        schedule: str | None = None,
        since: datetime | None = None,
    ) -> int:
        """Cancel unfinished jobs; return how many were asked to end. Does not wait for them.

        Raises:
            InvalidOption: Without any filter.
        """
        _refuse(
            others,
            "cancel takes filters by name, such as task=…; one job: `await (await app.job(id)).cancel()`",
        )
        service = self._running()
        where = _required(job_filter(service, state, task, queue, schedule, since, None), "cancel")
        unfinished = where._replace(states=(where.states or frozenset(JobState)) - FINISHED)

        async def there() -> int:
            page = await service.store.jobs_list(unfinished, limit=10**9)
            ids = [row.id for row in page.jobs]
            await service.store.jobs_request_cancel(ids, "cancelled by request")
            return len(ids)

        return await self._carry(service, there)

    async def wake(self) -> None:
        """Tell every worker to look for jobs now: those stored past the app are else found within a second."""
        service = self._running()

        async def there() -> None:
            await service.store.wake(Hint.JOBS)

        await self._carry(service, there)

    # -- watch -----------------------------------------------------------------------

    def events(self, limit: int = 10_000) -> Subscription:
        """Return an asynchronous iterator over everything that happens from now on.

        At most *limit* events wait; a slower reader loses the oldest and is told
        by `EventsDropped`. Works before the app starts too.

        Raises:
            InvalidOption: If *limit* is no whole number from 1.
        """
        whole_number(limit, "limit", 1)
        return self.event_stream.subscribe(limit)


def _inherited(flows: Flows, definition: TaskDefinition, options: RunOptions, parent: RunningAttempt) -> RunOptions:
    """Return *options* as urgent as the job whose body submits, where an order is and no priority was given."""
    urgency = parent.record.priority
    if options.priority != DEFAULT_PRIORITY or urgency >= options.priority:
        return options
    those = (definition.flow, definition.batch_flow, flows.by_queue.get(options.queue))
    if not any(flow is not None and flow.order is not None for flow in those):
        return options
    return replace(options, priority=urgency)


def _submitter(service: Service, parent: RunningAttempt | None, options: RunOptions) -> SubmittedBy:
    return SubmittedBy(service.owner, parent=None if parent is None else parent.record.id, text=options.submitted_by)


def _no_task(given: object, tasks: Collection[str]) -> str:
    """Return what to say about something that is no task."""
    if inspect.iscoroutine(given):
        given.close()  # or Python warns that it was never awaited, beside the point
        name = given.__name__
        return f"submit takes the task, not a call of it; write app.submit({name}, …) instead of app.submit({name}(…))"
    if isinstance(given, str):
        known = f"; the app has {', '.join(sorted(tasks)[:8])}" if tasks else ""
        return f"submit takes the decorated function itself, not its name, got {given!r}{known}"
    return f"submit takes a task or a call, got {given!r}; decorate the function with @app.task"


def _state(state: str) -> JobState:
    try:
        return JobState(state)
    except ValueError:
        raise InvalidOption(f"state must be one of {', '.join(map(str, JobState))}, got {state!r}") from None


def job_filter(
    service: Service,
    state: JobState | Collection[JobState] | None,
    task: str | Task[..., Any] | None,
    queue: str | None,
    schedule: str | None,
    since: datetime | None,
    text: str | None,
) -> JobFilter:
    """Return the filter that the keywords of `AppJobs.jobs` describe."""
    if state is None:
        states: frozenset[JobState] = frozenset()
    elif isinstance(state, str):
        states = frozenset({_state(state)})
    else:
        states = frozenset(map(_state, state))
    name = task.name if isinstance(task, Task) else task
    if name is not None and name not in service.tasks and not service.store.is_shared:
        # Elsewhere another process may have it; here a misspelt name would pass for "there are none".
        close = get_close_matches(name, service.tasks, 1)
        raise UnknownTask(f"no task {name!r} in this app" + (f"; did you mean {close[0]!r}?" if close else ""))
    since_ns = None if since is None else instant_ns(since, "since")
    return JobFilter(states, name, queue, schedule, since_ns, text)


def _refuse(others: tuple[object, ...], instead: str) -> None:
    """Raise for what was given by position: type checkers refuse it, and others deserve words."""
    if others:
        raise InvalidOption(f"{instead}, got {', '.join(map(repr, others))}")


def _required(where: JobFilter, verb: str) -> JobFilter:
    if where == JobFilter():
        raise InvalidOption(f"{verb} needs a filter, such as {verb}(task='fetch'); nothing was changed")
    return where


def jobs_table(jobs: list[Job[Any]]) -> str:
    """Return *jobs* as a table in plain text, newest first."""
    head = ("id", "task", "state", "attempt", "lag s", "took s", "submitted", "reason")
    rows = [head] + [
        (
            job.id,
            job.task,
            job.state.value,
            str(job.attempt),
            "" if job.lag is None else f"{job.lag:.3f}",
            "" if job.duration is None else f"{job.duration:.3f}",
            "" if job.timestamps.submitted_at is None else f"{job.timestamps.submitted_at:%Y-%m-%d %H:%M:%S}",
            job.reason or "",
        )
        for job in jobs
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
