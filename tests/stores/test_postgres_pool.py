"""The pool: every caller has its turn, in line, and nothing is lent that is in doubt."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from quarterjack.errors import StoreUnavailable
from quarterjack.stores._postgres_pool import Connection, Pool
from quarterjack.stores._postgres_url import parse
from tests.servers.fixtures import with_option


@asynccontextmanager
async def pool_of(server: str, size: int, timeout_s: float = 10) -> AsyncIterator[Pool]:
    pool = Pool(parse(with_option(server, f"pool={size}&timeout={timeout_s}")))
    yield pool
    await pool.close()


async def take(pool: Pool, seen: set[Connection]) -> None:
    connection = await pool.acquire()
    seen.add(connection)
    assert await connection.fetchval("SELECT 1") == 1
    pool.release(connection, is_sound=True)


async def test_more_callers_than_connections_take_turns(postgres_server: str) -> None:
    """A burst opens no more connections than the server was promised."""
    async with pool_of(postgres_server, 2) as pool:
        seen: set[Connection] = set()
        await asyncio.gather(*(take(pool, seen) for _ in range(20)))
        assert len(seen) == 2


async def test_turn_of_a_caller_that_was_cancelled_is_the_next_ones(postgres_server: str) -> None:
    """A turn that went to nobody would leave the rest in line for ever."""
    async with pool_of(postgres_server, 2) as pool:
        lent = [await pool.acquire() for _ in range(2)]
        first = asyncio.create_task(pool.acquire())
        second = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.release(lent[0], is_sound=True)
        first.cancel()  # its turn has come, and it has not run since
        async with asyncio.timeout(5):
            assert await second is lent[0]
        with pytest.raises(asyncio.CancelledError):
            await first
        pool.release(lent[0], is_sound=True)
        pool.release(lent[1], is_sound=True)


async def test_wait_for_a_connection_ends_at_the_deadline(postgres_server: str) -> None:
    """The text says which number to raise."""
    async with pool_of(postgres_server, 2, 0.1) as pool:
        lent = [await pool.acquire() for _ in range(2)]
        with pytest.raises(StoreUnavailable, match=r"all 2 connections were busy for 0\.1 s; a larger pool="):
            await pool.acquire()
        for connection in lent:
            pool.release(connection, is_sound=True)


async def test_connection_that_comes_at_the_deadline_is_taken(postgres_server: str) -> None:
    """Under load deadlines pass: a turn that then went to nobody would leave a connection idle, and others in line."""
    async with pool_of(postgres_server, 2, 0.1) as pool:
        lent, other = [await pool.acquire() for _ in range(2)]
        waiting = asyncio.create_task(pool.acquire())
        asyncio.get_running_loop().call_later(0.05, lambda: pool.release(lent, is_sound=True))
        await asyncio.sleep(0)
        time.sleep(0.2)  # both are due by now: the release, and behind it the deadline
        assert await waiting is lent
        pool.release(lent, is_sound=True)
        assert await pool.acquire() is lent
        pool.release(lent, is_sound=True)
        pool.release(other, is_sound=True)


@pytest.mark.parametrize("is_sound", [True, False])
async def test_newcomer_does_not_overtake_the_line(postgres_server: str, is_sound: bool) -> None:
    """Who was overtaken would stand at the end of the line, with a new deadline, again and again."""
    async with pool_of(postgres_server, 2, 0.5) as pool:
        lent, other = [await pool.acquire() for _ in range(2)]
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        pool.release(lent, is_sound=is_sound)
        with pytest.raises(StoreUnavailable, match="busy"):
            await pool.acquire()
        assert (await waiting is lent) is is_sound
        pool.release(await waiting, is_sound=True)
        pool.release(other, is_sound=True)


async def test_what_is_in_doubt_is_dropped(postgres_server: str) -> None:
    """The next caller must not find itself in a transaction, or in the middle of an answer."""
    async with pool_of(postgres_server, 2) as pool:
        in_transaction = await pool.acquire()
        await in_transaction.execute("BEGIN")
        pool.release(in_transaction, is_sound=True)
        unsound = await pool.acquire()
        assert unsound is not in_transaction
        pool.release(unsound, is_sound=False)
        closed = await pool.acquire()
        assert closed is not unsound
        await closed.close()
        pool.release(closed, is_sound=True)
        sound = await pool.acquire()
        assert sound is not closed
        assert all(one.is_closed() for one in (in_transaction, unsound, closed))
        pool.release(sound, is_sound=True)
        assert await pool.acquire() is sound
        pool.release(sound, is_sound=True)


async def test_closed_pool_lends_nothing(postgres_server: str) -> None:
    """Whoever waits is told, and does not wait on."""
    async with pool_of(postgres_server, 2) as pool:
        lent = [await pool.acquire() for _ in range(2)]
        waiting = asyncio.create_task(pool.acquire())
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(StoreUnavailable, match="not open"):
            await waiting
        for connection in lent:
            pool.release(connection, is_sound=True)
        assert all(connection.is_closed() for connection in lent)
        with pytest.raises(asyncpg.InterfaceError):
            await lent[0].fetchval("SELECT 1")
