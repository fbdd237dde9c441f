"""The PostgreSQL store keeps the contract of every store, on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import timedelta

import asyncpg
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from quarterjack._durations import NS_PER_S
from quarterjack.model import Finish, FinishKind, JobState
from quarterjack.stores._postgres_url import parse
from quarterjack.stores._rows import JOB_COLUMNS, SCHEDULE_COLUMNS, Column
from quarterjack.stores.base import Renewal
from quarterjack.testing.store_contract import Bench, StoreContract
from quarterjack.testing.store_machine import store_machine
from tests.stores.postgres_kit import MovedBench, schema_on_test_time


@pytest.fixture(scope="module")
def url(postgres_server: str) -> Iterator[str]:
    with schema_on_test_time(postgres_server) as url:
        yield url


class TestPostgresStore(StoreContract):
    """The contract, case by case."""

    @pytest.fixture(autouse=True)
    def _server(self, url: str) -> None:
        self.url = url

    def bench(self) -> Bench:
        return MovedBench(self.url)


def test_store_beside_its_model(url: str) -> None:
    """Any order of calls, with leases that run out: the store shows what the model shows."""
    machine = store_machine(lambda: MovedBench(url))
    run_state_machine_as_test(machine, settings=settings(max_examples=15, stateful_step_count=30))


@pytest.mark.parametrize("end", ["it dies", "it gives the job back", "it snoozes"])
async def test_completed_job_never_runs_again_whatever_its_worker_does(url: str, end: str) -> None:
    """What its transaction has committed cannot be done twice."""
    b = MovedBench(url)
    await b.open()
    await b.put()
    (row,) = await b.claim(lease_s=30)
    connection = await asyncpg.connect(parse(url).dsn)
    async with connection.transaction():
        await b.store.complete_in(connection, row.fence, "paid")
        renewed = await b.store.jobs_renew("w1", [Renewal(row.id, row.attempt)], 30)
        assert (renewed.lost, renewed.cancelled) == ([], []), "while it commits the job is held, and nobody waits"
        await b.advance(31)
        assert await b.claim() == []
    await connection.close()
    if end == "it gives the job back":
        await b.store.jobs_release([row.fence])
    elif end == "it snoozes":
        assert await b.finish(row.fence, FinishKind.SNOOZE)
    assert await b.claim() == []
    done = await b.get(row.id)
    assert (done.state, done.result) == (JobState.DONE, "paid")
    await b.store.close()


@pytest.mark.parametrize(
    ("table", "ours", "known"),
    [
        ("job", {"seq", "turn", "completed"}, JOB_COLUMNS),
        ("job_history", {"seq", "turn", "completed"}, JOB_COLUMNS),
        ("schedule", {"unique_key"}, SCHEDULE_COLUMNS),
    ],
)
async def test_tables_have_the_columns_of_rows(url: str, table: str, ours: set[str], known: Sequence[Column]) -> None:
    """A new column needs a migration; without one every write would fail."""
    connection = await asyncpg.connect(parse(url).dsn)
    rows = await connection.fetch(
        "SELECT column_name, data_type, is_nullable FROM information_schema.columns "
        "WHERE table_schema = $1 AND table_name = $2",
        parse(url).schema,
        table,
    )
    await connection.close()
    types = {"int": "bigint", "bool": "boolean", "text": "text", "bytes": "bytea"}
    found = {name: kind for name, kind, _ in rows if name not in ours}
    assert found == {column.name: types[column.kind] for column in known}
    refusing = {name for name, _, is_nullable in rows if is_nullable == "NO"}
    assert not {column.name for column in known if column.is_nullable} & refusing


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_backlog_and_an_old_transaction_cost_a_claim_next_to_nothing(url: str) -> None:
    """A hundred thousand waiting jobs, of which most are not wanted, and dead rows that nobody may remove.

    Counted in pages that a claim touches, since a clock would measure the machine.
    """
    b = MovedBench(url)
    await b.open()
    pinning = await asyncpg.connect(parse(url).dsn)
    await pinning.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")
    fresh = await pages_of_a_claim(b)
    for task in ("saturated", "a"):
        for _ in range(0, 100_000 if task == "saturated" else 3_000, 5_000):
            await b.store.jobs_put([b.job(task) for _ in range(5_000)])
    for _ in range(10):  # leave dead rows at the head of the line
        rows = await b.claim(200, tasks=frozenset({"a"}))
        now = await b.store.now_ns()
        await b.store.jobs_finish([Finish(*row.fence, FinishKind.DONE, now, now, now) for row in rows])
    await pages_of_a_claim(b)  # finds the dead ones, and marks them in the index
    burdened = await pages_of_a_claim(b)
    await pinning.close()
    await b.store.close()
    assert burdened < fresh + 1_000


async def test_jobs_of_tomorrow_cost_a_claim_nothing(url: str) -> None:
    """Each idle worker claims once a second, and would walk over all of them."""
    b = MovedBench(url)
    await b.open()
    await b.store.jobs_put([b.job("a") for _ in range(3)])
    await pages_of_a_claim(b)
    fresh = await pages_of_a_claim(b)
    await b.store.jobs_put([b.job("a", delay_ns=86_400 * NS_PER_S) for _ in range(5_000)])
    # The least of three: a vacuum that passes by makes the server read its catalogue again, in one of them.
    burdened = min([await pages_of_a_claim(b) for _ in range(3)])
    await b.store.close()
    assert burdened < fresh + 10


@pytest.mark.parametrize("priority", [4, 5, 1_000])
async def test_job_of_any_priority_is_claimed_once_it_is_due(url: str, priority: int) -> None:
    """The less urgent ones come last; they are not left waiting for their place in the order."""
    b = MovedBench(url)
    await b.open()
    late = await b.put(priority=priority, delay_ns=NS_PER_S)
    soon = await b.put(priority=0)
    assert [row.id for row in await b.claim()] == [soon.id]
    await b.advance(1)
    assert [row.id for row in await b.claim()] == [late.id]
    await b.store.close()


async def test_purge_goes_by_age_and_by_number_whichever_is_more(url: str) -> None:
    """The two bounds of what is kept do not weaken each other."""
    b = MovedBench(url)
    await b.open()
    for _ in range(6):
        await b.put()
        (row,) = await b.claim()
        assert await b.finish(row.fence)
        await b.advance(10)
    purge = b.store.jobs_purge
    assert await purge(timedelta(seconds=60)) == 0, "the eldest is as old as may be"
    assert await purge(timedelta(seconds=59), keep=6) == 1
    assert await purge(timedelta(seconds=59), 1, keep=3) == 1, "no more than asked for at once"
    assert await purge(timedelta(seconds=59), keep=3) == 1
    assert await purge(timedelta(seconds=25), keep=3) == 1
    assert await purge(timedelta(0), keep=100) == 2
    await b.store.close()


async def test_limits_that_say_nothing_more_are_forgotten(url: str) -> None:
    """There may be one for each customer, or for each window: they must not fill the database."""
    b = MovedBench(url)
    await b.open()

    async def left() -> list[str]:
        tables = "SELECT name FROM {0}.limit_slot UNION ALL SELECT name FROM {0}.limit_bucket"
        async with b.store._link.connection("looking") as connection:
            return [row[0] for row in await connection.fetch(tables.format(b.store._settings.quoted_schema))]

    await b.store.limit_acquire("l", ["a"], maximum=1, ttl_s=30)
    await b.store.limit_acquire("l", ["b"], maximum=1, ttl_s=30, waiter="w")
    await b.store.limit_take("t", 1, rate=1, burst=2)
    await b.store.jobs_purge(timedelta(0))
    assert await left() == ["l", "l", "t"]
    await b.advance(30)
    await b.store.jobs_purge(timedelta(0))
    assert await left() == []
    await b.store.close()


async def test_counts_are_added_up_once(url: str) -> None:
    """Every process tidies each minute: to write the whole day anew each time would outdo the jobs themselves."""
    b = MovedBench(url)
    await b.open()
    for _ in range(3):
        for _ in range(2):
            await b.put()
            (row,) = await b.claim()
            assert await b.finish(row.fence)
        await b.advance(60)
    before = await b.store.outcomes(0)
    assert [n for _, n in sorted(before.items())] == [2, 2, 2]
    assert len(await counts(b)) == 6
    await b.advance(60)
    await b.store.jobs_purge(timedelta(days=1))
    tidied = await counts(b)
    assert [n for _, n in tidied] == [2, 2, 2]
    await b.advance(60)
    await b.store.jobs_purge(timedelta(days=1))
    assert await counts(b) == tidied, "the very same rows"
    assert await b.store.outcomes(0) == before
    await b.advance(86_400)
    await b.store.jobs_purge(timedelta(days=1))
    assert await counts(b) == []
    await b.store.close()


async def counts(b: MovedBench) -> list[tuple[str, int]]:
    """Return the rows that count how jobs ended: where each lies, and its number."""
    async with b.store._link.connection("looking") as connection:
        rows = await connection.fetch(f"SELECT ctid::text, n FROM {b.store._settings.quoted_schema}.outcome ORDER BY 1")
    return [(place, n) for place, n in rows]


async def pages_of_a_claim(b: MovedBench) -> int:
    """Return how many pages a claim of ten jobs reads."""
    arguments = (["default"], ["a", "b"], 10, "w", 30 * NS_PER_S, True, True, ["default"], ["a", "b"], ["b"])
    async with b.store._link.connection("counting") as connection:
        sql = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {b.store._link.sql['claim']}"
        (plan,) = json.loads(await connection.fetchval(sql, *arguments))
    pages: int = plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"]
    return pages
