"""One decision of the book as one PostgreSQL transaction: lock, load, decide, write.

What a decision rests on must not change before it commits. Overlap keys and unique
keys are locked by name (advisory locks of the transaction), for what is *absent* has
no row to lock; jobs and schedules are locked as rows.

Nobody waits for a lock while others may wait for theirs in another order: what is
known to be needed is locked first, names before jobs before schedules, each sorted;
what turns out to be needed later is locked without waiting, and where that fails
all begins anew, knowing more. So there are no deadlocks to be found after a second."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, Generic, TypeVar

import asyncpg

from quarterjack.model import JobRecord, JobState, Schedule

from ._needs import Changes, Loaded, Missing, Needs, Taken
from ._part import Part
from ._postgres_columns import sent
from ._postgres_pool import Connection
from ._rows import Encoding

__all__ = ["InTheWay", "Transaction"]

T = TypeVar("T")

_SUBMITTED: Final = JobState.SUBMITTED


class InTheWay(Exception):  # a request, not an error
    """Somebody has what turned out to be needed: begin anew, with *needs* from the start."""

    def __init__(self, needs: Needs) -> None:
        super().__init__(needs)
        self.needs = needs


class Transaction(Generic[T]):
    """One try at a decision, inside a transaction of *connection* that has just begun.

    Args:
        connection: The connection.
        sql: The store's statements.
        encoding: Turns rows into jobs and schedules, and back.
        part: A part with nothing loaded.
    """

    def __init__(self, connection: Connection, sql: dict[str, str], encoding: Encoding, part: Part) -> None:
        self._connection = connection
        self._sql = sql
        self._encoding = encoding
        self._part = part
        self._open: set[str] = set()
        """The jobs that stand in the hot table."""
        self._waits = True

    async def run(self, needs: Needs, decide: Callable[[Part, int], T]) -> tuple[T, Changes]:
        """Return what *decide* answers and what was written for it; the caller commits.

        Raises:
            InTheWay: If it came to what somebody else has.
        """
        now: int = await self._value("lock", _names(needs))
        self._part.load(needs, await self._load(needs))
        while True:
            try:
                answer = self._part.run(decide, now)
            except Missing as missing:
                needs |= missing.needs
                await self._load_more(missing.needs, needs)
            else:
                changes = self._part.changes()
                await self._write(changes, now)
                return answer, changes

    async def _load_more(self, more: Needs, needs: Needs) -> None:
        self._waits = False
        names = _names(more)
        try:
            if names and not await self._value("try_lock", names):
                raise InTheWay(needs)
            self._part.load(more, await self._load(more))
        except asyncpg.LockNotAvailableError:
            raise InTheWay(needs) from None

    # -- loading ---------------------------------------------------------------------

    async def _load(self, needs: Needs) -> Loaded:
        uniques = await self._uniques(needs)
        lines: dict[str, list[str]] = {key: [] for key in needs.lines}
        in_line = await self._jobs("load_lines", needs.lines, self._open)
        for job in in_line:
            if job.overlap_key is not None:
                lines[job.overlap_key].append(job.id)
        jobs = {job.id: job for job in in_line}
        wanted = needs.jobs | {taken.job_id for taken in uniques.values()}
        for name in ("load_jobs", "load_finished"):
            left = wanted - jobs.keys()
            for job in await self._jobs(name, left, self._open if name == "load_jobs" else None):
                jobs[job.id] = job
        schedules = {row.id: row for row in await self._schedules("load_schedules", sorted(needs.schedules))}
        return Loaded(jobs, schedules, lines, uniques, await self._occurrences(needs), await self._held_up(needs))

    async def _jobs(self, name: str, asked: Iterable[str], places: set[str] | None) -> list[JobRecord]:
        words = sorted(asked)
        if not words:
            return []
        jobs = [self._encoding.record(tuple(row)) for row in await self._locking(name, words)]
        if places is not None:
            places.update(job.id for job in jobs)
        return jobs

    async def _uniques(self, needs: Needs) -> dict[tuple[str, str], Taken]:
        if not needs.uniques:
            return {}
        rows = await self._fetch("load_uniques", *_columns(sorted(needs.uniques)))
        return {(task, key): Taken(job_id, until_ns) for task, key, job_id, until_ns in rows}

    async def _schedules(self, name: str, *asked: list[str]) -> list[Schedule]:
        if not any(asked):
            return []
        return [self._encoding.schedule(tuple(row)) for row in await self._locking(name, *asked)]

    async def _held_up(self, needs: Needs) -> list[Schedule]:
        tasks, keys = _columns(sorted(needs.uniques)) or ([], [])
        return await self._schedules("load_held_up", sorted(needs.touched), tasks, keys)

    async def _occurrences(self, needs: Needs) -> dict[tuple[str, int, int], str]:
        if not needs.occurrences:
            return {}
        rows = await self._fetch("load_occurrences", *_columns(sorted(needs.occurrences)))
        return {(schedule_id, generation, at_ns): job_id for schedule_id, generation, at_ns, job_id in rows}

    # -- writing ---------------------------------------------------------------------

    async def _write(self, changes: Changes, now: int) -> None:
        """Write *changes*; rows before the marks that are found by them."""
        if changes.is_empty:
            return
        await self._write_rows(changes, now)
        if changes.removed:
            await self._fetch("remove_schedules", list(changes.removed))
        freed = sorted(key for key, taken in changes.uniques.items() if taken is None)
        if freed:
            await self._fetch("free_uniques", *_columns(freed))
        taken = sorted((*key, *taken) for key, taken in changes.uniques.items() if taken is not None)
        if taken:
            await self._fetch("set_uniques", *_columns(taken))
        if changes.occurrences:
            await self._fetch(
                "add_occurrences", *_columns([(*at, job_id) for at, job_id in changes.occurrences.items()])
            )
        if changes.outcomes:
            await self._fetch(
                "add_outcomes",
                *_columns([(at, task, state.value, n) for (at, task, state), n in changes.outcomes.items()]),
            )

    async def _write_rows(self, changes: Changes, now: int) -> None:
        jobs = self._job_rows(changes, now)
        turns = changes.turns | {
            job.overlap_key
            for job in (*changes.inserted, *changes.updated)
            if _is_in_line(job, now) and job.overlap_key is not None
        }
        schedules = [self._schedule_row(row) for _, row in sorted(changes.schedules.items())]
        if schedules and not turns and jobs.keys() == {"job_open"}:
            await self._fetch("fire", *sent(jobs["job_open"]), *sent(schedules))
            return
        for name, rows in jobs.items():
            await self._fetch(name, *sent(rows))
        if turns:
            await self._fetch("give_turns", sorted(turns))
        if schedules:
            await self._fetch("schedule_save", *sent(schedules))

    def _job_rows(self, changes: Changes, now: int) -> dict[str, list[Sequence[Any]]]:
        """Return the rows of jobs by the statement that writes them, in the order in which they are to be written.

        Held jobs of a serial key go before others come: the index knows one holder at a time.
        """
        job_row = self._encoding.job_row
        rows: dict[str, list[Sequence[Any]]] = {
            name: [] for name in ("job_close", "job_reopen", "job_change", "job_open", "job_record")
        }
        for job in sorted(changes.updated, key=_id):
            rows[self._move(job)].append((job.id, not _is_in_line(job, now), *self._encoding.job_state(job)))
        for job in changes.inserted:
            if _is_open(job):
                rows["job_open"].append((not _is_in_line(job, now), *job_row(job)))
            else:
                rows["job_record"].append(job_row(job))
        return {name: some for name, some in rows.items() if some}

    def _move(self, job: JobRecord) -> str:
        if job.id not in self._open:
            return "job_reopen"
        return "job_change" if _is_open(job) else "job_close"

    def _schedule_row(self, row: Schedule) -> tuple[Any, ...]:
        unique = row.payload.options.unique
        return (*self._encoding.schedule_row(row), None if unique is None else unique.key)

    # -- statements ------------------------------------------------------------------

    async def _value(self, name: str, *arguments: Any) -> Any:
        return await self._connection.fetchval(self._sql[name], *arguments)

    async def _fetch(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        rows: list[asyncpg.Record] = await self._connection.fetch(self._sql[name], *arguments)
        return rows

    async def _locking(self, name: str, *arguments: Any) -> list[asyncpg.Record]:
        return await self._fetch(name if self._waits else f"{name}_at_once", *arguments)


def _names(needs: Needs) -> list[str]:
    """Return what *needs* locks by name."""
    keys = [f"key:{key}" for key in needs.touched]
    uniques = [f"unique:{task}\x1f{key}" for task, key in needs.uniques]
    return keys + uniques


def _columns(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _is_open(job: JobRecord) -> bool:
    return job.zombie or not job.state.is_finished


def _is_in_line(job: JobRecord, now: int) -> bool:
    """Say whether *job* may have to wait for its turn."""
    return job.serial and job.state is _SUBMITTED and job.run_at_ns <= now


def _id(job: JobRecord) -> str:
    return job.id
