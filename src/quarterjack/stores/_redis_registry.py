"""Limits, workers and records in a Redis server: what has nothing to do with jobs. Half of `redis`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from pydantic_core import from_json, to_json

from quarterjack._durations import NS_PER_S
from quarterjack.model import WorkerInfo

from ._redis_scripts import Scripts
from .base import WAITER_S, Acquired, AuditRow

__all__ = ["Registry"]

_AUDIT_ROWS: Final = 1_000


class Registry:
    """Asks the server about limits, workers and records."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts

    # -- limits ----------------------------------------------------------------------

    async def acquire(
        self, limit: str, holders: Sequence[str], maximum: int, ttl_s: float, waiter: str | None
    ) -> Acquired:
        """Take slots, as many as are free."""
        words: tuple[str | int, ...] = ("acquire", limit, _us(ttl_s), maximum, waiter or "", _us(WAITER_S), *holders)
        taken, waiting, wait_us = await self._scripts.run("limits", words)
        return Acquired(tuple(taken), waiting, int(wait_us) / 1e6)

    async def renew(self, limit: str, holders: Sequence[str], ttl_s: float) -> list[str]:
        """Keep slots longer; return those that are gone."""
        gone: list[str] = await self._scripts.run("limits", ("renew", limit, _us(ttl_s), *holders))
        return gone

    async def release(self, limit: str, holders: Sequence[str], sender: str) -> bool:
        """Give slots back; say whether somebody waits for one. The other processes were told then."""
        return bool(await self._scripts.run("limits", ("release", limit, sender, *holders)))

    async def take(self, limit: str, n: float, rate: float, burst: float) -> float:
        """Take tokens, or return the seconds until they are there."""
        return float(await self._scripts.run("limits", ("take", limit, repr(n), repr(rate), repr(burst))))

    # -- workers ---------------------------------------------------------------------

    async def put_worker(self, worker: WorkerInfo) -> str | None:
        """Register or refresh a worker; return the command left for it, until it has heard."""
        words = ("put", worker.id, to_json(worker._replace(command=None)), worker.command or "")
        command: str | None = await self._scripts.run("workers", words)
        return command

    async def workers(self) -> list[WorkerInfo]:
        """Return the registered workers, the longest silent first."""
        return [_worker(from_json(info)) for info in await self._scripts.run("workers", ("list",))]

    async def remove_worker(self, worker_id: str) -> None:
        """Forget a worker that ended."""
        await self._scripts.run("workers", ("remove", worker_id))

    async def command_worker(self, worker_id: str, command: str) -> bool:
        """Leave a command for a worker."""
        return bool(await self._scripts.run("workers", ("command", worker_id, command)))

    # -- records ---------------------------------------------------------------------

    async def put_audit(self, rows: Sequence[AuditRow]) -> None:
        """Keep rows, the newest 1,000 of all."""
        if rows:
            await self._scripts.run("audit", ("put", _AUDIT_ROWS, *(to_json(row) for row in rows)))

    async def audit(self, limit: int) -> list[AuditRow]:
        """Return the newest rows first."""
        return [AuditRow(*from_json(row)) for row in await self._scripts.run("audit", ("list", limit))]


def _us(seconds: float) -> int:
    return round(seconds * NS_PER_S) // 1_000


def _worker(values: list[Any]) -> WorkerInfo:
    known = WorkerInfo(*values[: len(WorkerInfo._fields)])  # a newer version may say more, and an older one less
    return known._replace(queues=tuple(known.queues), parked=tuple(known.parked))
