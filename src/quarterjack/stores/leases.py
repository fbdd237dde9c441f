"""The link over which leases are kept: a second way to the store, for a thread of its own.

Users' code may block the app's loop, and leases must not run out meanwhile. So
who renews them lives in another thread with another loop, and may not use a
connection that belongs to the app's. A store that can connect twice offers a
link of its own (`Store.lease_link`)."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from quarterjack.errors import StoreUnavailable
from quarterjack.model import WorkerInfo

if TYPE_CHECKING:
    from .base import Renewal, Renewed, Store

__all__ = ["CarriedLink", "LeaseLink"]

T = TypeVar("T")


class LeaseLink(ABC):
    """What the renewing thread asks of a store. From `open` on, all of it belongs to that thread's loop.

    A call that takes too long is cancelled. A link with a connection drops it then, which may be half-open:
    the next call connects anew, while there is still time.
    """

    @abstractmethod
    async def open(self) -> None:
        """Connect, or connect anew after an error; a no-op where there is a connection.

        Raises:
            StoreError: If the store cannot be reached within its deadline.
        """

    @abstractmethod
    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """As `Store.jobs_renew`."""

    @abstractmethod
    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """As `Store.workers_put`."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of the connection; idempotent."""


class CarriedLink(LeaseLink):
    """Carries every call to the app's own loop: right for a store in the same memory, starved by a blocked loop.

    Args:
        store: The store.
        loop: The loop its calls belong to.
    """

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    async def open(self) -> None:
        """Do nothing: the store is open."""

    async def jobs_renew(self, owner: str, renewals: Sequence[Renewal], lease_s: float | None) -> Renewed:
        """Renew on the app's loop."""
        return await self._carry(self._store.jobs_renew(owner, renewals, lease_s))

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Refresh the row on the app's loop."""
        return await self._carry(self._store.workers_put(worker))

    async def close(self) -> None:
        """Do nothing: the store is the app's."""

    async def _carry(self, call: Coroutine[Any, Any, T]) -> T:
        if asyncio.get_running_loop() is self._loop:
            return await call
        try:
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        except RuntimeError:  # that loop is closed
            call.close()
            raise StoreUnavailable("the app's loop is closed") from None
        return await asyncio.wrap_future(future)
