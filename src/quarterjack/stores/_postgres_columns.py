"""Many rows as the arguments of one statement: an array for each column.

What takes time is each element, on both sides. Of most columns all rows of a call say
the same (the task, the queue, no error), so such a column is sent as one value, and
the statement repeats it. The first column is always sent whole: it says how many rows
there are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from ._rows import Column

__all__ = ["given", "sent"]

_TYPES: Final = {"int": "bigint[]", "bool": "boolean[]", "text": "text[]", "bytes": "bytea[]"}


def sent(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Return *rows* (one at least) as the arguments of a statement that is made with `given`."""
    first, *others = zip(*rows, strict=True)
    return [list(first), *([one[0]] if one.count(one[0]) == len(one) else list(one) for one in others)]


def given(columns: Sequence[Column], first: int = 1) -> str:
    """Return the arguments from number *first* on as a table in SQL: *columns*, and the rows in their order."""
    arguments = [f"${n}::{_TYPES[column.kind]}" for n, column in enumerate(columns, first)]
    names = [column.name for column in columns]
    values = ", ".join(
        f"CASE WHEN cardinality({argument}) = 1 THEN ({argument})[1] ELSE u.{name} END AS {name}"
        for argument, name in zip(arguments[1:], names[1:], strict=True)
    )
    return f"(SELECT u.{names[0]}, {values} FROM unnest({', '.join(arguments)}) AS u ({', '.join(names)}))"  # noqa: S608  # names of ours
