"""One application file on four stores: what changes is a URL.

    python examples/four_stores.py                                            # memory: ends with the process
    JOBS_URL=sqlite:///orders.db                    python examples/four_stores.py
    JOBS_URL=postgresql://user:password@host/shop   python examples/four_stores.py
    JOBS_URL=redis://host:6379/0                    python examples/four_stores.py

Run it twice: on a store that outlives the process the second run finds the orders of the first. `qj run
examples/four_stores.py --workers 4` serves the same file with several processes, and each tick still runs once.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass

from quarterjack import Every, JobState, Quarterjack, RetryLater, current_job, gather

app = Quarterjack(os.environ.get("JOBS_URL", "memory"))


@dataclass
class Order:
    """What is asked for; it travels as JSON, and arrives as an Order."""

    number: int
    item: str


@app.task
async def pack(order: Order) -> str:
    """Do what was ordered."""
    return f"{order.number} {order.item}"


@app.task(retry=3)
async def label(number: int) -> str:
    """Fail once, as printers do; tell in which attempt it worked."""
    attempt = current_job().attempt
    if attempt == 1:
        raise RetryLater(after=0.05, reason="the printer is warming up")
    return f"label {number} in attempt {attempt}"


@app.task(Every(milliseconds=200))
async def stocktaking() -> None:
    """Fire five times a second, once for all processes on the store."""


async def main() -> None:
    """Submit, await and look back; the same on each store."""
    async with app:
        before = len(await app.jobs(task=pack, state=JobState.DONE, limit=1_000))
        print(f"packed by earlier runs: {before}")

        orders = [Order(number, item) for number, item in enumerate(("bell", "clapper", "rope"), 1)]
        print("packed:", await gather(await app.submit_many(pack.bind(order) for order in orders)))

        once = label.options(unique="label 7", delay=0.05)
        first, second = await app.submit(once, 7), await app.submit(once, 7)
        print(f"asked for twice, done once: {first.id == second.id}, {await first}")

        ticks: list[object] = []
        while len(ticks) < 3:
            await asyncio.sleep(0.2)
            ticks = [job.nominal for job in await app.jobs(task=stocktaking, state=JobState.DONE, limit=1_000)]
        print(f"stocktaking ran, each fire time once: {len(ticks) == len({*ticks})}")


if __name__ == "__main__":
    asyncio.run(main())
