"""Keeps the leases of what runs here, on stores that other processes share.

A third of a lease apart, in one batch: progress and checkpoints travel with
it, and the answer says which jobs are lost (their bodies are cancelled and
their outcomes dropped by the fence) and which somebody wants to end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Protocol

from quarterjack.errors import StoreError
from quarterjack.stores.base import Renewal, Store

if TYPE_CHECKING:
    from .worker import Worker

__all__ = ["Renewer", "RenewerHost"]

log = logging.getLogger("quarterjack.renewal")


class RenewerHost(Protocol):
    """What the renewer needs of the app around it."""

    @property
    def store(self) -> Store: ...
    @property
    def worker(self) -> Worker | None: ...
    @property
    def owner(self) -> str: ...
    @property
    def lease_s(self) -> float | None: ...
    def fatal(self, error: BaseException) -> None: ...


class Renewer:
    """Renews the leases of one worker until it is stopped."""

    def __init__(self, host: RenewerHost) -> None:
        self._host = host
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to renew."""
        self._task = asyncio.get_running_loop().create_task(self._run(), name="quarterjack-renewer")

    async def stop(self) -> None:
        """Renew no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        lease_s = self._host.lease_s or 30.0
        while True:
            await asyncio.sleep(lease_s / 3)
            try:
                await self.renew()
            except StoreError:
                log.exception("renewing leases failed; trying again in %g s", lease_s / 3)

    async def renew(self) -> None:
        """Renew everything once."""
        host, worker = self._host, self._host.worker
        if worker is None:
            return
        held = worker.held()
        if not held:
            return
        renewals = [Renewal(a.record.id, a.number, a.record.progress, a.pending_checkpoint) for a in held]
        answer = await host.store.jobs_renew(host.owner, renewals, host.lease_s)
        worker.cancel_local(answer.cancelled)
        if answer.lost:
            log.warning("the leases of %d jobs were lost; their bodies are cancelled", len(answer.lost))
            worker.cancel_local(answer.lost, "its lease was lost")
