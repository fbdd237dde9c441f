"""The tables of the SQLite store, how they come about, and that what is asked of them is found by an index."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from collections.abc import Iterable
from itertools import count

import pytest

from quarterjack.errors import StoreError
from quarterjack.model import FINISHED, JobFilter, JobState, Overlap
from quarterjack.stores import _sqlite_views as views
from quarterjack.stores._rows import JOB_COLUMNS, SCHEDULE_COLUMNS
from quarterjack.stores._schema import HasSchema, migrations, queries
from quarterjack.stores._sqlite_engine import Parameters
from quarterjack.stores._sqlite_rows import DUE, sql
from quarterjack.stores.sqlite import SQLiteStore
from tests.stores.later import later_step, lives
from tests.stores.sqlite_kit import Computer

# -- the schema --------------------------------------------------------------------------


async def test_tables_have_the_columns_of_every_durable_store(computer: Computer) -> None:
    """A column that is added there and forgotten here would be noticed by the first user."""
    await computer.store()
    for table, columns, own in (("qj_jobs", JOB_COLUMNS, {"seq", "place"}), ("qj_schedules", SCHEDULE_COLUMNS, set())):
        kinds = {"int": "INTEGER", "bool": "INTEGER", "text": "TEXT", "bytes": "BLOB"}
        found = {
            name: (kind, bool(required)) for _, name, kind, required, *_ in computer.look(f"PRAGMA table_info({table})")
        }
        wanted = {column.name: (kinds[column.kind], not column.is_nullable) for column in columns}
        assert {name: fact for name, fact in found.items() if name not in own} == wanted
        assert list(found)[-1 if own else len(found) :] == (["place"] if own else [])


async def test_schema_is_made_once_however_many_processes_open_the_file(computer: Computer) -> None:
    """`qj run --workers 4` begins with four of them at once."""
    benches = await asyncio.gather(*(computer.store() for _ in range(4)))
    assert len(computer.look("SELECT version FROM qj_schema")) == len(migrations("sqlite"))
    await benches[0].put()
    assert len(await benches[1].claim()) == 1


async def test_schema_of_a_newer_version_is_refused(computer: Computer) -> None:
    """An old process must not write rows that the new ones cannot read."""
    b = await computer.store()
    await b.store.close()
    connection = sqlite3.connect(computer.path, isolation_level=None)
    connection.execute("INSERT INTO qj_schema (version, at_ns) VALUES (9999, 0)")
    connection.close()
    with pytest.raises(StoreError, match="has schema 9999, which takes a version of quarterjack that knows 9999"):
        await b.open()


async def test_schema_that_was_added_to_serves_the_version_before(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deploy is taken back, or a process of the version before starts anew in the middle of one."""
    running = await computer.store()
    tables = [name for (name,) in computer.look("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    added = [f"ALTER TABLE {table} ADD COLUMN newer TEXT;" for table in tables if table.startswith("qj_")]
    with later_step(monkeypatch, "sqlite", "\n".join([*added, "CREATE TABLE qj_newer (id TEXT) STRICT;"])) as number:
        assert (await SQLiteStore(computer.path).schema_upgrade()).pending == ("later",)
    await lives(running)
    restarted = await computer.store()
    assert (await restarted.store.schema_status()).current == number  # type: ignore[attr-defined]
    await lives(restarted)


async def test_schema_that_something_was_taken_from_is_refused(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever needs what is gone must not begin to work."""
    b = await computer.store()
    await b.store.close()
    with later_step(monkeypatch, "sqlite", "DROP TABLE qj_audit;", expands=False):
        await SQLiteStore(computer.path).schema_upgrade()
    with pytest.raises(StoreError, match="upgrade quarterjack here too"):
        await b.open()


async def test_schema_can_be_looked_at_and_brought_up_to_date_without_an_app(computer: Computer) -> None:
    """`qj db` works on a store that is not open; looking changes nothing."""
    store = SQLiteStore(computer.path)
    assert isinstance(store, HasSchema)
    before = await store.schema_status()
    assert (before.current, before.pending[0]) == (0, "first")
    assert await store.schema_status() == before
    assert not computer.path.exists()
    assert await store.schema_upgrade() == before
    after = await store.schema_status()
    assert (after.current, after.pending) == (after.known, ())
    assert store.schema_sql().startswith("-- The first schema")
    assert store.schema_sql(after.known) == ""


async def test_file_may_hold_the_tables_of_a_program(computer: Computer) -> None:
    """One file to back up; names that begin with qj_ are ours, the others are not touched."""
    connection = sqlite3.connect(computer.path, isolation_level=None)
    connection.execute("CREATE TABLE jobs (mine TEXT)")
    await (await computer.store()).put()
    assert [name for (name,) in computer.look("SELECT name FROM sqlite_schema WHERE name NOT LIKE '%qj_%'")] == [
        "jobs",
        "sqlite_sequence",
    ]
    connection.close()


# -- plans -------------------------------------------------------------------------------


def plan_of(connection: sqlite3.Connection, query: str, parameters: Parameters) -> list[str]:
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {query}", parameters)]


def scans(plan: Iterable[str]) -> list[str]:
    """Return the steps that read a whole table of ours."""
    return [step for step in plan if re.search(r"SCAN (qj_\w+|near)(?! USING (COVERING )?INDEX)", step)]


async def test_no_call_that_jobs_live_by_reads_a_whole_table(computer: Computer) -> None:
    """A hundred thousand rows of history must cost a claim nothing."""
    await computer.store()
    connection = sqlite3.connect(computer.path)
    for name in queries("sqlite"):
        if name.startswith("shift_"):
            continue  # once after the clock was set, and about every job that waits
        values = {"finish": "(?,?,?,?,?,?,?,?,?,?,?)", "renew": "(?, ?)"}.get(name, "")
        query = sql(name, rows=values)
        names = re.findall(r":(\w+)", query)
        parameters: Parameters = dict.fromkeys(names, "[]") if names else ["[]"] * query.count("?")
        plan = plan_of(connection, query, parameters)
        assert not scans(plan), (name, plan)
        whole = [step for step in plan if "SCAN qj_jobs" in step]
        assert all("qj_jobs_leased" in step or "qj_jobs_delayed" in step for step in whole), (name, plan)
    connection.close()


@pytest.mark.parametrize(
    "where",
    [
        JobFilter(states=frozenset({JobState.FAILED})),
        JobFilter(states=FINISHED),
        JobFilter(is_open=True),
        JobFilter(schedule_id="s"),
        JobFilter(states=frozenset({JobState.DONE, JobState.LOST}), task="a"),
    ],
    ids=["failed", "finished", "open", "of a schedule", "of a task"],
)
async def test_page_of_jobs_by_state_or_schedule_reads_no_more_than_the_page(
    computer: Computer, where: JobFilter
) -> None:
    """The few failures are found among a hundred thousand successes without reading these, and nothing is sorted."""
    await computer.store()
    found, parameters = views._matching(where, (), "ORDER BY seq DESC LIMIT 10")
    connection = sqlite3.connect(computer.path)
    plan = plan_of(connection, found, parameters)
    connection.close()
    assert not [step for step in plan if "SCAN qj_jobs" in step], plan
    assert not [step for step in plan if "TEMP B-TREE" in step], plan


async def test_schedules_that_are_due_are_found_by_an_index(computer: Computer) -> None:
    """A hundred thousand schedules an hour away are not read each second."""
    await computer.store()
    connection = sqlite3.connect(computer.path)
    plan = plan_of(connection, f"SELECT * FROM qj_schedules WHERE {DUE}", (0, 10))
    connection.close()
    assert plan == ["SEARCH qj_schedules USING INDEX qj_schedules_wake (wake_ns>? AND wake_ns<?)"]


async def test_turn_costs_the_same_however_many_wait_for_it(computer: Computer) -> None:
    """All of a process wait for its one writer: a line of thousands must not make each end of a job slower."""
    b = await computer.store()
    await b.schedule(overlap=Overlap("queue_all"))
    counted = []
    for n in (20, 400):
        for _ in range(n):
            await b.store.schedules_trigger("s", b.job())
        counted.append(steps_of_a_turn(computer))
    few, many = counted
    assert many < 2 * few


def steps_of_a_turn(computer: Computer) -> int:
    """Return how many steps SQLite takes to pass on the turn of the key ``s``; nothing is written."""
    taken = count()
    connection = sqlite3.connect(computer.path)
    connection.set_progress_handler(lambda: next(taken) < 0, 1)
    for name, parameters in (
        ("waited_lines", ('["s"]',)),
        *((name, ("s",)) for name in ("line_is_taken", "line_waits")),
    ):
        connection.execute(sql(name), parameters).fetchall()
    connection.execute(sql("line_goes_on"), {"key": "s"})
    connection.close()
    return next(taken)
