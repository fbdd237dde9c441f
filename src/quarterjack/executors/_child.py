"""A child process: takes one request after the other from its socket, and runs the body that it names.

The main thread does all of it: reads a request, runs the body (on `_stage`),
writes the answer. While a body runs, `_gate` lets a cancel through to it; a
body's threads may write progress."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, Final

from pydantic_core import to_json

from quarterjack.errors import Orphaned

from ._files import ANSWER
from ._frames import LARGE, Frame, Frames, pack
from ._gate import Gate
from ._leash import fasten
from ._loading import load_bodies
from ._remote import Answer, Bodies, Request, in_words
from ._stage import Said, Stage
from .base import AppRef

__all__ = ["main"]

CHUNK: Final = 64 * 1024
"""Read at once; a larger buffer is mapped and unmapped by the system for each read."""


def main(link: int, leash: int) -> None:
    """Serve the app at the other end of the socket *link* until it says EXIT, or is gone."""
    for number in (signal.SIGINT, getattr(signal, "SIGHUP", None)):
        if number is not None:
            signal.signal(number, signal.SIG_IGN)  # who sends it means the app, which knows what to do about us
    signal.signal(signal.SIGTERM, _stay)
    fasten(leash)
    with socket.socket(fileno=link) as sock:
        _Child(sock).serve()


def _stay(*_: object) -> None:
    """Do nothing: a stop of all processes of a service is for the app to hear. What bodies start is not deaf."""


class _Gone(Exception):
    """The app is gone."""


class _Child:
    """This process."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._frames = Frames()
        self._gate = Gate(self._has_cancel)
        self._writing = threading.Lock()
        self._later: list[tuple[Frame, bytes]] = []
        self._stage = Stage(self._gate)
        self._bodies: Bodies | None = None
        self._files = ""
        self._tells_memory = False

    def serve(self) -> None:
        """Do what frames say, until the end."""
        self._gate.install()
        with contextlib.suppress(_Gone, BrokenPipeError, ConnectionResetError):
            while True:
                kind, data = self._read()
                if kind is Frame.EXIT:
                    break
                if kind is Frame.HELLO:
                    self._load(json.loads(data))
                elif kind is Frame.RUN:
                    self._run(data)
                elif kind is Frame.RUN_FILE:
                    self._run(_taken_from(data))
                # CANCEL: it came too late for its body
        self._stage.close()

    # -- frames ----------------------------------------------------------------------------

    def _read(self) -> tuple[Frame, bytes]:
        if self._later:
            return self._later.pop(0)
        while (frame := self._frames.take()) is None:
            data = self._sock.recv(CHUNK)
            if not data:
                raise _Gone
            self._frames.feed(data)
        return frame

    def _has_cancel(self) -> bool:
        """Look whether the present body was cancelled; what else has come is kept for later."""
        with contextlib.suppress(BlockingIOError, InterruptedError):
            self._frames.feed(self._sock.recv(CHUNK, socket.MSG_DONTWAIT))
        found = False
        while (frame := self._frames.take()) is not None:
            if frame[0] is Frame.CANCEL:
                found = True
            else:
                self._later.append(frame)
        return found

    def send(self, kind: Frame, data: bytes = b"") -> None:
        """Write a frame, whole; from any thread."""
        with self._gate, self._writing:
            self._sock.sendall(pack(kind, data))

    # -- bodies ----------------------------------------------------------------------------

    def _load(self, settings: dict[str, Any]) -> None:
        self._files, self._tells_memory = settings["files"], settings["memory"]
        try:
            self._bodies = load_bodies(AppRef(*settings["app"]))
        except BaseException as error:  # the user's module runs here: the app tells of it, and ends us
            why = "".join(traceback.format_exception_only(error)).strip()
            self.send(Frame.UNLOADABLE, to_json([in_words(why), in_words(traceback.format_exc())]))
            return
        self.send(Frame.READY)

    def _run(self, data: bytes) -> None:
        self._gate.reset()
        said = Said(self._gate, self.send)
        answer = self._answer(Request.read(data), said)
        said.close()
        if self._tells_memory:
            self.send(Frame.MEMORY, str(_memory_kib()).encode())
        path = Path(self._files + ANSWER)
        if len(answer) > LARGE and _is_written(path, answer):
            self.send(Frame.ENDED_FILE, os.fsencode(path))
        else:
            self.send(Frame.ENDED, answer)

    def _answer(self, request: Request, said: Said) -> bytes:
        if self._bodies is None:
            return Answer.rejected("the app is not loaded in this process")
        try:
            body = self._bodies.take(request, said)
        except Orphaned as error:
            return Answer.orphaned(error.why)
        self.send(Frame.STARTED)
        return self._stage.answer(body, pickles=True)


def _is_written(path: Path, data: bytes) -> bool:
    """Write a file; False if there is no room for it, or its folder is gone: a socket takes the data, too."""
    try:
        path.write_bytes(data)
    except OSError:
        return False
    return True


def _taken_from(name: bytes) -> bytes:
    path = Path(os.fsdecode(name))
    try:
        return path.read_bytes()
    finally:
        path.unlink(missing_ok=True)


def _memory_kib() -> int:
    """Return how much memory this process holds; where only its most is known, that."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * (
            os.sysconf("SC_PAGE_SIZE") // 1024
        )
    except OSError:
        import resource  # noqa: PLC0415  # not on every system

        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most // 1024 if sys.platform == "darwin" else most
