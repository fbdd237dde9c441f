"""One limit for several processes: four calls at once, whoever makes them, and one of the processes is killed.

    python examples/fleet_limits.py

The processes share an SQLite file here; with ``postgresql://…`` or ``redis://…``
they may run on as many machines."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from pathlib import Path

from quarterjack import ConcurrencyLimit, TaskManager, fleet, gather

limit = ConcurrencyLimit(4, scope="fleet", name="upstream")


async def call(log: Path) -> None:
    """Stand for a call of an upstream that takes four at a time; write down from when to when."""
    now = asyncio.get_running_loop().time
    began = now()
    await asyncio.sleep(0.02)
    with log.open("a") as file:  # one line
        file.write(f"{began} {now()}\n")


async def work(url: str, log: Path) -> None:
    """Make thirty calls."""
    async with fleet(url, limit, lease=2), TaskManager(limit) as manager:
        await gather([manager.submit(call, log) for _ in range(30)])


async def hang(url: str) -> None:
    """Take two slots, and never give them back."""
    async with fleet(url, limit, lease=2), limit, limit.permit():
        print("has two slots", flush=True)
        await asyncio.Event().wait()


async def start(*args: str) -> Process:
    """Run another process of this file."""
    return await asyncio.create_subprocess_exec(sys.executable, __file__, *args, stdout=PIPE)


async def main() -> None:
    """Start the processes, kill one, and count."""
    with tempfile.TemporaryDirectory() as folder:
        url, log = f"sqlite:///{folder}/limits.db", Path(folder, "log")
        lost = await start("hang", url)
        said = b"" if lost.stdout is None else await lost.stdout.readline()
        workers = [await start("work", url, str(log)) for _ in range(3)]
        lost.kill()
        for process in (lost, *workers):
            await process.communicate()
        print("the first process", said.decode().strip(), "and is killed")
        count(log)


def count(log: Path) -> None:
    """Print how many calls there were, and how many at once."""
    calls = [tuple(map(float, line.split())) for line in log.read_text().splitlines()]
    most = max(sum(began <= at < ended for began, ended in calls) for at, _ in calls)
    print(len(calls), "calls of three processes, at most", most, "at once")


if __name__ == "__main__":
    what, *rest = sys.argv[1:] or ["main"]
    if what == "work":
        asyncio.run(work(rest[0], Path(rest[1])))
    else:
        asyncio.run(hang(rest[0]) if what == "hang" else main())
