"""One running app: the store, the timer, the executors, the scheduler and the worker, put together.

Start and stop happen once, in a fixed order. Stop drains (`stopping`): fire
nothing more, claim nothing more, wait for what runs, cancel what is left, give
the rest back. Whatever goes wrong beyond repair comes to `Service.fatal`, which ends
the app in an orderly way."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

from quarterjack.clock import Clock
from quarterjack.codec import give_types
from quarterjack.errors import JobGone, NotRunning
from quarterjack.events import EventStream
from quarterjack.executors import Executor, Home
from quarterjack.flow.flow import Flow
from quarterjack.flow.for_apps import gates_of
from quarterjack.job import CallbackKind, Job
from quarterjack.model import JobFilter, JobIds, JobRecord, JobState, Schedule, WorkerInfo
from quarterjack.stores import Encoding
from quarterjack.stores.base import CancelAnswer, Store
from quarterjack.task import TaskDefinition
from quarterjack.timer import Timer

from .afar import Afar, refresh
from .commands import obey
from .declarations import Declarations
from .fleet import LEASE_S, Fleet
from .flows import Flows, refuse_unrouted
from .handles import Handles, settled_within
from .health import Health, health_of
from .hints import Hints
from .job_events import job_event
from .outage import Outage
from .places import Places
from .prepare import Preparer
from .renewal import Renewer
from .scheduler import Scheduler
from .silence import Silence
from .stopping import Stopping
from .store_time import StoreTime
from .streams import DeclaredStream, Streams
from .upkeep import Retention, Upkeep
from .worker import Worker

__all__ = ["Role", "Service"]

NO_FLOWS: Final[Mapping[str, Flow]] = {}

log = logging.getLogger("quarterjack")

Role = Literal["both", "scheduler", "worker", "client"]
CheckCall = Callable[[TaskDefinition, tuple[Any, ...]], tuple[Any, ...]]
"""Returns a call's arguments as its job will have them, or raises `InvalidArguments`."""


class Service(Stopping):
    """The running half of an app; made by ``Quarterjack`` at each start."""

    def __init__(
        self,
        *,
        store: Store,
        clock: Clock,
        events: EventStream,
        tasks: Mapping[str, TaskDefinition],
        preparer: Preparer,
        role: Role,
        queues: Sequence[str] | None,
        concurrency: int,
        version: str | None,
        lease_s: float,
        on_fatal: Callable[[BaseException], None],
        on_stop: Callable[[], None],
        retention: Retention | None = None,
        declared: Sequence[Schedule],
        streams: Sequence[DeclaredStream] = (),
        check_call: CheckCall = lambda _, args: args,
        flow_by_queue: Mapping[str, Flow] = NO_FLOWS,
        encoding: Encoding | None = None,
        home: Home | None = None,
    ) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.store = store
        self._encoding = encoding
        self.clock = clock
        self.home = home or Home(clock)
        self.events = events
        self.tasks = tasks
        self.role = role
        self.version = version
        self.context = contextvars.copy_context()
        self.ids = JobIds()
        self.owner = self.ids.process
        self.lease_s: float | None = lease_s if store.is_shared else None
        self.timer = Timer.shared(clock)
        self.time = StoreTime(store, clock)
        self.outage = Outage(clock.monotonic)
        self.silence = None if self.lease_s is None else Silence(clock, self.lease_s)
        self.handles = Handles(self, tasks, events, clock, lambda: self.context, on_fatal)
        if not store.keeps_objects:
            self.handles.afar = Afar(self)
        self._preparer = preparer
        self.declarations = Declarations(self, declared)
        self._fixed_queues = queues is not None
        self._on_fatal = on_fatal
        self._on_stop = on_stop
        self._upkeep = Upkeep(self, None if role == "client" else retention) if store.is_shared else None
        self._pid = os.getpid()
        self._started_ns = clock.now_ns()
        works = role in {"both", "worker"}
        self.places = Places(preparer, concurrency, self._on_new_executor, runs_bodies=works)
        fires = role in {"both", "scheduler"}
        has_flows = bool(flow_by_queue) or any((task.flow or task.batch_flow) is not None for task in tasks.values())
        if works:
            refuse_unrouted(tasks, flow_by_queue)
        self.flows = Flows(self, flow_by_queue) if has_flows else None
        named = {d.options.queue for d in tasks.values()} | {"default", *flow_by_queue}
        known = sorted(named) if queues is None else list(queues)
        self.queues = set(known)
        """Queues that are served or known not to be."""
        self.worker = Worker(self, known) if works else None
        self.scheduler = Scheduler(self, self.worker) if fires else None
        self.streams = Streams(self, streams, are_here=fires)
        self._hints = Hints(self)
        self._check_call = check_call

    # -- life ------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the store and get the executors ready; jobs can be submitted from now on."""
        await self.store.open(self.clock, self.ids, self._encoding)
        self._is_open = True
        self._hints.start()
        await self.time.open()
        self._hold_limits()
        for definition in self.tasks.values():
            self.places.prepare(definition)
        await self.places.start(self.home)

    def _hold_limits(self) -> None:
        """Have gates with ``scope="fleet"`` hold in the store."""
        of_tasks = [flow for task in self.tasks.values() for flow in (task.flow, task.batch_flow)]
        lease_s = LEASE_S if self.lease_s is None else self.lease_s
        self._fleet = Fleet(self.store, self.clock, self.time, process=self.owner, lease_s=lease_s)
        self._fleet.bind(gates_of([*(self.flows.by_queue.values() if self.flows is not None else ()), *of_tasks]))

    async def start(self) -> None:
        """Put the declared schedules; claim and fire from now on."""
        self.context = contextvars.copy_context()
        if self.role != "client":  # it takes nothing and fires nothing: no operator has anything to ask of it
            await self.store.workers_put(self.info())  # first: who sees our schedules sees that we are at work
        if self.scheduler is not None:
            try:
                await self.declarations.start()
            except BaseException:
                await self._sign_off()
                raise
        if self.worker is not None:
            self.worker.start()
        if self.scheduler is not None:
            self.scheduler.start()
        if self.store.is_shared and self.role != "client":
            self._renewer = Renewer(self)
            self._renewer.start()
        if self._upkeep is not None:
            self._upkeep.start()
        self.streams.start()

    def info(self) -> WorkerInfo:
        """Return this process as the registry shows it. From any thread."""
        worker = self.worker
        return WorkerInfo(
            self.owner,
            socket.gethostname(),
            self._pid,
            self.role,
            tuple(worker.claimer.queues) if worker is not None else (),
            self._started_ns,
            self.time.now_ns(),
            self.version,
            worker.running if worker is not None else 0,
            worker.zombies if worker is not None else 0,
            halt="ending" if self.is_draining else "drained" if self.is_held else "",
            parked=tuple(worker.deaths.parked) if worker is not None else (),
        )

    def serve_queue(self, queue: str) -> None:
        """Claim from *queue* too, unless the app was given its queues."""
        if queue in self.queues:
            return
        self.queues.add(queue)
        if not self._fixed_queues and self.worker is not None:
            self.worker.claimer.queues.append(queue)

    async def ensure_executor(self, executor: Executor | str | None) -> None:
        """Start an executor that only single jobs or schedules name."""
        await self.places.ensure(executor, self.home)

    def _on_new_executor(self) -> None:
        if self.worker is not None:
            self.worker.regroup()

    def is_watched(self, record: JobRecord) -> bool:
        """Say whether anybody wants to hear of this job's moves."""
        definition = self.tasks.get(record.task)  # none: an operator acts on what other processes run
        return self.events.has_listeners or (definition is not None and bool(definition.callbacks))

    def on_submitted(self, record: JobRecord) -> None:
        """A job was stored by this process: tell events and callbacks."""
        self.handles.tell(record, "submit")
        if self.events.has_listeners:
            self.events.send(job_event("submitted", record))

    def on_fired(self, records: Sequence[JobRecord]) -> None:
        """Schedules stored these: tell their tasks' callbacks."""
        for record in records:
            if self.tasks[record.task].callbacks and not record.state.is_finished:
                self.handles.tell(record, "submit")

    def on_repeated(self, records: Sequence[JobRecord]) -> None:
        """Finished jobs wait again, by somebody's wish: tell events."""
        for record in records:
            self.events.send(job_event("repeated", record, self.clock.now_ns()))

    async def until_idle(self) -> None:
        """Wait until nothing runs here and nothing that is due waits for this process."""
        while self.worker is not None:
            self.places.flush_batches()
            await self.worker.idle()
            if self._fires_now():
                await asyncio.sleep(0.001)  # the timer rings in a moment; after a store's failure, in a second
                continue
            changed = self.worker.changed()
            if not await self._is_something_due():
                return
            await changed

    def _fires_now(self) -> bool:
        due = self.scheduler.next_due_ns if self.scheduler is not None else None
        return due is not None and due <= self.time.now_ns()

    async def _is_something_due(self) -> bool:
        now, worker = await self.store.now_ns(), self.worker
        waiting = await self.store.jobs_list(JobFilter(states=frozenset({JobState.SUBMITTED})), limit=10**9)
        return worker is not None and any(
            row.run_at_ns <= now and row.task in self.tasks and row.queue in worker.claimer.queues
            for row in waiting.jobs
        )

    async def put_admitted(self, flows: Flows, record: JobRecord) -> JobRecord:
        """Store a job once its flow has room for it; return the row that stands for it."""
        flows.check(record)
        if bounds := flows.bounds_of(record):
            await flows.enter(record.id, bounds)
        try:
            self.check_open(f"{record.task} was not submitted")
            (row,) = await self.store.jobs_put((record,))
        except BaseException:
            flows.left(record.id)
            raise
        (flows.stored if row is record else flows.left)(record.id)
        return row

    def check_open(self, what: str) -> None:
        """Refuse a job that would never run, as the end has come too far.

        Raises:
            NotRunning: With *what* would have been done.
        """
        if self.is_closed_to_jobs:
            raise NotRunning(f"the app is shutting down and runs nothing more: {what}")

    def fatal(self, error: BaseException) -> None:
        """Something ended that must not end: stop the app, and raise *error* where it was started."""
        self._on_fatal(error)

    def obey(self, command: str) -> None:
        """Do what an operator asks of this process."""
        obey(self, command)

    def stop(self) -> None:
        """Have the app stop, if it is served."""
        self._on_stop()

    # -- what the worker and the scheduler ask ------------------------------------------

    @property
    def checks_results(self) -> bool:
        """Say whether results must survive JSON: on durable stores and in strict apps."""
        return self._preparer.strict or not self.store.keeps_objects

    def check_result(self, value: Any, record: JobRecord) -> Any:
        """Return the result as the store will keep it."""
        return self._preparer.check_result(value, self.tasks[record.task], record)

    def decode_call(
        self, definition: TaskDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """See `Preparer.decode_call`."""
        return self._preparer.decode_call(definition, args, kwargs)

    # -- what streams ask ----------------------------------------------------------------

    def check_item(self, definition: TaskDefinition, item: Any) -> tuple[Any, ...]:
        """Return the arguments of an item's job, as those of any job that is submitted.

        Raises:
            InvalidArguments: If it does not fit the task.
            NotRunning: If nothing would run it.
        """
        self.check_open(f"{definition.name} got an item that made no job")
        return self._check_call(definition, (item,))

    def health(self) -> Health:
        """Say whether work gets on here."""
        unrenewed_s = 0.0 if self._renewer is None else self._renewer.outage.lasts_s
        return health_of(self.worker, self.outage, unrenewed_s, self.time)

    # -- rows as this process knows them ---------------------------------------------------

    def is_held_here(self, job_id: str) -> bool:
        """Say whether a job runs in this process, or its end is being recorded."""
        return self.worker is not None and job_id in self.worker.held_by_id

    def known(self, record: JobRecord) -> JobRecord:
        """Return a row that was read with its arguments and its result as the hints of its task say.

        If its body has begun here, it says that, too.
        """
        if self.store.keeps_objects:
            return record
        definition = self.tasks.get(record.task)
        if definition is not None:
            give_types(definition, record)
        if self.worker is not None and (attempt := self.worker.held_by_id.get(record.id)) is not None:
            attempt.correct(record)
        return record

    # -- what handles ask ----------------------------------------------------------------

    def is_settled(self, record: JobRecord) -> bool:
        """See `Handles.is_settled`."""
        return self.handles.is_settled(record)

    def watch(self, records: Iterable[JobRecord], notify: Callable[[JobRecord], None]) -> int:
        """See `Handles.watch`."""
        return self.handles.watch(records, notify)

    def unwatch(self, records: Iterable[JobRecord], notify: Callable[[JobRecord], None]) -> None:
        """See `Handles.unwatch`."""
        self.handles.unwatch(records, notify)

    def add_callback(self, record: JobRecord, kind: CallbackKind, fn: Callable[[Job[Any]], object]) -> None:
        """See `Handles.add`."""
        self.handles.add(record, kind, fn)

    async def fetch(self, record: JobRecord) -> JobRecord:
        """Read a job anew.

        Raises:
            JobGone: If the store has it no more.
        """
        (row,) = await self.store.jobs_get([record.id])
        if row is None:
            raise JobGone(record.id)
        return self.known(row)

    async def cancel_job(self, record: JobRecord, wait_s: float) -> bool:
        """Cancel one job and wait up to *wait_s* for its end; say whether it is CANCELLED."""
        if record.state.is_finished:
            return record.state is JobState.CANCELLED
        (answer,) = await self.store.jobs_request_cancel([record.id], "cancelled by request")
        if answer is CancelAnswer.GONE:
            raise JobGone(record.id)
        if answer is CancelAnswer.FINISHED and not record.state.is_finished:  # what is known here was out of date
            refresh(record, await self.fetch(record))
        await settled_within(self, record, wait_s)
        return record.state is JobState.CANCELLED
