"""Signals, as a shell and an init system send them: real processes, real time."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from quarterjack.runtime import signals

ROOT = Path(__file__).resolve().parents[2]

HEAD = """
import asyncio, contextlib, sys, time
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
    if sys.argv[1] == "block":
        await app.submit(block, "deaf" in sys.argv)
        return
    await app.submit(work, float(sys.argv[1]))
    asyncio.get_running_loop().call_later(0.1, say, "ready")

@app.task(OnShutdown())
async def down() -> None:
    say("down")

@app.task
async def block(is_deaf: bool) -> None:
    say("ready")
    while True:
        try:
            time.sleep(0.05)
        except KeyboardInterrupt:
            say("interrupted")
            if not is_deaf:
                raise

if "uvloop" in sys.argv:
    import uvloop
    run = uvloop.run
else:
    run = asyncio.run
try:
    run(app.serve())
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


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_drains(number: signal.Signals, loop: str) -> None:
    """A deploy loses no work that has begun, and the exit is clean."""
    with program("0.6", loop) as process:
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


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_second_signal_interrupts_a_body_that_blocks_the_loop(loop: str) -> None:
    """The commonest beginner's mistake must not make Ctrl-C dead; and the line that blocks is named."""
    with program("block", loop) as process:
        process.send_signal(signal.SIGINT)
        time.sleep(0.8)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert out.split() == ["interrupted", "down", "leave", "end"]
    assert "SIGINT: the event loop is blocked at <string>:" in err
    assert err.count("SIGINT: draining") == 1
    assert "again" not in err
    assert "signals.py" not in err.partition("Traceback")[2].partition("Traceback")[0]
    assert process.returncode == 128 + signal.SIGINT or process.returncode == -signal.SIGINT


def test_third_signal_ends_a_process_that_cannot_be_interrupted() -> None:
    """Nobody should have to look for kill -9 because a body catches everything."""
    with program("block", "deaf") as process:
        for _ in range(3):
            process.send_signal(signal.SIGINT)
            time.sleep(0.8)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGINT
    assert "still blocked" in err


def test_signal_that_was_ignored_from_the_start_stays_ignored() -> None:
    """Ctrl-C on a terminal must not end what was started there with nohup or in the background."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # inherited by the program
    try:
        with program("0.6") as process:
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGINT)
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(1)
            process.send_signal(signal.SIGTERM)
            assert rest(process) == (["worked", "down", "leave", "end"], 0)
    finally:
        signal.signal(signal.SIGINT, before)


def test_signal_in_the_middle_of_the_start_undoes_it() -> None:
    """A start that hangs can be stopped, and leaves what it entered."""
    with program("0", "slow") as process:
        process.send_signal(signal.SIGINT)
        assert rest(process) == (["leave", "end"], 0)


BLOCKED = """
import asyncio, logging, os, sys, time
from quarterjack import Every, OnStartup, Quarterjack

logging.basicConfig(format="%(message)s", stream=sys.stdout, level="WARNING")
app = Quarterjack(shutdown_grace=0.5)

def say(word):
    os.write(1, (word + "\\n").encode())  # past the stream: the signal's line may come in the middle of this one

@app.task
async def sleeps() -> None:
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        say("cancelled after %.0f s" % (time.monotonic() - unblocked))

@app.task
async def blocks() -> None:
    global unblocked
    say("ready")
    time.sleep(1.2)
    say("unblocked")
    unblocked = time.monotonic()

@app.task
async def waits() -> None:
    say("BEGUN")

@app.task(Every(seconds=0.1))
async def ticks() -> None:
    if "unblocked" in globals():
        say("TICK")

@app.task(OnStartup())
async def up() -> None:
    for task in (sleeps, blocks, waits, waits):
        await app.submit(task)

asyncio.run(app.serve())
"""


def test_signal_counts_from_its_arrival_where_the_loop_is_blocked() -> None:
    """It is told at once, no body begins after it, and the grace is not counted from the block's end."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", textwrap.dedent(BLOCKED)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)
    try:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "ready":
            pass
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    lines = out.splitlines()
    assert lines[:2] == ["SIGINT: draining for up to 0.5 s; once more stops now", "unblocked"]
    assert "cancelled after 0 s" in lines
    assert "BEGUN" not in out
    assert "TICK" not in out
    assert "at shutdown 2 waiting jobs are cancelled" in out
    assert process.returncode == 0


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
@pytest.mark.parametrize(
    ("sent", "same_s", "counts_all", "taken"),
    [
        ([signal.SIGTERM, signal.SIGTERM], 60, False, [signal.SIGTERM]),
        ([signal.SIGTERM, signal.SIGTERM], 0, False, [signal.SIGTERM, signal.SIGTERM]),
        ([signal.SIGTERM, signal.SIGTERM], 60, True, [signal.SIGTERM, signal.SIGTERM]),
        ([signal.SIGTERM, signal.SIGINT, signal.SIGTERM], 60, False, [signal.SIGTERM, signal.SIGINT]),
        ([signal.SIGINT, signal.SIGINT], 60, False, [signal.SIGINT, signal.SIGINT]),
    ],
)
async def test_second_sigterm_of_one_moment_is_the_same_one(
    monkeypatch: pytest.MonkeyPatch,
    sent: list[signal.Signals],
    same_s: float,
    counts_all: bool,
    taken: list[signal.Signals],
) -> None:
    """The bug: `timeout 60 qj run …` sends its child two, and what ran was cancelled. Ctrl-C twice is meant."""
    monkeypatch.setattr(signals, "SAME_NS", round(same_s * 1e9))
    came: list[signal.Signals] = []
    with signals.Signals(came.append, counts_all=counts_all):
        for number in sent:
            signal.raise_signal(number)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert came == taken
