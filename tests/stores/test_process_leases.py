"""Leases of bodies in processes, with whole programs over shared stores: blocked, stopped and killed."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quarterjack import JobState, Quarterjack
from tests.real_time import LONG_S, is_alive, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(90)]
WORKER = """
import asyncio, os, sys, time
from quarterjack import Quarterjack, current_job
app = Quarterjack(sys.argv[1], lease=2, shutdown_grace=0)

@app.task(executor="process", cancel_grace=0.2)
def work(file: str) -> None:
    with open(file, "a") as notes:
        notes.write(f"{os.getpid()} {current_job().attempt}\\n")
    try:
        time.sleep(120)
    finally:
        open(f"{file}.{current_job().attempt}", "w").close()

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


async def play(url: str, folder: Path) -> None:
    """One job through a blocked loop, a stopped worker and a killed one."""
    script, file = folder / "worker.py", folder / "notes"
    script.write_text(WORKER, encoding="utf-8")
    client = Quarterjack(url, role="client")

    @client.task(executor="thread")  # where it runs is the worker's business
    def work(file: str) -> None: ...

    @client.task
    async def block(seconds: float) -> None: ...

    def notes() -> list[list[str]]:
        return [line.split() for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []

    async with client:
        with worker(script, url) as first:
            job = await client.submit(work, str(file))
            await until(notes)
            await (await client.submit(block, 5.0))  # more than two leases
            assert [attempt for _, attempt in notes()] == ["1"], "its lease was renewed while the loop stood still"
            with worker(script, url) as second:
                first.send_signal(signal.SIGSTOP)
                await until(lambda: len(notes()) == 2)
                assert is_alive(notes()[0][0])
                first.send_signal(signal.SIGCONT)
                await until(Path(f"{file}.1").exists)  # its lease was lost, so its body is interrupted
                second.send_signal(signal.SIGKILL)
                started = asyncio.get_running_loop().time()
                await until(lambda: not is_alive(notes()[1][0]))
                await until(lambda: len(notes()) == 3)
                assert asyncio.get_running_loop().time() - started < 2 + 1 + 10  # the last for a busy machine
                assert await job.cancel(wait=LONG_S)
                assert job.state is JobState.CANCELLED
                await until(Path(f"{file}.3").exists)


async def test_leases_of_processes_on_sqlite(tmp_path: Path) -> None:
    """A blocked loop loses nothing; a lost lease ends the body; a dead worker's job runs elsewhere."""
    await play(f"sqlite:///{tmp_path}/jobs.db", tmp_path)


async def test_leases_of_processes_on_postgresql(postgres_url: str, tmp_path: Path) -> None:
    """The same over a server."""
    await play(postgres_url, tmp_path)
