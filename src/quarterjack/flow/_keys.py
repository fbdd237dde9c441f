"""``by=``: which key a job has at a gate."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from functools import lru_cache
from types import CoroutineType
from typing import Any, Final

from quarterjack._numbers import shown
from quarterjack._signatures import check_plain
from quarterjack.errors import InvalidOption

from .waiting import Waiting

__all__ = ["By", "check_by", "key_of"]

By = str | Callable[[Any], Hashable]
"""A name of the job's key or arguments, or a function of the job."""

_ABSENT: Final = object()


def check_by(by: Any, field: str = "by") -> None:
    """Raise `InvalidOption` unless *by* can find keys."""
    if callable(by):
        check_plain(by, field)
    elif by is not None and not (isinstance(by, str) and by):
        raise InvalidOption(f'{field} must be a name such as "tenant", or a function of the job, got {shown(by)}')


def key_of(by: By | None, job: Waiting, gate: object) -> Hashable:
    """Return the key of *job*.

    Raises:
        InvalidOption: If it has none of that name, or it cannot be hashed.
    """
    if isinstance(by, str):
        key: Any = job.key.get(by, _ABSENT)
        if key is _ABSENT:
            key = argument(job, by)
        if key is _ABSENT:
            raise InvalidOption(
                f"{gate!r} goes by {by!r}, and {job.task or 'this pass'} has neither a key nor an argument of that "
                f"name; give it one: {job.how_keyed.format(name=by)}"
            )
    else:
        try:
            key = None if by is None else by(job)
        except Exception as error:  # a user's function runs here
            raise InvalidOption(
                f"{gate!r}: its by= raised {type(error).__name__}: {error}; it gets the job as gates see it, with "
                "task, args, kwargs, metadata"
            ) from error
        if type(key) is CoroutineType:  # of a function that calls a coroutine function: no two of them are equal
            key.close()
            raise InvalidOption(f"{gate!r}: its by= returned a coroutine, and is not awaited; let it return the key")
    try:
        hash(key)
    except TypeError:
        raise InvalidOption(
            f"{gate!r} goes by a key that cannot be hashed: {shown(key)}; use a text or a number"
        ) from None
    hashable: Hashable = key
    return hashable


def argument(job: Waiting, name: str) -> Any:
    """Return the argument *name* of a job, its default if it was left out, or a mark that there is none."""
    if name in job.kwargs:
        return job.kwargs[name]
    if job.fn is None:
        return _ABSENT
    place = _places(job.fn).get(name)
    if place is None:
        return _ABSENT
    position, default = place
    return job.args[position] if 0 <= position < len(job.args) else default


@lru_cache(maxsize=1024)
def _places(fn: Callable[..., Any]) -> Mapping[str, tuple[int, Any]]:
    """Return the position and the default of each parameter; -1 where it is taken by name only."""
    try:
        parameters = inspect.signature(fn).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature: only what was passed by name is known
        return {}
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {
        parameter.name: (
            position if parameter.kind in by_position else -1,
            _ABSENT if parameter.default is inspect.Parameter.empty else parameter.default,
        )
        for position, parameter in enumerate(parameters)
    }
