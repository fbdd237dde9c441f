"""An app to ask about, and the command as a process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import quarterjack

APP = """
from quarterjack import At, Cron, Every, Forever, Group, Once, Quarterjack

app = Quarterjack()
reports = Group("reports", timeout=30)

@app.task(Every(hours=2))
async def pulse() -> None: ...

@app.task(Cron("0 12 * * *", tz="Europe/Rome"), jitter=10)
async def noon() -> None: ...

@reports.task(At("02:30", tz="Europe/Rome"))
async def nightly() -> None: ...

app.include_group(reports)
"""


def command(*words: str) -> list[str]:
    """Return the command line of a real ``qj``."""
    return [sys.executable, "-m", "quarterjack", *words]


def environment(**more: str) -> dict[str, str]:
    """Return an environment in which that command finds the package under test."""
    source = str(Path(quarterjack.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1", **more}
