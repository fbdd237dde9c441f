"""What every test gets: a guard against leaks, and the suite's own options.

The guard compares the process before and after each test: asyncio tasks that
outlive their loop, threads, open files (sockets, pipes, timers) and child
processes. Who leaves one behind fails, told by name, so that a leak is found by
the test that makes it and not by the one that trips over it. A test that means
to leave something says so: `@pytest.mark.leaks("threads")`.

Servers are started by fixtures of `tests/servers`, for the tests that ask for one."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import signal
import sys
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Final

import pytest
from hypothesis import settings

from tests.servers import fixtures as servers
from tests.servers.fixtures import (
    own_postgres,
    own_redis,
    postgres_server,
    postgres_url,
    redis_server,
    redis_url,
    store_kind,
    store_url,
)

__all__ = [
    "own_postgres",
    "own_redis",
    "postgres_server",
    "postgres_url",
    "redis_server",
    "redis_url",
    "store_kind",
    "store_url",
]

PROC: Final = Path("/proc/self")  # Linux; elsewhere tasks and threads are watched alone
GRACE_S: Final = 1.0  # how long a thread or child that is about to end may take
GRACE_TURNS: Final = 3  # loop turns for a task whose end is already scheduled

# A deadline per example would be a timed test; how long a test may take is pytest-timeout's business.
settings.register_profile("quarterjack", parent=settings(), deadline=None)
settings.load_profile("quarterjack")


# ---------------------------------------------------------------- leaks


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the process holds at one moment."""

    threads: frozenset[threading.Thread]
    files: dict[int, str]
    children: dict[int, str]

    @classmethod
    def now(cls) -> Holdings:
        """Return what the process holds now."""
        return cls(frozenset(threading.enumerate()), open_files(), child_processes())

    def since(self, before: Holdings) -> dict[str, list[str]]:
        """Return what is held now and was not *before*, in words, by kind."""
        return {
            "threads": [f"thread {thread.name!r}" for thread in self.threads - before.threads],
            "files": [f"file {fd} ({it})" for fd, it in self.files.items() if before.files.get(fd) != it],
            "children": [f"child {pid} ({it})" for pid, it in self.children.items() if pid not in before.children],
        }


def open_files() -> dict[int, str]:
    """Return what each file descriptor of the process stands for."""
    found: dict[int, str] = {}
    with suppress(FileNotFoundError):
        for name in os.listdir(PROC / "fd"):  # noqa: PTH208  # runs twice per test; Path costs double
            with suppress(FileNotFoundError):  # the listing's own, closed by now
                found[int(name)] = os.readlink(f"{PROC}/fd/{name}")  # noqa: PTH115  # likewise
    # multiprocessing keeps one helper process per program, and a pipe to it, until the end.
    tracker = getattr(sys.modules.get("multiprocessing.resource_tracker"), "_resource_tracker", None)
    found.pop(getattr(tracker, "_fd", None) or -1, None)
    return found


def child_processes() -> dict[int, str]:
    """Return the command lines of the child processes, those no one has waited for included."""
    pids: list[str] = []
    with suppress(FileNotFoundError):
        for thread in os.listdir(PROC / "task"):  # noqa: PTH208  # likewise
            with suppress(OSError):  # the thread has ended
                pids += (PROC / "task" / thread / "children").read_text().split()
    words = {int(pid): command_line(pid) for pid in pids}
    return {pid: line for pid, line in words.items() if "multiprocessing.resource_tracker" not in line}


def command_line(pid: str) -> str:
    """Return what the process *pid* runs; one that has ended and waits to be asked is a zombie."""
    try:
        return Path("/proc", pid, "cmdline").read_text().replace("\0", " ").strip() or "zombie"
    except OSError:
        return "gone"


def left_behind(before: Holdings) -> dict[str, list[str]]:
    """Return what is held beyond *before*, once what is about to go has gone."""
    new = Holdings.now().since(before)
    if not any(new.values()):
        return new
    gc.collect()  # what only the collector closes warns as it closes, and warnings are errors
    deadline = monotonic() + GRACE_S
    for thread in frozenset(threading.enumerate()) - before.threads:
        thread.join(max(0.0, deadline - monotonic()))
    while any((new := Holdings.now().since(before)).values()) and monotonic() < deadline:
        threading.Event().wait(0.02)
    return new


class TaskWatch:
    """Notes the tasks that still stand when an asyncio.Runner closes and would cancel them.

    `asyncio.run`, `uvloop.run` and pytest-asyncio all end in that one method, after
    the fixtures of the test have been torn down.
    """

    def __init__(self) -> None:
        self._left: list[str] = []

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Look into every runner before it closes."""
        close = asyncio.Runner.close

        def look_and_close(runner: asyncio.Runner) -> None:
            loop = getattr(runner, "_loop", None)  # get_loop() would make one
            if loop is not None and not loop.is_closed():
                self._left += map(task_in_words, standing_tasks(loop))
            close(runner)

        patch.setattr(asyncio.Runner, "close", look_and_close)

    def take(self) -> list[str]:
        """Return what was noted since the last call."""
        taken, self._left = self._left, []
        return taken


def standing_tasks(loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[object]]:
    """Return the unfinished tasks of a loop that no longer runs, after a few turns of grace."""
    for _ in range(GRACE_TURNS):
        if not asyncio.all_tasks(loop):
            break
        loop.run_until_complete(asyncio.sleep(0))
    return asyncio.all_tasks(loop)


def task_in_words(task: asyncio.Task[object]) -> str:
    """Return a task's name, its coroutine and the line it stands on."""
    frames = task.get_stack(limit=1)
    place = f" at {frames[0].f_code.co_filename}:{frames[0].f_lineno}" if frames else ""
    return f"task {task.get_name()!r} ({getattr(task.get_coro(), '__qualname__', task.get_coro())}{place})"


@pytest.fixture(scope="session", autouse=True)
def _task_watch() -> Iterator[TaskWatch]:
    """Watch runners for the whole session."""
    with suppress(ImportError):
        import uvloop  # noqa: PLC0415  # optional

        # The first uvloop opens pipes for signals that stay with the process: no test is to blame for them.
        uvloop.new_event_loop().close()
    watch = TaskWatch()
    with pytest.MonkeyPatch.context() as patch:
        watch.install(patch)
        yield watch


@pytest.fixture(autouse=True)
def _leak_guard(request: pytest.FixtureRequest, _task_watch: TaskWatch) -> Iterator[None]:
    """Fail the test that leaves something behind; set up before its other fixtures, so torn down after them."""
    _task_watch.take()
    before = Holdings.now()
    yield
    leaks = {"tasks": _task_watch.take(), **left_behind(before)}
    marker = request.node.get_closest_marker("leaks")
    for kind in marker.args if marker else ():
        leaks.pop(kind)
    names = [name for kind in leaks.values() for name in kind]
    if names and not request.node.stash.get(FAILED, False):  # a failure explains what it left behind
        pytest.fail("leaked " + "; ".join(names), pytrace=False)


FAILED: Final = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note for the guard whether the test has failed by itself."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


# ---------------------------------------------------------------- servers and the network


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    group = parser.getgroup("quarterjack")
    group.addoption("--require-servers", action="store_true", help="fail, not skip, where a server is missing")
    group.addoption("--network", action="store_true", help="run the tests that need a package index (CI does)")


def pytest_configure() -> None:
    """Have all processes of the run hash alike, for names of tests may hold sets; give Ctrl-C its usual meaning."""
    os.environ.setdefault("PYTHONHASHSEED", str(secrets.randbelow(2**32)))
    # A shell starts its background jobs with SIGINT ignored, which every child inherits and quarterjack respects.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark who needs a server, and refuse names that differ from process to process: several share the work."""
    for item in items:
        for kind in servers.needed_kinds(item):
            item.add_marker(servers.MARKERS[kind])
    changing = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if changing:
        raise pytest.UsageError(f"give these tests ids that stay the same: {', '.join(changing)}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Hold back the tests that lack their server or the network."""
    servers.require(item)
    if item.get_closest_marker("network") and not (os.environ.get("CI") or item.config.getoption("--network")):
        pytest.skip("needs a package index: run with --network")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was not tested for want of a server."""
    for missing, tests in servers.missing(terminalreporter.stats.get("skipped", ())).items():
        terminalreporter.write_line(f"NOT TESTED: {tests} tests, no {missing}", yellow=True, bold=True)
