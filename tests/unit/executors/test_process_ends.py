"""Ends of children that come at a bad moment, or do not come: no job waits for ever, nothing is left behind."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import socket
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from quarterjack.executors import _crew as crews
from quarterjack.executors import _starting as starting
from quarterjack.executors import _worker_process as worker_process
from quarterjack.executors._files import ANSWER
from quarterjack.model import OutcomeKind
from quarterjack.testing._executor_bench import ENOUGH_S, until
from tests.unit.executors.pool import BODIES, Pool

pytestmark = pytest.mark.slow  # each starts processes: what one Python shows is enough


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "AGAIN_S", 0.01)


# -- the process that starts them ------------------------------------------------------------


async def test_a_child_whose_nursery_ends_before_it_is_asked_for_it_is_started_by_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bug: nobody told it, and two seconds later nobody knew how it had ended."""
    start, nurseries = starting.Nursery.start, []

    def start_late(nursery: starting.Nursery, *given: Any) -> None:
        nurseries.append(nursery._process)
        if len(nurseries) == 1:
            nursery._lose()
        start(nursery, *given)

    monkeypatch.setattr(starting.Nursery, "start", start_late)
    async with Pool(tmp_path, BODIES).started() as pool:
        assert (await pool.begin("double", 21).end()).result == 42
        assert pool.crew._nursery._process is nurseries[1]
    assert "the process that starts children has ended" in caplog.text
    assert "does not get on" not in caplog.text


async def test_a_body_whose_nursery_has_died_is_interrupted_where_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: once there was another nursery, which does not know the child, nobody rang: it was killed instead."""
    monkeypatch.setattr(worker_process, "NEWS_S", 0.1)
    async with Pool(tmp_path, BODIES, 2).started() as pool:
        handle, first = pool.bench.begin(pool.executor, "hold", pool.bench.file("a"), pool.bench.file("go"))
        await until(lambda: bool(pool.bench.notes("a")))
        old = pool.nursery_pid
        os.kill(old, signal.SIGKILL)
        await until(lambda: pool.crew._nursery._process is None)
        for pid in pool.executor.pids - {pool.pid_of(handle)}:
            os.kill(pid, signal.SIGKILL)
        assert (await pool.begin("double", 21).end()).result == 42
        assert pool.nursery_pid != old
        handle.cancel("not wanted")
        assert (await first.end()).kind is OutcomeKind.CANCELLED
        await until(lambda: "interrupted" in pool.bench.notes("a"))


async def test_a_stop_that_is_cancelled_ends_a_nursery_that_is_about_to_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bug: it began all the same, and stayed for as long as the app's process."""
    popen, is_beginning, go_on = starting._popen, threading.Event(), threading.Event()
    begun: list[subprocess.Popen[bytes]] = []

    def slowly(link: socket.socket) -> subprocess.Popen[bytes]:
        is_beginning.set()
        go_on.wait(ENOUGH_S)
        begun.append(popen(link))
        return begun[0]

    monkeypatch.setattr(starting, "_popen", slowly)
    pool = Pool(tmp_path, BODIES)
    executor = pool.executor
    await executor.start(pool.home)
    await executor.warm()
    await until(is_beginning.is_set)
    stop = asyncio.create_task(executor.stop(0))
    await asyncio.sleep(0)
    stop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stop
    go_on.set()
    await until(lambda: bool(begun) and begun[0].returncode is not None)


async def test_a_child_for_which_there_are_no_descriptors_is_tried_again_and_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bug: the socket that was made before was left to the collector."""

    def no_pipe() -> tuple[int, int]:
        raise OSError(errno.EMFILE, "Too many open files")

    async with Pool(tmp_path, BODIES).started() as pool:
        await pool.ready()
        (child,) = pool.executor.pids
        with monkeypatch.context() as patched:
            patched.setattr(os, "pipe", no_pipe)
            os.kill(child, signal.SIGKILL)
            await until(lambda: "Too many open files" in caplog.text)
        assert (await pool.begin("double", 21).end()).result == 42


async def test_an_app_in_a_folder_whose_name_is_no_text_is_loaded(tmp_path: Path) -> None:
    """The bug: its path could not be written down for a child, and nobody heard of that: each waited for a minute."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    async with Pool(folder, BODIES).started() as pool:
        assert (await pool.begin("double", 21).end()).result == 42
    async with Pool(folder, "raise RuntimeError(__file__)").started() as pool:
        outcome = await pool.begin("double", 21).end()
    assert outcome.kind is OutcomeKind.REJECTED
    assert r"caf\udce9" in (outcome.reason or "")


@pytest.mark.leaks("tasks")
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # asyncio's: the loop was closed under its transport
def test_an_app_that_ended_without_stopping_it_leaves_the_next_one_nothing(tmp_path: Path) -> None:
    """The bug: a test or a notebook has one loop after the other, and each left its processes, for good."""
    pool = Pool(tmp_path, BODIES)

    async def use(*, stops: bool) -> object:
        await pool.executor.start(pool.home)
        result = (await pool.begin("double", 4).end()).result
        if stops:
            await pool.executor.stop(1)
        return result

    assert asyncio.run(use(stops=False)) == 8
    assert asyncio.run(use(stops=True)) == 8


# -- children ----------------------------------------------------------------------------------


async def test_a_body_whose_child_dies_is_told_though_its_files_cannot_be_removed(tmp_path: Path) -> None:
    """The bug: what was raised there kept the news of its death from the job, which waited for ever."""
    async with Pool(tmp_path, BODIES).started() as pool:
        await pool.ready()
        (child,) = pool.crew._children
        in_the_way = Path(child._files + ANSWER)
        in_the_way.mkdir()
        track = pool.begin("hold", pool.bench.file("a"), pool.bench.file("go"))
        await until(lambda: bool(pool.bench.notes("a")))
        assert child.pid is not None
        os.kill(child.pid, signal.SIGKILL)
        assert (await track.end()).kind is OutcomeKind.DIED


async def test_a_child_that_does_not_end_after_its_last_body_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bug: a thread that a body had left there held it up, and each body of ``max_jobs=1`` left one more."""
    monkeypatch.setattr(worker_process, "LEAVE_S", 0.2)
    script = (
        "import asyncio, os, time\nfrom quarterjack import Quarterjack\napp = Quarterjack()\n"
        "@app.task\nasync def double(n: int) -> int:\n"
        "    asyncio.get_running_loop().run_in_executor(None, time.sleep, 300)\n"
        "    return os.getpid()\n"
    )
    async with Pool(tmp_path, script, max_jobs=1).started() as pool:
        pid = (await pool.begin("double", 1).end()).result
        watch = os.pidfd_open(pid)
        await asyncio.get_running_loop().run_in_executor(None, select.select, [watch], [], [], ENOUGH_S)
        os.close(watch)
        await until(lambda: pid not in pool.executor.pids)
    assert "has not ended after 0.2 s; it is killed" in caplog.text
