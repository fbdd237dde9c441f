"""Rows as arguments of a statement: what is sent once arrives in every row."""

from __future__ import annotations

from random import Random
from typing import Any

import asyncpg

from quarterjack.stores._postgres_columns import given, sent
from quarterjack.stores._rows import Column

COLUMNS = (
    Column("id", "text"),
    Column("n", "int", True),
    Column("is_so", "bool"),
    Column("words", "text", True),
    Column("data", "bytes", True),
)


async def test_rows_arrive_as_they_were_sent(postgres_server: str) -> None:
    """A value too few or in another row would be another job's task, owner or result."""
    random = Random(7)  # it guards nothing
    connection = await asyncpg.connect(postgres_server)
    for _ in range(60):
        values: list[list[Any]] = [[None, 0, 7], [True, False], [None, "", "a"], [None, b"", b"\0"]]
        chosen = [random.sample(kinds, random.randint(1, len(kinds))) for kinds in values]
        rows = [(f"r{n % 3}", *(random.choice(kinds) for kinds in chosen)) for n in range(random.randint(1, 6))]
        found = await connection.fetch(f"SELECT * FROM {given(COLUMNS)} AS f", *sent(rows))
        assert [tuple(row) for row in found] == rows
    await connection.close()


def test_what_all_rows_say_is_sent_once() -> None:
    """Each element of an array costs as much as a row's share of everything else."""
    rows = [(f"r{n}", 5, True, None, bytes([n])) for n in range(100)]
    assert [len(column) for column in sent(rows)] == [100, 1, 1, 1, 100]
    assert [len(column) for column in sent([("r", 5), ("r", 5)])] == [2, 1], "the first says how many there are"
