"""What registration asks of a decorator's arguments and of a task's name.

Pure checks: the registry that takes tasks (`group`) calls them on the user's line."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Mapping
from typing import Any, Final, Protocol, TypeGuard

from .errors import DuplicateName, InvalidArguments, InvalidOption, UsageError
from .options import JOB_FIELDS, POLICY_FIELDS, schedule_id_of
from .task import TaskDefinition
from .triggers import At, Cron, Every, Forever, Once, Stream, Trigger

__all__ = [
    "Naming",
    "check_keys",
    "check_stream",
    "check_triggered",
    "chosen_trigger",
    "is_rule_class",
    "queue_doubts",
    "refuse_rule_fields",
]

_RULES: Final = (Every, At, Cron, Once, Forever)
"""Whose fields people write as options of @task, the likeliest first."""


class Root(Protocol):
    """What names tasks: an app."""

    @property
    def is_running(self) -> bool: ...


class Naming:
    """One naming of all the tasks of an app.

    A task has one name and one set of options, which its jobs read. So a group may
    serve several apps, one after the other or all at once, but not two that run
    at once and mean different things by it.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._named: set[TaskDefinition] = set()

    def name(self, definition: TaskDefinition, prefix: str, defaults: dict[str, Any]) -> None:
        """Give a task its full name and its defaults, unless another app would lose those it runs with."""
        full = f"{prefix}{definition.local_name}"
        if definition in self._named:
            raise DuplicateName(
                f"task {definition.name!r} would be {full!r} as well, for its group is included in two places; "
                "include it once, or make it in a function and include two of them"
            )
        other = definition.holder
        is_busy = other is not self._root and getattr(other, "is_running", False)
        if is_busy and (full, defaults) != (definition.name, definition.defaults):
            raise UsageError(
                f"task {definition.name!r} runs in {other!r}, and here it would be {full!r} with the defaults "
                f"{defaults!r}; apps that run at once share a group only under one name and with the same defaults: "
                "make the group in a function, and include one of its own in each app"
            )
        self._named.add(definition)
        definition.adopt(prefix, defaults, self._root)
        if any(not isinstance(trigger, Stream) for trigger, _ in definition.triggers):
            check_keys(definition)  # the items of a stream are refused one by one, each with the reason


def is_rule_class(it: object) -> TypeGuard[type[Trigger]]:
    """Say whether *it* is a class of triggers where a trigger, or a function, was meant."""
    return isinstance(it, type) and issubclass(it, Trigger)


def chosen_trigger(given: tuple[Any, ...]) -> Trigger | None:
    """Return the trigger among the arguments of ``@task``; None without one.

    Raises:
        InvalidOption: If there are several, or what is given is no trigger.
    """
    if len(given) > 1:
        raise InvalidOption("@task takes one trigger; join two with |, or put @task with id= above it twice")
    chosen = given[0] if given else None
    if chosen is None or isinstance(chosen, Trigger):
        return chosen
    if is_rule_class(chosen):
        name = chosen.__name__
        raise InvalidOption(f"{name} is a class of rules, not a rule; write @app.task({name}(…))")
    raise InvalidOption(f"@task takes a trigger such as Every(seconds=10), got {chosen!r}")


def refuse_rule_fields(options: Mapping[str, Any]) -> None:
    """Refuse ``@app.task(seconds=5)``, the fields of a rule as options, with what is meant.

    Raises:
        InvalidOption: If all unknown names are fields of one kind of rule; other names pass.
    """
    unknown = options.keys() - JOB_FIELDS - POLICY_FIELDS
    for rule in _RULES if unknown else ():
        if unknown <= rule.model_fields.keys():
            fields = ", ".join(f"{name}={value!r}" for name, value in options.items() if name in unknown)
            raise InvalidOption(
                f"@task has no option {next(n for n in options if n in unknown)!r}; when it runs is said by a trigger: "
                f"write @app.task({rule.__name__}({fields}))"
            )


def check_triggered(definition: TaskDefinition) -> None:
    """Refuse a trigger above a task that cannot be called without arguments.

    Raises:
        InvalidOption: With what to write instead.
    """
    try:
        definition.check_call((), {})
    except InvalidArguments as error:
        if next(iter(inspect.signature(definition.fn).parameters), None) == "self":
            raise InvalidOption(
                f"tasks are functions, and {definition.local_name} is a method without its object; "
                f"register it on one: `app.task(trigger)(obj.{definition.local_name})`"
            ) from None
        raise InvalidOption(
            f"a trigger passes no arguments: {error}; give each argument a default or a Depends(…), or leave the "
            f"trigger out here and schedule a call: `await app.schedule({definition.local_name}.bind(…), …)`"
        ) from None


def check_keys(definition: TaskDefinition) -> None:
    """Refuse a trigger above a task whose flow goes by a name that none of its runs has a key or an argument for.

    Raises:
        InvalidOption: With what to write instead.
    """
    known = {*definition.signature.parameters, *(definition.options.metadata or ())}
    for gate in () if definition.flow is None else definition.flow.gates:
        if isinstance(gate.by, str) and gate.by not in known:
            raise InvalidOption(
                f"task {definition.name!r} has a trigger, and its runs would never pass {gate!r}, which goes by "
                f"{gate.by!r}: they have no argument of that name; give the function one with a default, or the task "
                f"metadata={{{gate.by!r}: …}}"
            )


def check_stream(definition: TaskDefinition, trigger: Stream, policies: Mapping[str, Any]) -> None:
    """Refuse a stream above a task that does not take one item, and the policies that mean fire times.

    Raises:
        InvalidOption: With what to write instead.
    """
    try:
        definition.check_call((None,), {})
    except InvalidArguments as error:
        raise InvalidOption(
            f"a Stream passes one argument, the item: {error}; write `def {definition.local_name}(item)`, "
            "other arguments with a default or a Depends(…)"
        ) from None
    without = sorted(policies.keys() - {"id", "start_deadline"})
    if without:
        raise InvalidOption(
            f"{trigger!r} is no schedule and has no fire times, so {', '.join(without)} has no meaning; "
            "what bounds it is max_waiting="
        )
    schedule_id_of(dict(policies), definition.name)


def queue_doubts(with_flow: Collection[str], queue_by_task: Mapping[str, str]) -> list[str]:
    """Return which queues with a flow no task is in, where a task is in one of almost the same name.

    A queue with a flow and without tasks is none by itself: single jobs may be sent to it.
    """
    free = sorted({*queue_by_task.values()} - {*with_flow, "default"})
    found: list[str] = []
    for queue in sorted({*with_flow} - {*queue_by_task.values()}):
        near = difflib.get_close_matches(queue, free, n=1, cutoff=0.8)
        if near:
            tasks = ", ".join(sorted(task for task, own in queue_by_task.items() if own == near[0]))
            found.append(f"no task is in queue {queue!r}, which has a flow; {tasks}: did you mean it by {near[0]!r}?")
    return found
