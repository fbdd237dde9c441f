"""A health check, run beside the flow: whatever it does, the flow goes on.

It may raise, hang, ignore its cancellation or answer after everybody has
stopped listening; whoever asked hears one answer, in time."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from .alarms import Alarm
from .dispatcher import Dispatcher

__all__ = ["Check", "HealthCheck"]

log = logging.getLogger("quarterjack.flow")

Check = Callable[[], Awaitable[Any]]
"""Asks a service whether it is well: a bad answer is False, or any exception."""


class HealthCheck:
    """Runs one check at a time, each in a task of its own.

    Args:
        check: What to await.
        owner: Whose it is, for the log.
    """

    __slots__ = ("_alarm", "_answer", "_check", "_owner", "_task")

    def __init__(self, check: Check, owner: object) -> None:
        self._check = check
        self._owner = owner
        self._task: asyncio.Task[Any] | None = None
        self._alarm: Alarm | None = None
        self._answer: Callable[[bool], None] | None = None

    def ask(self, dispatcher: Dispatcher, timeout_s: float | None, answer: Callable[[bool], None]) -> None:
        """Run the check and call *answer* once: False if it raises, says so, or takes longer than *timeout_s*."""
        if self._task is not None and not self._task.done():
            log.warning("%r: its last health check still ignores being cancelled; it counts as failed", self._owner)
            dispatcher.loop.call_soon(answer, False)
            return
        self._answer = answer
        self._task = task = dispatcher.loop.create_task(self._run())
        task.add_done_callback(partial(self._on_done, task))
        if timeout_s is not None:
            self._alarm = dispatcher.call_at(dispatcher.monotonic() + timeout_s, self._give_up)

    def cancel(self) -> None:
        """Nobody wants the answer any more."""
        self._answer = None
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if self._task is not None and not self._task.get_loop().is_closed():
            self._task.cancel()

    async def _run(self) -> Any:
        asked = self._check()
        return await asked if inspect.isawaitable(asked) else asked

    def _on_done(self, asked: asyncio.Task[Any], task: asyncio.Task[Any]) -> None:
        """It has ended; of a check that was given up nobody wants to know more."""
        error = None if task.cancelled() else task.exception()
        answer = self._answer
        if asked is not self._task or answer is None:
            return
        if error is not None:
            log.info("%r: its health check failed: %r", self._owner, error)
        is_well = not task.cancelled() and error is None and task.result() is not False
        self.cancel()
        answer(is_well)

    def _give_up(self) -> None:
        answer = self._answer
        log.info("%r: its health check took too long", self._owner)
        self.cancel()
        if answer is not None:
            answer(False)
