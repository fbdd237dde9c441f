"""What a PostgreSQL store keeps beside jobs and schedules: fleet-wide limits, workers, the audit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Final

from quarterjack._durations import NS_PER_S
from quarterjack.model import WorkerInfo

from ._postgres_hints import Hints
from ._postgres_link import Link
from .base import WAITER_S, Acquired, AuditRow, Hint, Store

__all__ = ["PostgresRegistry", "worker_arguments"]

AUDIT_ROWS: Final = 1_000
"""How many rows of the audit are kept."""


def worker_arguments(worker: WorkerInfo) -> list[Any]:
    """Return the arguments of the statement ``worker_put``."""
    return [*worker[:4], list(worker.queues), *worker[5:-1], list(worker.parked)]


class PostgresRegistry(Store, ABC):
    """Limits, workers and the audit; each call is one statement."""

    _link: Link
    _hints: Hints

    @abstractmethod
    def _hear(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        """Tell the listeners of this process."""

    async def limit_acquire(
        self, limit: str, holders: Sequence[str], *, maximum: int, ttl_s: float, waiter: str | None = None
    ) -> Acquired:
        """Take slots, as many as are free."""
        asked = (limit, list(holders), maximum, round(ttl_s * NS_PER_S), waiter)
        ((taken, waiting),) = await self._link.rows("limit_acquire", *asked)
        if len(taken) == len(holders):
            return Acquired(tuple(taken), waiting)
        waits = (limit, waiter, maximum, round(WAITER_S * NS_PER_S))
        ((_, wait_ns),) = await self._link.rows("limit_wait", *waits)
        return Acquired(tuple(taken), waiting, (wait_ns or 0) / NS_PER_S)

    async def limit_renew(self, limit: str, holders: Sequence[str], ttl_s: float) -> list[str]:
        """Keep slots longer; return those that are gone."""
        kept = {row[0] for row in await self._link.rows("limit_renew", limit, list(holders), round(ttl_s * NS_PER_S))}
        return [holder for holder in holders if holder not in kept]

    async def limit_release(self, limit: str, holders: Sequence[str]) -> None:
        """Give slots back; who waits for one is told."""
        if await self._link.value("limit_release", limit, list(holders)):
            self._hear(Hint.LIMITS, (limit,))
            self._hints.send(Hint.LIMITS, (limit,))

    async def limit_take(self, limit: str, n: float, *, rate: float, burst: float) -> float:
        """Take tokens, or return the seconds until they are there."""
        per_token = NS_PER_S / rate
        missing_ns: int = await self._link.value("limit_take", limit, round(n * per_token), round(burst * per_token))
        return missing_ns / NS_PER_S

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Register or refresh a worker; return the command left for it, until it has heard."""
        command: str | None = await self._link.value("worker_put", *worker_arguments(worker))
        return command

    async def workers_list(self) -> list[WorkerInfo]:
        """Return the registered workers."""
        rows = await self._link.rows("worker_list")
        return [WorkerInfo._make((*row[:4], tuple(row[4]), *row[5:-1], tuple(row[-1]))) for row in map(tuple, rows)]

    async def workers_remove(self, worker_id: str) -> None:
        """Forget a worker that ended."""
        await self._link.rows("worker_remove", worker_id)

    async def workers_command(self, worker_id: str, command: str) -> bool:
        """Leave a command for a worker."""
        return await self._link.value("worker_command", worker_id, command) is not None

    async def audit_put(self, rows: Sequence[AuditRow]) -> None:
        """Keep rows, and the newest ones of all."""
        if rows:
            await self._link.rows("audit_put", *map(list, zip(*rows, strict=True)), AUDIT_ROWS)

    async def audit_list(self, limit: int = 100) -> list[AuditRow]:
        """Return the newest rows first."""
        return [AuditRow(*row) for row in await self._link.rows("audit_list", limit)]
