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
        (["default"], ["a", "b"], 100, "w", 1, True, True, ["default"], ["a", "b"], ["b"]),
        {
            *("job_ready", "job_lease", "job_delayed", "job_serial", "job_rare_priority", "schedule_held_up"),
            *("Tid Scan", "order_at_ns <= "),
        },
    ),
    "renew": (("w", ["x"], [1], [None], [None], [None], [None], 1), {"job_pkey"}),
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
    assert all("queue = " in line and "lane = " in line for line in conditions_of(plan, "job_ready")), "\n".join(plan)


def conditions_of(plan: Sequence[str], index: str) -> list[str]:
    """Return by what each scan of an index finds its rows."""
    return [plan[n + 1] for n, line in enumerate(plan) if f"using {index} on " in line]


async def explained(connection: object, sql: str, arguments: Sequence[object]) -> list[str]:
    """Return the plan that all executions of a prepared statement share."""
    assert isinstance(connection, asyncpg.Connection | asyncpg.pool.PoolConnectionProxy)
    rows = await connection.fetch(f"EXPLAIN {sql}", *arguments)
    return [row[0] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("burden", ["a backlog", "an old transaction"])
async def test_claims_go_by_their_index_whatever_lies_in_the_table(postgres_url: str, burden: str) -> None:
    """What the planner counts before a backlog and behind rows that nobody may remove must not lead it elsewhere."""
    arguments, _ = HOT["claim"]
    count = 100_000 if burden == "a backlog" else 5_000
    async with opened(with_option(postgres_url, "poll=1")) as store, store._link.connection("filling") as connection:
        job = f"{store._settings.quoted_schema}.job"
        old = await asyncpg.connect(store._settings.dsn)
        await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")
        await connection.execute(f"""
            INSERT INTO {job} (id, task, lane, queue, priority, run_at_ns, order_at_ns, submitted_at_ns)
            SELECT n::text, 'a', CASE WHEN n % 10 = 0 THEN 'a' ELSE 'c' END, 'default', 2, n, n, n
            FROM generate_series(1, {count}) AS n
        """)
        if burden == "an old transaction":
            await connection.execute(f"UPDATE {job} SET state = 'running', owner = 'w', lease_until_ns = {2**62}")
            await connection.execute(f"DELETE FROM {job}")
        await connection.execute(f"VACUUM ANALYZE {job}")
        plan = await explained(connection, store._link.sql["claim"], arguments)
        await old.close()
    conditions = conditions_of(plan, "job_ready")
    assert len(conditions) == 2, "candidates, and whether there is anything for later wants"
    assert all("queue = " in line and "lane = " in line for line in conditions), "\n".join(plan)
    assert not [line for line in plan if "Seq Scan" in line or "job_newest" in line or "job_pkey" in line]
