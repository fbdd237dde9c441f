"""Programs without a loop that only hand out jobs: others share the store, and run them."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quarterjack import Quarterjack
from quarterjack.errors import NotRunning

PROGRAM = """
from quarterjack import Quarterjack

app = Quarterjack("sqlite:///jobs.db")

@app.task
async def double(n: int) -> int:
    return 2 * n

print(app.submit_sync(double, 21).state.value)
"""


def app_of(file: Path) -> Quarterjack:
    """Return an app over *file* that nobody starts."""
    app = Quarterjack(f"sqlite:///{file}")

    @app.task
    async def double(n: int) -> int:
        return 2 * n

    return app


def clients() -> list[threading.Thread]:
    """Return the threads in which apps run."""
    return [one for one in threading.enumerate() if one.name == "quarterjack-app"]


def test_a_job_is_submitted_without_starting_anything(tmp_path: Path) -> None:
    """A synchronous web framework has no loop, and another process does the work."""
    front, worker = app_of(tmp_path / "jobs.db"), app_of(tmp_path / "jobs.db")
    task = front.find_task("double")
    with ThreadPoolExecutor(8) as threads:
        jobs = list(threads.map(lambda n: front.submit_sync(task, n), range(20)))
    assert len(clients()) == 1, "all threads share one client"
    with worker.in_thread():
        assert [job.wait_sync(10) for job in jobs] == [2 * n for n in range(20)]
    with front.in_thread():
        assert (front.role, len(clients())) == ("both", 1), "the client makes way for the app"
        assert front.submit_sync(task, 21).wait_sync(10) == 42
    assert clients() == []


def test_a_store_that_nobody_shares_is_refused() -> None:
    """On the memory store the job would never run."""
    app = Quarterjack()

    @app.task
    async def body() -> None: ...

    with pytest.raises(NotRunning):
        app.submit_sync(body)


def test_the_program_ends_when_it_is_through(tmp_path: Path) -> None:
    """The client's thread holds up no exit, and its store is closed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "submitted", "")
