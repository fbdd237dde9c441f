"""Makes a registered task ready to run: dependencies filled in, wrappers around, a place to run.

Done once per task and start, so that a task without any of it runs as it is."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple

from quarterjack.codec import decode_call, result_codec
from quarterjack.context import CurrentJob, current_job
from quarterjack.executors import Executor
from quarterjack.injection import DependencyOverrides
from quarterjack.model import JobRecord
from quarterjack.task import TaskDefinition

__all__ = ["Around", "PreparedTask", "Preparer"]

Around = Callable[[CurrentJob, Callable[[], Awaitable[Any]]], Awaitable[Any]]
"""``async def around(job, proceed)``: runs around a body, where the body runs."""


class PreparedTask(NamedTuple):
    """A task ready to run."""

    definition: TaskDefinition
    fn: Callable[..., Any]
    is_coroutine: bool
    executor: Executor


class Preparer:
    """What an app does to every task's body."""

    __slots__ = ("_arounds", "_overrides", "strict")

    def __init__(self, overrides: DependencyOverrides, arounds: Sequence[Around], *, strict: bool) -> None:
        self._overrides = overrides
        self._arounds = arounds
        self.strict = strict

    def prepare(self, definition: TaskDefinition, executor: Executor) -> PreparedTask:
        """Return the task ready to run on *executor*."""
        fn, is_coroutine = self.wrapped(definition)
        return PreparedTask(definition, fn, is_coroutine, executor)

    def wrapped(self, definition: TaskDefinition) -> tuple[Callable[..., Any], bool]:
        """Return the body with dependencies and wrappers, and whether that is a coroutine function."""
        fn = self.body(definition)
        is_coroutine = definition.is_coroutine
        for around in reversed(self._arounds):
            fn, is_coroutine = _wrapped(fn, around), True
        return fn, is_coroutine

    def body(self, definition: TaskDefinition) -> Callable[..., Any]:
        """Return the function with its dependencies filled in."""
        if not definition.dependencies:
            return definition.fn
        return self._overrides.wrap(definition.needs)

    def decode_call(
        self, definition: TaskDefinition, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """Return stored arguments as the body is to have them.

        Raises:
            Orphaned: If they do not fit the task, as this version of the application has it, or cannot be read.
        """
        return decode_call(definition, args, kwargs)

    def check_result(self, value: Any, definition: TaskDefinition, record: JobRecord) -> Any:
        """Return *value* as a store that writes JSON will keep it.

        Raises:
            ValueError: Carrying an `ErrorInfo`, if it cannot be kept.
        """
        return result_codec(definition).round_trip(value, record.options.max_result_bytes)


def _wrapped(fn: Callable[..., Any], around: Around) -> Callable[..., Any]:
    @functools.wraps(around)
    async def run(*args: Any, **kwargs: Any) -> Any:
        async def proceed() -> Any:
            result = fn(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        return await around(current_job(), proceed)

    return run
