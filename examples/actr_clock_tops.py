"""Clock tops as async generators, after ACTR, the Async Clocktops Task Runner.

Three kinds of tick side by side, each an ``async for``: the grid of the clock
face, the grid that counts elapsed time, and one whose body takes longer than
its period. One task is cancelled, one generator is closed, one loop is left by
``break``; nothing of them remains.

    python examples/actr_clock_tops.py
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from quarterjack import Aligned, Every, ticks


async def clock_tops() -> None:
    """Every full second of the clock face, until somebody cancels this task."""
    async for tick in ticks(Aligned(seconds=1)):
        print(f"clock top   {tick.nominal:%H:%M:%S.%f}  {tick.lag * 1e3:6.2f} ms late")


async def elapsed_grid() -> None:
    """Every 250 ms of elapsed time; four of them, then ``break``."""
    async for tick in ticks(Every(milliseconds=250)):
        print(f"grid     #{tick.index}  {tick.nominal:%H:%M:%S.%f}")
        if tick.index == 3:
            break


async def negative_snooze() -> None:
    """A body longer than its period: what could not be served is counted, and the next tick is the newest."""
    generator = ticks(Every(milliseconds=100))
    async for tick in generator:
        print(f"slow body   {tick.nominal:%H:%M:%S.%f}  {tick.missed} missed")
        await asyncio.sleep(0.35)
        if tick.index == 2:
            await generator.aclose()


async def main() -> None:
    """Run the three, cancel the endless one, and ask a rule whether we are late."""
    endless = asyncio.create_task(clock_tops())
    await asyncio.gather(elapsed_grid(), negative_snooze())
    await asyncio.sleep(1)
    endless.cancel()
    await asyncio.gather(endless, return_exceptions=True)
    quarter = Aligned(minutes=15)
    noon = datetime(2026, 3, 1, 12, 7, tzinfo=UTC)
    print(f"at 12:07 the last quarter struck at {quarter.prev(noon):%H:%M}, the next at {quarter.next(noon):%H:%M}")
    print("tasks left:", len(asyncio.all_tasks()) - 1)


if __name__ == "__main__":
    asyncio.run(main())
