# ruff: noqa: S608  # the only words put together here are our own names of tables and columns
"""The statements that write what a part has decided, made from the one table of columns.

A job stands in ``job`` while it is open, or while its body outlives its outcome,
and in ``job_history`` else; so a write is one of five moves. Each takes an array
per column, and keeps the order of its rows. A job that a transaction of a user's has
completed never goes back to the waiting ones: when its lease runs out it is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from ._postgres_columns import given
from ._rows import JOB_COLUMNS, JOB_STATE_COLUMNS, SCHEDULE_COLUMNS, Column

__all__ = ["moves"]

_ID: Final = Column("id", "text")
_TURN: Final = Column("turn", "bool")
_SAID_ONCE: Final = JOB_COLUMNS[: -len(JOB_STATE_COLUMNS)]
_UNIQUE_KEY: Final = Column("unique_key", "text", True)


def moves(schema: str) -> dict[str, str]:
    """Return the statements for the tables of *schema*, by their names."""
    state = (_ID, _TURN, *JOB_STATE_COLUMNS)
    schedule = (*SCHEDULE_COLUMNS, _UNIQUE_KEY)
    opened = (_TURN, *JOB_COLUMNS)
    job_open = _insert(f"{schema}.job", opened)
    return {
        "job_open": job_open,
        "fire": f"WITH opened AS ({job_open}) {_save(f'{schema}.schedule', schedule, len(opened) + 1)}",
        "job_record": _insert(f"{schema}.job_history", JOB_COLUMNS),
        "job_change": f"""
            UPDATE {schema}.job AS j SET {_assignments((_TURN, *JOB_STATE_COLUMNS))}
            FROM {given(state)} AS f WHERE j.id = f.id AND NOT (j.completed AND f.state = 'submitted')
        """,
        "job_close": _move(f"{schema}.job", f"{schema}.job_history", state),
        "job_reopen": _move(f"{schema}.job_history", f"{schema}.job", state),
        "schedule_save": _save(f"{schema}.schedule", schedule),
    }


def _names(columns: Iterable[Column], prefix: str = "") -> str:
    return ", ".join(prefix + column.name for column in columns)


def _assignments(columns: Iterable[Column]) -> str:
    return ", ".join(f"{column.name} = f.{column.name}" for column in columns)


def _insert(table: str, columns: Sequence[Column], first: int = 1) -> str:
    return f"INSERT INTO {table} ({_names(columns)}) SELECT {_names(columns, 'f.')} FROM {given(columns, first)} AS f"


def _save(table: str, columns: Sequence[Column], first: int = 1) -> str:
    """Return the statement that writes whole rows, new ones and old ones, by their ids."""
    return f"""
        {_insert(table, columns, first)}
        ON CONFLICT (id) DO UPDATE SET {", ".join(f"{it.name} = excluded.{it.name}" for it in columns[1:])}
    """


def _move(source: str, target: str, state: Sequence[Column]) -> str:
    """Return the statement that takes rows out of one table into another, with a new state."""
    return f"""
        WITH f AS MATERIALIZED (SELECT * FROM {given(state)} AS f),
        gone AS (
            DELETE FROM {source} AS j USING f WHERE j.id = f.id
            RETURNING j.seq, {_names(_SAID_ONCE, "j.")}, {_names(state[1:], "f.")}
        )
        INSERT INTO {target} (seq, {_names(_SAID_ONCE)}, {_names(state[1:])})
        SELECT * FROM gone ORDER BY seq
    """
