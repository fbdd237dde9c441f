"""What became of one app in a test: every job and every event, kept beyond the store's retention."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any, Final

from quarterjack.app import Quarterjack
from quarterjack.errors import UsageError
from quarterjack.events import Event
from quarterjack.job import Job, JobClient
from quarterjack.model import JobRecord
from quarterjack.runtime.upkeep import Retention
from quarterjack.stores import MemoryStore
from quarterjack.stores._sqlite_rows import COLUMNS
from quarterjack.stores.sqlite import SQLiteStore

__all__ = ["History"]

_KEEP: Final = 10**9
"""Finished jobs that the store keeps meanwhile: all of them."""


_LONG: Final = timedelta(days=36_500)


class _Live:
    """The rows of a memory store, which are live: they cost a run nothing."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let no finished job be forgotten inside the block."""
        book = self._store._book
        kept, book.keep_finished = book.keep_finished, _KEEP
        try:
            yield
        finally:
            book.keep_finished = kept

    def jobs(self) -> Iterable[JobRecord]:
        return self._store._jobs.values()

    def schedules(self) -> Collection[str]:
        return self._store._schedules.keys()


class _Filed:
    """The rows of a file, read anew each time: what was committed, beside what the app does with it."""

    def __init__(self, app: Quarterjack, store: SQLiteStore) -> None:
        self._app = app
        self._store = store

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let no finished job be purged inside the block."""
        kept, self._app.retention = self._app.retention, Retention(_LONG, _KEEP)
        try:
            yield
        finally:
            self._app.retention = kept

    def jobs(self) -> Iterable[JobRecord]:
        record = self._store._encoding.record
        return [record(row) for row in self._read(f"SELECT {COLUMNS} FROM qj_jobs ORDER BY seq")]  # noqa: S608  # ours

    def schedules(self) -> Collection[str]:
        return [schedule_id for (schedule_id,) in self._read("SELECT id FROM qj_schedules")]

    def _read(self, query: str) -> list[tuple[Any, ...]]:
        if not self._store.path.exists():  # nothing was stored yet
            return []
        with closing(sqlite3.connect(self._store.path)) as connection:
            has_tables = connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'qj_jobs'").fetchone()
            return connection.execute(query).fetchall() if has_tables else []


class History:
    """Reads the rows of the app's store, and listens to the app's events."""

    def __init__(self, app: Quarterjack) -> None:
        self._app = app
        self._stored = _rows_of(app)
        self._client: JobClient | None = None
        self._names: set[str] = set()
        self._earlier: frozenset[str] = frozenset()
        self.events: list[Event] = []

    @contextmanager
    def recording(self, *, with_events: bool) -> Iterator[None]:
        """Keep everything that happens inside the block."""
        end = self._app.event_stream.listen(self.events.append) if with_events else None
        self._earlier = frozenset(row.id for row in self._stored.jobs())
        try:
            with self._stored.kept():
                yield
        finally:
            if end is not None:
                end()

    def started(self) -> None:
        """Note what the running app knows; it is gone when the app has stopped."""
        service = self._app._running()
        self._client = service
        self._names |= service.tasks.keys() | {*self._stored.schedules()}

    def names(self) -> list[str]:
        """Return the names of the tasks and the ids of the schedules, past and present."""
        seen = {name for row in self._rows() for name in (row.task, _schedule(row)) if name is not None}
        return sorted({*self._names, *self._stored.schedules(), *seen})

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
        rows, earlier = self._stored.jobs(), self._earlier
        return [row for row in rows if row.id not in earlier] if earlier else list(rows)


def _schedule(row: JobRecord) -> str | None:
    return row.origin.schedule_id if row.origin is not None else None


def _rows_of(app: Quarterjack) -> _Live | _Filed:
    store = app.store
    if isinstance(store, MemoryStore):
        return _Live(store)
    if isinstance(store, SQLiteStore):
        return _Filed(app, store)
    raise UsageError(f"virtual time is for apps on a MemoryStore or an SQLiteStore, not on {store!r}: its clock runs")
