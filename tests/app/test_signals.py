"""Signals, as a shell and an init system send them: real processes, real time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import asyncio, contextlib, sys
from quarterjack import OnShutdown, OnStartup, Quarterjack

def say(word):
    print(word, flush=True)

@contextlib.asynccontextmanager
async def lifespan(app):
    say("enter")
    try:
        if "slow" in sys.argv:
            say("ready")
            await asyncio.sleep(60)
        yield
    finally:
        say("leave")

app = Quarterjack(lifespan=lifespan, shutdown_grace=30)

@app.task
async def work(seconds: float) -> None:
    try:
        await asyncio.sleep(seconds)
        say("worked")
    except asyncio.CancelledError:
        say("cancelled")
        raise

@app.task(OnStartup())
async def up() -> None:
    await app.submit(work, float(sys.argv[1]))
    asyncio.get_running_loop().call_later(0.1, say, "ready")

@app.task(OnShutdown())
async def down() -> None:
    say("down")

try:
    asyncio.run(app.serve())
finally:
    say("end")
"""


@contextmanager
def program(*args: str) -> Iterator[subprocess.Popen[str]]:
    """Run the program above until it says that it is ready; end it in any case."""
    source = textwrap.dedent(HEAD)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.Popen(
        [sys.executable, "-c", source, *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.strip() == "ready":
                break
        yield process
    finally:
        process.kill()
        process.communicate()


def rest(process: subprocess.Popen[str]) -> tuple[list[str], int]:
    """Return what the program still said, and its exit code."""
    out, err = process.communicate(timeout=20)
    assert "Traceback" not in err, err
    return out.split(), process.returncode


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_drains(number: signal.Signals) -> None:
    """A deploy loses no work that has begun, and the exit is clean."""
    with program("0.6") as process:
        process.send_signal(number)
        assert rest(process) == (["worked", "down", "leave", "end"], 0)


def test_second_signal_means_now() -> None:
    """Who presses Ctrl-C twice does not want to wait thirty seconds."""
    with program("60") as process:
        process.send_signal(signal.SIGINT)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.4)
        process.send_signal(signal.SIGINT)
        assert rest(process) == (["cancelled", "down", "leave", "end"], 0)


def test_signal_in_the_middle_of_the_start_undoes_it() -> None:
    """A start that hangs can be stopped, and leaves what it entered."""
    with program("0", "slow") as process:
        process.send_signal(signal.SIGINT)
        assert rest(process) == (["leave", "end"], 0)
