"""quarterjack over a PostgreSQL server on this machine."""

from __future__ import annotations

import asyncpg

from measure import options, run
from pinned import pinned
from postgres import server
from queues import play
from store_queue import StoreQueue

args = options(n=20_000, how="drain", concurrency=100, lot=1_000, tasks=1, backlog=0, pinned=0)


async def main() -> None:
    with server() as one:
        beside = await asyncpg.connect(one.url)

        async def recorded() -> int:
            count: int = await beside.fetchval("SELECT count(*) FROM quarterjack.job_history")
            return count

        queue = StoreQueue(one.url, args.concurrency, recorded)
        async with queue.open(), pinned(one.url, args.pinned):
            note = f"{args.concurrency} at once; leases, fencing, outcomes and history kept; fsync on"
            await play(args, queue, one.cpu_us, note)
        await beside.close()


run(main, args)
