"""The keeper: a process that runs one server and ends it when nobody needs it any more.

    python keeper.py KIND PROGRAM FOLDER [--shared]

It stands between a test run and its server so that the server ends, and FOLDER
goes, however the run ends: by itself, by Ctrl-C or by SIGKILL. A private server
is needed while the keeper's standard input stands open, and obeys the lines that
come over it (start, stop, kill; each is answered by "ok" or what went wrong). A shared one is
needed while any process holds FOLDER/users locked. Were the keeper itself killed,
the server gets a signal from the system and ends as well.

It tells what runs in FOLDER/state.json. Uses the standard library alone."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Final

if sys.platform != "win32":
    import fcntl
    import pwd

__all__ = ["POSTGRES", "VALKEY", "signal_all"]

POSTGRES: Final = "postgres"
VALKEY: Final = "valkey"
START_WITHIN_S: Final = 50.0
STOP_WITHIN_S: Final = 20.0
PR_SET_PDEATHSIG: Final = 1

# Tests lose no data to a power cut; what they look at is what other connections see.
POSTGRES_SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "dynamic_shared_memory_type": "mmap",  # files in its folder: nothing is left in /dev/shm
    "shared_buffers": "64MB",
    "max_wal_size": "256MB",
    "autovacuum_naptime": "10s",
    "log_checkpoints": "off",
}


class Server:
    """One server, which can be stopped and started again on the same port with the same data."""

    def __init__(self, kind: str, program: Path, folder: Path) -> None:
        self.kind = kind
        self.program = program
        self.folder = folder
        self.data = folder / "data"
        self.port = free_port()
        self.user = "nobody" if os.geteuid() == 0 else None
        self.process: subprocess.Popen[bytes] | None = None

    def prepare(self) -> None:
        """Make the folder that the server's user may write."""
        self.folder.chmod(0o711)
        self.data.mkdir(mode=0o700)
        if self.user is not None:
            account = pwd.getpwnam(self.user)
            os.chown(self.data, account.pw_uid, account.pw_gid)
        if self.kind == POSTGRES:
            initdb = str(self.program.with_name("initdb"))
            options = [
                "--username=qj",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C",
                "--no-sync",
                "--no-instructions",
            ]
            self.run([initdb, *options, "-D", str(self.data)]).wait()

    def start(self) -> None:
        """Start it, and wait until it answers.

        Raises:
            RuntimeError: If it ends instead, or takes too long; with the end of its log.
        """
        if self.process is not None and self.process.poll() is None:
            return
        self.process = self.run(self.command())
        deadline = monotonic() + START_WITHIN_S
        while not self.answers():
            if self.process.poll() is not None or monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"{self.program} did not start: {self.log()[-2_000:]}")
            sleep(0.02)

    def stop(self, how: int | None = None) -> None:
        """End it: quickly and cleanly, or by the signal *how*."""
        process = self.process
        if process is None:
            return
        if process.poll() is None:
            process.send_signal(how or (signal.SIGINT if self.kind == POSTGRES else signal.SIGTERM))
            signal_all(process.pid, signal.SIGCONT)  # it may have been paused
            try:
                process.wait(STOP_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def command(self) -> list[str]:
        """Return its command line."""
        if self.kind == POSTGRES:
            settings = [word for name, value in POSTGRES_SETTINGS.items() for word in ("-c", f"{name}={value}")]
            return [str(self.program), "-D", str(self.data), "-p", str(self.port), *settings, *extra_settings()]
        # No snapshots and no log of writes, unless a test asks for them
        settings = ["--save", "", "--appendonly", "no", "--bind", "127.0.0.1", "--dir", str(self.data)]
        return [str(self.program), "--port", str(self.port), *settings, *extra_settings()]

    def run(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start *command* as the server's user, to end when the keeper does."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**environment, "LC_ALL": "C"},
                cwd=self.data,
                user=self.user,
                extra_groups=None if self.user is None else [],
                # Runs after the change of user, which would take the wish back
                preexec_fn=end_with_parent,  # noqa: PLW1509  # the keeper has one thread
            )

    def answers(self) -> bool:
        """Say whether the server is ready for work."""
        probe = startup_answer if self.kind == POSTGRES else ping_answer
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as connection:
                return probe(connection)
        except OSError:
            return False

    def log(self) -> str:
        """Return what the server has said."""
        return (self.folder / "log").read_text(errors="replace")

    def tell(self) -> None:
        """Write down what runs."""
        assert self.process is not None
        state = {"port": self.port, "pid": self.process.pid, "keeper": os.getpid()}
        beside = self.folder / "state.new"
        beside.write_text(json.dumps(state))
        beside.rename(self.folder / "state.json")


def signal_all(pid: int, number: int) -> None:
    """Send a signal to the process *pid* and to its children, which PostgreSQL has one of per connection."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    for each in (pid, *(map(int, children.read_text().split()) if children.exists() else ())):
        with suppress(ProcessLookupError):
            os.kill(each, number)


def extra_settings() -> list[str]:
    """Return the server's own options that the caller added."""
    return json.loads(os.environ.get("QJ_SERVER_OPTIONS", "[]"))  # type: ignore[no-any-return]  # a list, by its writer


def startup_answer(connection: socket.socket) -> bool:
    """Ask PostgreSQL for a session; "the database system is starting up" is an error, and no answer."""
    words = b"user\0qj\0database\0postgres\0\0"
    connection.sendall((8 + len(words)).to_bytes(4, "big") + (3 << 16).to_bytes(4, "big") + words)
    return connection.recv(1) == b"R"


def ping_answer(connection: socket.socket) -> bool:
    """Ask Valkey whether it has loaded its data."""
    connection.sendall(b"PING\r\n")
    return connection.recv(5) == b"+PONG"


def end_with_parent() -> None:
    """Have the system end this process when its parent ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGQUIT if "postgres" in sys.argv[1] else signal.SIGTERM)


def free_port() -> int:
    """Return a port nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start_on_a_free_port(server: Server) -> None:
    """Start *server*; where somebody else took its port meanwhile, on another one."""
    for _ in range(5):
        try:
            return server.start()
        except RuntimeError as error:
            if "in use" not in str(error):
                raise
            server.port = free_port()
    raise RuntimeError("no port stays free")


def obey(server: Server) -> None:
    """Carry out the lines of standard input until it closes."""
    verbs: dict[str, Callable[[], None]] = {
        "start": server.start,
        "stop": server.stop,
        # PostgreSQL's own word for a crash: it loses what is in memory, but leaves no process behind
        "kill": lambda: server.stop(signal.SIGQUIT if server.kind == POSTGRES else signal.SIGKILL),
    }
    for line in sys.stdin:
        try:
            verbs[line.strip()]()
            server.tell()
            print("ok", flush=True)
        except RuntimeError as error:
            print(str(error).replace("\n", " | "), flush=True)


def wait_for_users(folder: Path) -> int:
    """Wait until nobody holds the lock of the users; return it, held."""
    users = os.open(folder / "users", os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(users, fcntl.LOCK_EX)
    return users


def main(kind: str, program: str, folder: str, *options: str) -> None:
    """Keep one server."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Server(kind, Path(program), Path(folder))
    users = -1
    try:
        server.prepare()
        start_on_a_free_port(server)
        server.tell()
        if "--shared" in options:
            users = wait_for_users(server.folder)
        else:
            print("ok", flush=True)
            obey(server)
    except RuntimeError as error:
        (server.folder / "failure").write_text(str(error))
        print(str(error).replace("\n", " | "), flush=True)
        if "--shared" in options:
            users = wait_for_users(server.folder)
    finally:
        server.stop()
        shutil.rmtree(server.folder, ignore_errors=True)
        if users >= 0:
            os.close(users)


if __name__ == "__main__":
    main(*sys.argv[1:])
