"""Jobs in a file: what was submitted before a restart is done after it, and each tick once.

The program plays three deploys of one service on one SQLite file. The first only
takes orders, the second is stopped half way, the third finishes what is left.
Time is virtual, so that ten minutes take none; take the `virtual_loop` away and
the same happens in real time.

    python examples/survives_a_restart.py [folder]
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from quarterjack import Every, JobState, Quarterjack, Task, current_job
from quarterjack.testing import VirtualClock, virtual_loop

Role = Literal["both", "client"]


def service(folder: Path, clock: VirtualClock, role: Role = "both") -> tuple[Quarterjack, Task[[str], str]]:
    """Return the app as each deploy makes it: the same code, the same file."""
    app = Quarterjack(f"sqlite:///{folder / 'jobs.db'}", role=role)
    app.clock = clock

    @app.task(retry=3)
    async def deliver(order: str) -> str:
        print(f"  {clock.now():%H:%M:%S}  {order} delivered, attempt {current_job().attempt}")
        return f"{order} is on its way"

    @app.task(Every(minutes=1))
    async def stocktaking() -> None:
        print(f"  {clock.now():%H:%M:%S}  stocktaking of {current_job().nominal:%H:%M}")

    return app, deliver


async def main(folder: Path) -> None:
    clock = VirtualClock("2026-03-02T09:00Z")
    with virtual_loop(clock):
        print("a process that only submits")
        shop, deliver = service(folder, clock, "client")
        async with shop:
            now = await shop.submit(deliver, "order 1")
            later = await shop.submit(deliver.options(delay=150), "order 2")

        print("a process that works, and is stopped")
        worker, _ = service(folder, clock)
        async with worker:
            print(" ", await (await worker.job(now.id)))
            await clock.run_for("2m")

        print("the next one, half a minute later")
        await clock.run_for("30s")
        worker, _ = service(folder, clock)
        async with worker:
            await clock.run_for("2m")
            again = await worker.job(later.id)
            print(f"  order 2: {again.state}, {again.lag:g} s after its time")
            done = await worker.jobs(state=JobState.DONE, task="stocktaking")
            print(f"  stocktaking: {len(done)} runs, each of another minute: {len({job.nominal for job in done})}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        asyncio.run(main(Path(sys.argv[1])))
    else:
        with TemporaryDirectory() as name:
            asyncio.run(main(Path(name)))
