"""What every part of the app stands on: its settings, and the service while it runs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from inspect import signature
from secrets import token_hex
from typing import Any, Final, NamedTuple, TypeVar
from weakref import WeakSet

from ._crossing import across_loops
from ._durations import Seconds, to_seconds
from ._finding import find_app
from ._numbers import whole_number
from ._payload import PayloadCodec
from ._registering import queue_doubts
from ._signatures import explained, misfit
from ._versions import valid_version
from .clock import SYSTEM_CLOCK, Clock
from .codec import CallCodec
from .context import CURRENT
from .declared import code_hash_of
from .errors import DuplicateName, Forked, InvalidOption, NotRunning, UnknownSchedule, UsageError
from .events import EventStream
from .executors import AppRef
from .executors.elsewhere import Elsewhere
from .flow.flow import Flow, Strategy
from .flow.for_apps import as_flow, check_wraps, merged, refuse_twins_of_batches
from .group import TaskRegistry, declared_schedule
from .injection import DependencyOverrides
from .model import JobIds, RunOptions, Schedule
from .options import is_remote, schedule_id_of, valid_name
from .runtime.prepare import Around, Preparer
from .runtime.service import Role, Service
from .runtime.streams import DeclaredStream
from .runtime.upkeep import Retention
from .stores import Encoding, Store, store_from
from .task import Task, TaskDefinition
from .triggers import OnShutdown, OnStartup, Stream

__all__ = ["AppBase", "known_schedule", "unknown_schedule"]

T = TypeVar("T")

MOST_ARGUMENT_BYTES: Final = 256 * 2**20
"""Beyond that no engine takes a value."""
_ROLES = ("both", "scheduler", "worker", "client")
_alive: WeakSet[AppBase] = WeakSet()


class Declared(NamedTuple):
    """What an app's code declares."""

    tasks: dict[str, TaskDefinition]
    schedules: list[Schedule]
    startup: list[TaskDefinition]
    shutdown: list[TaskDefinition]
    streams: list[DeclaredStream]


class AppBase(TaskRegistry):
    """Settings and registration. `Quarterjack` documents the arguments."""

    def __init__(
        self,
        store: Store | str,
        *,
        lifespan: Callable[[Any], Any] | None,
        role: Role,
        queues: Sequence[str] | None,
        concurrency: int,
        version: str | None,
        shutdown_grace: Seconds,
        watchdog: Seconds | None,
        switch_interval: Seconds | None,
        strict: bool,
        codec: PayloadCodec | None,
        max_argument_bytes: int,
        lease: Seconds,
        retention: Seconds,
        keep_finished: int,
        clock: Clock | None,
        defaults: Mapping[str, Any],
    ) -> None:
        super().__init__(defaults, "Quarterjack(…)", _SETTINGS)
        if role not in _ROLES:
            raise InvalidOption(f"role must be one of {', '.join(map(repr, _ROLES))}, got {role!r}")
        if lifespan is not None and not callable(lifespan):
            raise InvalidOption(f"lifespan must be a context manager factory that takes the app, got {lifespan!r}")
        if not isinstance(strict, bool):
            raise InvalidOption(f"strict must be True or False, got {strict!r}")
        if codec is not None and (isinstance(codec, type) or not isinstance(codec, PayloadCodec)):
            raise InvalidOption(f"codec must be an object with encode(data) and decode(data), or None, got {codec!r}")
        if clock is not None and not isinstance(clock, Clock):
            raise InvalidOption(f"clock must be a Clock such as quarterjack.testing's, or None, got {clock!r}")
        self.store = store_from(store)
        self._is_durable = not self.store.keeps_objects
        self.role: Role = role
        self.queues = None if queues is None else _queue_names(queues)
        self.concurrency = whole_number(concurrency, "concurrency", 1, 1_000_000)
        self.version = None if version is None else valid_version(version)
        self.switch_interval_s = (
            None if switch_interval is None else to_seconds(switch_interval, "switch_interval", exclusive=True)
        )
        self.strict = strict
        self.codec = codec
        self.max_argument_bytes = whole_number(max_argument_bytes, "max_argument_bytes", 1_000, MOST_ARGUMENT_BYTES)
        self.shutdown_grace_s = to_seconds(shutdown_grace, "shutdown_grace")
        self.watchdog_s = None if watchdog is None else to_seconds(watchdog, "watchdog", exclusive=True)
        self.lease_s = to_seconds(lease, "lease", minimum=2.0)
        self.retention = Retention(
            timedelta(seconds=to_seconds(retention, "retention")), whole_number(keep_finished, "keep_finished", 0)
        )
        self.clock: Clock = clock or SYSTEM_CLOCK
        self.event_stream = EventStream()
        self.dependency_overrides = DependencyOverrides()
        """Another callable in a dependency's place: ``app.dependency_overrides[original] = replacement``."""
        self._lifespan = lifespan
        self._arounds: list[Around] = []
        self._flow_by_queue: dict[str, Flow] = {}
        self._codecs: dict[TaskDefinition, CallCodec] = {}
        self._service: Service | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forked = False
        self._edition = token_hex(8)
        _alive.add(self)

    # -- registration ----------------------------------------------------------------

    def around(self, fn: Around) -> Around:
        """Wrap the run of every body: ``async def timing(job, proceed): … await proceed() …``.

        It runs where the body runs, the first registered outermost, and what it
        returns or raises is the body's outcome.
        """
        if self._service is not None:
            raise UsageError("@app.around must be registered before the app starts")
        why = misfit(fn, 2)
        if why is not None:
            raise InvalidOption(f"around takes a function of two arguments: async def timing(job, proceed): …; {why}")
        self._arounds.append(fn)
        return fn

    @explained
    def queue(self, name: str, *, flow: Flow | Strategy) -> None:
        """Have every job of the queue *name* pass *flow* on its way to start, whatever its task.

        A task's own flow acts together with it: the gates of both are taken at
        once, and the task's Order, Retry, Timeout, Deadline and Fallback count.
        The app serves the queue, unless it was given its ``queues``.

        Raises:
            InvalidOption: If it is no flow, or one of the tasks has an Order of its own.
            DuplicateName: If the queue has a flow already.
            UsageError: If the app runs.
        """
        where = f"queue {valid_name(name, 'name of a queue')!r}"
        given = as_flow(flow, where)
        if given is None:
            raise InvalidOption(f"{where}: flow must be a Flow such as Flow(ConcurrencyLimit(5)), got None")
        self._refuse_late(where)
        if name in self._flow_by_queue:
            raise DuplicateName(f"{where} has a flow already, {self._flow_by_queue[name]!r}; put both into one")
        self._flow_by_queue[name] = given

    def declared_schedules(self) -> list[Schedule]:
        """Return the schedules that the code declares, as the app would put them at its start; it need not run.

        Raises:
            DuplicateName: If two tasks or two schedules share a name.
        """
        return self._collect().schedules

    def declared_streams(self) -> list[DeclaredStream]:
        """Return the streams that the code declares; the app need not run.

        Raises:
            DuplicateName: If two tasks, or two of its streams and schedules, share a name.
        """
        return self._collect().streams

    def _collect(self) -> Declared:
        """Name all tasks; return what the code declares.

        Raises:
            DuplicateName: If two tasks, or two of its streams and schedules, share a name.
        """
        found = Declared({}, [], [], [], [])
        ids: set[str] = set()
        for definition, policies in self._adopt("", {}, {}):
            if definition.name in found.tasks:
                raise DuplicateName(
                    f"two tasks are named {definition.name!r}; rename one, pass name=, or put one into a named Group"
                )
            found.tasks[definition.name] = definition
            self._check_flow(definition)
            for trigger, own in definition.triggers:
                if isinstance(trigger, OnStartup):
                    found.startup.append(definition)
                    continue
                if isinstance(trigger, OnShutdown):
                    found.shutdown.append(definition)
                    continue
                if isinstance(trigger, Stream):
                    row_id = schedule_id_of(dict(own), definition.name)
                    found.streams.append(DeclaredStream(row_id, definition, trigger))
                else:
                    row = declared_schedule(definition, trigger, {**policies, **own}, self.version)
                    row.code_hash = code_hash_of(row)
                    row_id = row.id
                    found.schedules.append(row)
                if row_id in ids:
                    raise DuplicateName(f"two schedules have the id {row_id!r}; give one another id=")
                ids.add(row_id)
        return found

    def _check_flow(self, definition: TaskDefinition) -> None:
        """Refuse a task whose flow does not go together with that of its queue."""
        of_queue = self._flow_by_queue.get(definition.options.queue)
        if of_queue is not None:
            where = f"task {definition.name!r} in queue {definition.options.queue!r}"
            both = merged(of_queue, definition.flow, where)
            check_wraps(both, definition.options.executor, where, is_coroutine=definition.is_coroutine)
            refuse_twins_of_batches(of_queue, definition.batch_flow, where)

    def _queue_doubts(self) -> list[str]:
        """Return which queues with a flow no task is in, where a task is in one of almost the same name."""
        return queue_doubts(
            self._flow_by_queue, {task.name: task.options.queue for task in self._collect().tasks.values()}
        )

    def _preparer(self) -> Preparer:
        return Preparer(self.dependency_overrides, self._arounds, strict=self._takes_json)

    def _encoding(self, tasks: Mapping[str, TaskDefinition]) -> Encoding:
        """Return what makes rows of jobs and schedules, for a store that keeps no objects."""

        def options_of(task: str) -> RunOptions | None:
            definition = tasks.get(task)
            return None if definition is None else definition.options

        return Encoding(options_of, self.codec, max_argument_bytes=self.max_argument_bytes)

    @asynccontextmanager
    async def _looking(self) -> AsyncIterator[Store]:
        """Open the store as the app would, to look into it, and close it; the app does not run."""
        await self.store.open(self.clock, JobIds(), self._encoding(self._collect().tasks))
        try:
            yield self.store
        finally:
            await self.store.close()

    @property
    def _takes_json(self) -> bool:
        """Say whether arguments and results have to survive JSON."""
        return self.strict or self._is_durable

    # -- other processes ---------------------------------------------------------------

    def ref(self) -> AppRef:
        """Return how another process finds this app.

        Raises:
            UsageError: If it is no global of a module or of a script.
        """
        found = find_app(self, (definition.fn for definition in self._collect().tasks.values()))
        return found._replace(edition=self._edition)

    def bodies(self) -> Mapping[str, tuple[TaskDefinition, Callable[..., Any], bool]]:
        """Return what another process needs to run this app's bodies, by task; the app need not run.

        Each is the task's definition, its body with dependencies and wrappers, and whether that is a coroutine.

        Raises:
            DuplicateName: If two tasks share a name.
        """
        preparer = self._preparer()
        return {name: (task, *preparer.wrapped(task)) for name, task in self._collect().tasks.items()}

    # -- the running half ------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """True between start and stop."""
        return self._service is not None

    def _running(self) -> Service:
        """Return the service.

        Raises:
            NotRunning: If the app has not started or has stopped.
            Forked: If it was started in the parent of this process.
        """
        if self._service is None:
            if self._forked:
                raise Forked(
                    "this app was started in the parent process; a forked child has none of its threads and timers. "
                    "Start the app after the fork, or submit from the parent"
                )
            if isinstance(CURRENT.get(), Elsewhere):
                raise NotRunning(
                    "this body runs in a process without the app's store, and jobs cannot be submitted from there: "
                    "return what is to be submitted, or give the task another executor, such as 'thread'"
                )
            raise NotRunning(
                "the app is not running; use `async with app:`, `await app.serve()` or `with app.in_thread():` "
                "around this call (an app that was stopped can be started anew)"
            )
        return self._service

    def _through_json(
        self, definition: TaskDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return a call's arguments as a body gets them after a durable store kept them, or they went elsewhere.

        Raises:
            InvalidArguments: If they cannot be written as JSON, are too large, or do not fit the type hints.
        """
        codec = self._codecs.get(definition)
        if codec is None:
            most = self.max_argument_bytes if self._takes_json else sys.maxsize  # what is not stored is of any size
            codec = self._codecs[definition] = CallCodec(definition, most)
        return codec.round_trip(args, kwargs)

    def _checked(self, definition: TaskDefinition, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return positional arguments as a job of this app has them.

        Raises:
            InvalidArguments: If they do not fit the task.
        """
        definition.check_call(args, {})
        travels = self._takes_json or is_remote(definition.options.executor)
        return self._through_json(definition, args, {})[0] if travels else args

    def _service_beside(self) -> Service:
        """Return the service for code without a loop."""
        return self._running()

    async def _carry(self, service: Service, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Run *work* on the app's loop, wherever the caller's is."""
        return await across_loops(service.loop, work)


_SETTINGS: Final = tuple(name for name in signature(AppBase.__init__).parameters if name not in {"self", "defaults"})
"""What a misspelt option of an app may mean, besides options of its tasks."""


def _queue_names(queues: Sequence[str]) -> tuple[str, ...]:
    if isinstance(queues, str | bytes) or not isinstance(queues, Collection) or not queues:
        raise InvalidOption(f'queues must be a list of names such as ["default"], got {queues!r}')
    return tuple(valid_name(name, "each of queues") for name in queues)


def unknown_schedule(service: Service, schedule_id: str) -> str:
    """Return the message about an id that no schedule has."""
    if schedule_id in service.streams:
        return (
            f"{schedule_id!r} is a stream, no schedule: each process takes its items for itself, so there is nothing "
            "to pause, to change or to run now; `await app.streams()` tells how it stands, and "
            "`await app.submit(task, item)` makes a job of an item of yours"
        )
    if isinstance(schedule_id, Task):
        return f"a schedule is named by its id, as in {schedule_id.name!r}, got {schedule_id!r}"
    return f"no schedule {schedule_id!r}; `await app.schedules()` lists them"


def known_schedule(service: Service, row: Schedule | None, schedule_id: str) -> Schedule:
    """Return *row*, or raise `UnknownSchedule` if there is none."""
    if row is None:
        raise UnknownSchedule(unknown_schedule(service, schedule_id))
    return row


def _after_fork() -> None:
    for app in _alive:
        if app._service is not None:  # one module
            app._service, app._forked = None, True
            app._loop = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
