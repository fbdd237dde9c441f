"""What became of one app in a test: every job and every event, kept beyond the store's retention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from quarterjack.app import Quarterjack
from quarterjack.errors import UsageError
from quarterjack.events import Event
from quarterjack.job import Job, JobClient
from quarterjack.model import JobRecord
from quarterjack.stores import MemoryStore

__all__ = ["History"]

_KEEP: Final = 10**9
"""Finished jobs that the memory store keeps meanwhile: all of them."""


class History:
    """Reads the rows of the memory store, which are live, and listens to the app's events.

    The rows cost a run nothing: a test of a year of hourly runs is as fast as the runs are.
    """

    def __init__(self, app: Quarterjack) -> None:
        if not isinstance(app.store, MemoryStore):
            raise UsageError(
                f"virtual time is for apps on a MemoryStore, not on {app.store!r}: their servers' clocks run"
            )
        self._app = app
        self._store = app.store
        self._client: JobClient | None = None
        self._names: set[str] = set()
        self._earlier: frozenset[str] = frozenset()
        self.events: list[Event] = []

    @contextmanager
    def recording(self, *, with_events: bool) -> Iterator[None]:
        """Keep everything that happens inside the block."""
        end = self._app.event_stream.listen(self.events.append) if with_events else None
        book = self._store._book
        kept = book.keep_finished
        self._earlier = frozenset(self._store._jobs)
        try:
            book.keep_finished = _KEEP
            yield
        finally:
            book.keep_finished = kept
            if end is not None:
                end()

    def started(self) -> None:
        """Note what the running app knows; it is gone when the app has stopped."""
        service = self._app._running()
        self._client = service
        self._names |= service.tasks.keys() | self._store._schedules.keys()

    def names(self) -> list[str]:
        """Return the names of the tasks and the ids of the schedules, past and present."""
        seen = {name for row in self._rows() for name in (row.task, _schedule(row)) if name is not None}
        return sorted(self._names | self._store._schedules.keys() | seen)

    def knows(self, name: str) -> bool:
        """Say whether a task or a schedule goes by *name*, or did."""
        return name in self._names or name in self.names()

    def check_known(self, name: str) -> None:
        """Raise `UsageError` unless a task or a schedule is called so: a misspelt name would pass for "never"."""
        if not self.knows(name):
            raise UsageError(f"no task and no schedule {name!r}; this app has {', '.join(self.names()) or 'none'}")

    def nominals(self, name: str) -> list[int]:
        """Return the fire times of the jobs of *name* that began, in the order they were fired."""
        return [row.origin.nominal_ns for row in self._of(name) if row.running_at_ns is not None and row.origin]

    def jobs(self, name: str | None) -> list[Job[Any]]:
        """Return the jobs of a task or schedule, oldest first."""
        client = self._client
        if client is None:
            return []
        return [Job(row, client) for row in (self._rows() if name is None else self._of(name))]

    def _of(self, name: str) -> list[JobRecord]:
        return [row for row in self._rows() if name in (row.task, _schedule(row))]

    def _rows(self) -> list[JobRecord]:
        rows, earlier = self._store._jobs.values(), self._earlier
        return [row for row in rows if row.id not in earlier] if earlier else list(rows)


def _schedule(row: JobRecord) -> str | None:
    return row.origin.schedule_id if row.origin is not None else None
