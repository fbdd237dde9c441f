"""Plans of the PostgreSQL store's hot statements: they go by their indexes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import asyncpg
import pytest

from tests.servers.fixtures import with_option
from tests.stores.postgres_kit import opened

HOT: Final[dict[str, tuple[tuple[object, ...], set[str]]]] = {
    "claim": (
        (["default"], ["a", "b"], 100, "w", 1, True, True, ["default"], ["a", "b"]),
        {
            *("job_ready", "job_lease", "job_delayed", "job_serial", "job_rare_priority", "schedule_held_up"),
            *("Tid Scan", "order_at_ns <= "),
        },
    ),
    "renew": (("w", ["x"], [1], [None], [None], [None], 1), {"job_pkey"}),
    "finish": ((["x"], [1], ["w"], ["done"], [1], [1], [1], [None], [None], [None]), {"job_pkey"}),
    "expired": ((100,), {"job_lease"}),
    "load_jobs": ((["x"],), {"job_pkey"}),
    "load_finished": ((["x"],), {"job_history_pkey"}),
    "load_lines": ((["k"],), {"job_key"}),
    "load_uniques": ((["a"], ["k"]), {"unique_key_pkey"}),
    "load_schedules": ((["s"],), {"schedule_pkey"}),
    "load_held_up": ((["k"], [], []), {"schedule_held_up"}),
    "give_turns": ((["k"],), {"job_line", "job_turn", "job_serial"}),
    "schedule_due": ((1, 100), {"schedule_wake"}),
    "get": ((["x"],), {"job_pkey", "job_history_pkey"}),
    "newest": (
        (None, None, None, None, None, None, False, 2**62, 100),
        {"job_newest", "job_history_newest"},
    ),
    "purge": ((1, 100, None), {"job_history_age", "job_history_pkey", "Index Cond: (ROW(finished_at_ns, seq) <= "}),
    "tidy": ((), {"outcome_minute", "unique_key_until", "Tid Scan"}),
}
"""Arguments, and what the plan must go by."""


@pytest.mark.parametrize("name", HOT)
async def test_hot_statements_go_by_their_indexes(postgres_url: str, name: str) -> None:
    """A scan of a table is quick in every test, and slow in every production."""
    arguments, wanted = HOT[name]
    async with opened(with_option(postgres_url, "poll=1")) as store, store._link.connection("explaining") as connection:
        plan = await explained(connection, store._link.sql[name], arguments)
    assert not [line for line in plan if "Seq Scan" in line and " on limit_" not in line], "\n".join(plan)  # a few rows
    assert not {it for it in wanted if not any(it in line for line in plan)}, "\n".join(plan)


async def explained(connection: object, sql: str, arguments: Sequence[object]) -> list[str]:
    """Return the plan that all executions of a prepared statement share."""
    assert isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy)
    rows = await connection.fetch(f"EXPLAIN {sql}", *arguments)
    return [row[0] for row in rows]
