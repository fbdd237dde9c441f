"""quarterjack in several processes over one PostgreSQL server: each tick is one job, whoever runs it."""

from __future__ import annotations

import asyncio
import sys
import time

from grid import Periodic
from measure import run
from quarterjack import Every, Quarterjack

case = Periodic.from_options(replicas=3, url="")


async def replica() -> None:
    """Be one of the processes: run until standard input ends; print what began, and when."""
    app = Quarterjack(case.args.url, concurrency=max(100, case.args.tasks))

    @app.task(store_result=False)
    async def tick(task: int) -> None:
        print(task, time.time_ns())

    async with app:
        every = Every(milliseconds=case.period_ns // 1_000_000)
        for task in range(case.args.tasks):
            await app.schedule(tick.bind(task), every, id=str(task))
        await asyncio.to_thread(sys.stdin.read)


async def main() -> None:
    from postgres import server  # noqa: PLC0415  # a replica needs no server of its own

    with server() as one:
        command = [sys.executable, "-P", *sys.argv, f"--url={one.url}"]
        pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
        replicas = [await asyncio.create_subprocess_exec(*command, **pipes) for _ in range(case.args.replicas)]
        await case.watch()
        await asyncio.sleep(0.5)  # what the last tick started has begun by now
        for written, _ in await asyncio.gather(*(each.communicate(b"") for each in replicas)):
            for task, stamp in (line.split() for line in written.splitlines()):
                case.stamps[int(task)].append(int(stamp))
    for stamps in case.stamps:
        stamps.sort()


if case.args.url:
    run(replica, case.args)
else:
    run(main, case.args)
    case.report(f"{case.args.replicas} processes, both roles in each; leases, history; fsync on")
