"""Start-up and shutdown hooks: local functions of each process, never jobs.

Start-up hooks run in order of registration before any job; the first that
fails stops the start. Shutdown hooks run in the reverse order after the last
job; one that fails is logged and the others still run."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Sequence

from quarterjack.task import TaskDefinition

from .prepare import Preparer

__all__ = ["run_shutdown", "run_startup"]

log = logging.getLogger("quarterjack.hooks")


async def _run(definition: TaskDefinition, preparer: Preparer) -> None:
    body = preparer.body(definition)
    if not definition.is_coroutine:
        await asyncio.to_thread(body)
        return
    result = body()
    if inspect.isawaitable(result):
        await result


async def run_startup(hooks: Sequence[TaskDefinition], preparer: Preparer) -> None:
    """Run start-up hooks in order; what one raises passes through and the rest do not run."""
    for definition in hooks:
        await _run(definition, preparer)


async def run_shutdown(hooks: Sequence[TaskDefinition], preparer: Preparer) -> list[Exception]:
    """Run every shutdown hook, last registered first; return what they raised."""
    errors: list[Exception] = []
    for definition in reversed(hooks):
        try:
            await _run(definition, preparer)
        except Exception as error:  # users' code runs here; the other hooks still run
            log.exception("shutdown hook %s raised", definition.name)
            errors.append(error)
    return errors
