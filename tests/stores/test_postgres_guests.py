"""Jobs inside a user's own transaction: there if it commits, and effects that happen exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.pool import NullPool

from quarterjack import JobState, Quarterjack, Unique, current_job
from quarterjack.errors import LeaseLost, NoCurrentJob, UniqueConflict, UsageError
from quarterjack.stores._postgres_url import parse
from tests.real_time import until


@asynccontextmanager
async def by_asyncpg(dsn: str) -> AsyncIterator[tuple[Any, Callable[[bool], Awaitable[None]]]]:
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield connection, lambda keeps: transaction.commit() if keeps else transaction.rollback()
    finally:
        await connection.close()


@asynccontextmanager
async def by_psycopg(dsn: str) -> AsyncIterator[tuple[Any, Callable[[bool], Awaitable[None]]]]:
    connection = await psycopg.AsyncConnection.connect(dsn)
    try:
        yield connection, lambda keeps: connection.commit() if keeps else connection.rollback()
    finally:
        await connection.close()


@asynccontextmanager
async def by_sqlalchemy(dsn: str) -> AsyncIterator[tuple[Any, Callable[[bool], Awaitable[None]]]]:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"), poolclass=NullPool)
    async with AsyncSession(engine) as session:
        yield session, lambda keeps: session.commit() if keeps else session.rollback()
    await engine.dispose()


DRIVERS: Final = {"asyncpg": by_asyncpg, "psycopg": by_psycopg, "sqlalchemy": by_sqlalchemy}


@pytest.mark.parametrize("driver", DRIVERS)
async def test_job_is_there_if_the_transaction_commits(postgres_url: str, driver: str) -> None:
    """What a request writes and what it has done afterwards stand or fall together."""
    app = Quarterjack(postgres_url)

    @app.task
    async def double(n: int) -> int:
        return 2 * n

    async with app:
        async with DRIVERS[driver](parse(postgres_url).dsn) as (connection, end):
            lost = await app.submit_in(connection, double, 1)
            await end(False)
        async with DRIVERS[driver](parse(postgres_url).dsn) as (connection, end):
            job = await app.submit_in(connection, double.options(priority=1), 21)
            assert (await app.jobs()) == []
            await end(True)
        await app.wake()
        assert await job == 42
        assert job.timestamps.submitted_at is not None
        assert [each.id for each in await app.jobs()] == [job.id]
        assert job.id != lost.id


async def test_unique_keys_hold_across_transactions(postgres_url: str) -> None:
    """A key that is being put by somebody is waited for, and found."""
    app = Quarterjack(postgres_url, role="client")

    @app.task
    async def mail() -> None: ...

    async with (
        app,
        by_asyncpg(parse(postgres_url).dsn) as (one, end_one),
        by_asyncpg(parse(postgres_url).dsn) as (two, end_two),
    ):
        keyed = mail.options(unique="k")
        first = await app.submit_in(one, keyed)
        second = asyncio.create_task(app.submit_in(two, keyed))
        third = asyncio.create_task(app.submit(keyed))
        await asyncio.sleep(0.05)
        assert not second.done()
        assert not third.done()
        await end_one(True)
        assert ((await second).id, (await second).is_duplicate) == (first.id, True)
        await end_two(True)
        assert ((await third).id, (await third).is_duplicate) == (first.id, True)
        async with by_asyncpg(parse(postgres_url).dsn) as (connection, end):
            with pytest.raises(UniqueConflict):
                await app.submit_in(connection, mail.options(unique=Unique("k", on_conflict="raise")))
            with pytest.raises(UsageError, match="on_conflict='replace'"):
                await app.submit_in(connection, mail.options(unique=Unique("k", on_conflict="replace")))
            await end(False)


@pytest.mark.parametrize("driver", DRIVERS)
async def test_effects_and_their_job_are_committed_together(postgres_url: str, driver: str) -> None:
    """A body that dies behind its commit is not run again; one that rolls back is."""
    app = Quarterjack(postgres_url)
    dsn = parse(postgres_url).dsn
    attempts: list[int] = []

    @app.task(retry=3)
    async def pay() -> str:
        attempts.append(current_job().attempt)
        async with DRIVERS[driver](dsn) as (connection, end):
            await app.complete_in(connection, "paid")
            await end(len(attempts) > 1)
        raise OSError("the network went away")

    async with app:
        job = await app.submit(pay)
        await until_async(lambda: is_done(app, job.id))
    assert attempts == [1, 2]


@pytest.mark.parametrize("after", ["raises", "retried", "times out", "returns another"])
async def test_whoever_awaits_a_committed_job_is_told_what_was_committed(postgres_url: str, after: str) -> None:
    """From its commit on the job is done, whatever the body does then: here as in every other process."""
    app = Quarterjack(postgres_url)

    @app.task
    async def pay() -> int:
        async with by_asyncpg(parse(postgres_url).dsn) as (connection, end):
            await app.complete_in(connection, 5)
            await end(True)
        if after == "times out":
            await asyncio.sleep(60)
        if after == "returns another":
            return 6
        raise OSError("the network went away")

    timeout, retry = (0.5, 1) if after == "times out" else (None, 3 if after == "retried" else 1)
    async with app:
        job = await app.submit(pay.options(timeout=timeout, retry=retry))
        async with asyncio.timeout(20):
            assert await job == 5
        assert (job.state, job.failures) == (JobState.DONE, 0)
        (row,) = await app.store.jobs_get([job.id])
    assert row is not None
    assert (row.state, row.result, row.error, row.failures) == (JobState.DONE, 5, None, 0)


async def is_done(app: Quarterjack, job_id: str) -> bool:
    (row,) = await app.store.jobs_get([job_id])
    return row is not None and row.state is JobState.DONE and row.result == "paid"


async def until_async(it_is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await it_is_so():
            await asyncio.sleep(0.01)


async def test_whoever_lost_the_lease_cannot_complete(postgres_url: str) -> None:
    """The fence holds inside the user's transaction, too: the effect is rolled back."""
    app = Quarterjack(postgres_url)
    told: list[BaseException] = []

    @app.task
    async def pay() -> None:
        store: Any = app.store
        async with store._link.connection("stealing") as connection:
            await connection.execute(f"UPDATE {store._settings.quoted_schema}.job SET attempt = attempt + 1")
        async with by_asyncpg(parse(postgres_url).dsn) as (connection, _):
            try:
                await app.complete_in(connection)
            except LeaseLost as error:
                told.append(error)

    async with app:
        await app.submit(pay)
        await until(lambda: bool(told))
        with pytest.raises(NoCurrentJob):
            await app.complete_in(None)
        with pytest.raises(UsageError, match="connection of your transaction"):
            await app.submit_in("no connection", pay)


async def test_other_stores_say_that_they_have_no_transaction_to_join() -> None:
    """An app that moves to another store learns it from the error, not from lost jobs."""
    app = Quarterjack()

    @app.task
    async def mail() -> None: ...

    async with app:
        with pytest.raises(UsageError, match="submit_in needs a PostgreSQL store"):
            await app.submit_in(None, mail)


async def test_other_languages_enqueue_by_a_function(postgres_url: str) -> None:
    """A trigger in the database, or a program without Python, asks for a job in SQL."""
    app = Quarterjack(postgres_url)
    seen: list[tuple[str, int]] = []

    @app.task
    async def greet(name: str, *, times: int = 1) -> None:
        seen.append((name, times))

    async with app:
        connection = await asyncpg.connect(parse(postgres_url).dsn)
        name = parse(postgres_url).quoted_schema
        first = await connection.fetchval(f"SELECT {name}.enqueue('greet', '[\"Ada\"]', '{{\"times\": 2}}')")
        await app.wake()
        await until(lambda: seen == [("Ada", 2)])
        later = f"SELECT {name}.enqueue('greet', '[\"Bob\"]', delay => '1 hour', unique_key => 'k')"
        held = await connection.fetchval(later)
        assert await connection.fetchval(later) == held != first
        with pytest.raises(asyncpg.RaiseError, match="must be a JSON array"):
            await connection.fetchval(f"SELECT {name}.enqueue('greet', '\"Ada\"')")
        await connection.close()
        assert (await app.submit(greet.options(unique="k"), "Eve")).id == held
