"""Whole programs with bodies in processes: killed, interrupted, and written without a guard."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from quarterjack.executors._leash import has_leash

LONG_S = 30.0
pytestmark = pytest.mark.slow
HEAD = """
import asyncio, os, sys, time
from quarterjack import ProcessExecutor, Quarterjack
app = Quarterjack(shutdown_grace=1)
pool = ProcessExecutor(3, start_method=os.environ.get("START_METHOD") or None)

@app.task(executor=pool)
def idle() -> int:
    return os.getpid()

@app.task(executor=pool)
def nap() -> None:
    time.sleep(0.2)

@app.task(executor=pool, cancel_grace=0.2)
def sleep() -> None:
    os.write(1, b"child %d\\n" % os.getpid())  # in one step: another child speaks at the same time
    time.sleep(60)

@app.task(executor=pool, cancel_grace=0.2)
def in_c() -> None:
    os.write(1, b"child %d\\n" % os.getpid())
    sum(range(10**15))
"""


@contextmanager
def program(folder: Path, body: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program in a process group of its own."""
    script = folder / "program.py"
    script.write_text(HEAD + textwrap.dedent(body), encoding="utf-8")
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def lines_of(process: subprocess.Popen[str], count: int) -> list[str]:
    """Return its next lines."""
    assert process.stdout is not None
    return [process.stdout.readline().strip() for _ in range(count)]


def is_gone_within(pid: int, seconds: float) -> bool:
    """Say whether a process that is no child of ours ends in time."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watch], [], [], seconds)[0])
    finally:
        os.close(watch)


def seconds_until_gone(pids: Collection[int], kill: Callable[[], object]) -> float:
    """Return how long after the call *kill* the last of them ends."""
    with ExitStack() as stack:
        left = {os.pidfd_open(pid) for pid in pids}
        for watch in left:
            stack.callback(os.close, watch)
        began = time.monotonic()
        kill()
        while left:
            gone, _, _ = select.select(left, [], [], LONG_S)
            assert gone, "they live on"
            left -= set(gone)
        return time.monotonic() - began


def is_ever_within_a_second(measured: Callable[[], float]) -> bool:
    """Say whether it takes a second at the most; a machine that is busy gets three tries."""
    return any(measured() <= 1.0 for _ in range(3))


SERVES = """
async def main():
    async with app:
        while len(pool.pids) < pool.slots:
            for job in [await app.submit(nap) for _ in range(pool.slots)]:
                await job
        print("children", *pool.pids, flush=True)
        {submits}
        await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.parametrize("portable", ["", "1"], ids=["leash", "portable"])
def test_children_end_within_a_second_of_a_parent_that_is_killed(portable: str, tmp_path: Path) -> None:
    """Idle, asleep or in a C call that holds the interpreter: nobody works on for an app that is gone."""
    body = SERVES.format(submits="await app.submit(sleep); await app.submit(in_c)")

    def measured() -> float:
        with program(tmp_path, body, QUARTERJACK_PORTABLE=portable) as process:
            idle, *busy = lines_of(process, 3)
            pids = {int(pid) for pid in idle.split()[1:]}
            assert len(pids) == 3
            assert {int(line.split()[1]) for line in busy} < pids
            return seconds_until_gone(pids, process.kill)

    assert is_ever_within_a_second(measured)


@pytest.mark.skipif(not has_leash(), reason="the leash is Linux's")
def test_the_leash_holds_without_the_nursery(tmp_path: Path) -> None:
    """Who kills the app may have killed its helpers before: the kernel sees to the children then."""

    def measured() -> float:
        with program(tmp_path, SERVES.format(submits="await app.submit(in_c)")) as process:
            pids = {int(pid) for pid in lines_of(process, 2)[0].split()[1:]}
            helpers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="ascii").split()

            def kill() -> None:
                for pid in (*map(int, helpers), process.pid):
                    os.kill(pid, signal.SIGKILL)

            return seconds_until_gone(pids, kill)

    assert is_ever_within_a_second(measured)


def test_a_fork_of_the_app_does_not_keep_its_children_alive(tmp_path: Path) -> None:
    """It has all descriptors of the app, and may outlive it by hours."""
    body = SERVES.format(submits="await app.submit(in_c)").replace(
        "await asyncio.sleep(60)", "os.fork() or time.sleep(20); await asyncio.sleep(60)"
    )
    with program(tmp_path, body) as process:
        pids = {int(pid) for pid in lines_of(process, 2)[0].split()[1:]}
        assert seconds_until_gone(pids, process.kill) < 15.0  # the fork lives for 20
        os.killpg(process.pid, signal.SIGKILL)


def test_ctrl_c_prints_no_line_of_a_child(tmp_path: Path) -> None:
    """The whole group gets it; the app alone answers, and its children follow."""
    body = """
    async def main():
        await app.serve(on_started=lambda: asyncio.get_running_loop().create_task(begin()))

    async def begin():
        await app.submit(sleep)

    asyncio.run(main())
    """
    with program(tmp_path, body) as process:
        (line,) = lines_of(process, 1)
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 0
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors
    assert out == ""
    assert is_gone_within(int(line.split()[1]), 15.0)


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_a_program_needs_no_guard(method: str, tmp_path: Path) -> None:
    """Children load it up to where it would start the app, and no line behind that runs twice."""
    body = """
    def say(text):
        os.write(1, text.encode() + b"\\n")  # in one step: children speak at the same time

    say("loading " + __name__)

    class Mine(Exception):
        pass

    @app.task(executor=pool)
    def fail():
        raise Mine("own")

    async def main():
        async with app:
            assert await (await app.submit(idle)) != os.getpid()
            try:
                await (await app.submit(fail))
            except Exception as error:
                say(repr(error.__cause__) + " " + str(type(error.__cause__) is Mine))

    asyncio.run(main())
    say("behind")
    """
    with program(tmp_path, body, START_METHOD=method) as process:
        out, errors = process.communicate(timeout=LONG_S)
    assert process.returncode == 0, errors
    lines = out.splitlines()
    assert lines.count("loading __main__") == 1
    assert "Mine('own') True" in lines
    assert lines.count("behind") == 1


def test_a_program_is_found_beside_multiprocessing(tmp_path: Path) -> None:
    """Half the libraries that are worth a preload import it, and it gives the program's name to another module."""
    body = """
    preloaded = ProcessExecutor(1, preload=["multiprocessing"])

    async def main():
        async with app:
            print(await (await app.submit(idle.options(executor=preloaded))) != os.getpid(), flush=True)

    asyncio.run(main())
    """
    with program(tmp_path, body) as process:
        out, errors = process.communicate(timeout=LONG_S)
    assert out.splitlines() == ["True"], errors


def test_an_app_that_was_typed_in_gets_a_sentence() -> None:
    """There is no file that another process could load."""
    typed = HEAD + "asyncio.run(app.serve())\n"
    done = subprocess.run(
        [sys.executable, "-"], input=typed, capture_output=True, text=True, timeout=LONG_S, check=False
    )
    assert "save the program in a file" in done.stderr


def test_a_program_that_cannot_be_loaded_elsewhere_fails_its_jobs_with_the_reason(tmp_path: Path) -> None:
    """Not run, not tried again, and not left waiting."""
    body = """
    if __name__ != "__main__":
        raise RuntimeError("not on this machine")

    async def main():
        async with app:
            try:
                await (await app.submit(idle))
            except Exception as error:
                print(error, flush=True)

    asyncio.run(main())
    """
    with program(tmp_path, body) as process:
        out, errors = process.communicate(timeout=LONG_S)
    assert "RuntimeError: not on this machine" in out
    assert errors.count("cannot load the app") == 1


def test_a_program_that_dies_while_it_is_loaded_ends_its_jobs_and_not_the_app(tmp_path: Path) -> None:
    """Three times; then what waits has died, and its retry policy decides."""
    body = """
    if __name__ != "__main__":
        os._exit(5)

    async def main():
        async with app:
            try:
                await (await app.submit(idle))
            except Exception as error:
                print(error, flush=True)

    asyncio.run(main())
    """
    with program(tmp_path, body) as process:
        out, errors = process.communicate(timeout=LONG_S)
    assert "exit code 5" in out
    assert "while it loaded the app" in out
    assert errors.count("ended before it was ready") == 3


def test_an_app_behind_the_start_of_another_says_where_to_write_it(tmp_path: Path) -> None:
    """Its file is read only as far as that; "has no attribute 'second'" left the reader to guess why."""
    body = """
    async def first():
        async with app:
            pass

    asyncio.run(first())
    second = Quarterjack()

    @second.task(executor="process")
    def late():
        return 1

    async def main():
        async with second:
            await (await second.submit(late))

    asyncio.run(main())
    """
    with program(tmp_path, body) as process:
        _, errors = process.communicate(timeout=LONG_S)
    assert "makes 'second' behind the line that starts its first app" in errors
