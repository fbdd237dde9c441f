"""Tasks: registered callables with their defaults, and calls bound to arguments.

A task is two objects. The *definition* is what the app knows: name, function,
triggers, callbacks; there is one per registration. A `Task` is a view of it
with options; ``task.options(…)`` makes another view. Calling a task calls the
function as written: no job, no dependencies, for unit tests."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload
from weakref import ref

from ._items import Items, item_body, item_signature
from ._needs import needs_of
from ._signatures import kind_of, read_hints
from .errors import InvalidArguments, InvalidOption
from .flow.batch import Batch
from .flow.flow import Flow
from .flow.for_apps import check_wraps, flow_of_batches
from .job import CallbackKind, Hooks, Job, check_callback
from .model import NO_KWARGS, JobOptions, RunOptions
from .options import JOB_FIELDS, check_names, overlaid, resolve_options, valid_name
from .triggers import Trigger

__all__ = ["AsyncTask", "BatchTask", "Call", "SyncTask", "Task", "TaskDecorator", "TaskDefinition", "define"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
T_co = TypeVar("T_co", covariant=True)

_SIMPLE: Final = frozenset({inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD})


class TaskDefinition:
    """What the app knows about a task. Made by the decorators, named when its group joins the app."""

    __slots__ = (
        "_holder",
        "batch",
        "batch_flow",
        "callbacks",
        "codecs",
        "declared",
        "defaults",
        "dependencies",
        "flow",
        "fn",
        "hints",
        "is_coroutine",
        "local_name",
        "name",
        "needs",
        "options",
        "policies",
        "positional",
        "signature",
        "triggers",
    )

    def __init__(
        self,
        fn: Callable[..., Any],
        name: str,
        declared: Mapping[str, Any],
        policies: Mapping[str, Any],
        batch: Batch | None = None,
    ) -> None:
        self.fn = fn
        self.batch = batch
        """How its jobs go together, if they do."""
        self.local_name = name
        self.name = name
        """The full name, group prefixes included; what stores keep."""
        self.is_coroutine = kind_of(fn) == "coroutine"
        self.declared = dict(declared)
        """Job options as written at the decorator."""
        self.policies = dict(policies)
        """Schedule policies as written at the decorator."""
        self.defaults: dict[str, Any] = {}
        """Job options of the groups and the app, outermost first."""
        self.flow: Flow | None = None
        """What its jobs pass on their way to start."""
        self.batch_flow: Flow | None = None
        """What its batches pass: each of them is one job to the flow of such a task."""
        self._resolve()
        self._holder: ref[object] | None = None
        self.triggers: list[tuple[Trigger, dict[str, Any]]] = []
        self.callbacks: dict[CallbackKind, list[Callable[[Job[Any]], object]]] = {}
        self.hints = read_hints(fn)
        """Read here and nowhere later: the names that local hints mean are at hand while the decorator runs."""
        self.needs = needs_of(fn, self.hints)
        self.dependencies = frozenset(self.needs.filled)
        """Names of the parameters that dependencies fill; callers do not pass them."""
        own = self.needs.call_signature
        self.signature = own if batch is None else item_signature(own, self.local_name)
        """What callers pass."""
        self.codecs: list[Any] = [None, None]
        """What `quarterjack.codec` keeps of it: how its arguments and results are read."""
        self.positional = _positional(self.signature) if not self.dependencies else None
        """How many positional arguments fit, where nothing but their number matters; else None."""

    def check_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Refuse arguments that do not fit the signature (their number and names; types are for strict apps).

        Raises:
            InvalidArguments: With the task's signature.
        """
        bounds = self.positional
        if not kwargs and bounds is not None and bounds[0] <= len(args) <= bounds[1]:
            return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as error:
            text = f"{self.name}{self.signature} cannot be called like that: {error}{self._unread(str(error))}"
            raise InvalidArguments(text) from None

    def _unread(self, problem: str) -> str:
        """Return what to add where an argument is missing whose hint may be a dependency's, unread."""
        for name, (hint, error) in self.hints.unknown.items():
            if f"'{name}'" in problem:
                return f" (its hint {hint} cannot be read: {error}; were there a Depends in it, it would not be seen)"
        return ""

    @property
    def holder(self) -> object | None:
        """The app that has named it last."""
        return self._holder() if self._holder is not None else None

    def adopt(self, prefix: str, defaults: Mapping[str, Any], holder: object) -> None:
        """Take the full name and the defaults of the groups around it in *holder*; the nearest option wins."""
        self._holder = ref(holder)
        self.name = f"{prefix}{self.local_name}"
        self.defaults = dict(defaults)
        self._resolve()

    def _resolve(self) -> None:
        flow: Flow | None = overlaid(self.defaults, self.declared).get("flow")
        if self.batch is None:
            self.flow = flow
        else:
            self.batch_flow = None if flow is None else flow_of_batches(flow, f"task {self.name!r}")
        self.options = self.resolved({})

    def resolved(self, overrides: Mapping[str, Any]) -> RunOptions:
        """Return the options of a job that sets *overrides*.

        Raises:
            InvalidOption: If one is wrong, both they and the flow retry, or what the flow puts around bodies
                would do nothing.
        """
        given = overlaid(self.defaults, self.declared, overrides)
        given.pop("flow", None)
        if self.flow is not None and self.flow.retry is not None and given.get("retry") is not None:
            raise InvalidOption(
                f"task {self.name!r}: its flow holds {self.flow.retry!r} and retry={given['retry']!r} is given too; "
                "give one of the two"
            )
        own = overlaid(self.defaults, self.declared).get("executor")
        options = resolve_options(given, f"task {self.name!r}", own)
        check_wraps(self.flow, options.executor, f"task {self.name!r}", is_coroutine=self.is_coroutine)
        return options


def _positional(signature: inspect.Signature) -> tuple[int, int] | None:
    parameters = signature.parameters.values()
    if any(p.kind not in _SIMPLE for p in parameters):
        return None
    return sum(p.default is p.empty for p in parameters), len(parameters)


def _name_of(fn: Callable[..., Any]) -> str:
    name = getattr(fn, "__name__", None)
    if isinstance(name, str):
        if name == "<lambda>":
            raise InvalidOption("a lambda has no name; write @app.task(name='…') or define a function")
        return name
    if isinstance(fn, functools.partial):
        raise InvalidOption("a functools.partial has no name; write app.task(name='…')(partial(…))")
    return type(fn).__name__


def define(
    fn: Callable[..., Any],
    declared: Mapping[str, Any],
    policies: Mapping[str, Any],
    name: str | None,
    batch: Batch | None = None,
) -> Any:
    """Return the task that stands for *fn*.

    Raises:
        InvalidOption: If *fn* is no callable that can run as a job, or an option is wrong.
    """
    if not callable(fn):
        raise InvalidOption(f"@task stands above a function, got {fn!r}")
    if kind_of(fn) in {"generator", "async generator"}:
        raise InvalidOption(f"{fn!r} is a generator; a task returns once, so collect its items or submit one job each")
    full_name = _name_of(fn) if name is None else valid_name(name, "name")
    if batch is not None:
        fn = item_body(fn)
    definition = TaskDefinition(fn, full_name, declared, policies, batch)
    task: Task[..., Any]
    if batch is not None:
        task = BatchTask[Any, Any](definition, {})
    else:
        task = AsyncTask(definition, {}) if definition.is_coroutine else SyncTask(definition, {})
    task.__doc__, task.__module__ = fn.__doc__, getattr(fn, "__module__", __name__)
    task.__name__ = task.__qualname__ = definition.local_name
    task.__wrapped__ = fn
    return task


class Task(Hooks, Generic[P, T_co]):
    """A registered callable with its defaults. Submit it, schedule it, or call it as a plain function."""

    __name__: str
    __qualname__: str
    __wrapped__: Callable[..., Any]

    def __init__(self, definition: TaskDefinition, overrides: Mapping[str, Any]) -> None:
        self.definition = definition
        self._overrides = dict(overrides)
        self._resolved: tuple[RunOptions, RunOptions] | None = None

    @property
    def name(self) -> str:
        """The full name, with the groups' prefixes."""
        return self.definition.name

    @property
    def run_options(self) -> RunOptions:
        """The options its jobs run with."""
        if not self._overrides:
            return self.definition.options
        # The definition's options change when its group joins an app: resolve anew then, and only then.
        if self._resolved is None or self._resolved[0] is not self.definition.options:
            self._resolved = (self.definition.options, self.definition.resolved(self._overrides))
        return self._resolved[1]

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Call[T_co]:
        """Return the task with its arguments, to submit or to schedule.

        Raises:
            InvalidArguments: If they do not fit the signature.
        """
        self.definition.check_call(args, kwargs)
        return Call(self.definition, args, kwargs or NO_KWARGS, self)

    def options(self, **options: Unpack[JobOptions]) -> Task[P, T_co]:
        """Return the same task with other options for its jobs.

        Raises:
            InvalidOption: Naming the field, the value and what is allowed.
        """
        check_names(options, JOB_FIELDS, f"task {self.name!r}")
        view = type(self)(self.definition, overlaid(self._overrides, options))
        view.run_options  # noqa: B018  # refuse wrong values here, where they were written
        return view

    def _on(self, kind: CallbackKind, fn: Callable[[Job[Any]], object]) -> None:
        check_callback(kind, fn)
        self.definition.callbacks.setdefault(kind, []).append(fn)

    def __repr__(self) -> str:
        return f"<task {self.name}>"


class AsyncTask(Task[P, T_co]):
    """A task made from a coroutine function; calling it runs the function as written."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]:
        """Call the function itself: no job, no dependencies."""
        result: Coroutine[Any, Any, T_co] = self.definition.fn(*args, **kwargs)
        return result


class SyncTask(Task[P, T_co]):
    """A task made from a plain function; its jobs run in a thread unless told otherwise."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Call the function itself: no job, no dependencies."""
        result: T_co = self.definition.fn(*args, **kwargs)
        return result


class BatchTask(Task[[Item], T_co], Generic[Item, T_co]):
    """A task whose jobs are single items, and whose body takes many of them at once.

    ``await app.submit(insert, row)`` submits an item; ``await insert(rows)`` calls the function as written.
    """

    def __call__(self, items: list[Item], /) -> Coroutine[Any, Any, Sequence[T_co]]:
        """Call the function itself with a list: no jobs, no dependencies."""
        results: Coroutine[Any, Any, Sequence[T_co]] = self.definition.fn(Items(items))
        return results


class Call(Generic[T_co]):
    """A task bound to its arguments: what one job will do."""

    __slots__ = ("_task", "args", "definition", "kwargs")

    def __init__(
        self,
        definition: TaskDefinition,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        task: Task[..., Any],
    ) -> None:
        self.definition = definition
        self.args = args
        self.kwargs = kwargs
        self._task = task

    @property
    def run_options(self) -> RunOptions:
        """The options the job runs with."""
        return self._task.run_options

    @property
    def named_options(self) -> dict[str, Any]:
        """The options that were given to this very call, beside its task's."""
        return dict(self._task._overrides)

    def options(self, **options: Unpack[JobOptions]) -> Call[T_co]:
        """Return the same call with other options."""
        return Call(self.definition, self.args, self.kwargs, self._task.options(**options))

    def __repr__(self) -> str:
        inside = [repr(a) for a in self.args] + [f"{name}={value!r}" for name, value in self.kwargs.items()]
        return f"<call {self.definition.name}({', '.join(inside)})>"


class TaskDecorator(Protocol):
    """What ``@app.task(…)`` with options returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, T]], /) -> AsyncTask[P, T]: ...  # type: ignore[overload-overlap]  # first match is meant
    @overload
    def __call__(self, fn: Callable[P, T], /) -> SyncTask[P, T]: ...
