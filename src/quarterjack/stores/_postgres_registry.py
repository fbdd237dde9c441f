"""What a PostgreSQL store keeps beside jobs and schedules: fleet-wide limits, workers, the audit."""

from __future__ import annotations

from abc import ABC
from collections.abc import Sequence
from typing import Any, Final

from quarterjack._durations import NS_PER_S
from quarterjack.model import WorkerInfo

from ._postgres_link import Link
from .base import AuditRow, Store

__all__ = ["PostgresRegistry", "worker_arguments"]

AUDIT_ROWS: Final = 1_000
"""How many rows of the audit are kept."""


def worker_arguments(worker: WorkerInfo) -> list[Any]:
    """Return the arguments of the statement ``worker_put``."""
    return [*worker[:4], list(worker.queues), *worker[5:10]]


class PostgresRegistry(Store, ABC):
    """Limits, workers and the audit; each call is one statement."""

    _link: Link

    async def limit_acquire(self, limit: str, holder: str, n: int, *, maximum: int, ttl_s: float) -> bool:
        """Take slots, all or none."""
        taken: bool = await self._link.value("limit_acquire", limit, holder, n, maximum, round(ttl_s * NS_PER_S))
        return taken

    async def limit_renew(self, limit: str, holder: str, ttl_s: float) -> bool:
        """Keep slots longer; False if they are gone."""
        return await self._link.value("limit_renew", limit, holder, round(ttl_s * NS_PER_S)) is not None

    async def limit_release(self, limit: str, holder: str) -> None:
        """Give the holder's slots back."""
        await self._link.rows("limit_release", limit, holder)

    async def limit_take(self, limit: str, n: float, *, rate: float, burst: float) -> float:
        """Take tokens, or return the seconds until they are there."""
        per_token = NS_PER_S / rate
        missing_ns: int = await self._link.value("limit_take", limit, round(n * per_token), round(burst * per_token))
        return missing_ns / NS_PER_S

    async def workers_put(self, worker: WorkerInfo) -> str | None:
        """Register or refresh a worker; return the command left for it, once."""
        command: str | None = await self._link.value("worker_put", *worker_arguments(worker))
        return command

    async def workers_list(self) -> list[WorkerInfo]:
        """Return the registered workers."""
        rows = await self._link.rows("worker_list")
        return [WorkerInfo._make((*row[:4], tuple(row[4]), *row[5:])) for row in map(tuple, rows)]

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
