"""Processes that are of no use: they hang, die or cannot load the app; and what goes wrong around them."""

from __future__ import annotations

import asyncio
import errno
import os
import select
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import ExecutorFull, UsageError
from quarterjack.executors import CommandExecutor, Executor, ProcessExecutor, ThreadExecutor
from quarterjack.executors import _crew as crews
from quarterjack.executors import _starting as starting
from quarterjack.executors import _worker_process as worker_process
from quarterjack.executors._files import ANSWER
from quarterjack.executors._gate import DOORBELL
from quarterjack.model import OutcomeKind
from quarterjack.testing._executor_bench import ENOUGH_S, ExecutorBench, TestCall, Track, until
from tests.unit.executors.pool import BODIES, Pool

in_processes = pytest.mark.slow  # each starts some: what one Python shows is enough


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crews, "AGAIN_S", 0.01)


def lines(caplog: pytest.LogCaptureFixture, words: str) -> int:
    return sum(words in record.getMessage() for record in caplog.records)


# -- no room for them ---------------------------------------------------------------------


async def test_pool_that_finds_no_room_refuses_the_call_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is no fault of the job's: it goes back to the queue, and later there may be room."""

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    executor = ProcessExecutor(1)
    bench = ExecutorBench(lambda _: executor, "plain", tmp_path)
    await executor.start(bench.home())
    monkeypatch.setattr(crews, "Files", full)
    with pytest.raises(ExecutorFull, match="No space left"):
        bench.begin(executor, "double", 1)
    await executor.stop(0)


# -- children that do not get ready -------------------------------------------------------


@in_processes
@pytest.mark.usefixtures("no_pause")
@pytest.mark.parametrize("where", ["script", "preload"])
async def test_an_app_that_hangs_while_it_is_loaded_is_told(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A module that waits for a network would keep its jobs waiting in silence."""
    monkeypatch.syspath_prepend(str(tmp_path))
    hangs = "import time; time.sleep(300)\n"
    (tmp_path / "hangs_when_loaded.py").write_text(hangs, encoding="utf-8")
    preload = ["hangs_when_loaded"] if where == "preload" else []
    script = BODIES if where == "preload" else hangs
    async with Pool(tmp_path, script, preload=preload, load_timeout=0.3).started() as pool:
        outcome = await pool.begin("double", 1).end()
    assert outcome.kind is OutcomeKind.DIED
    assert "had not loaded the app after 0.3 s" in (outcome.reason or "")
    assert lines(caplog, "ended before it was ready") == 3


@in_processes
@pytest.mark.usefixtures("no_pause")
async def test_an_app_in_the_middle_of_a_deployment_fails_nothing_that_others_can_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The child that has it goes on and runs what waits."""
    script = BODIES + f"import os\nif os.path.exists({str(tmp_path / 'half')!r}): raise RuntimeError('half a file')\n"
    async with Pool(tmp_path, script, 2).started() as pool:
        first = pool.begin("hold", pool.bench.file("a"), pool.bench.file("go"))
        await until(lambda: bool(pool.bench.notes("a")))
        await pool.ready()
        (tmp_path / "half").touch()
        idle = pool.crew._idle[0].pid
        assert idle is not None
        os.kill(idle, signal.SIGKILL)
        second = pool.begin("double", 21)
        await until(lambda: lines(caplog, "cannot load the app") == 1)
        await until(lambda: pool.crew._trial > 3)  # more rounds than an app that nobody can load is given
        assert "finished" not in second.log
        pool.bench.let_go("go")
        assert (await first.end()).result == "let go"
        assert (await second.end()).result == 42
    assert lines(caplog, "cannot load the app") == 1


@in_processes
@pytest.mark.usefixtures("no_pause")
async def test_an_app_that_could_be_loaded_before_is_tried_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without a child that has it a call waits for a moment, as it is not said that the app is broken."""
    script = BODIES + f"import os\nif os.path.exists({str(tmp_path / 'half')!r}): raise RuntimeError('half a file')\n"
    async with Pool(tmp_path, script).started() as pool:
        await pool.ready()
        (tmp_path / "half").touch()
        for pid in pool.executor.pids:
            os.kill(pid, signal.SIGKILL)
        waiting = pool.begin("double", 21)
        await until(lambda: lines(caplog, "cannot load the app") == 1)
        (tmp_path / "half").unlink()
        assert (await waiting.end()).result == 42


@in_processes
@pytest.mark.usefixtures("no_pause")
async def test_a_call_that_no_child_is_there_for_any_more_goes_back(tmp_path: Path) -> None:
    """Another worker may have the app whole, and this one may have it in a while."""
    script = BODIES + f"import os\nif os.path.exists({str(tmp_path / 'half')!r}): raise RuntimeError('half a file')\n"
    async with Pool(tmp_path, script).started() as pool:
        await pool.ready()
        (tmp_path / "half").touch()
        for pid in pool.executor.pids:
            os.kill(pid, signal.SIGKILL)
        outcome = await pool.begin("double", 21).end()
    assert outcome.kind is OutcomeKind.ORPHANED
    assert "RuntimeError: half a file" in (outcome.reason or "")


@in_processes
async def test_a_call_whose_start_deadline_passes_before_a_child_is_ready_is_missed(tmp_path: Path) -> None:
    """Whoever sets one says that the body is of no use after it."""
    async with Pool(tmp_path, BODIES).started() as pool:
        track = Track()
        call = TestCall("double", (21,), {}, track)
        call.deadline_ns = SYSTEM_CLOCK.now_ns()
        pool.executor.submit(call, track)
        assert (await track.end()).kind is OutcomeKind.MISSED
        call.deadline_ns += 10**12
        again = Track()
        pool.executor.submit(call, again)
        assert (await again.end()).result == 42


@in_processes
async def test_a_child_that_dies_as_soon_as_it_is_ready_is_told_and_followed_after_a_pause(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread of the app that crashes would have it fork at full speed for ever, and say nothing."""
    monkeypatch.setattr(crews, "AGAIN_S", ENOUGH_S)
    monkeypatch.setattr(crews, "SHORT_NS", 10**12)
    script = BODIES + "import os, threading\nthreading.Timer(0.05, os._exit, (7,)).start()\n"
    async with Pool(tmp_path, script).started() as pool:
        await until(lambda: lines(caplog, "an idle process") == 1)
        assert lines(caplog, "exit code 7") == 1
        assert pool.executor.pids == frozenset()
        pause = pool.crew._pause
        assert pause is not None
    assert pause.cancelled()


@in_processes
async def test_children_that_fail_together_count_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two slots are not given up after fewer tries than one; and one pause is all that a stop has to end."""
    monkeypatch.setattr(crews, "AGAIN_S", ENOUGH_S)
    async with Pool(tmp_path, "import os; os._exit(5)", 2).started() as pool:
        track = pool.begin("double", 1)
        await until(lambda: pool.crew._pause is not None and not pool.crew._children)
        assert lines(caplog, "ended before it was ready: exit code 5") == 1
        assert "finished" not in track.log
        assert pool.crew._failures == 1


# -- the process that starts them ------------------------------------------------------------


@in_processes
async def test_a_stop_does_not_wait_for_a_nursery_that_stands_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may hang in a module that it preloads, or swap; its children end all the same."""
    for module, name in ((starting, "CLOSE_S"), (crews, "EXIT_S"), (worker_process, "NEWS_S")):
        monkeypatch.setattr(module, name, 0.1)
    async with Pool(tmp_path, BODIES).started() as pool:
        await pool.ready()
        (child,) = pool.executor.pids
        watches = [os.pidfd_open(pid) for pid in (child, pool.nursery_pid)]
        os.kill(pool.nursery_pid, signal.SIGSTOP)
        pool.begin("hold", pool.bench.file("a"), pool.bench.file("go"))
    for watch in watches:
        assert select.select([watch], [], [], ENOUGH_S)[0]  # readable once it has ended
        os.close(watch)


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@pytest.mark.usefixtures("no_pause")
async def test_children_for_which_there_is_no_thread_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that starts them is started in one; what waits for a child must not wait for ever."""
    pool = Pool(tmp_path, BODIES)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", no_thread)
        async with pool.started():
            outcome = await pool.begin("double", 1).end()
    assert outcome.kind is OutcomeKind.DIED
    assert "can't start new thread" in (outcome.reason or "")


@in_processes
@pytest.mark.parametrize("way", ["there", "back"])
async def test_a_large_message_for_which_there_is_no_thread_ends_its_attempt(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The body would be awaited for ever."""
    async with Pool(tmp_path, BODIES).started() as pool:
        await pool.ready()
        monkeypatch.setattr(worker_process, "LARGE", 0 if way == "there" else 10**9)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            outcome = await pool.begin("echo", "x" if way == "there" else "x" * 9_000_000).end()
        assert outcome.kind is OutcomeKind.RAISED
        assert "can't start new thread" in str(outcome.error)
        monkeypatch.undo()
        assert (await pool.begin("double", 1).end()).result == 2


# -- messages ----------------------------------------------------------------------------------


@in_processes
async def test_files_of_a_child_that_was_killed_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload is not to lie about until the app ends."""
    monkeypatch.setattr(worker_process, "LARGE", 0)
    async with Pool(tmp_path, BODIES).started() as pool:
        await pool.ready()
        (child,) = pool.executor.pids
        folder = pool.crew._files.folder
        os.kill(child, signal.SIGSTOP)
        track = pool.begin("echo", "text")
        await until(lambda: bool(list(folder.iterdir())))
        os.kill(child, signal.SIGKILL)
        assert (await track.end()).result == "text"  # by the next one
        await until(lambda: not list(folder.iterdir()))


@in_processes
async def test_a_large_answer_for_which_there_is_no_file_comes_all_the_same(tmp_path: Path) -> None:
    """The disk is full, or somebody has cleaned up: the body has run, and its process is not to die of it."""
    async with Pool(tmp_path, BODIES).started() as pool:
        await pool.ready()
        (child,) = pool.crew._children
        pids, text = pool.executor.pids, "x" * 9_000_000
        in_the_way = Path(child._files + ANSWER)
        in_the_way.mkdir()
        assert (await pool.begin("echo", text).end()).result == text
        assert pool.executor.pids == pids
        in_the_way.rmdir()


@in_processes
async def test_a_cancel_behind_a_large_request_rings_when_it_is_there(tmp_path: Path) -> None:
    """The bell overtakes what waits to be written: heard before its word it would mean nothing."""
    rung: list[int] = []
    async with Pool(tmp_path, BODIES).started() as pool:
        await pool.ready()
        (child,) = pool.crew._children
        assert child.pid is not None
        transport, signalled = child._transport, pool.crew._nursery.signal
        assert transport is not None

        def noted(pid: int, number: int) -> None:
            if number == DOORBELL:
                rung.append(transport.get_write_buffer_size())
            signalled(pid, number)

        pool.crew._nursery.signal = noted  # type: ignore[method-assign]
        os.kill(child.pid, signal.SIGSTOP)
        handle, track = pool.bench.begin(pool.executor, "echo", "x" * 4_000_000)
        handle.cancel("not wanted")
        assert rung[0] > 0
        os.kill(child.pid, signal.SIGCONT)
        assert (await track.end()).kind in {OutcomeKind.CANCELLED, OutcomeKind.DONE}
        await until(lambda: rung[-1] == 0)


# -- one app each ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor, CommandExecutor])
async def test_an_executor_serves_one_app_at_a_time(make: Callable[[], Executor]) -> None:
    """The second one would take over the first one's desk, and its end would end both."""
    executor = make()
    home = ExecutorBench.home()
    await executor.start(home)
    with pytest.raises(UsageError, match="in use by an app that has not stopped"):
        await executor.start(home)
    assert executor.free == executor.slots
    await executor.stop(1)
    await executor.start(home)
    await executor.stop(1)


@pytest.mark.parametrize("make", [ThreadExecutor, ProcessExecutor, CommandExecutor])
def test_an_executor_whose_app_never_stopped_serves_the_next_one(make: Callable[[], Executor]) -> None:
    """Its loop is closed: nobody will ever stop it."""
    executor = make()
    for _ in range(2):
        asyncio.run(executor.start(ExecutorBench.home()))
    assert executor.free == executor.slots
