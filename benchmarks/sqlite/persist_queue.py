"""persist-queue on an SQLite file: put one by one; take with an acknowledgement, or pop without a record."""

from __future__ import annotations

import asyncio
import tempfile

import persistqueue

from measure import Meter, answer, options, run

args = options(n=20_000, what="drain", tasks=1, how="ack")


async def main() -> None:
    await asyncio.sleep(0)
    meter = Meter()
    with tempfile.TemporaryDirectory() as folder:
        kind = persistqueue.SQLiteAckQueue if args.how == "ack" else persistqueue.SQLiteQueue
        queue = kind(folder, auto_commit=True)
        if args.what == "submit":
            meter.start()
        for n in range(args.n):
            queue.put({"task": "noop", "args": [n]})
        if args.what == "drain":
            meter.start()
            for _ in range(args.n):
                item = queue.get()
                if args.how == "ack":
                    queue.ack(item)
        meter.stop()
        queue.close()
    answer(args, {**meter.per(args.n), "per_second": args.n / meter.wall_s}, "a queue alone: nothing is run")


run(main, args)
