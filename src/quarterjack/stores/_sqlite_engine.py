"""Two threads on one SQLite file: one writes for everybody, one reads for views.

**Group commit.** What many callers ask for while the disk is busy with the last
transaction goes into the next one together: one ``BEGIN IMMEDIATE``, one commit,
one wait for the disk. Each caller has a savepoint of its own: one that raises
takes back its own writes and nobody else's. Answers go out after the commit, so
whoever has one has it for good; if the commit fails, all of them are told. Where
all callers are relaxed the commit does not wait for the disk: what a power
failure then undoes, it undoes from the newest on.

**Several processes.** SQLite lets one write at a time. Who finds the file locked
asks again within a few milliseconds until the callers' deadlines are over;
`Writer.idle` notices by ``PRAGMA data_version`` that another process has
committed. **Schema**, clock and rows are others' business."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.errors import StoreError

from ._sqlite_errors import is_busy, not_opened
from ._sqlite_thread import Answer, Call, SqlThread
from .base import Hint

__all__ = ["Host", "Reader", "Session", "Settings", "Told", "Writer"]

_FIRST_PAUSE_S: Final = 0.000_5
_LONGEST_PAUSE_S: Final = 0.01
"""How long to wait before asking for the lock again. SQLite's own handler goes up to 100 ms, and in its order
newcomers overtake who has waited longest."""
_READ_WAIT_MS: Final = 5_000
"""Readers wait for nobody in WAL, but while another process recovers the file."""


class Settings(NamedTuple):
    """How a file is opened."""

    path: Path
    url: str
    synchronous: str = "FULL"
    deadline_s: float = 30.0
    poll_s: float = 0.05
    """How often to look whether other processes have written."""


Parameters = Sequence[Any] | Mapping[str, Any]
Told = tuple[Hint, Sequence[str]]
"""A hint, and the ids it is about."""


class Session:
    """A transaction: the connection, its moment, and whom to tell when it is committed."""

    __slots__ = ("connection", "hints", "now_ns", "others")

    def __init__(self, connection: sqlite3.Connection, now_ns: int) -> None:
        self.connection = connection
        self.now_ns = now_ns
        self.hints: list[Told] = []
        """For the listeners in this process, and those in others."""
        self.others: list[Told] = []
        """For those in other processes alone."""

    def run(self, sql: str, parameters: Parameters = ()) -> sqlite3.Cursor:
        """Execute one statement."""
        return self.connection.execute(sql, parameters)

    def one(self, sql: str, parameters: Parameters = ()) -> Any:
        """Return the first row of a query, or None."""
        return self.connection.execute(sql, parameters).fetchone()

    def tell(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        """Send a hint once this is committed."""
        self.hints.append((hint, ids))

    def tell_others(self, hint: Hint, ids: Sequence[str]) -> None:
        """Send a hint to other processes once this is committed: this one knows."""
        self.others.append((hint, ids))


class Host(Protocol):
    """What the writer asks of the store it works for."""

    def begun(self, session: Session) -> None:
        """Put right what must be before anything else in a transaction."""

    def ending(self, session: Session) -> None:
        """Write, into the transaction, what other processes must hear of it."""

    def tell(self, hints: Sequence[Told]) -> None:
        """Send the hints of a commit; called on the loop that made the writer."""

    def noticed(self, connection: sqlite3.Connection) -> Sequence[Told]:
        """Return what to tell when another process has committed; called in the writer's thread."""
        ...


class Writer(SqlThread):
    """The only one in this process that writes.

    Each transaction has one moment, read from *clock* once it has the lock.
    """

    def __init__(self, settings: Settings, clock: Clock, host: Host) -> None:
        self._settings = settings
        self._host = host
        self._home = asyncio.get_running_loop()
        self._synchronous = ""
        self._version = 0
        self._looked_s = 0.0
        self._file: tuple[int, int] | None = None
        super().__init__(f"quarterjack-sqlite-writer {settings.path.name}", settings.url, clock, settings.deadline_s)

    def connect(self) -> sqlite3.Connection:
        """Open the file for writing, and turn WAL on."""
        settings = self._settings
        connection = _connect(settings)
        try:
            mode = _patiently(lambda: connection.execute("PRAGMA journal_mode = WAL").fetchone()[0], self._deadline_s)
            if mode != "wal":
                raise StoreError(
                    f"{settings.url} cannot have a write-ahead log (its journal mode stays {mode!r}): keep the file "
                    "on a local disk; network file systems do not do"
                )
            self._wait_for_disk(connection, settings.synchronous)
            connection.execute("PRAGMA journal_size_limit = 67108864")  # the log is cut back after it has grown
            self._version = _data_version(connection)  # now: what others write from here on is news
        except sqlite3.Error as error:
            connection.close()
            raise not_opened(error, settings.path, settings.url) from error
        except StoreError:
            connection.close()
            raise
        self._file = _identity(settings.path)
        return connection

    # -- transactions ----------------------------------------------------------------

    def serve(self, connection: sqlite3.Connection, calls: list[Call[Any]]) -> None:
        """Do *calls* in one transaction."""
        try:
            is_relaxed = self._settings.synchronous == "FULL" and all(call.is_relaxed for call in calls)
            self._wait_for_disk(connection, "NORMAL" if is_relaxed else self._settings.synchronous)
            calls = self._begin(connection, calls)
            if calls:
                self._commit(connection, calls)
        except (sqlite3.Error, StoreError) as error:
            _roll_back(connection)
            self.answer(Answer(call, None, error) for call in calls)

    def _wait_for_disk(self, connection: sqlite3.Connection, synchronous: str) -> None:
        """Say what the next commit waits for; within a transaction it cannot be changed."""
        if synchronous != self._synchronous:
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous

    def _begin(self, connection: sqlite3.Connection, calls: list[Call[Any]]) -> list[Call[Any]]:
        """Take the write lock; return the calls that still want it."""
        pause = _FIRST_PAUSE_S
        while calls := [call for call in calls if not call.future.cancelled()]:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise
                calls = self._give_up(calls, error)
                time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # jitter keeps no secret
                pause = min(pause * 2, _LONGEST_PAUSE_S)
            else:
                return calls
        return []

    def _give_up(self, calls: list[Call[Any]], error: sqlite3.Error) -> list[Call[Any]]:
        """Answer the calls whose time is up; return the others."""
        now = SYSTEM_CLOCK.monotonic()
        late = [call for call in calls if call.due_s <= now]
        if late:
            self.answer(Answer(call, None, error) for call in late)
        return [call for call in calls if call.due_s > now]

    def _commit(self, connection: sqlite3.Connection, calls: list[Call[Any]]) -> None:
        session = Session(connection, self._clock.now_ns())
        self._host.begun(session)
        answers = [self._do(session, call) for call in calls]
        if session.hints or session.others:
            self._host.ending(session)
        connection.execute("COMMIT")
        if session.hints:
            self._send(session.hints)
        self.answer(answers)

    def _do(self, session: Session, call: Call[Any]) -> Answer:
        """Do one call within the transaction; what it wrote goes if it raises."""
        connection, told, left = session.connection, len(session.hints), len(session.others)
        connection.execute("SAVEPOINT call")
        try:
            result = call.work(session)
        except BaseException as error:  # whatever it is, it is its caller's, and its caller hears of it
            if not connection.in_transaction:  # SQLite itself took all of it back: the disk is full, or worse
                raise
            connection.execute("ROLLBACK TO call")
            connection.execute("RELEASE call")
            del session.hints[told:], session.others[left:]
            return Answer(call, None, error)
        connection.execute("RELEASE call")
        return Answer(call, result, None)

    def _send(self, hints: Sequence[Told]) -> None:
        try:
            self._home.call_soon_threadsafe(self._host.tell, hints)
        except RuntimeError:  # the app's loop has closed: nobody listens
            return

    # -- other processes -------------------------------------------------------------

    def idle(self, connection: sqlite3.Connection) -> float:
        """Look whether another process has written; return how many seconds until the next look."""
        poll_s = self._settings.poll_s
        now = SYSTEM_CLOCK.monotonic()
        left = self._looked_s + poll_s - now
        if left > 0:
            return left
        self._looked_s = now
        self._see_file()
        try:
            hints = self._news(connection)
        except sqlite3.Error:  # locked for a moment, or the disk fails: the next call meets it, and is told
            return poll_s
        if hints:
            self._send(hints)
        return poll_s

    def _news(self, connection: sqlite3.Connection) -> Sequence[Told]:
        version = _data_version(connection)
        hints = self._host.noticed(connection) if version != self._version else ()
        self._version = version
        return hints

    def _see_file(self) -> None:
        """Stop if the file has gone: what is written to it would go with it, and nobody would know.

        Raises:
            StoreError: If its name stands for another file now, or for none.
        """
        if self._file is not None and _identity(self._settings.path) != self._file:
            raise StoreError(
                f"{self.url} was removed or replaced while it was in use; what it held is lost with it unless it was "
                "moved: put it back, or start the app again to begin with what is there now"
            )


class Reader(SqlThread):
    """Answers views from a connection of its own, which sees whole transactions and holds nobody up."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        self._settings = settings
        self._due_s = 0.0
        super().__init__(f"quarterjack-sqlite-reader {settings.path.name}", settings.url, clock, settings.deadline_s)

    def connect(self) -> sqlite3.Connection:
        """Open the file for reading."""
        connection = _connect(self._settings)
        connection.execute(f"PRAGMA busy_timeout = {_READ_WAIT_MS}")
        connection.execute("PRAGMA query_only = ON")
        connection.set_progress_handler(self._is_late, 10_000)
        return connection

    def _is_late(self) -> bool:
        return SYSTEM_CLOCK.monotonic() > self._due_s

    def serve(self, connection: sqlite3.Connection, calls: list[Call[Any]]) -> None:
        """Do *calls* one by one, each on a snapshot of its own."""
        for call in calls:
            if not call.future.cancelled():
                self._due_s = call.due_s
                self.answer([self._look(connection, call)])

    def _look(self, connection: sqlite3.Connection, call: Call[Any]) -> Answer:
        try:
            connection.execute("BEGIN")
            return Answer(call, call.work(Session(connection, self._clock.now_ns())), None)
        except Exception as error:  # it is its caller's, and its caller hears of it
            return Answer(call, None, error)
        finally:
            _roll_back(connection)


def _connect(settings: Settings) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(settings.path, timeout=0, isolation_level=None, cached_statements=256)
    except sqlite3.Error as error:
        raise not_opened(error, settings.path, settings.url) from error
    connection.execute("PRAGMA temp_store = MEMORY")
    return connection


def _patiently(ask: Callable[[], Any], deadline_s: float) -> Any:
    """Return what *ask* returns, asking again while the file is locked."""
    until = SYSTEM_CLOCK.monotonic() + deadline_s
    while True:
        try:
            return ask()
        except sqlite3.Error as error:
            if not is_busy(error) or SYSTEM_CLOCK.monotonic() > until:
                raise
            time.sleep(_LONGEST_PAUSE_S * random.uniform(0.2, 1.0))  # noqa: S311  # jitter keeps no secret


def _data_version(connection: sqlite3.Connection) -> int:
    """Return a number that changes when another connection has committed, and with no commit of this one."""
    (version,) = connection.execute("PRAGMA data_version").fetchone()
    return int(version)


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
