"""The columns of jobs and schedules, the same in every durable store, in their order.

Each table has two parts: what is said once, when the row is inserted, and its
*state*, which moves. From the kinds an engine writes its DDL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

__all__ = [
    "JOB_COLUMNS",
    "JOB_STATE_COLUMNS",
    "NEW_JOB_COLUMNS",
    "SCHEDULE_COLUMNS",
    "SCHEDULE_STATE_COLUMNS",
    "Column",
    "ColumnKind",
    "ColumnValue",
    "Row",
]

ColumnKind = Literal["int", "bool", "text", "bytes"]
ColumnValue = int | bool | str | bytes | None
Row = Sequence[Any]
"""What a driver gives: values in the order of the columns."""


class Column(NamedTuple):
    """A column of a table. An *int* takes 64 bits; a *bool* comes back as one, or as 0 and 1."""

    name: str
    kind: ColumnKind
    is_nullable: bool = False


def _columns(text: str) -> tuple[Column, ...]:
    """Read ``name:kind`` or ``name:kind?`` (may be null), in order."""
    columns: list[Column] = []
    for word in text.split():
        name, kind = word.rstrip("?").split(":")
        columns.append(Column(name, kind, word.endswith("?")))  # type: ignore[arg-type]  # the words stand below
    return tuple(columns)


JOB_STATE_COLUMNS: Final = _columns("""
    state:text reason:text? attempt:int failures:int rescues:int owner:text? lease_until_ns:int?
    run_at_ns:int order_at_ns:int delay_born:bool first_due_ns:int?
    scheduled_at_ns:int? started_at_ns:int? running_at_ns:int? finished_at_ns:int?
    cancel_requested:bool zombie:bool overlap_key:text? serial:bool
    result:bytes? error:bytes? progress:bytes? checkpoint:bytes?
""")
"""What moves in a job's row."""

JOB_COLUMNS: Final = (
    _columns("""
    id:text task:text lane:text queue:text priority:int max_rescues:int
    call:bytes? options:text? unique_key:text? unique_scope:text? unique_conflict:text?
    submitted_by:text? parent:text?
    origin_schedule:text? origin_generation:int? origin_nominal_ns:int? origin_missed:int? origin_trigger:text?
    submitted_at_ns:int?
""")
    + JOB_STATE_COLUMNS
)
"""A job's row; `JOB_STATE_COLUMNS` are its end."""

NEW_JOB_COLUMNS: Final = (
    *("id", "task", "lane", "queue", "priority", "max_rescues"),
    *("call", "options", "submitted_by", "parent"),
)
"""All that is to be said of a new job on which nothing hangs but its own row, but for when it is to run."""

SCHEDULE_STATE_COLUMNS: Final = _columns("""
    resolved:text? generation:int revision:int created_at_ns:int cursor_ns:int immediate_ns:int? is_plain:bool
    next_nominal_ns:int? next_due_ns:int? wake_ns:int? runs:int
    paused_at_ns:int? paused_until_ns:int? pause_note:text? parked_reason:text?
    last_nominal_ns:int? newest_job_id:text? held_up_ns:int?
    last_job_id:text? last_state:text? last_finished_ns:int? failures_in_a_row:int
""")
"""What moves in a schedule's row. *resolved* is null while the rule is the declared one; *wake_ns* is for an index."""

SCHEDULE_COLUMNS: Final = (
    _columns("""
    id:text task:text overlap_key:text timing:text payload:text call:bytes?
    in_code:bool version:text? code_hash:text? code_before:text?
""")
    + SCHEDULE_STATE_COLUMNS
)
"""A schedule's row; `SCHEDULE_STATE_COLUMNS` are its end. *overlap_key* is for an index."""
