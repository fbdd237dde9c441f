"""quarterjack: jobs submitted with a delay of an hour (``later``), or behind one that runs (``queued``).

The handles are kept, as the peers' are."""

from __future__ import annotations

import asyncio

from measure import Memory, answer, options, run
from quarterjack import Quarterjack

args = options(n=50_000, meter="resident", how="queued")
app = Quarterjack(concurrency=1, shutdown_grace=0)


@app.task
async def noop() -> None: ...


@app.task
async def holder() -> None:
    await asyncio.sleep(3600)


async def main() -> None:
    task = noop.options(delay=3600) if args.how == "later" else noop
    async with app:
        held = await app.submit(holder)
        await asyncio.sleep(0.01)
        await app.submit(task)
        memory = Memory(args.meter)
        memory.start()
        jobs = [await app.submit(task) for _ in range(args.n)]
        answer(args, memory.per(args.n), "delayed by an hour" if args.how == "later" else "queued behind a running job")
        await app.cancel(task="noop")
        await held.cancel()
        del jobs


run(main, args)
