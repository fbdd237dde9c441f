"""Rows of the SQLite store in and out of its tables, a statement for many where SQL allows it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Final

from quarterjack.model import JobRecord, JobState, Schedule

from ._rows import (
    JOB_COLUMNS,
    JOB_STATE_COLUMNS,
    NEW_JOB_COLUMNS,
    SCHEDULE_COLUMNS,
    SCHEDULE_STATE_COLUMNS,
    Column,
    Encoding,
)
from ._schema import queries
from ._sqlite_engine import Session

__all__ = [
    "AT",
    "COLUMNS",
    "DELAYED",
    "DUE",
    "INSERT_NEW_JOB",
    "IN_LINE",
    "NOWHERE",
    "READY",
    "insert_jobs",
    "load_jobs",
    "load_schedules",
    "place_of",
    "put_schedules",
    "save_job_states",
    "save_schedules",
    "sql",
]

NOWHERE, READY, DELAYED, IN_LINE = range(4)
"""Where a waiting job stands: the column ``place``."""

AT: Final = {column.name: index for index, column in enumerate(JOB_COLUMNS)}
"""Where a column stands in a job's row."""


def _names(columns: Sequence[Column]) -> str:
    return ", ".join(column.name for column in columns)


COLUMNS: Final = _names(JOB_COLUMNS)
_MARKS: Final = ", ".join("?" * len(JOB_COLUMNS))
_INSERT_JOB: Final = f"INSERT INTO qj_jobs ({COLUMNS}, place) VALUES ({_MARKS}, ?)"  # noqa: S608  # names of ours
INSERT_NEW_JOB: Final = f"""
INSERT INTO qj_jobs ({", ".join(NEW_JOB_COLUMNS)}, submitted_at_ns, run_at_ns, order_at_ns, delay_born, place,
    state, attempt, failures, rescues, cancel_requested, zombie, serial)
VALUES ({", ".join("?" * len(NEW_JOB_COLUMNS))}, ?, ?, ?, ?, ?, 'submitted', 0, 0, 0, 0, 0, 0)
"""  # noqa: S608  # names of ours
"""Takes what `Encoding.new_job` returns, `stamps_of`, and the place."""
_SET_JOB: Final = ", ".join(f"{column.name} = ?" for column in JOB_STATE_COLUMNS)
_UPDATE_JOB: Final = f"UPDATE qj_jobs SET {_SET_JOB}, place = ? WHERE id = ?"  # noqa: S608  # names of ours
_SCHEDULE: Final = _names(SCHEDULE_COLUMNS)
_SELECT_SCHEDULES: Final = f"SELECT {_SCHEDULE} FROM qj_schedules"  # noqa: S608  # names of ours
_PLACES: Final = ", ".join("?" * len(SCHEDULE_COLUMNS))
_PUT_SCHEDULE: Final = f"INSERT OR REPLACE INTO qj_schedules ({_SCHEDULE}) VALUES ({_PLACES})"  # noqa: S608  # names of ours
_SET_SCHEDULE: Final = ", ".join(f"{column.name} = ?" for column in SCHEDULE_STATE_COLUMNS)
_UPDATE_SCHEDULE: Final = f"UPDATE qj_schedules SET {_SET_SCHEDULE} WHERE id = ?"  # noqa: S608  # names of ours
DUE: Final = "wake_ns IS NOT NULL AND wake_ns <= ? ORDER BY wake_ns LIMIT ?"
"""Schedules that are due by an instant, earliest first: for `load_schedules`."""


@cache
def _sql(name: str) -> str:
    return queries("sqlite")[name].replace("{columns}", COLUMNS)


def sql(name: str, *, rows: str = "") -> str:
    """Return a query by its name, with *rows* of parameters where it takes some."""
    return _sql(name).replace("{values}", rows) if rows else _sql(name)


# -- jobs ----------------------------------------------------------------------------------


def place_of(job: JobRecord, now: int) -> int:
    """Return where *job* stands; one that takes turns stands in line until somebody sees whose turn it is."""
    if job.state is not JobState.SUBMITTED:
        return NOWHERE
    if job.run_at_ns > now:
        return DELAYED
    return IN_LINE if job.serial and job.overlap_key is not None else READY


def load_jobs(session: Session, encoding: Encoding, job_ids: Iterable[str]) -> list[JobRecord]:
    """Return the jobs of these ids that there are, in the order of insertion."""
    found = session.run(sql("jobs_by_id"), (json.dumps(list(job_ids)),))
    return [encoding.record(row) for row in found]


def insert_jobs(session: Session, encoding: Encoding, jobs: Iterable[JobRecord]) -> None:
    """Insert jobs as they are."""
    now = session.now_ns
    rows = [(*encoding.job_row(job), place_of(job, now)) for job in jobs]
    session.connection.executemany(_INSERT_JOB, rows)


def save_job_states(session: Session, encoding: Encoding, jobs: Iterable[JobRecord]) -> None:
    """Write what moves in the rows of jobs."""
    now = session.now_ns
    rows = [(*encoding.job_state(job), place_of(job, now), job.id) for job in jobs]
    session.connection.executemany(_UPDATE_JOB, rows)


# -- schedules -----------------------------------------------------------------------------


def load_schedules(
    session: Session, encoding: Encoding, where: str = "TRUE ORDER BY id", parameters: Sequence[Any] = ()
) -> list[Schedule]:
    """Return the schedules that a condition means."""
    return [encoding.schedule(row) for row in session.run(f"{_SELECT_SCHEDULES} WHERE {where}", parameters)]


def put_schedules(session: Session, encoding: Encoding, schedules: Iterable[Schedule]) -> None:
    """Write whole rows, new ones and old ones."""
    session.connection.executemany(_PUT_SCHEDULE, [encoding.schedule_row(row) for row in schedules])


def save_schedules(session: Session, encoding: Encoding, schedules: Iterable[Schedule]) -> None:
    """Write what moves in the rows of schedules."""
    rows = [(*encoding.schedule_state(row), row.id) for row in schedules]
    session.connection.executemany(_UPDATE_SCHEDULE, rows)
