"""Start-up and shutdown hooks: local functions of each process, never jobs.

Start-up hooks run in order of registration before any job; the first that
fails stops the start. Shutdown hooks run in the reverse order after the last
job; one that fails is logged and the others still run."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Sequence
from typing import Final

from quarterjack.task import TaskDefinition

from .prepare import Preparer

__all__ = ["run_shutdown", "run_startup"]

log = logging.getLogger("quarterjack.hooks")

HURRIED_S: Final = 0.5
"""How long a shutdown hook may still take once the stop was asked for twice, and again once it is cancelled."""


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


async def run_shutdown(hooks: Sequence[TaskDefinition], preparer: Preparer, hurry: asyncio.Event) -> list[Exception]:
    """Run every shutdown hook, last registered first; return what they raised.

    Once *hurry* is set the hook that runs is cancelled; the others still get their turn.
    """
    errors: list[Exception] = []
    for definition in reversed(hooks):
        try:
            await _hurried(definition, preparer, hurry)
        except Exception as error:  # users' code runs here; the other hooks still run
            log.exception("shutdown hook %s raised", definition.name)
            errors.append(error)
    return errors


async def _hurried(definition: TaskDefinition, preparer: Preparer, hurry: asyncio.Event) -> None:
    """Run one hook; what does not end within `HURRIED_S` of *hurry* is cancelled, with a line in the log."""
    hook = asyncio.ensure_future(_run(definition, preparer))
    hurried = asyncio.ensure_future(hurry.wait())
    try:
        await asyncio.wait({hook, hurried}, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.wait({hook}, timeout=HURRIED_S)
    finally:
        hurried.cancel()
        is_hanging = not hook.done()
        if is_hanging:
            log.warning("shutdown hook %s does not end and is cancelled", definition.name)
            hook.cancel()
            await asyncio.wait({hook}, timeout=HURRIED_S)
    if is_hanging:
        return
    if hook.cancelled():
        raise RuntimeError(f"shutdown hook {definition.name} ended cancelled")
    hook.result()
