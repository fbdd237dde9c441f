"""The command and an app on a file: a killed process loses nothing, and others can look meanwhile."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.kit import command, environment

APP = """
import asyncio
from quarterjack import Every, Once, Quarterjack

app = Quarterjack("sqlite:///jobs.db", lease=2)

@app.task(Every(hours=1))
async def hourly() -> None: ...

@app.task(Once())
async def work() -> None:
    print("begun", flush=True)
    await asyncio.sleep(0.1)
    {then}
    print("finished", flush=True)
"""


def start(folder: Path, then: str) -> subprocess.Popen[str]:
    (folder / "filed.py").write_text(APP.format(then=then))
    return subprocess.Popen(
        command("run", "filed"), cwd=folder, env=environment(), text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def read_until(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert any(word in line for line in process.stdout), process.communicate()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_job_of_a_killed_process_is_run_again_by_the_next_one(tmp_path: Path) -> None:
    """Nobody submits it again: its lease runs out, and whoever is there takes it."""
    with start(tmp_path, "await asyncio.sleep(100)") as process:
        read_until(process, "begun")
        process.kill()
    with start(tmp_path, "pass") as process:
        read_until(process, "finished")
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 0, errors


@pytest.mark.slow
def test_look_at_an_app_that_runs_elsewhere(tmp_path: Path) -> None:
    """`qj ls` and `qj why` read the file that another process works on."""
    with start(tmp_path, "await asyncio.sleep(100)") as process:
        read_until(process, "begun")
        listed, why = (
            subprocess.run(
                command(*words), cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False
            )
            for words in (("ls", "filed", "--json"), ("why", "filed", "hourly"))
        )
        process.kill()
    assert listed.returncode == 0, listed.stderr
    answer = json.loads(listed.stdout)
    assert answer["is_live"] is True
    assert [row["id"] for row in answer["schedules"]] == ["hourly", "work"]
    assert why.returncode == 0, why.stderr
