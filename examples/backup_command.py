"""A backup command at 02:30 local time, and what a week of it looks like: the night the clocks go forward included.

The command is a program of the system; its exit code and its output are the
job's. On the night in which there is no 02:30 it runs at 03:00, once; on the one
in which there are two, once as well. Here time is virtual and the program is
`echo`; in production take the clock away and write

    app = Quarterjack("sqlite:///backups.db")
    app.command("backup", ["pg_dump", "-f", "shop.sql", "shop"], At("02:30", tz="Europe/Rome"), timeout=3600, retry=3)

    python examples/backup_command.py
"""

from __future__ import annotations

import asyncio

from quarterjack import At, Command, Job, Quarterjack
from quarterjack.testing import virtual_time

app = Quarterjack()
backup = app.command("backup", ["echo", "dumped", "the shop"], At("02:30", tz="Europe/Rome"), timeout=3600, retry=3)


@backup.on_done
def report(job: Job[Command]) -> None:
    command = job.result()
    night = "by hand" if job.nominal is None else f"{job.nominal:%a %d %b %H:%M} UTC"
    print(f"{night}: {command.output.strip()}, exit code {command.code}")


async def main() -> None:
    async with virtual_time(app, start="2026-03-26T12:00", tz="Europe/Rome") as world:
        await world.run_for("5d")
        print(*world.runs("backup"), sep="\n")


asyncio.run(main())
