"""quarterjack over a Valkey server on this machine."""

from __future__ import annotations

import redis.asyncio

from measure import options, run
from queues import play
from store_queue import StoreQueue
from valkey import server

args = options(n=20_000, how="drain", concurrency=100, lot=1_000, tasks=1, backlog=0)


async def main() -> None:
    with server() as one:
        async with redis.asyncio.Redis(port=one.port) as beside:

            async def recorded() -> int:
                count: int = await beside.zcard("{qj}:done")
                return count

            queue = StoreQueue(f"{one.url}/0", args.concurrency, recorded)
            async with queue.open():
                note = f"{args.concurrency} at once; leases, fencing, outcomes and counts kept"
                await play(args, queue, one.cpu_us, note)


run(main, args)
