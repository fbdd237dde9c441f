"""Run each of the given files in a child process of its own, and tell on stdout what came of it, as JSON.

A program of the documentation's tests. quarterjack is imported once, each child
starts from there. What a file prints and what it complains of are kept apart,
and what became of the jobs in its virtual worlds is noted as each world ends,
before its apps drain: what runs then is drawn as going on."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final, TypedDict

import quarterjack.testing
from quarterjack import Job
from quarterjack.testing import World, virtual_time

__all__ = ["JobFacts", "Played"]

TIME_LIMIT_S: Final = 60


class JobFacts(TypedDict):
    """What became of one job; instants are minutes of local time since the world's first midnight."""

    state: str
    nominal: float | None
    is_manual: bool
    began: float | None
    ended: float | None
    missed: int


class Played(TypedDict):
    """What came of one file."""

    status: int
    printed: str
    complained: str
    jobs: list[JobFacts]


def facts_of(job: Job[Any], world: World, midnight: datetime) -> JobFacts:
    """Return what a drawing of *job* shows."""

    def minutes(at: datetime | None) -> float | None:
        local = None if at is None else at.astimezone(world.zone).replace(tzinfo=None)
        return None if local is None else (local - midnight) / timedelta(minutes=1)

    origin = job._record.origin
    return JobFacts(
        state=job.state.value,
        nominal=minutes(job.nominal),
        is_manual=origin is None or origin.trigger != "schedule",
        began=minutes(job.timestamps.running_at),
        ended=minutes(job.timestamps.finished_at),
        missed=job.missed_count if job.state.value == "missed" else 0,
    )


def watch_worlds(noted: list[JobFacts]) -> None:
    """Let every virtual world note in *noted* what became of its jobs, as it ends."""

    @asynccontextmanager
    async def watched(*apps: Any, **settings: Any) -> AsyncIterator[World]:
        async with virtual_time(*apps, **settings) as world:
            midnight = world.now.replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
            yield world
            noted.extend(facts_of(job, world, midnight) for app in world.apps for job in world.jobs(app=app))

    quarterjack.testing.virtual_time = watched  # the files import it from there


def play(path: Path, told: IO[str]) -> None:
    """Run *path* as a script and write what became of its jobs to *told*."""
    noted: list[JobFacts] = []
    watch_worlds(noted)
    script = compile(path.read_text(encoding="utf-8"), str(path), "exec")
    exec(script, {"__name__": "__main__", "__file__": str(path)})  # a page's own program
    json.dump(noted, told)
    told.flush()


def in_child(path: Path) -> Played:
    """Run *path* in a child and return what came of it."""
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as printed,
        tempfile.TemporaryFile("w+", encoding="utf-8") as complained,
        tempfile.TemporaryFile("w+", encoding="utf-8") as noted,
    ):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.alarm(TIME_LIMIT_S)
                os.dup2(printed.fileno(), 1)
                os.dup2(complained.fileno(), 2)
                play(path, noted)
                status = 0
            except BaseException:  # SystemExit and the like are failures here
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        said = [read_back(file) for file in (printed, complained, noted)]
    return Played(status=status, printed=said[0], complained=said[1], jobs=json.loads(said[2] or "[]"))


def read_back(file: IO[str]) -> str:
    """Return all that was written to *file*."""
    file.seek(0)
    return file.read()


if __name__ == "__main__":
    print(json.dumps({Path(name).name: in_child(Path(name)) for name in sys.argv[1:]}))
