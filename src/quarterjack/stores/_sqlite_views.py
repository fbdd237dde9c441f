"""What is asked for to be looked at: pages of jobs, counts, outcomes; and what history is deleted.

Pages go by ``seq``, the order of insertion, so that what comes in meanwhile moves
nothing. Each state of a filter is looked up by itself, newest first and no further
than the page: among a hundred thousand finished jobs the failed ones are found at
once. Filters by task, queue or text read on until the page is full."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from quarterjack.model import FINISHED, JobFilter, JobState

from ._sqlite_engine import Session
from ._sqlite_rows import COLUMNS, sql
from .base import StoreStats

__all__ = [
    "NOWHERE",
    "Page",
    "Place",
    "beyond",
    "finished_ids",
    "newest",
    "number",
    "outcomes",
    "purge",
    "slowest",
    "stats",
]

_UNFINISHED: Final = sorted(set(JobState) - FINISHED - {JobState.NEW})
_IS_OPEN: Final = "(finished_at_ns IS NULL OR zombie = 1)"
_TOOK: Final = """CASE WHEN running_at_ns IS NOT NULL AND (state = 'running' OR finished_at_ns IS NOT NULL)
    THEN coalesce(finished_at_ns, ?) - running_at_ns ELSE -1 END"""
"""How long the body ran, or has been running; -1 where it neither runs nor has ended for good."""


class Page(NamedTuple):
    """Rows of a view, and where the next page begins."""

    rows: list[tuple[Any, ...]]
    cursor: str | None


class _Condition(NamedTuple):
    sql: str
    parameters: tuple[Any, ...] = ()


def _conditions(where: JobFilter) -> list[_Condition]:
    """Return what a filter asks for, but its states."""
    found: list[_Condition] = []
    if where.task is not None:
        found.append(_Condition("task = ?", (where.task,)))
    if where.queue is not None:
        found.append(_Condition("queue = ?", (where.queue,)))
    if where.schedule_id is not None:
        found.append(_Condition("origin_schedule = ?", (where.schedule_id,)))
    if where.since_ns is not None:
        found.append(_Condition("coalesce(submitted_at_ns, 0) >= ?", (where.since_ns,)))
    if where.text is not None:
        is_in = "(instr(id, ?) OR instr(task, ?) OR instr(coalesce(reason, ''), ?))"
        found.append(_Condition(is_in, (where.text,) * 3))
    if where.is_open:
        found.append(_Condition(_IS_OPEN))
    return found


def _branches(where: JobFilter) -> list[_Condition]:
    """Return conditions that exclude each other, have an index each, and cover all that the filter means."""
    if where.states:
        return [_Condition("state = ?", (state.value,)) for state in sorted(where.states)]
    if where.is_open:
        unfinished = [_Condition("state = ?", (state.value,)) for state in _UNFINISHED]
        return [*unfinished, _Condition("zombie = 1")]
    return [_Condition("TRUE")]


def _matching(where: JobFilter, more: Sequence[_Condition] = (), tail: str = "") -> tuple[str, list[Any]]:
    """Return a query of the ``seq`` of all rows meant, and its parameters; *tail* bounds each branch of it."""
    parts: list[str] = []
    parameters: list[Any] = []
    for branch in _branches(where):
        conditions = [branch, *_conditions(where), *more]
        parts.append(f"SELECT seq FROM qj_jobs WHERE {' AND '.join(c.sql for c in conditions)} {tail}")  # noqa: S608  # words of ours; what users gave are parameters
        parameters += [value for condition in conditions for value in condition.parameters]
    if len(parts) == 1:
        return parts[0], parameters
    return " UNION ALL ".join(f"SELECT seq FROM ({part})" for part in parts), parameters  # noqa: S608  # as above


def newest(session: Session, where: JobFilter, limit: int, cursor: str | None) -> Page:
    """Return the newest rows, or those before *cursor*."""
    more = [] if cursor is None else [_Condition("seq < ?", (int(cursor),))]
    found, parameters = _matching(where, more, f"ORDER BY seq DESC LIMIT {int(limit) + 1}")
    query = f"SELECT seq, {COLUMNS} FROM qj_jobs WHERE seq IN ({found}) ORDER BY seq DESC LIMIT ?"  # noqa: S608  # as above
    rows = session.run(query, (*parameters, limit + 1)).fetchall()
    is_more = len(rows) > limit
    rows = rows[:limit]
    return Page([row[1:] for row in rows], str(rows[-1][0]) if rows and is_more else None)


def number(session: Session, where: JobFilter) -> int:
    """Return how many rows are meant."""
    found, parameters = _matching(where)
    (n,) = session.one(f"SELECT count(*) FROM ({found})", parameters)  # noqa: S608  # as above
    return int(n)


def slowest(session: Session, where: JobFilter, limit: int, cursor: str | None) -> Page:
    """Return the rows whose bodies took longest; a cursor keeps the moment of its first page."""
    now, after, parameters = session.now_ns, "TRUE", list[Any]()
    if cursor is not None:
        now, took, seq = map(int, cursor.split(":"))
        after, parameters = "(took, seq) < (?, ?)", [took, seq]
    found, matching = _matching(where)
    query = f"""
        SELECT took, seq, {COLUMNS} FROM (SELECT {_TOOK} AS took, * FROM qj_jobs WHERE seq IN ({found}))
        WHERE {after} ORDER BY took DESC, seq DESC LIMIT ?"""  # noqa: S608  # as above
    rows = session.run(query, (now, *matching, *parameters, limit + 1)).fetchall()
    is_more = len(rows) > limit
    rows = rows[:limit]
    return Page([row[2:] for row in rows], f"{now}:{rows[-1][0]}:{rows[-1][1]}" if rows and is_more else None)


def finished_ids(session: Session, where: JobFilter) -> list[str]:
    """Return the ids of the finished jobs meant whose bodies are over, the oldest first."""
    states = where.states & FINISHED if where.states else FINISHED
    if not states:
        return []
    found, parameters = _matching(where._replace(states=states), [_Condition("zombie = 0")])
    query = f"SELECT id FROM qj_jobs WHERE seq IN ({found}) ORDER BY seq"  # noqa: S608  # as above
    return [job_id for (job_id,) in session.run(query, parameters)]


def stats(session: Session) -> StoreStats:
    """Return counts; O(jobs kept)."""
    states = session.run("SELECT state, count(*) FROM qj_jobs GROUP BY state").fetchall()
    waiting = session.run("SELECT queue, count(*) FROM qj_jobs WHERE state = 'submitted' GROUP BY queue").fetchall()
    (oldest,) = session.one(
        "SELECT min(run_at_ns) FROM qj_jobs WHERE state = 'submitted' AND run_at_ns <= ?", (session.now_ns,)
    )
    return StoreStats({JobState(state): n for state, n in states}, dict(waiting), oldest)


def outcomes(session: Session, since_ns: int, minute_ns: int) -> Mapping[tuple[int, str, JobState], int]:
    """Return how many jobs ended per minute, task and state, from the minute of *since_ns* on."""
    rows = session.run("SELECT minute_ns, task, state, n FROM qj_outcomes WHERE minute_ns > ?", (since_ns - minute_ns,))
    return {(minute, task, JobState(state)): n for minute, task, state, n in rows}


class Place(NamedTuple):
    """Where a job stands among those that are over."""

    finished_at_ns: int
    seq: int


NOWHERE: Final = Place(-1, -1)


def beyond(session: Session, keep: int) -> Place:
    """Return the newest job that is over beyond the newest *keep* of them; a few milliseconds per 10,000."""
    found = session.one(
        "SELECT finished_at_ns, seq FROM qj_jobs WHERE finished_at_ns IS NOT NULL AND zombie = 0 "
        "ORDER BY finished_at_ns DESC, seq DESC LIMIT 1 OFFSET ?",
        (keep,),
    )
    return NOWHERE if found is None else Place(*found)


def purge(session: Session, older_than_ns: int, limit: int, surplus: Place) -> int:
    """Delete finished jobs, the oldest first, up to *limit*; return how many. Periods that are over go as well.

    Those up to *surplus* go however young they are.
    """
    session.run(sql("sweep_uniques"), (session.now_ns,))
    session.run("DELETE FROM qj_slots WHERE until_ns <= ?", (session.now_ns,))
    session.run("DELETE FROM qj_tokens WHERE arrival_ns <= ?", (session.now_ns,))  # full: as if they were not there
    at_ns, seq = max(surplus, Place(session.now_ns - older_than_ns - 1, _LAST_SEQ))
    return session.run(sql("purge"), {"at": at_ns, "seq": seq, "most": limit}).rowcount


_LAST_SEQ: Final = 2**63 - 1
