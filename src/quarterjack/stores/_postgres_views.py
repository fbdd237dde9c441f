"""What a PostgreSQL store is asked by views: jobs, counts, schedules. Nothing here locks a row."""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Final, Literal

from quarterjack.model import JobFilter, JobRecord, JobState, Schedule

from ._postgres_link import Link
from ._postgres_sql import filter_arguments
from ._rows import Encoding
from .base import JobPage, Store, StoreStats

__all__ = ["PostgresViews"]

_EVER: Final = 2**63 - 1


class PostgresViews(Store, ABC):
    """Reading; pages are found by where the one before ended, not by counting."""

    _link: Link
    _encoding: Encoding

    async def now_ns(self) -> int:
        """Return the server's clock."""
        now: int = await self._link.value("now_ns")
        return now

    async def jobs_get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Return the rows; None where there is none."""
        rows = await self._link.rows("get", list(job_ids))
        found = {row[0]: self._encoding.record(tuple(row)) for row in rows}
        return [found.get(job_id) for job_id in job_ids]

    async def jobs_list(
        self,
        where: JobFilter,
        *,
        limit: int = 100,
        cursor: str | None = None,
        order: Literal["newest", "slowest"] = "newest",
    ) -> JobPage:
        """Return rows, newest or slowest first."""
        took, place = (int(word) for word in cursor.split(".")) if cursor else (_EVER, _EVER)
        arguments: list[Any] = [*filter_arguments(where), place, limit + 1]
        if order == "newest":
            rows = [(0, *row) for row in await self._link.rows("newest", *arguments)]
        else:
            rows = [tuple(row) for row in await self._link.rows("slowest", *arguments, took)]
        page = [self._encoding.record(row[2:]) for row in rows[:limit]]
        return JobPage(page, f"{rows[limit - 1][0]}.{rows[limit - 1][1]}" if len(rows) > limit else None)

    async def jobs_count(self, where: JobFilter) -> int:
        """Return how many rows are meant."""
        found: int = await self._link.value("number", *filter_arguments(where))
        return found

    async def jobs_purge(self, older_than: timedelta, limit: int = 10_000, *, keep: int | None = None) -> int:
        """Delete finished jobs that ended longer ago than *older_than*, or beyond the newest *keep*."""
        age_ns = older_than // timedelta(microseconds=1) * 1_000
        purged: int = await self._link.value("purge", age_ns, limit, keep)
        await self._link.rows("tidy")
        return purged

    async def stats(self) -> StoreStats:
        """Return counts for views; O(jobs kept)."""
        states: dict[JobState, int] = {}
        waiting: dict[str, int] = {}
        oldest: int | None = None
        for name, queue, n, due_ns in await self._link.rows("stats"):
            state = JobState(name)
            states[state] = states.get(state, 0) + n
            if state is JobState.SUBMITTED:
                waiting[queue] = waiting.get(queue, 0) + n
                if due_ns is not None:
                    oldest = due_ns if oldest is None else min(oldest, due_ns)
        return StoreStats(states, waiting, oldest)

    async def outcomes(self, since_ns: int) -> Mapping[tuple[int, str, JobState], int]:
        """Return how many jobs ended, per minute, task and state; the last 24 hours are kept."""
        rows = await self._link.rows("outcomes", since_ns)
        return {(minute_ns, task, JobState(state)): n for minute_ns, task, state, n in rows}

    async def schedules_get(self, schedule_id: str) -> Schedule | None:
        """Return the row, or None."""
        rows = await self._link.rows("schedule_get", schedule_id)
        return self._encoding.schedule(tuple(rows[0])) if rows else None

    async def schedules_list(self) -> list[Schedule]:
        """Return all rows, by id."""
        return [self._encoding.schedule(tuple(row)) for row in await self._link.rows("schedule_list")]

    async def schedules_due(self, horizon_ns: int, limit: int = 1_000) -> list[Schedule]:
        """Return what is due within the horizon, earliest first."""
        rows = await self._link.rows("schedule_due", horizon_ns, limit)
        return [self._encoding.schedule(tuple(row)) for row in rows]
