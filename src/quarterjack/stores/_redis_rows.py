"""Rows as a Redis server keeps them: each job is two hashes of text, what is null or at its default left out.

The small one holds what scripts decide by, and is packed tightly as long as each
value is short; the other holds whatever users made long. Text that is no UTF-8
(payloads of a codec) passes through Python as surrogates, byte for byte."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from ._redis_link import Word
from ._rows import JOB_COLUMNS, JOB_STATE_COLUMNS, SCHEDULE_COLUMNS, Column, ColumnValue
from .base import AGING_NS

__all__ = ["as_bytes", "fields", "job_row", "paired", "schedule_row", "split_fields"]

_DATA: Final = frozenset({
    "reason", "call", "options", "unique_key", "unique_scope", "unique_conflict", "submitted_by", "parent",
    "origin_schedule", "origin_generation", "origin_nominal_ns", "origin_missed", "origin_trigger",
    "max_rescues", "result", "error", "progress", "checkpoint",
})  # fmt: skip
"""The columns of the second hash."""
_NOWHERE: Final = frozenset({"id", "order_at_ns"})
"""What follows from the key, or from other columns."""
_ALWAYS: Final = frozenset({"priority", "run_at_ns"})
"""What scripts compute with: there even where it is 0."""


def as_bytes(text: str) -> bytes:
    """Return the bytes that came as *text*."""
    return text.encode("utf-8", "surrogateescape")


def _flag(text: str) -> bool:
    return text == "1"


_Reader = Callable[[str], ColumnValue]
_READERS: Final[Mapping[str, tuple[_Reader, ColumnValue]]] = {
    "int": (int, 0),
    "bool": (_flag, False),
    "text": (str, ""),
    "bytes": (as_bytes, b""),
}


def _plan(columns: Iterable[Column]) -> tuple[tuple[str, _Reader, ColumnValue], ...]:
    readers = ((column, _READERS[column.kind]) for column in columns)
    return tuple((column.name, read, None if column.is_nullable else default) for column, (read, default) in readers)


_JOB_PLAN: Final = _plan(JOB_COLUMNS)
_SCHEDULE_PLAN: Final = _plan(SCHEDULE_COLUMNS)
_ORDER: Final = [column.name for column in JOB_COLUMNS].index("order_at_ns")


def paired(flat: Sequence[str]) -> dict[str, str]:
    """Return the fields of a hash, which come one after the other."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def job_row(job_id: str, hot: Sequence[str], data: Sequence[str]) -> list[ColumnValue]:
    """Return what a job's two hashes say, in the order of `JOB_COLUMNS`."""
    values = paired(hot)
    values.update(zip(data[::2], data[1::2], strict=True))
    values["id"] = job_id
    get = values.get
    row = [default if (text := get(name)) is None else read(text) for name, read, default in _JOB_PLAN]
    if values["state"] == "submitted":
        row[_ORDER] = int(values["run_at_ns"]) + int(get("priority", 0)) * AGING_NS
    return row


def schedule_row(flat: Sequence[str]) -> list[ColumnValue]:
    """Return what a schedule's hash says, in the order of `SCHEDULE_COLUMNS`."""
    get = paired(flat).get
    return [default if (text := get(name)) is None else read(text) for name, read, default in _SCHEDULE_PLAN]


def fields(columns: Iterable[Column], values: Iterable[ColumnValue]) -> tuple[list[Word], list[str]]:
    """Return the fields of a hash that say *values*, one after the other, and those that are to be absent."""
    there: list[Word] = []
    absent: list[str] = []
    for column, value in zip(columns, values, strict=True):
        is_default = value == 0 and column.kind != "text" and not column.is_nullable and column.name not in _ALWAYS
        if value is None or is_default:
            absent.append(column.name)
        else:
            there += (column.name, 1 if value is True else value)
    return there, absent


def _parted(columns: Iterable[Column]) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    kept = [column for column in columns if column.name not in _NOWHERE]
    hot = tuple(column for column in kept if column.name not in _DATA)
    return hot, tuple(column for column in kept if column.name in _DATA)


_WHOLE: Final = _parted(JOB_COLUMNS)
_STATE: Final = _parted(JOB_STATE_COLUMNS)
_PLACES: Final = {
    columns: {column.name: place for place, column in enumerate(columns)}
    for columns in (JOB_COLUMNS, JOB_STATE_COLUMNS)
}


def split_fields(
    row: Sequence[ColumnValue], columns: tuple[Column, ...] = JOB_COLUMNS
) -> tuple[tuple[list[Word], list[str]], tuple[list[Word], list[str]]]:
    """Return the `fields` of a job's two hashes, for its whole row or for what moves in it."""
    hot, data = _WHOLE if columns is JOB_COLUMNS else _STATE
    places = _PLACES[columns]
    return (
        fields(hot, (row[places[column.name]] for column in hot)),
        fields(data, (row[places[column.name]] for column in data)),
    )
