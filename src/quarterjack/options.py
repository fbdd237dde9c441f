"""Options as users write them, checked and resolved once.

``@task``, ``Group``, ``options()`` and ``schedule`` take the keywords of
`model.JobOptions` and `model.SchedulePolicies`. They are kept as written until
the task's groups are known, then folded (app, outer group, inner group, task,
call: the nearest wins) and turned into `RunOptions` and policies here. Unknown
names, wrong types and values out of range are refused with the field, the
value, the range and the nearest right name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final, cast, get_args

from ._durations import to_ns, to_seconds
from ._numbers import number, whole_number
from ._payload import is_storable
from ._timing import check_timing
from .errors import InvalidOption, NaiveDatetime
from .model import JobOptions, Overlap, Payload, RunOptions, SchedulePolicies, Timing, Unique
from .policies.backoff import NO_RETRY, Retry
from .policies.missed import MissedMode
from .policies.overlap import OverlapMode
from .triggers import Trigger

__all__ = [
    "JOB_FIELDS",
    "POLICY_FIELDS",
    "changed_options",
    "check_defaults",
    "check_names",
    "instant_ns",
    "is_remote",
    "overlaid",
    "resolve_options",
    "resolve_policies",
    "runs_commands",
    "schedule_id_of",
    "split_options",
    "valid_name",
]

JOB_FIELDS: Final = frozenset(JobOptions.__annotations__)
POLICY_FIELDS: Final = frozenset(SchedulePolicies.__annotations__) - JOB_FIELDS | {"start_deadline"}


def instant_ns(value: datetime, field: str) -> int:
    """Return the instant of an aware datetime in nanoseconds since the epoch.

    Raises:
        NaiveDatetime: If it has no zone.
    """
    if not isinstance(value, datetime):
        raise InvalidOption(f"{field} must be a datetime with a zone, got {value!r}")
    offset = value.utcoffset()
    if offset is None:
        raise NaiveDatetime(
            f"{field}={value!r} has no zone, so it names no instant; "
            "write datetime(…, tzinfo=UTC) or ZoneInfo('Europe/Rome')"
        )
    return (value.replace(tzinfo=None) - offset - _EPOCH) // timedelta(microseconds=1) * 1_000


FLOW_BELONGS: Final = (
    "a flow belongs to a task, @app.task(flow=…), to a group of them, to a queue, app.queue(name, flow=…), "
    "or to a TaskManager(flow); jobs and schedules are stored and outlive it, so single ones are sent to a queue that "
    "has it: options(queue=…), schedule(…, queue=…)"
)

KEYS_ARE: Final = (
    'what a gate with by="tenant" goes by is found in metadata={"tenant": …}, or among the job\'s arguments; '
    'unique= is for "one at a time", overlap_key= for schedules that take turns'
)

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # arithmetic on UTC wall time, zone already taken off


def check_names(options: Mapping[str, Any], allowed: frozenset[str], where: str, also: Iterable[str] = ()) -> None:
    """Refuse names that are not *allowed*, with the nearest of what could be meant: those, or *also* ones.

    What *where* takes by parameters of its own never gets here, but is what a misspelt name may mean.
    """
    for name in options:
        if name not in allowed:
            if name == "flow":
                raise InvalidOption(f"{where} has no option 'flow': {FLOW_BELONGS}")
            if name == "key" and "metadata" in allowed:
                raise InvalidOption(f"{where} has no option 'key': {KEYS_ARE}")
            own = sorted(also)
            near = difflib.get_close_matches(name, [*own, *sorted(allowed)], n=1)
            hint = f"did you mean {near[0]!r}?" if near else "it takes " + ", ".join([*own, *sorted(allowed)])
            raise InvalidOption(f"{where} has no option {name!r}; {hint}")


def split_options(
    options: Mapping[str, Any], where: str, also: Iterable[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the job's options and the schedule's policies of *options*.

    Raises:
        InvalidOption: If a name is neither; *also* are names that could have been meant instead.
    """
    check_names(options, JOB_FIELDS | POLICY_FIELDS, where, also)
    job = {name: value for name, value in options.items() if name in JOB_FIELDS}
    policies = {name: value for name, value in options.items() if name in POLICY_FIELDS}
    return job, policies


def overlaid(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Return options folded from the outermost layer to the nearest, which wins.

    ``delay=`` and ``run_at=`` say one thing in two ways, so the nearer of the two takes the place of the other.
    """
    folded: dict[str, Any] = {}
    for layer in layers:
        if layer.get("run_at") is not None:
            folded.pop("delay", None)
        if "delay" in layer:
            folded.pop("run_at", None)
        folded.update(layer)
    return folded


def _flag(value: Any, field: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidOption(f"{field} must be True or False, got {value!r}")
    return value


def valid_name(value: Any, field: str) -> str:
    """Return *value* if it can name a task, a queue, a schedule.

    Raises:
        InvalidOption: If it is no text of 1 to 200 characters, or one that no database keeps.
    """
    if not isinstance(value, str) or not value or len(value) > 200:
        raise InvalidOption(f"{field} must be a name of 1 to 200 characters, got {value!r}")
    if not is_storable(value):
        raise InvalidOption(f"{field} must hold no NUL and no half of a surrogate pair, got {value!r}")
    return value


def schedule_id_of(policies: dict[str, Any], default: str) -> str:
    """Take the id out of a schedule's *policies*; without one it is *default*, the task's name.

    Raises:
        InvalidOption: If it is no text of 1 to 200 characters.
    """
    given = policies.pop("id", None)
    return default if given is None else valid_name(given, "id")


def _choice(value: Any, field: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise InvalidOption(f"{field} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def _retry(value: Any) -> Retry:
    if value is None:
        return NO_RETRY
    return value if isinstance(value, Retry) else Retry(on=Exception, attempts=value)


def _unique(value: Any) -> Unique | None:
    return value if value is None or isinstance(value, Unique) else Unique(valid_name(value, "unique"))


def _executor(value: Any) -> Any:
    is_name = isinstance(value, str) and value in {"loop", "thread", "process", "command"}
    if value is None or is_name or (hasattr(value, "submit") and hasattr(value, "slots")):
        return value
    names = '"loop", "thread", "process", "command"'
    raise InvalidOption(f'executor must be {names} or an Executor such as LoopThread("name"), got {value!r}')


def _metadata(value: Any) -> Any:
    if value is None or isinstance(value, Mapping):
        return cast("Any", value)
    raise InvalidOption(f'metadata must be a mapping such as {{"tenant": "acme"}}, got {value!r}')


def _optional(check: Callable[..., Any], value: Any, *args: Any, **kwargs: Any) -> Any:
    return None if value is None else check(value, *args, **kwargs)


_RESOLVERS: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    "timeout": ("timeout_s", lambda v: _optional(to_seconds, v, "timeout", exclusive=True)),
    "cancel_grace": ("cancel_grace_s", lambda v: to_seconds(v, "cancel_grace")),
    "retry": ("retry", _retry),
    "priority": ("priority", lambda v: whole_number(v, "priority", 0, 1_000)),
    "queue": ("queue", lambda v: valid_name(v, "queue")),
    "executor": ("executor", _executor),
    "unique": ("unique", _unique),
    "delay": ("delay_ns", lambda v: to_ns(v, "delay")),
    "run_at": ("run_at_ns", lambda v: _optional(instant_ns, v, "run_at")),
    "start_deadline": ("start_deadline_s", lambda v: _optional(to_seconds, v, "start_deadline", exclusive=True)),
    "max_rescues": ("max_rescues", lambda v: whole_number(v, "max_rescues", 0, 1_000_000)),
    "store_result": ("store_result", lambda v: _flag(v, "store_result")),
    "metadata": ("metadata", _metadata),
    "submitted_by": ("submitted_by", lambda v: v),
    "cost": ("cost", lambda v: number(v, "cost", 0.0, exclusive=True)),
}


def resolve_options(options: Mapping[str, Any], where: str, own_executor: Any = None) -> RunOptions:
    """Return *options* checked and in the engine's units; *own_executor* is that of their task.

    Raises:
        InvalidOption: Naming *where*, the field, the value and what is allowed.
    """
    _check_place(options, own_executor, where)
    return RunOptions(**_resolved(options, where), own_executor=own_executor)


def changed_options(before: RunOptions, changes: Mapping[str, Any], where: str) -> RunOptions:
    """Return *before* with *changes* (as users write them); what they do not name stays.

    Raises:
        InvalidOption: Naming *where*, the field, the value and what is allowed.
    """
    _check_place(changes, before.own_executor, where)
    return replace(before, **_resolved(changes, where))


def runs_commands(executor: Any) -> bool:
    """Say whether an ``executor=`` runs what a body says, and not the body alone."""
    return executor == "command" or bool(getattr(executor, "runs_commands", False))


def is_remote(executor: Any) -> bool:
    """Say whether the arguments of what runs at an ``executor=`` travel to another process."""
    return executor == "process" or bool(getattr(executor, "is_remote", False))


def _check_place(options: Mapping[str, Any], own_executor: Any, where: str) -> None:
    """Refuse to send a command where only its body would run: its job would be done, and nothing have been run."""
    if runs_commands(own_executor) and "executor" in options and not runs_commands(options["executor"]):
        raise InvalidOption(
            f'{where} runs a command, which only executor="command" and a CommandExecutor do, '
            f"got executor={options['executor']!r}"
        )


def _resolved(options: Mapping[str, Any], where: str) -> dict[str, Any]:
    check_names(options, JOB_FIELDS, where)
    if options.get("delay") and options.get("run_at") is not None:
        raise InvalidOption(f"{where}: give delay= or run_at=, not both")
    resolved: dict[str, Any] = {}
    for name, value in options.items():
        field, resolve = _RESOLVERS[name]
        try:
            resolved[field] = resolve(value)
        except InvalidOption as error:
            raise type(error)(f"{where}: {error}") from None
    return resolved


def _overlap(value: Any) -> Overlap:
    return value if isinstance(value, Overlap) else Overlap(_choice(value, "overlap", get_args(OverlapMode)))


def resolve_policies(
    trigger: Trigger,
    policies: Mapping[str, Any],
    where: str,
    *,
    task: str,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: RunOptions,
) -> tuple[Timing, Payload]:
    """Return both halves of a schedule's spec, checked.

    Raises:
        InvalidOption: Naming *where*, the field, the value and what is allowed.
    """
    given = _checked(policies, where)
    missed, overlap = given["missed"], given["overlap"]
    if missed == "all" and overlap.mode == "skip":
        raise InvalidOption(
            f"{where}: missed='all' with overlap='skip' would skip all but one of the caught-up runs; "
            "use overlap='queue_all' or 'allow'"
        )
    timing = Timing(trigger=trigger, jitter_ns=given["jitter"], start_ns=given["start"], end_ns=given["end"])
    check_timing(timing, where)
    payload = Payload(
        task=task,
        args=args,
        kwargs=kwargs,
        options=options,
        overlap=overlap,
        overlap_key=given["overlap_key"],
        missed=missed,
        max_lateness_ns=given["max_lateness"],
        max_catchup=given["max_catchup"],
        max_runs=given["max_runs"],
        pause_on_failure=given["pause_on_failure"],
    )
    return timing, payload


def check_defaults(job: Mapping[str, Any], policies: Mapping[str, Any], where: str) -> None:
    """Refuse wrong values among the defaults of a group or an app, where they are written.

    What two of them say together is known only with the options of a task.

    Raises:
        InvalidOption: Naming *where*, the field, the value and what is allowed.
    """
    resolve_options(job, where)
    _checked({name: value for name, value in policies.items() if name != "start_deadline"}, where)


_POLICIES: Final[Mapping[str, tuple[Any, Callable[[Any], Any]]]] = {
    "missed": ("latest", lambda v: _choice(v, "missed", get_args(MissedMode))),
    "overlap": ("skip", _overlap),
    "max_catchup": (100, lambda v: whole_number(v, "max_catchup", 1, 10_000)),
    "start": (None, lambda v: _optional(instant_ns, v, "start")),
    "end": (None, lambda v: _optional(instant_ns, v, "end")),
    "jitter": (0, lambda v: to_ns(v, "jitter")),
    "max_lateness": (None, lambda v: _optional(to_ns, v, "max_lateness", exclusive=True)),
    "max_runs": (None, lambda v: _optional(whole_number, v, "max_runs", 1, 10**12)),
    "pause_on_failure": (None, lambda v: _optional(whole_number, v, "pause_on_failure", 1, 1_000_000)),
    "overlap_key": (None, lambda v: _optional(valid_name, v, "overlap_key")),
}
"""Each policy of a schedule: its default as written, and what checks and converts it."""


def _checked(policies: Mapping[str, Any], where: str) -> dict[str, Any]:
    check_names(policies, frozenset(_POLICIES), where)
    checked: dict[str, Any] = {}
    for name, (default, check) in _POLICIES.items():
        try:
            checked[name] = check(policies.get(name, default))
        except InvalidOption as error:
            raise type(error)(f"{where}: {error}") from None
    return checked
