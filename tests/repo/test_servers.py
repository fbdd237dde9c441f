"""The servers of the tests: they start from wheels, they obey, and nothing of them is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Final
from urllib.parse import urlsplit

import pytest

from tests.real_time import is_alive, wait_until
from tests.repo.checkout import ROOT
from tests.servers import found
from tests.servers.proxy import Proxy
from tests.servers.running import POSTGRES, VALKEY, NoServer, OwnServer, state_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the keeper uses POSIX locks and signals")


USER: Final = """
import sys, time
from tests.servers.running import shared
with shared(sys.argv[1], sys.argv[2]) as url:
    print(url, flush=True)
    time.sleep(60)
"""


def start_user(kind: str, run: str) -> subprocess.Popen[str]:
    """Start a process that uses the server of a run, as a worker of pytest-xdist does."""
    return subprocess.Popen([sys.executable, "-c", USER, kind, run], cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    "kind",
    [pytest.param(POSTGRES, marks=pytest.mark.needs_postgres), pytest.param(VALKEY, marks=pytest.mark.needs_redis)],
)
def test_shared_server_serves_all_of_a_run_and_goes_with_the_last_though_it_is_killed(kind: str) -> None:
    """A run that dies must not leave a server behind, nor take it from the others."""
    try:
        users = [start_user(kind, f"test-{os.getpid()}") for _ in range(2)]
        urls = {user.stdout.readline().strip() for user in users if user.stdout}
    except NoServer as error:
        pytest.skip(str(error))
    assert len(urls) == 1
    folder = Path(tempfile.gettempdir(), f"quarterjack-{kind}-test-{os.getpid()}")
    state = state_of(folder)
    port = urlsplit(urls.pop()).port
    assert port == state["port"]
    for user in users:
        user.kill()
        user.wait()
        if user is users[0]:
            sleep(0.1)
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        assert user.stdout is not None
        user.stdout.close()
    wait_until(lambda: not any(is_alive(state[name]) for name in ("pid", "keeper")))
    wait_until(lambda: not folder.exists())


def test_server_ends_though_its_keeper_is_killed(own_redis: Callable[..., OwnServer]) -> None:
    """The keeper itself may be killed, too."""
    server = own_redis()
    pid = server.pid
    os.kill(state_of(server.folder)["keeper"], signal.SIGKILL)
    wait_until(lambda: not is_alive(pid))
    for path in server.folder.rglob("*"):
        if path.is_file():
            path.unlink()
    (server.folder / "data").rmdir()
    server.folder.rmdir()


def test_own_server_stops_starts_and_pauses(own_redis: Callable[..., OwnServer]) -> None:
    """These are what tests of failures are made of."""
    server = own_redis()

    def ping() -> bytes:
        with socket.create_connection(("127.0.0.1", server.port), timeout=0.2) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(7)

    assert ping() == b"+PONG\r\n"
    server.pause()
    with pytest.raises(TimeoutError):
        ping()
    server.resume()
    assert ping() == b"+PONG\r\n"
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        ping()
    server.start()
    server.kill()
    server.start()
    assert ping() == b"+PONG\r\n"


@pytest.mark.needs_postgres
async def test_postgres_of_ones_own_keeps_its_data_over_a_crash(own_postgres: Callable[..., OwnServer]) -> None:
    """A crash loses what was not committed, and no more; the server is no one's but the test's."""
    import asyncpg  # noqa: PLC0415  # an extra

    server = own_postgres("-c", "fsync=on")
    connection = await asyncpg.connect(server.url)
    await connection.execute("CREATE TABLE t AS SELECT 1 AS one")
    assert await connection.fetchval("SHOW fsync") == "on"
    await asyncio.to_thread(server.kill)
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")
    await connection.close()
    await asyncio.to_thread(server.start)
    connection = await asyncpg.connect(server.url)
    assert await connection.fetchval("SELECT one FROM t") == 1
    await connection.close()


async def test_proxy_forwards_holds_and_cuts() -> None:
    """A connection that is open and silent is what a failed network looks like."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionResetError):
            while line := await reader.readline():
                writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with server, Proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writer.write(b"one\n")
        assert await reader.readline() == b"one\n"
        assert proxy.connections == 1
        proxy.hold()
        writer.write(b"two\n")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readline(), 0.1)
        proxy.release()
        assert await reader.readline() == b"two\n"
        proxy.cut()
        with pytest.raises(ConnectionResetError):
            await reader.readline()
        writer.close()
        with suppress(ConnectionResetError):
            await writer.wait_closed()


def test_programs_that_others_cannot_reach_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user a server runs as cannot look into a private home folder."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    package = tmp_path / "private" / "package"
    (package / "installation" / "bin").mkdir(parents=True)
    program = package / "installation" / "bin" / "postgres"
    program.write_text("program")
    program.chmod(0o755)
    libraries = tmp_path / "private" / "package.libs"
    libraries.mkdir()
    (libraries / "lib.so").write_text("library")
    (tmp_path / "private").chmod(0o700)
    copied = tmp_path / "reachable"
    copied.mkdir()
    it = found.made_reachable(program, copied)
    assert it == copied / "package" / "installation" / "bin" / "postgres"
    assert it.read_text() == "program"
    assert (it.parents[3] / "package.libs" / "lib.so").read_text() == "library"
