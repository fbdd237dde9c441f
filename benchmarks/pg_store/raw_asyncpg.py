"""The floor: a table of jobs by the driver alone, claimed by an update, ended by a delete, on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from measure import options, run
from pinned import pinned
from postgres import server
from queues import Queue, play

args = options(n=20_000, how="drain", lot=1_000, batch=100, tasks=1, backlog=0, pinned=0)

TABLE = """
CREATE TABLE job (id bigserial PRIMARY KEY, task text NOT NULL, owner text);
CREATE INDEX job_free ON job (id) WHERE owner IS NULL;
"""
PUT = "INSERT INTO job (task) SELECT * FROM unnest($1::text[])"
CLAIM = """
WITH free AS MATERIALIZED (SELECT id FROM job WHERE owner IS NULL ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)
UPDATE job SET owner = 'me' WHERE id = ANY(ARRAY(SELECT id FROM free)) RETURNING id, task
"""
DELETE = "DELETE FROM job WHERE id = ANY($1::bigint[])"


class Table(Queue):
    def __init__(self, connection: asyncpg.Connection, other: asyncpg.Connection) -> None:
        super().__init__()
        self._connection, self._other = connection, other

    async def put(self, name: str = "noop") -> None:
        await self._connection.execute(PUT, [name])
        if name == "stamp":  # the one case with a reader that waits
            await self._connection.execute("NOTIFY jobs")

    async def put_lot(self, n: int) -> None:
        await self._connection.execute(PUT, ["noop"] * n)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        told = asyncio.Event()
        await self._other.add_listener("jobs", lambda *_: told.set())
        worker = asyncio.create_task(self._work(told))
        yield
        worker.cancel()

    async def _work(self, told: asyncio.Event) -> None:
        while True:
            while rows := await self._other.fetch(CLAIM, args.batch):
                for row in rows:
                    await (self.stamp if row["task"] == "stamp" else self.noop)()
                await self._other.execute(DELETE, [row["id"] for row in rows])
            await told.wait()
            told.clear()


async def main() -> None:
    with server() as one:
        connection, other = await asyncpg.connect(one.url), await asyncpg.connect(one.url)
        await connection.execute(TABLE)
        note = f"claimed and deleted {args.batch} at a time; no retries, no record; fsync on"
        async with pinned(one.url, args.pinned):
            await play(args, Table(connection, other), one.cpu_us, note)
        await connection.close()
        await other.close()


run(main, args)
