"""A job's options in a row: what differs from its task's own, as JSON.

What is not written down is the task's own when the row is read, in whatever
version of the code reads it: who raises a task's timeout raises it for jobs
that wait, too. Exception types and functions of a `Retry` are written by their
path (`_paths`); an object, such as an executor of its own, cannot be written
and has to be its task's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Final, cast

from pydantic_core import PydanticSerializationError, from_json, to_json

from quarterjack.errors import InvalidOption
from quarterjack.model import NO_OPTIONS, RunOptions, Unique
from quarterjack.policies.backoff import Retry

from ._memo import Memo
from ._paths import PathError, path_of, thing_at

__all__ = ["OptionsStore", "stored_unique", "unique_of"]

log = logging.getLogger("quarterjack")

_COLUMNS: Final = ("queue", "priority", "max_rescues", "unique")
"""Options that a job's row has columns for: the store decides by them."""
_PLAIN: Final = tuple(
    field.name
    for field in fields(RunOptions)
    if field.init and field.compare and field.name not in {*_COLUMNS, "retry", "executor"}
)
_RETRY: Final = tuple(field for field in fields(Retry))
_OWN: Final = {"own": True}
"""Stands for what the task's own retry has there: a function without a path, a budget."""
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Partial(RunOptions):
    """Options of which something could not be rebuilt here: it is written back as it was found."""

    left: str = "{}"
    """What that is, as JSON."""


class OptionsStore:
    """Writes and reads options, and remembers what it wrote and read: most jobs of a task share theirs."""

    __slots__ = ("_of", "_read", "_told", "_written")

    def __init__(self, options_of: Callable[[str], RunOptions | None]) -> None:
        self._of = options_of
        self._written: Memo[tuple[RunOptions, str | None]] = Memo()
        self._read: dict[tuple[Any, ...], tuple[RunOptions, RunOptions]] = {}
        self._told: set[tuple[str, str]] = set()

    def own(self, task: str) -> RunOptions:
        """Return what jobs of *task* have where nothing else is said; the defaults if it is not known here."""
        return self._of(task) or NO_OPTIONS

    # -- jobs ----------------------------------------------------------------------------

    def text(self, task: str, options: RunOptions) -> str | None:
        """Return a job's options as its row keeps them, beside those with columns; None if they are the task's own.

        Raises:
            InvalidOption: If one cannot be written down.
        """
        own = self._of(task) or NO_OPTIONS
        if options is own:
            return None
        known = self._written.get(options)
        if known is not None and known[0] is own:
            return known[1]
        form = self._form(task, options, own)
        text = _json(task, form) if form else None
        self._written.put(options, (own, text))
        return text

    def options(
        self, task: str, text: str | None, queue: str, priority: int, max_rescues: int, unique: Unique | None
    ) -> RunOptions:
        """Return the options of a row."""
        own = self._of(task) or NO_OPTIONS
        is_own = priority == own.priority and queue == own.queue and max_rescues == own.max_rescues
        if text is None and is_own and unique == own.unique:
            return own
        key = (task, text, queue, priority, max_rescues)
        known = self._read.get(key)
        if known is None or known[0] is not own:
            form = {} if text is None else self._read_form(task, text)
            form.update(queue=queue, priority=priority, max_rescues=max_rescues)
            known = own, self._rebuilt(task, own, form, None)
            if len(self._read) > _MOST:
                self._read.clear()
            self._read[key] = known
        return known[1] if unique is None else _keyed(known[1], unique)

    # -- schedules -----------------------------------------------------------------------

    def whole_form(self, task: str, options: RunOptions) -> dict[str, Any]:
        """Return the options of a schedule's jobs: all that differ from the task's own.

        Raises:
            InvalidOption: If one cannot be written down.
        """
        own = self.own(task)
        form = self._form(task, options, own)
        for name in ("queue", "priority", "max_rescues"):
            if getattr(options, name) != getattr(own, name):
                form[name] = getattr(options, name)
        if options.unique != own.unique:
            form["unique"] = None if options.unique is None else stored_unique(options.unique)
        return form

    def of_whole_form(self, task: str, form: dict[str, Any]) -> RunOptions:
        """Return the options that `whole_form` wrote."""
        own = self.own(task)
        if not form:
            return own
        unique = own.unique
        if "unique" in form:
            unique = None if form["unique"] is None else unique_of(*form["unique"])
        return self._rebuilt(task, own, {k: v for k, v in form.items() if k != "unique"}, unique)

    # -- both ----------------------------------------------------------------------------

    def _form(self, task: str, options: RunOptions, own: RunOptions) -> dict[str, Any]:
        form = {name: value for name in _PLAIN if (value := getattr(options, name)) != getattr(own, name)}
        if isinstance(options, _Partial):
            form.update(cast("dict[str, Any]", from_json(options.left)))
        if options.retry != own.retry:
            form["retry"] = _retry_form(task, options.retry, own.retry)
        if options.executor is not own.executor and options.executor != own.executor:
            if options.executor is not None and not isinstance(options.executor, str):
                raise InvalidOption(
                    f"executor={options.executor!r} of a job of {task} is an object, and a store that outlives this "
                    "process keeps names only; set it on the task: @app.task(executor=…)"
                )
            form["executor"] = options.executor
        return form

    def _rebuilt(self, task: str, own: RunOptions, form: dict[str, Any], unique: Unique | None) -> RunOptions:
        """Return *own* with what *form* says; what a later version wrote and this one does not know is kept."""
        given = {name: value for name, value in form.items() if name in _KNOWN and _fits(name, value)}
        left = {name: value for name, value in form.items() if name not in given}
        if "retry" in given:
            try:
                given["retry"] = _retry_of(given["retry"], own.retry)
            except (PathError, ValueError, TypeError, LookupError, AttributeError) as error:
                self._tell(task, f"retry as their task says: what their own retry names is gone: {error}")
                left["retry"] = given.pop("retry")
        if not left:
            return replace(own, **given, unique=unique)
        values: dict[str, Any] = {field.name: getattr(own, field.name) for field in fields(RunOptions) if field.init}
        values.update(given, unique=unique, left=to_json(left).decode())
        return _Partial(**values)

    def _read_form(self, task: str, text: str) -> dict[str, Any]:
        try:
            form: Any = from_json(text)
        except ValueError as error:
            form = error
        if isinstance(form, dict):
            return cast("dict[str, Any]", form)
        self._tell(task, f"run as their task says: what stands for their own options cannot be read: {form!r}")
        return {}

    def _tell(self, task: str, what: str) -> None:
        if (task, what) not in self._told:
            self._told.add((task, what))
            log.warning("jobs of %s %s", task, what)


_FIELDS: Final = tuple(field.name for field in fields(RunOptions))


def _keyed(options: RunOptions, unique: Unique) -> RunOptions:
    """Return *options* with a key. A key is each job's own, and `replace` would cost a claim 4 µs per job."""
    if type(options) is not RunOptions:
        return replace(options, unique=unique)
    keyed, put = object.__new__(RunOptions), object.__setattr__
    for name in _FIELDS:
        put(keyed, name, getattr(options, name))
    put(keyed, "unique", unique)
    return keyed


_KNOWN: Final = frozenset({*_PLAIN, *_COLUMNS, "retry", "executor"})
_KINDS: Final[dict[str, tuple[type, ...]]] = {
    "float": (int, float),
    "int": (int,),
    "str": (str,),
    "bool": (bool,),
    "Mapping[str, Any]": (dict,),
    "None": (type(None),),
}
_FITTING: Final = {
    field.name: tuple(kind for word in str(field.type).split(" | ") for kind in _KINDS[word])
    for field in fields(RunOptions)
    if field.name in {*_PLAIN, *_COLUMNS[:3]}
} | {"executor": (str, type(None))}
"""What JSON values the plain options take: a later version may mean something else by a name."""


def _fits(name: str, value: Any) -> bool:
    return isinstance(value, _FITTING.get(name, object))


_MOST: Final = 2_000
"""So many different options are remembered; then they are read anew."""


def _json(task: str, form: dict[str, Any]) -> str:
    try:
        return to_json(form).decode()
    except PydanticSerializationError as error:
        name = next((name for name, value in form.items() if not _is_json(value)), "one")
        raise InvalidOption(f"{name}= of a job of {task} cannot be written as JSON: {error}") from None


def _is_json(value: Any) -> bool:
    try:
        to_json(value)
    except PydanticSerializationError:
        return False
    return True


# -- retries -----------------------------------------------------------------------------


def _retry_form(task: str, retry: Retry, own: Retry) -> dict[str, Any]:
    form: dict[str, Any] = {}
    for field in _RETRY:
        value = getattr(retry, field.name)
        if field.name != "on" and value == field.default:
            continue
        if value is None or isinstance(value, (int, float, str)):
            form[field.name] = value
            continue
        kinds = cast("tuple[Any, ...]", value)
        try:
            form[field.name] = _paths(kinds) if isinstance(value, tuple) else {"at": path_of(value)}
        except PathError as error:
            if value is not getattr(own, field.name):
                name = field.name.removesuffix("_s")
                raise InvalidOption(
                    f"{name}= of the retry of a job of {task} cannot be stored by its name: {error}; "
                    f"move it to the top of a module, or set it on the task: @app.task(retry=Retry({name}=…))"
                ) from None
            form[field.name] = _OWN
    return form


def _paths(kinds: tuple[Any, ...]) -> list[str]:
    return [path_of(kind) for kind in kinds]


def _retry_of(form: dict[str, Any], own: Retry) -> Retry:
    given: dict[str, Any] = {}
    for name, value in form.items():
        if value == _OWN:
            found = getattr(own, name)
        elif isinstance(value, list):
            found = tuple(thing_at(path) for path in cast("list[str]", value))
        else:
            found = thing_at(cast("dict[str, str]", value)["at"]) if isinstance(value, dict) else value
        given[name.removesuffix("_s")] = found
    return Retry(**given)


# -- unique keys -------------------------------------------------------------------------


def stored_unique(unique: Unique) -> tuple[str, str, str]:
    """Return key, scope (a period in microseconds) and what to do on a conflict, as texts."""
    scope = unique.scope
    return unique.key, scope if isinstance(scope, str) else str(scope // _MICROSECOND), unique.on_conflict


def unique_of(key: str, scope: str | None, on_conflict: str | None) -> Unique:
    """Return what `stored_unique` wrote; of a scope that is not known here, what holds as long as any job does."""
    try:
        held = scope if scope in {"queued", "unfinished"} else timedelta(microseconds=int(scope or ""))
        return Unique(key, cast("Any", held), cast("Any", on_conflict))
    except (ValueError, OverflowError):
        return Unique(key)
