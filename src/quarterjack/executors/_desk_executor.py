"""Executors of one app whose calls are out at its desk: the slots that these hold, and their end at a stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from quarterjack.errors import ExecutorClosed, ExecutorFull, UsageError

from ._away import Desk, Killable
from .base import Executor, Home

__all__ = ["DeskExecutor"]

log = logging.getLogger("quarterjack.executors")


async def _at_once() -> None:
    """Wait for nothing."""


class DeskExecutor(Executor):
    """An executor of one app whose calls are out at its desk."""

    _desk: Desk | None = None
    """None before `start` and after `stop`."""

    @property
    def free(self) -> int:
        """Slots that no body holds."""
        return self.slots + self.lent - (0 if self._desk is None else len(self._desk.out))

    def _new_desk(self, home: Home) -> Desk:
        """Return a desk of the running loop.

        Raises:
            UsageError: If another app uses the executor.
        """
        if self._desk is not None and not self._desk.loop.is_closed():  # else its app ended without stopping it
            raise UsageError(
                f"the executor {self.name!r} is in use by an app that has not stopped; make one for each app, "
                "or share a LoopThread"
            )
        return Desk(asyncio.get_running_loop(), home.clock)

    def _desk_with_room(self) -> Desk:
        """Return where one more call may go out.

        Raises:
            ExecutorFull: If all slots are taken.
            ExecutorClosed: If it is not started, or was stopped.
        """
        desk = self._desk
        if desk is None:
            raise ExecutorClosed(f"the executor {self.name!r} is not started, or was stopped")
        if self.free <= 0:
            raise ExecutorFull(f"all {self.slots} slots of the executor {self.name!r} are taken")
        return desk

    async def _end_all(self, desk: Desk, grace_s: float, gone: Callable[[], Awaitable[None]] = _at_once) -> None:
        """End what is out, at a stop; whatever happens meanwhile, each call is answered.

        Args:
            desk: Where it is out.
            grace_s: After so many seconds what was interrupted is killed, where it can be.
            gone: Waits until what was killed is gone; what is not then, is left behind, and logged.
        """
        calls = desk.out.copy()
        for one in calls:
            one.cancel("shutdown")
        try:
            await desk.wait_for(calls, grace_s)
            for one in calls & desk.out:
                if isinstance(one, Killable):
                    one.kill()
            await gone()
        finally:
            for one in calls & desk.out:
                if one.outcome is None:
                    log.warning("job %s may still run: the executor %r could not end it", one.call.ref, self.name)
                one.abandon()
