"""What operators ask of an app: who works, orders to one of them, the history, and who did what."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from typing import Any

from ._app_base import AppBase
from ._durations import Seconds, to_seconds
from .errors import InvalidOption, UnknownTask
from .model import WorkerInfo
from .runtime.commands import COMMANDS
from .runtime.forgetting import forget
from .runtime.upkeep import purge
from .stores.base import AuditRow
from .task import AsyncTask, SyncTask, Task

__all__ = ["AppOperate"]


class AppOperate(AppBase):
    """Looking after an app from outside of its jobs."""

    def tasks(self) -> dict[str, Task[..., Any]]:
        """Return the app's tasks by their full names, sorted."""
        found = self._collect().tasks
        return {name: (AsyncTask if found[name].is_coroutine else SyncTask)(found[name], {}) for name in sorted(found)}

    def find_task(self, name: str) -> Task[..., Any]:
        """Return the task of this full name.

        Raises:
            UnknownTask: If there is none.
        """
        task = self.tasks().get(name)
        if task is None:
            raise UnknownTask(f"no task {name!r}; there are {', '.join(self.tasks()) or 'none'}")
        return task

    async def store_now(self) -> datetime:
        """Return the store's clock, which due times and leases go by."""
        service = self._running()
        return datetime.fromtimestamp(await self._carry(service, service.store.now_ns) / 1e9, UTC)

    async def workers(self) -> list[WorkerInfo]:
        """Return the processes that fire or run, the one that was seen last first."""
        service = self._running()

        async def there() -> list[WorkerInfo]:
            found = await service.store.workers_list()
            return sorted(found, key=lambda worker: worker.seen_at_ns, reverse=True)

        return await self._carry(service, there)

    async def order(self, worker_id: str, command: str) -> bool:
        """Tell a process to ``"drain"`` (take and fire no more), to ``"resume"``, or to ``"stop"``.

        It obeys at its next sign of life, within a third of the lease. Returns False if there is no such process.

        Raises:
            InvalidOption: If the command is another one.
        """
        if command not in COMMANDS:
            raise InvalidOption(f"command must be one of {', '.join(map(repr, COMMANDS))}, got {command!r}")
        service = self._running()
        return await self._carry(service, lambda: service.store.workers_command(worker_id, command))

    async def forget_worker(self, worker_id: str) -> int | None:
        """Strike a process off the registry that is known to be dead, and free its jobs for the others at once.

        Without it its leases run out by themselves, and its row goes in an hour. Each of its jobs counts a rescue, as
        after any lease that ran out. Should the process live, its outcomes are refused once others have its jobs.

        Returns:
            How many jobs it held; None if there is no such process.

        Raises:
            InvalidOption: If it is this very process.
        """
        service = self._running()
        if worker_id == service.owner:
            raise InvalidOption(f"worker {worker_id} is this very process, which lives; order it to stop")
        return await self._carry(service, lambda: forget(service.store, worker_id))

    async def purge(self, older_than: timedelta | Seconds) -> int:
        """Delete finished jobs that ended longer ago than *older_than*; return how many."""
        span = timedelta(seconds=to_seconds(older_than, "older_than"))
        service = self._running()
        return await self._carry(service, lambda: purge(service.store, span))

    async def note(self, action: str, subject: str, note: str = "", *, who: str | None = None) -> None:
        """Keep a row that says who did what to which thing; `audit` shows them.

        Args:
            action: What was done, such as ``"pause"``.
            subject: To what: a schedule's or a job's id.
            note: Anything else, in words.
            who: By whom; the user of this process by default.
        """
        service = self._running()
        by = who or _user()

        async def there() -> None:
            await service.store.audit_put([AuditRow(await service.store.now_ns(), by, action, subject, note)])

        await self._carry(service, there)

    async def audit(self, limit: int = 100) -> list[AuditRow]:
        """Return who did what, the newest first."""
        service = self._running()
        return await self._carry(service, lambda: service.store.audit_list(limit))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in many containers
        return "unknown"
