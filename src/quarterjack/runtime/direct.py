"""A body run at once, where the caller stands: no job, no queue, no record.

For tests of a body together with its dependencies and wrappers, and for code
that wants just that. ``current_job()`` works inside; what the body says about
progress and checkpoints is kept on a record that nobody stores."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextvars import copy_context
from typing import Any

from quarterjack.clock import Clock
from quarterjack.context import CURRENT
from quarterjack.errors import ResultUnavailable
from quarterjack.model import JobIds, JobRecord, JobState, Progress, RunOptions
from quarterjack.task import TaskDefinition

from .prepare import Preparer

__all__ = ["run_directly"]

_IDS = JobIds()


class _DirectRun:
    """What ``current_job()`` reads in a body that is no job."""

    number = 1
    is_unwanted = False
    resource: Any = None

    def __init__(self, record: JobRecord) -> None:
        self.record = record

    def tell(self, done: float, total: float | None, text: str) -> None:
        self.record.progress = Progress(done, total, text)

    def keep(self, value: Any) -> None:
        self.record.checkpoint = value

    passing = None

    def lend_slot(self, records: Sequence[JobRecord], waiter: asyncio.Future[None]) -> None:
        """Do nothing: it holds none."""

    async def reclaim_slot(self, loan: None, *, at_once: bool) -> None:
        """Do nothing: it lent none."""

    def wait_begins(self, awaited: Sequence[Any]) -> None:
        """Do nothing: it stands in no queue whose order it could change."""

    def wait_ends(self, awaited: Sequence[Any]) -> None:
        """Do nothing: it changed none."""


async def run_directly(
    preparer: Preparer,
    definition: TaskDefinition,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    options: RunOptions,
    clock: Clock,
) -> Any:
    """Run a task's body with its dependencies and wrappers; return what it returns, raise what it raises.

    Coroutine functions run in the caller's task, plain ones in a thread, as their jobs would.

    Raises:
        ResultUnavailable: In a strict app, if a durable store could not keep the result.
    """
    record = JobRecord(_IDS(), definition.name, args, kwargs, options)
    record.state, record.attempt = JobState.RUNNING, 1
    record.submitted_at_ns = record.run_at_ns = record.running_at_ns = clock.now_ns()
    fn, is_coroutine = preparer.wrapped(definition)
    token = CURRENT.set(_DirectRun(record))
    try:
        if definition.is_coroutine:
            result = await fn(*args, **kwargs)
        else:
            result = await asyncio.to_thread(_in_thread, fn, is_coroutine, args, kwargs)
    finally:
        CURRENT.reset(token)
    if not preparer.strict or not options.store_result:
        return result
    try:
        return preparer.check_result(result, definition, record)
    except ValueError as error:
        raise ResultUnavailable(record.id, error.args[0].message) from None


def _in_thread(fn: Any, is_coroutine: bool, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    if not is_coroutine:
        return fn(*args, **kwargs)
    with asyncio.Runner() as runner:  # a wrapper around a plain function is a coroutine, and runs where that runs
        return runner.run(fn(*args, **kwargs), context=copy_context())
