"""Renewing leases on a Redis server from a thread of its own: a second connection, and nothing of the app's."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from quarterjack.model import WorkerInfo

from ._redis_registry import Registry
from ._redis_scripts import Scripts
from ._redis_words import renew_words
from ._rows import Encoding
from .base import Renewal, Renewed
from .leases import LeaseLink

__all__ = ["RedisLeaseLink", "renewed"]

T = TypeVar("T")


async def renewed(
    scripts: Scripts, encoding: Encoding, owner: str, renewals: Sequence[Renewal], lease_s: float | None
) -> Renewed:
    """Renew leases by `renew.lua`."""
    lost, cancelled = await scripts.run("renew", renew_words(owner, renewals, lease_s, encoding))
    return Renewed(lost, cancelled)


class RedisLeaseLink(LeaseLink):
    """Connects in whichever loop first asks it to.

    Args:
        connect: Makes what the scripts are sent through; called in that loop.
        encoding: Writes progress and checkpoints.
    """

    def __init__(self, connect: Callable[[], Scripts], encoding: Encoding) -> None:
        self._connect = connect
        self._encoding = encoding
        self._scripts: Scripts | None = None

    async def open(self) -> None:
        await self._asked(self._opened().run("now", ()))

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        return await self._asked(renewed(self._opened(), self._encoding, owner, renewals, lease_s))

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        return await self._asked(Registry(self._opened()).put_worker(worker))

    async def _asked(self, call: Awaitable[T]) -> T:
        """Await a call. One that is given up leaves a line that may be half-open: the next one makes another."""
        try:
            return await call
        except asyncio.CancelledError:
            if self._scripts is not None:
                await self._scripts.link.close()
            raise

    def _opened(self) -> Scripts:
        if self._scripts is None:
            self._scripts = self._connect()
        return self._scripts

    async def close(self) -> None:
        scripts, self._scripts = self._scripts, None
        if scripts is not None:
            await scripts.link.close()
