"""How long the last calls of a stop may take, all together: a store that does not answer holds up nobody's exit.

Once bodies have ended there are outcomes to record, jobs to give back, a row to
strike off, connections to close. Each has a deadline of its own, and some are
tried again; whoever waits for the process, such as a cluster that kills it
after half a minute, counts them together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

__all__ = ["CLOSING_S", "Patience"]

LAST_S: Final = 10.0
"""So long for what is to be recorded, given back and told, from the first of these calls on."""
CLOSING_S: Final = 5.0
"""So long for closing the store's connections, after the shutdown hooks."""
HURRIED_S: Final = 1.0
"""So long from a second signal on, which means now."""


class Patience:
    """What is left of it, in one part of a stop. Belongs to the app's loop.

    Args:
        seconds: How much there is.
        hurried: Set once the stop was asked for twice.
    """

    def __init__(self, seconds: float = LAST_S, hurried: asyncio.Event | None = None) -> None:
        self.hurried = hurried or asyncio.Event()
        """Set once the stop was asked for twice."""
        self._seconds = seconds
        self._ends_at: float | None = None
        self._limits: set[asyncio.Timeout] = set()

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Leave the block once there is none left: what it waits for is cancelled."""
        now = asyncio.get_running_loop().time()
        if self._ends_at is None:
            self._ends_at = now + (HURRIED_S if self.hurried.is_set() else self._seconds)
        limit = asyncio.timeout_at(self._ends_at)
        try:
            async with limit:
                self._limits.add(limit)
                try:
                    yield
                finally:
                    self._limits.discard(limit)
        except TimeoutError:
            if not limit.expired():
                raise

    def hurry(self) -> None:
        """Wait no longer than need be."""
        if self.hurried.is_set():
            return
        self.hurried.set()
        if self._ends_at is None:
            return
        self._ends_at = min(self._ends_at, asyncio.get_running_loop().time() + HURRIED_S)
        for limit in self._limits:
            if not limit.expired():
                limit.reschedule(self._ends_at)
