"""Groups: tasks with common names and defaults, made before there is an app."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Final, ParamSpec, TypeVar, Unpack, cast, overload
from weakref import WeakSet

from ._durations import Seconds
from ._registering import Naming, check_stream, check_triggered, chosen_trigger, is_rule_class, refuse_rule_fields
from ._signatures import explained, label_of
from .command import Command, command_body
from .errors import DuplicateName, InvalidOption, UsageError
from .flow.batch import Batch, OnError
from .flow.flow import Flow, Strategy
from .flow.for_apps import as_flow
from .model import JobOptions, Schedule, SchedulePolicies
from .options import (
    JOB_FIELDS,
    check_defaults,
    check_names,
    overlaid,
    resolve_policies,
    runs_commands,
    schedule_id_of,
    split_options,
)
from .task import AsyncTask, BatchTask, SyncTask, Task, TaskDecorator, TaskDefinition, define
from .triggers import Stream, Trigger

__all__ = ["Group", "GroupOptions", "TaskOptions", "TaskRegistry", "declared_schedule"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
Res = TypeVar("Res")

_GROUP_NAME: Final = re.compile(r"[^\s.]{0,200}")


class TaskOptions(SchedulePolicies, JobOptions, total=False):
    """What ``@task`` takes: options of the jobs, policies of the schedule, and the task's name."""

    name: str
    flow: Flow | Strategy | None


class BatchTaskOptions(JobOptions, total=False):
    """What ``@batch`` takes besides: options of the items' jobs, the task's name, its flow."""

    name: str
    flow: Flow | Strategy | None


_BATCH_OPTIONS: Final = JOB_FIELDS | {"flow"}


class GroupOptions(SchedulePolicies, JobOptions, total=False):
    """What a group sets for all its tasks."""

    flow: Flow | Strategy | None


class TaskRegistry:
    """What an app and a group share: the ``task`` decorator and nested groups."""

    def __init__(self, defaults: Mapping[str, Any], where: str, settings: Iterable[str] = ()) -> None:
        if "id" in defaults:
            raise InvalidOption(f"{where}: id= names one schedule; it cannot be a default")
        flow, rest = _flow_of(defaults, where)
        self._job_defaults, self._policy_defaults = split_options(rest, where, (*settings, "flow"))
        check_defaults(self._job_defaults, self._policy_defaults, where)
        self._job_defaults |= flow
        self._definitions: list[TaskDefinition] = []
        self._names: set[str] = set()
        self._groups: list[Group] = []
        self._parents: WeakSet[TaskRegistry] = WeakSet()

    @property
    def is_running(self) -> bool:
        """True for an app between start and stop."""
        return False

    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> AsyncTask[P, T]: ...  # type: ignore[overload-overlap]  # first match is meant
    @overload
    def task(self, fn: Callable[P, T], /) -> SyncTask[P, T]: ...
    @overload
    def task(self, trigger: Trigger | None = None, /, **options: Unpack[TaskOptions]) -> TaskDecorator: ...
    @overload
    def task(self, *, trigger: Trigger, **options: Unpack[TaskOptions]) -> TaskDecorator: ...
    def task(self, *given: Any, **options: Any) -> Any:
        """Register a function as a task, with a trigger or without.

        ``@app.task`` alone, ``@app.task(Every(minutes=5), timeout=30)``, or
        ``@app.task(retry=3)``. Coroutine functions run on the loop, plain ones
        in a thread. Decorating a task again adds a trigger to it (with ``id=``).

        Raises:
            InvalidOption: Naming the option, its value and what is allowed.
            DuplicateName: If the name is taken.
        """
        if len(given) == 1 and not options and callable(given[0]) and not is_rule_class(given[0]):
            return self._register(given[0], None, {})
        if "trigger" in options:
            given = (*given, options.pop("trigger"))
        chosen = chosen_trigger(given)
        name = options.pop("name", None)
        refuse_rule_fields(options)
        split_options(
            _flow_of(options, "@task")[1], "@task", ("name", "trigger", "flow")
        )  # refuse here, on the user's line

        def decorate(fn: Any) -> Task[..., Any]:
            return self._register(fn, chosen, options, name)

        return decorate

    @explained
    def batch(
        self,
        *,
        max_size: int,
        max_wait: Seconds = 0.05,
        max_bytes: int | None = None,
        on_error: OnError = "fail_all",
        **options: Unpack[BatchTaskOptions],
    ) -> Callable[[Callable[[list[Item]], Awaitable[Sequence[Res]]]], BatchTask[Item, Res]]:
        """Register a coroutine function of a list as a task of single items.

        Each item is a job as any other, stored, with a state, a result, a timeout,
        retries and a cancel of its own; the worker calls the body with the items it
        has gathered. A ``flow=`` is passed by batches, each as one job. Inside,
        ``current_job()`` is the first item's.

        Args:
            max_size: See `Batch`, as for the next three.
            max_wait: Seconds that the first item of a batch waits for others.
            max_bytes: Bytes of a batch.
            on_error: What becomes of the items when the body raises.
            options: Options of the items' jobs, the task's name, its flow.

        Raises:
            InvalidOption: Naming the option, its value and what is allowed.
            DuplicateName: If the name is taken.
        """
        how = Batch(max_size, max_wait, max_bytes, on_error)
        given: dict[str, Any] = dict(options)
        name = given.pop("name", None)
        if given.get("executor") is not None:
            raise InvalidOption("@batch has no executor=: its bodies are coroutines and run on the app's loop")
        check_names(given, _BATCH_OPTIONS, "@batch", ("name", "max_size", "max_wait", "max_bytes", "on_error"))

        def decorate(fn: Callable[[list[Item]], Awaitable[Sequence[Res]]]) -> BatchTask[Item, Res]:
            task: Any = self._register(fn, None, given, name, how)
            batch_task: BatchTask[Item, Res] = task
            return batch_task

        return decorate

    def command(
        self,
        name: str,
        words: Sequence[str] | str,
        trigger: Trigger | None = None,
        /,
        *,
        shell: bool = False,
        ok_codes: Sequence[int] = (0,),
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
        **options: Unpack[TaskOptions],
    ) -> SyncTask[..., Command]:
        """Register a command of the operating system as a task, with a trigger or without.

            app.command("backup", ["pg_dump", "-f", "shop.sql", "shop"], At("02:30", tz="Europe/Rome"))

        Its result is the `Command` with exit code and output. Arguments of a job are
        words behind the others: ``await app.submit(backup, "--verbose")``. Calling the
        task runs nothing; it returns the `Command`.

        Args:
            name: The task's name.
            words: See `Command`, as for the next four.
            trigger: When it runs.
            shell: Have a shell read it.
            ok_codes: The exit codes that mean success.
            cwd: The folder to run it in.
            env: Environment variables beside the app's.
            options: As ``@app.task`` takes them.

        Raises:
            InvalidOption: Naming the option, its value and what is allowed.
            DuplicateName: If the name is taken.
        """
        made = Command(words, shell=shell, ok_codes=ok_codes, cwd=cwd, env=env)
        given: dict[str, Any] = dict(options)
        if given.get("executor") is None:
            given["executor"] = "command"
        elif not runs_commands(given["executor"]):
            raise InvalidOption(
                f'app.command({name!r}, …) takes executor="command" or a CommandExecutor, '
                f"got executor={given['executor']!r}: elsewhere nothing would be run"
            )
        task: Any = self._register(command_body(made), chosen_trigger((trigger,)), given, name)
        command_task: SyncTask[..., Command] = task
        return command_task

    def _register(
        self,
        fn: Any,
        trigger: Trigger | None,
        options: dict[str, Any],
        name: str | None = None,
        batch: Batch | None = None,
    ) -> Task[..., Any]:
        self._refuse_late(f"task {label_of(fn)!r}")
        flow, rest = _flow_of(options, f"task {label_of(fn)!r}")
        job, policies = split_options(rest, "@task", ("name", "trigger", "flow"))
        job |= flow
        if isinstance(fn, Task):
            return self._add_trigger(cast("Task[..., Any]", fn), trigger, job, policies)
        task: Task[..., Any] = define(fn, job, policies, name, batch)
        if trigger is not None:
            self._declare(task.definition, trigger, policies)
        elif policies and set(policies) != {"start_deadline"}:
            raise InvalidOption(f"task {task.name!r} has no trigger, so {', '.join(sorted(policies))} has no meaning")
        self._take(task.definition)
        return task

    def _add_trigger(
        self, task: Task[..., Any], trigger: Trigger | None, job: dict[str, Any], policies: dict[str, Any]
    ) -> Task[..., Any]:
        if trigger is None or job:
            raise InvalidOption(f"{task!r} is a task already; a second @task adds a trigger with its policies only")
        if task.definition.triggers and "id" not in policies:
            raise DuplicateName(
                f"task {task.name!r} has a schedule of its own name already; give the second trigger an id="
            )
        self._declare(task.definition, trigger, policies)
        return task

    def _declare(self, definition: TaskDefinition, trigger: Trigger, policies: dict[str, Any]) -> None:
        if isinstance(trigger, Stream):
            check_stream(definition, trigger, policies)
        else:
            check_triggered(definition)
        if not trigger.is_hook:
            declared_schedule(definition, trigger, policies, None)  # wrong values are refused on the user's line
        definition.triggers.append((trigger, policies))

    def _take(self, definition: TaskDefinition) -> None:
        if definition.local_name in self._names:
            raise DuplicateName(
                f"a task named {definition.local_name!r} exists already; rename the function or pass name="
            )
        self._names.add(definition.local_name)
        self._definitions.append(definition)

    def include_group(self, group: Group) -> None:
        """Take up a group's tasks, under its name and with its defaults.

        Raises:
            UsageError: If the app runs: tasks are registered before it starts.
            DuplicateName: If it is included here already.
        """
        if not isinstance(group, Group):
            raise InvalidOption(f"include_group takes a Group, got {group!r}")
        self._refuse_late(f"{group!r}")
        if group in self._groups:
            raise DuplicateName(f"{group!r} is included already")
        if group is self or group.holds(self):
            raise InvalidOption(f"{group!r} cannot be included in itself")
        self._groups.append(group)
        group._parents.add(self)

    def _refuse_late(self, what: str) -> None:
        """Refuse what is registered here while an app above runs: it would never be seen."""
        if self.is_running:
            raise UsageError(
                f"{what} comes too late: tasks are registered before the app starts; "
                "a running app takes new schedules of known tasks by `await app.schedule(…)`"
            )
        for parent in self._parents:
            parent._refuse_late(what)

    def holds(self, other: object) -> bool:
        """Say whether *other* is among the groups below this one."""
        return any(group is other or group.holds(other) for group in self._groups)

    def _adopt(
        self,
        prefix: str,
        job_defaults: Mapping[str, Any],
        policy_defaults: Mapping[str, Any],
        naming: Naming | None = None,
    ) -> list[tuple[TaskDefinition, dict[str, Any]]]:
        """Name every task below and give it its defaults; return them with their policies' defaults.

        Raises:
            DuplicateName: If a group stands in two places below.
            UsageError: If a task runs in another app under another name or with other defaults.
        """
        naming = naming or Naming(self)
        job = overlaid(job_defaults, self._job_defaults)
        policies = {**policy_defaults, **self._policy_defaults}
        found: list[tuple[TaskDefinition, dict[str, Any]]] = []
        for definition in self._definitions:
            naming.name(definition, prefix, job)
            found.append((definition, policies))
        for group in self._groups:
            found += group._adopt(f"{prefix}{group.prefix}", job, policies, naming)  # one class
        return found


class Group(TaskRegistry):
    """Tasks with a common name and common defaults.

    ``Group("reports", timeout=30)`` names its tasks ``reports.…`` and gives each
    a timeout unless it sets its own. Groups nest; ``app.include_group`` takes
    the whole tree.
    """

    def __init__(self, name: str = "", /, **defaults: Unpack[GroupOptions]) -> None:
        if not isinstance(name, str) or not _GROUP_NAME.fullmatch(name) or not name.isprintable():
            raise InvalidOption(
                "a group's name stands before the names of its tasks: at most 200 characters without blanks and dots "
                f"(groups nest by include_group), got {name!r}"
            )
        super().__init__(defaults, f"Group({name!r})")
        self.name = name

    @property
    def prefix(self) -> str:
        """What stands before the names of its tasks."""
        return f"{self.name}." if self.name else ""

    def __repr__(self) -> str:
        return f"<Group {self.name!r}>"


def _flow_of(options: Mapping[str, Any], where: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    """Return the flow among *options* by its name, checked, if they name one (None opts out); and the others."""
    if "flow" not in options:
        return {}, options
    rest = dict(options)
    return {"flow": as_flow(rest.pop("flow"), where)}, rest


def declared_schedule(
    definition: TaskDefinition, trigger: Trigger, policies: Mapping[str, Any], version: str | None
) -> Schedule:
    """Return the row a task's trigger declares."""
    own = dict(policies)
    schedule_id = schedule_id_of(own, definition.name)
    options = definition.options
    if own.get("start_deadline") is not None:
        options = definition.resolved({"start_deadline": own["start_deadline"]})
    own.pop("start_deadline", None)
    timing, payload = resolve_policies(
        trigger,
        own,
        f"schedule {schedule_id!r}",
        task=definition.name,
        args=(),
        kwargs={},
        options=options,
    )
    return Schedule(schedule_id, timing, payload, in_code=True, version=version)
