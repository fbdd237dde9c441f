"""The floor: a table of jobs by the driver alone, claimed by an update, ended by a delete, on one connection."""

from __future__ import annotations

import asyncio
import time

import asyncpg

from measure import Meter, answer, options, percentile, run
from postgres import server, server_cpu_us

args = options(n=20_000, how="drain", lot=1_000, batch=100, tasks=1)
METER = Meter()

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


async def noop() -> None: ...


async def enqueue(connection: asyncpg.Connection) -> None:
    lot = 1 if args.how == "one" else args.lot
    METER.start()
    for _ in range(0, args.n, lot):
        await connection.execute(PUT, ["noop"] * lot)
    METER.stop()


async def drain(connection: asyncpg.Connection) -> None:
    for _ in range(0, args.n, args.lot):
        await connection.execute(PUT, ["noop"] * args.lot)
    METER.start()
    while rows := await connection.fetch(CLAIM, args.batch):
        for _ in rows:
            await noop()
        await connection.execute(DELETE, [row["id"] for row in rows])
    METER.stop()


async def latency(connection: asyncpg.Connection, other: asyncpg.Connection) -> list[float]:
    """Return the milliseconds from before the insert to the claimed row at a listener that was told by NOTIFY."""
    told = asyncio.Event()
    await other.add_listener("jobs", lambda *_: told.set())
    lags: list[float] = []
    for _ in range(args.n):
        told.clear()
        before = time.perf_counter_ns()
        await connection.execute(PUT, ["noop"])
        await connection.execute("NOTIFY jobs")
        await told.wait()
        rows = await other.fetch(CLAIM, 1)
        lags.append((time.perf_counter_ns() - before) / 1e6)
        await other.execute(DELETE, [row["id"] for row in rows])
        await asyncio.sleep(0.005)
    return sorted(lags)


async def main() -> None:
    with server() as one:
        connection, other = await asyncpg.connect(one.url), await asyncpg.connect(one.url)
        await connection.execute(TABLE)
        if args.how == "latency":
            lags = await latency(connection, other)
            metrics = {"p50_ms": percentile(lags, 0.5), "p99_ms": percentile(lags, 0.99), "n": args.n}
            answer(args, metrics, "from before the insert to the row that a listener has claimed")
        else:
            before = server_cpu_us(one)
            await (drain(connection) if args.how == "drain" else enqueue(connection))
            cpu = server_cpu_us(one) - before
            metrics = METER.per(args.n) | {"per_s": args.n / METER.wall_s, "server_us_per_job": cpu / args.n}
            answer(args, metrics, f"claimed and deleted {args.batch} at a time; no retries, no record; fsync on")
        await connection.close()
        await other.close()


run(main, args)
