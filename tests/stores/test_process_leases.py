"""Leases of bodies in processes and of commands, with whole programs over shared stores: blocked, stopped, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from quarterjack import Job, JobState, Quarterjack
from quarterjack.executors._leash import has_leash
from tests.real_time import LONG_S, is_alive, until
from tests.takeover import is_taken_over_in_time

pytestmark = pytest.mark.slow
WORKER = """
import asyncio, os, sys, time
from quarterjack import Command, Quarterjack, current_job
app = Quarterjack(sys.argv[1], lease=2, shutdown_grace=0)

@app.task(executor="process", cancel_grace=0.2)
def work(file: str) -> None:
    with open(file, "a") as notes:
        notes.write(f"{current_job().attempt} {os.getpid()}\\n")
    try:
        time.sleep(120)
    finally:
        open(f"{file}.{current_job().attempt}", "w").close()

@app.task(executor="command", cancel_grace=0.2)
def run(file: str) -> Command:
    n = current_job().attempt
    words = f"trap 'touch {file}.{n}; exit' TERM; sleep 120 & echo {n} $$ $! >> {file}; wait"
    return Command(words, shell=True)

@app.task
async def block(seconds: float) -> None:
    time.sleep(seconds)

asyncio.run(app.serve())
"""


@contextmanager
def worker(script: Path, url: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker in a process of its own."""
    with subprocess.Popen([sys.executable, str(script), url], stdin=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


class Watched:
    """A job and what its attempts have noted: each its number, and the processes that it is made of."""

    def __init__(self, job: Job[None], file: Path) -> None:
        self.job = job
        self.file = file

    @property
    def notes(self) -> list[list[str]]:
        return (
            [line.split() for line in self.file.read_text(encoding="utf-8").splitlines()] if self.file.exists() else []
        )

    def has_begun(self, attempt: int) -> bool:
        return bool(self.notes) and int(self.notes[-1][0]) == attempt

    def is_alive(self, attempt: int) -> bool:
        return any(is_alive(pid) for pid in self.notes[attempt - 1][1:])

    def was_interrupted(self, attempt: int) -> bool:
        return Path(f"{self.file}.{attempt}").exists()


async def play(url: str, folder: Path) -> None:
    """A body in a process and a command, through a blocked loop, a stopped worker and a killed one."""
    script = folder / "worker.py"
    script.write_text(WORKER, encoding="utf-8")
    client = Quarterjack(url, role="client")

    @client.task(executor="thread")  # where they run is the worker's business
    def work(file: str) -> None: ...

    @client.task(executor="thread")
    def run(file: str) -> None: ...

    @client.task
    async def block(seconds: float) -> None: ...

    async with client:
        with worker(script, url) as first:
            both = [
                Watched(await client.submit(task, str(folder / task.name)), folder / task.name) for task in (work, run)
            ]
            await until(lambda: all(one.notes for one in both))
            await (await client.submit(block, 5.0))  # more than two leases
            for one in both:
                assert len(one.notes) == 1, "its lease was renewed while the loop stood still"
            with worker(script, url) as second, ExitStack() as stack:
                first.send_signal(signal.SIGSTOP)
                await until(lambda: all(len(one.notes) == 2 for one in both))
                assert all(one.is_alive(1) for one in both)
                first.send_signal(signal.SIGCONT)
                await until(lambda: all(one.was_interrupted(1) for one in both))  # their leases were lost
                await until(lambda: not both[1].is_alive(1))  # nor lives what the command had started
                jobs = [one.job for one in both]
                assert await is_taken_over_in_time(
                    client, jobs, second, first, lambda: stack.enter_context(worker(script, url))
                )
                if not has_leash():  # then a command goes on, which the guide says: so it is ended here
                    for pid in both[1].notes[1][1:]:
                        os.kill(int(pid), signal.SIGKILL)
                await until(lambda: not any(one.is_alive(2) for one in both))
                for one in both:
                    last = (await one.job.refresh()).attempt
                    await until(partial(one.has_begun, last))
                    assert await one.job.cancel(wait=LONG_S)
                    assert one.job.state is JobState.CANCELLED
                    await until(partial(one.was_interrupted, last))


async def test_leases_of_processes_on_sqlite(tmp_path: Path) -> None:
    """A blocked loop loses nothing; a lost lease ends the body; a dead worker's job runs elsewhere."""
    await play(f"sqlite:///{tmp_path}/jobs.db", tmp_path)


async def test_leases_of_processes_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    """The same over a server."""
    await play(postgres_url, tmp_path)
