"""The threads under the SQLite store: who shares a transaction, who is told what, and what happens to the file."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import StoreError, StoreUnavailable
from quarterjack.stores import _sqlite_thread
from quarterjack.stores._sqlite_engine import Reader, Session, Settings, Told, Writer
from quarterjack.stores.base import Hint


class Host:
    """Counts transactions and keeps what was told."""

    def __init__(self) -> None:
        self.transactions = 0
        self.told: list[Told] = []
        self.foreign = asyncio.Event()
        self.loop = asyncio.get_running_loop()

    def begun(self, session: Session) -> None:
        self.transactions += 1

    def ending(self, session: Session) -> None:
        pass

    def tell(self, hints: Sequence[Told]) -> None:
        self.told += hints

    def noticed(self, connection: sqlite3.Connection) -> Sequence[Told]:
        self.loop.call_soon_threadsafe(self.foreign.set)
        return ()


class Desk:
    """Writers and readers on one file, closed at the end."""

    def __init__(self, path: Path, stack: AsyncExitStack) -> None:
        self.path = path
        self._stack = stack

    def settings(self, **options: Any) -> Settings:
        return Settings(self.path, f"sqlite:///{self.path}", **options)

    def writer(self, **options: Any) -> tuple[Writer, Host]:
        host = Host()
        writer = Writer(self.settings(**options), SYSTEM_CLOCK, host)
        self._stack.push_async_callback(writer.stop)
        return writer, host

    def reader(self) -> Reader:
        reader = Reader(self.settings(), SYSTEM_CLOCK)
        self._stack.push_async_callback(reader.stop)
        return reader


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        yield Desk(tmp_path / "jobs.db", stack)


def make(session: Session) -> None:
    session.run("CREATE TABLE IF NOT EXISTS t (a)")


def insert(value: Any) -> Any:
    def work(session: Session) -> Any:
        session.run("INSERT INTO t VALUES (?)", (value,))
        return value

    return work


def values(session: Session) -> list[Any]:
    return [row[0] for row in session.run("SELECT a FROM t ORDER BY a")]


async def keep_busy(writer: Writer) -> tuple[threading.Event, asyncio.Task[Any]]:
    """Let the writer's thread wait within a transaction until the event is set."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(_: Session) -> None:
        begun.set()
        assert go_on.wait(30)

    task = asyncio.create_task(writer.call(wait))
    while not begun.is_set():
        await asyncio.sleep(0.001)
    return go_on, task


async def test_callers_that_wait_share_one_transaction(desk: Desk) -> None:
    """A disk takes some hundred commits a second: a hundred callers must not wait for a hundred of them."""
    writer, host = desk.writer()
    await writer.call(make)
    go_on, first = await keep_busy(writer)
    before = host.transactions
    rest = [asyncio.create_task(writer.call(insert(n))) for n in range(100)]
    await asyncio.sleep(0)
    go_on.set()
    assert await asyncio.gather(first, *rest) == [None, *range(100)]
    assert host.transactions == before + 1


async def test_caller_that_fails_takes_back_its_own_writes_alone(desk: Desk) -> None:
    """Those who share its transaction must not pay for it, nor hear hints of what was never written."""
    writer, host = desk.writer()
    await writer.call(make)

    def fail(session: Session) -> None:
        session.tell(Hint.SCHEDULES, ["never"])
        insert("half-done")(session)
        raise ZeroDivisionError

    def good(session: Session) -> None:
        session.tell(Hint.CANCELS, ["told"])
        insert(2)(session)

    go_on, first = await keep_busy(writer)
    calls = [asyncio.create_task(writer.call(work)) for work in (insert(1), fail, good)]
    await asyncio.sleep(0)
    go_on.set()
    answers = await asyncio.gather(first, *calls, return_exceptions=True)
    assert [type(answer) for answer in answers] == [type(None), int, ZeroDivisionError, type(None)]
    assert await desk.reader().call(values) == [1, 2]
    assert host.told == [(Hint.CANCELS, ["told"])]


async def test_commit_waits_for_the_disk_unless_all_who_share_it_are_relaxed(desk: Desk) -> None:
    """Each wait takes a job some tenths of a millisecond; what only the power can undo need not have it."""
    normal, full = 1, 2

    def mode(session: Session) -> int:
        return int(session.one("PRAGMA synchronous")[0])

    writer, _ = desk.writer()
    assert await writer.call(mode) == full
    assert await writer.call(mode, is_relaxed=True) == normal
    go_on, first = await keep_busy(writer)
    calls = [asyncio.create_task(writer.call(mode, is_relaxed=relaxed)) for relaxed in (True, False, True)]
    await asyncio.sleep(0)
    go_on.set()
    await first
    assert await asyncio.gather(*calls) == [full] * 3
    careless, _ = desk.writer(synchronous="OFF")
    assert await careless.call(mode, is_relaxed=True) == await careless.call(mode) == 0


async def test_failed_commit_is_told_to_all_who_shared_it(desk: Desk) -> None:
    """An answer means that it is on the disk; and with room again everything goes on."""
    writer, host = desk.writer()
    await writer.call(make)
    (pages,) = await writer.call(lambda session: session.one("PRAGMA page_count"))
    await writer.call(lambda session: session.one(f"PRAGMA max_page_count = {pages + 2}"))
    go_on, first = await keep_busy(writer)

    def hinted(session: Session) -> None:
        session.tell(Hint.JOBS)
        insert(1)(session)

    calls = [asyncio.create_task(writer.call(work)) for work in (hinted, insert("x" * 100_000))]
    await asyncio.sleep(0)
    go_on.set()
    answers = await asyncio.gather(first, *calls, return_exceptions=True)
    assert isinstance(answers[2], StoreUnavailable)
    assert "make room" in str(answers[2])
    stored = await desk.reader().call(values)
    assert stored == ([1] if answers[1] is None else []), "what was answered is what is there"
    assert bool(host.told) is (answers[1] is None)
    await writer.call(lambda session: session.one("PRAGMA max_page_count = 1000000"))
    await writer.call(insert("y" * 100_000))


async def test_cancelled_caller_is_passed_over_if_its_turn_had_not_come(desk: Desk) -> None:
    """Who gave up does not want it any more; who waits beside it does."""
    writer, _ = desk.writer()
    await writer.call(make)
    go_on, first = await keep_busy(writer)
    cancelled, kept = (asyncio.create_task(writer.call(insert(n))) for n in (1, 2))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(first, kept)
    assert await writer.call(values) == [2]


async def test_locked_file_is_waited_for_until_the_deadline(desk: Desk) -> None:
    """A shell with an open transaction holds everybody up; they are told, and go on when it is gone."""
    patient, _ = desk.writer()
    hasty, _ = desk.writer(deadline_s=0.05)
    await patient.call(make)
    await hasty.call(make)
    shell = sqlite3.connect(desk.path, isolation_level=None)
    shell.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(patient.call(insert(1)))
    with pytest.raises(StoreUnavailable, match=r"locked.*another program holds its write lock"):
        await hasty.call(insert(2))
    assert not waiting.done()
    shell.execute("ROLLBACK")
    assert await waiting == 1
    assert await hasty.call(insert(3)) == 3
    shell.close()


async def test_writers_of_one_file_take_turns_and_nobody_hears_that_it_is_locked(desk: Desk) -> None:
    """Several processes on one file are no error; here two writers that know nothing of each other."""
    writers = [desk.writer()[0] for _ in range(3)]
    await writers[0].call(make)

    async def work(writer: Writer, who: int) -> None:
        for n in range(60):
            await writer.call(insert(who * 1000 + n))

    await asyncio.gather(*(work(writer, who) for who, writer in enumerate(writers) for _ in range(2)))
    assert len(await desk.reader().call(values)) == 360


async def test_commit_of_another_process_is_noticed(desk: Desk) -> None:
    """Its jobs are found at once, not at the next look for work; our own commits are no news."""
    one, told = desk.writer(poll_s=0.01)
    other, _ = desk.writer(poll_s=0.01)
    await one.call(make)
    await one.call(insert(1))
    await asyncio.sleep(0.05)  # several looks at least
    told.foreign.clear()
    await one.call(insert(2))
    await asyncio.sleep(0.05)
    assert not told.foreign.is_set()
    await other.call(insert(3))
    await asyncio.wait_for(told.foreign.wait(), 10)


async def test_commit_before_the_first_look_is_news_too(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bug: later looks were compared with the first one, so what came before it was never told."""
    look, may_look = Writer.idle, threading.Event()

    def idle(writer: Writer, connection: sqlite3.Connection) -> float:
        return look(writer, connection) if may_look.is_set() else 0.01

    monkeypatch.setattr(Writer, "idle", idle)
    one, host = desk.writer(poll_s=0.01)
    other, _ = desk.writer()
    await one.call(make)
    await other.call(insert(1))
    may_look.set()
    await asyncio.wait_for(host.foreign.wait(), 10)


async def test_reader_sees_whole_transactions_and_holds_nobody_up(desk: Desk) -> None:
    """A view of a hundred thousand rows must not stop the work."""
    writer, _ = desk.writer()
    await writer.call(make)
    await writer.call(insert(1))
    go_on = threading.Event()

    def look(session: Session) -> list[Any]:
        before = values(session)
        assert go_on.wait(30)
        return before + values(session)

    view = asyncio.create_task(desk.reader().call(look))
    await asyncio.sleep(0.02)
    assert await writer.call(insert(2)) == 2
    go_on.set()
    assert await view == [1, 1]


async def test_view_that_takes_too_long_is_ended(desk: Desk) -> None:
    """Nobody waits for it by then, and others want to look."""
    writer, _ = desk.writer()
    await writer.call(make)
    reader = Reader(desk.settings(deadline_s=0.05), SYSTEM_CLOCK)
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    with pytest.raises(StoreUnavailable, match="longer than its deadline"):
        await reader.call(lambda session: session.one(endless))
    assert await reader.call(values) == []
    await reader.stop()


async def test_caller_does_not_wait_for_ever_for_a_disk_that_hangs(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that waits for the kernel cannot be woken; who waits for the thread can."""
    writer, _ = desk.writer(deadline_s=0.1)
    await writer.call(make)
    with monkeypatch.context() as patch:
        patch.setattr(_sqlite_thread, "_GRACE_S", 0.0)
        go_on, first = await keep_busy(writer)
        with pytest.raises(StoreUnavailable, match=r"did not answer within 0\.1 s.*may still be done"):
            await writer.call(insert(1))
        with pytest.raises(StoreUnavailable):
            await first
    go_on.set()
    assert await writer.call(insert(2)) == 2


async def test_trouble_with_a_look_for_news_does_not_end_the_writer(desk: Desk) -> None:
    """It is a look: the next one may work, and calls hear of what is wrong for themselves."""
    writer, host = desk.writer(poll_s=0.01)
    other, _ = desk.writer()
    await writer.call(make)
    failed = asyncio.Event()

    def fails(connection: sqlite3.Connection) -> Sequence[Told]:
        host.loop.call_soon_threadsafe(failed.set)
        raise sqlite3.OperationalError("database is locked")

    host.noticed, noticed = fails, host.noticed  # type: ignore[method-assign]  # for a moment
    await asyncio.sleep(0.03)
    await other.call(insert(1))
    await asyncio.wait_for(failed.wait(), 10)
    host.noticed = noticed  # type: ignore[method-assign]  # as it was
    await asyncio.wait_for(host.foreign.wait(), 10)  # what it failed to tell is told at the next look
    assert await writer.call(insert(2)) == 2


# -- what happens to the file ----------------------------------------------------------


async def test_file_that_is_removed_while_it_is_in_use_stops_the_store(desk: Desk) -> None:
    """Jobs written to a file without a name would be gone at the end, with nobody the wiser."""
    writer, _ = desk.writer(poll_s=0.01)
    await writer.call(make)
    desk.path.unlink()

    async def go_on() -> None:
        for n in range(10_000):
            await writer.call(insert(n))
            await asyncio.sleep(0.001)

    with pytest.raises(StoreError, match="removed or replaced while it was in use"):
        await go_on()


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("no folder", r"the folder .*missing does not exist; make it with: mkdir -p"),
        ("folder", r"is a folder; name a file in it, such as .*jobs\.db"),
        ("below a file", r"is not a folder; name another file"),
        ("text", r"it is not an SQLite database: name another file"),
        ("damaged", r"it is damaged: .*restore a backup"),
    ],
)
async def test_file_that_cannot_be_used_says_what_to_do(tmp_path: Path, case: str, words: str) -> None:
    """These are met on the first day; each answer is the next step."""
    path = tmp_path / "jobs.db"
    if case == "no folder":
        path = tmp_path / "missing" / "jobs.db"
    elif case == "folder":
        path = tmp_path
    elif case == "below a file":
        path.write_text("x")
        path = path / "jobs.db"
    elif case == "text":
        path.write_text("Dear diary,\n" * 1000)
    else:
        _damage(path)
    writer = Writer(Settings(path, f"sqlite:///{path}"), SYSTEM_CLOCK, Host())
    with pytest.raises(StoreError, match=words):
        await writer.call(values)
    await writer.stop()


@pytest.mark.parametrize(
    ("raised", "words"), [(PermissionError, "this user may not look into"), (RecursionError, "odd")]
)
async def test_whatever_goes_wrong_at_the_opening_is_told_to_who_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: type[Exception], words: str
) -> None:
    """The bug: a folder that its user may not enter made the app's start wait for ever (root may enter all)."""

    def odd(path: Path) -> bool:
        raise raised("odd")

    monkeypatch.setattr(Path, "is_dir", odd)
    writer = Writer(Settings(tmp_path, f"sqlite:///{tmp_path}"), SYSTEM_CLOCK, Host())  # a folder cannot be opened
    async with asyncio.timeout(20):
        with pytest.raises((StoreError, RecursionError), match=words):
            await writer.call(values)
        await writer.stop()


def _damage(path: Path) -> None:
    """Write a database whose table is nonsense."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t (a)")
        connection.executemany("INSERT INTO t VALUES (?)", [("x" * 500,)] * 100)
    connection.close()
    data = bytearray(path.read_bytes())
    data[4096 : 4096 * 2] = b"\x77" * 4096
    path.write_bytes(data)


async def test_file_that_may_not_be_written_says_so(desk: Desk) -> None:
    """Whose file it is, is the first thing to look at."""
    writer, _ = desk.writer()
    await writer.call(make)
    await writer.call(lambda session: session.run("PRAGMA query_only = ON") and None)
    with pytest.raises(StoreError, match="give this user the right to write the file and its folder"):
        await writer.call(insert(1))


FORK = """
import asyncio, os, sys
from pathlib import Path
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import Forked
from tests.stores.test_sqlite_engine import Host, Settings, Writer, insert, make, values

async def main(path):
    writer = Writer(Settings(Path(path), path), SYSTEM_CLOCK, Host())
    await writer.call(make)
    pid = os.fork()
    if pid == 0:
        try:
            await writer.call(insert("child"))
        except Forked as error:
            assert "forked child" in str(error)
            await writer.stop()
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    await writer.call(insert("parent"))
    assert await writer.call(values) == ["parent"]
    await writer.stop()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(not hasattr(sys, "getswitchinterval") or sys.platform == "win32", reason="there is no fork")
def test_forked_child_is_refused_and_its_parent_goes_on(tmp_path: Path) -> None:
    """A connection that two processes share damages the file; closing it in the child would drop the parent's locks."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK, str(tmp_path / "jobs.db")],
        capture_output=True, text=True, timeout=50, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


FULL = """
import asyncio, resource, signal, sys
from pathlib import Path
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import StoreUnavailable
from tests.stores.test_sqlite_engine import Host, Settings, Writer, insert, make, values

async def main(path):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    writer = Writer(Settings(Path(path), path), SYSTEM_CLOCK, Host())
    await writer.call(make)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, resource.RLIM_INFINITY))
    stored = []
    try:
        for n in range(1000):
            stored.append(await writer.call(insert(f"{n:05}" + "x" * 10_000)))
    except StoreUnavailable:
        pass
    assert 1 < len(stored) < 100, len(stored)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    stored.append(await writer.call(insert("99999")))
    assert await writer.call(values) == stored
    await writer.stop()

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits on a file's size")
def test_system_that_refuses_a_write_loses_nothing_that_was_answered(tmp_path: Path) -> None:
    """A full disk is an outage, not an end: what was stored stays, and work goes on when there is room."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / "jobs.db")],
        capture_output=True, text=True, timeout=50, check=False, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
