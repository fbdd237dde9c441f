"""What views see of a Redis store's jobs and schedules: rows, pages, counts. Half of `redis`.

Nothing here looks at more than a few hundred rows in one step, for the server
does nothing else meanwhile: a filter that few rows match is answered in several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import Any, Final

from quarterjack.model import JobFilter, JobRecord, JobState, Schedule

from ._redis_link import Word
from ._redis_rows import job_row, paired, schedule_row
from ._redis_scripts import Scripts
from ._redis_words import parted
from ._rows import Encoding
from .base import JobPage, StoreStats

__all__ = ["Views"]

_SLICE: Final = 500
"""How many rows one step looks at."""
_PURGED: Final = 1_000
"""How many rows one step deletes."""
_MINUTE_NS: Final = 60_000_000_000


class Views:
    """Asks the server for rows and counts."""

    def __init__(self, scripts: Scripts, encoding: Encoding) -> None:
        self._scripts = scripts
        self._encoding = encoding

    # -- jobs ------------------------------------------------------------------------

    async def get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Return rows; None where there is none."""
        found: dict[str, JobRecord] = {}
        for first in range(0, len(job_ids), _SLICE):
            some = job_ids[first : first + _SLICE]
            reply = await self._scripts.run("load", (len(some), *some, 0, 0, 0, 0, 0))
            found.update((row[0], self._encoding.record(job_row(*row))) for row in reply[1])
        return [found.get(job_id) for job_id in job_ids]

    async def newest(self, where: JobFilter, limit: int, cursor: str | None) -> JobPage:
        """Return a page of rows, newest first; the cursor is the number of its last row."""
        below, rows = "+inf" if cursor is None else f"({cursor}", list[Any]()
        while below and len(rows) <= limit:
            most = limit + 1 - len(rows)  # one more than asked for tells whether there is another page
            below, more = await self._scripts.run("scan", (below, _SLICE, most, "rows", *_filter_words(where)))
            rows += more
        page = rows[:limit]
        jobs = [self._encoding.record(job_row(*row[1:])) for row in page]
        return JobPage(jobs, page[-1][0] if page and len(rows) > limit else None)

    async def slowest(self, where: JobFilter, limit: int, cursor: str | None, now_ns: int) -> JobPage:
        """Return a page of rows, slowest first; the cursor is the id of its last row. Looks at all rows that match."""
        below, rows = "+inf", list[Any]()
        while below:
            below, more = await self._scripts.run("scan", (below, _SLICE, _SLICE, "times", *_filter_words(where)))
            rows += more
        timed = [(_duration_ns(state, began, ended, now_ns), job_id) for _, job_id, state, began, ended in rows]
        timed.sort(key=itemgetter(0), reverse=True)
        ids = [job_id for _, job_id in timed]
        first = ids.index(cursor) + 1 if cursor in ids else 0
        page = ids[first : first + limit]
        jobs = [job for job in await self.get(page) if job is not None]
        return JobPage(jobs, page[-1] if page and len(ids) > first + limit else None)

    async def purge(self, older_than: timedelta, limit: int, keep: int | None) -> int:
        """Delete finished jobs, oldest first; return how many."""
        age, purged = older_than // timedelta(microseconds=1), 0
        while purged < limit:
            some = min(_PURGED, limit - purged)
            n = int(await self._scripts.run("purge", (age, some, "" if keep is None else keep)))
            purged += n
            if n < some:
                break
        return purged

    async def stats(self) -> StoreStats:
        """Return counts for views."""
        states, waiting, oldest = await self._scripts.run("stats", ())
        return StoreStats(
            {JobState(name): int(n) for name, n in paired(states).items()},
            {queue: int(n) for queue, n in paired(waiting).items()},
            int(oldest) if oldest else None,
        )

    async def outcomes(self, since_ns: int) -> Mapping[tuple[int, str, JobState], int]:
        """Return how many jobs ended, per minute, task and state; the last 24 hours are kept."""
        found: dict[tuple[int, str, JobState], int] = {}
        for minute, counts in await self._scripts.run("outcomes", (since_ns // 1_000,)):
            for name, n in paired(counts).items():
                task, _, state = name.rpartition("\x1f")
                found[int(minute) * _MINUTE_NS, task, JobState(state)] = int(n)
        return found

    # -- schedules -------------------------------------------------------------------

    async def schedule(self, schedule_id: str) -> Schedule | None:
        """Return a row, or None."""
        reply = await self._scripts.run("load", (0, 1, schedule_id, 0, 0, 0, 0))
        return next(self._schedules(reply[2]), None)

    async def schedules(self) -> list[Schedule]:
        """Return all rows, by id."""
        found: list[Schedule] = []
        while True:
            after = found[-1].id if found else ""
            some = await self._scripts.run("schedules", ("list", after, "", _SLICE))
            found += self._schedules(some)
            if len(some) < _SLICE:
                return sorted(found, key=lambda row: row.id)

    async def due(self, horizon_ns: int, limit: int) -> list[Schedule]:
        """Return what is due within the horizon, earliest first."""
        return list(self._schedules(await self._scripts.run("schedules", ("due", *parted(horizon_ns), limit))))

    def _schedules(self, rows: Sequence[Any]) -> Iterator[Schedule]:
        return (self._encoding.schedule(schedule_row(fields)) for _, fields in rows)


def _filter_words(where: JobFilter) -> list[Word]:
    return [
        len(where.states),
        *(state.value for state in where.states),
        where.task or "",
        where.queue or "",
        where.schedule_id or "",
        "" if where.since_ns is None else where.since_ns,
        where.text or "",
        int(where.is_open),
    ]


def _duration_ns(state: str, began: str, ended: str, now_ns: int) -> int:
    has_run = began and (state == "running" or JobState(state).is_finished)
    return int(ended or now_ns) - int(began) if has_run else -1
