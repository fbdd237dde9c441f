"""A child process: takes one request after the other from its socket, and runs the body that it names.

The main thread does all of it: reads a request, runs the body, writes the
answer. While a body runs, `_gate` lets a cancel through to it; a body's threads
may write progress. Plain functions run as they are, coroutine functions on one
loop that lasts as long as the process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import traceback
from pathlib import Path
from typing import Any, Final

from pydantic_core import from_json, to_json

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import Orphaned

from ._frames import LARGE, Frame, Frames, pack
from ._gate import Gate, Interrupted
from ._leash import fasten
from ._loading import load_bodies
from ._remote import Answer, Bodies, Body, Request, in_figures
from .base import AppRef

__all__ = ["main"]

CHUNK: Final = 64 * 1024
"""Read at once; a larger buffer is mapped and unmapped by the system for each read."""
BETWEEN_S: Final = 0.1
"""Progress is told so often at most; the last word counts."""
INTERRUPTED: Final = "the body was interrupted"


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
        self._runner: asyncio.Runner | None = None
        self._bodies: Bodies | None = None
        self._folder = ""
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
                    self._load(from_json(data))
                elif kind is Frame.RUN:
                    self._run(data)
                elif kind is Frame.RUN_FILE:
                    self._run(_taken_from(data))
                # CANCEL: it came too late for its body
        if self._runner is not None:
            self._runner.close()

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
        self._folder, self._tells_memory = settings["folder"], settings["memory"]
        try:
            self._bodies = load_bodies(AppRef(*settings["app"]))
        except BaseException as error:  # the user's module runs here: the app tells of it, and ends us
            why = "".join(traceback.format_exception_only(error)).strip()
            self.send(Frame.UNLOADABLE, to_json([why, traceback.format_exc()]))
            return
        self.send(Frame.READY)

    def _run(self, data: bytes) -> None:
        self._gate.reset()
        said = _Said(self)
        answer = self._answer(Request.read(data), said)
        said.close()
        if self._tells_memory:
            self.send(Frame.MEMORY, str(_memory_kib()).encode())
        if len(answer) > LARGE:
            fd, name = tempfile.mkstemp(dir=self._folder)
            with os.fdopen(fd, "wb") as file:
                file.write(answer)
            self.send(Frame.ENDED_FILE, name.encode())
        else:
            self.send(Frame.ENDED, answer)

    def _answer(self, request: Request, said: _Said) -> bytes:
        if self._bodies is None:
            return Answer.rejected("the app is not loaded in this process")
        try:
            body = self._bodies.take(request, said)
        except Orphaned as error:
            return Answer.rejected(error.why, error)
        self.send(Frame.STARTED)
        try:
            result = self._result_of(body)
        except Interrupted:
            return Answer.cancelled(INTERRUPTED)
        except BaseException as error:  # the user's code ran there, and whatever it raised is its job's outcome
            return Answer.raised(error, pickles=True)
        return Answer.returned(result, request.max_result_bytes)

    def _result_of(self, body: Body) -> Any:
        if not body.is_coroutine:
            return self._gate.run(lambda: body.context.run(body.fn, *body.args, **body.kwargs))
        if self._runner is None:
            self._runner = asyncio.Runner()
        outcome = self._runner.run(self._caught(body), context=body.context)
        if isinstance(outcome, _Raised):
            raise outcome.error
        return outcome

    async def _caught(self, body: Body) -> Any:
        """Await a body; what it raises is carried past asyncio, which lets SystemExit end the loop."""
        try:
            return await self._gate.run_async(lambda: body.fn(*body.args, **body.kwargs))
        except BaseException as error:  # raised again where the runner is left
            return _Raised(error)

    @property
    def is_unwanted(self) -> bool:
        """True once the present body should end."""
        return self._gate.is_unwanted


class _Raised:
    """What a coroutine raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Said:
    """What one body says, until it is over; not more often than anybody wants to hear it."""

    def __init__(self, child: _Child) -> None:
        self._child = child
        self._lock = threading.Lock()
        self._news: tuple[float, float | None, str] | None = None
        self._told_at = 0.0
        self._has_news = threading.Condition(self._lock)
        self._teller: threading.Thread | None = None
        self._is_over = False

    @property
    def is_unwanted(self) -> bool:
        return self._child.is_unwanted

    def keep(self, value: Any) -> None:
        """Tell the value for the next attempt."""
        with self._child._gate, self._lock:
            if not self._is_over:
                self._child.send(Frame.KEEP, to_json(value))

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Tell it now, or soon."""
        news = in_figures(done, total, text)
        with self._child._gate, self._lock:  # an interruption must not leave it locked
            if self._is_over:  # a thread that the body left behind: the child works for another job by now
                return
            self._news = news
            now = SYSTEM_CLOCK.monotonic()
            if now - self._told_at >= BETWEEN_S:
                self._told_at = now
                self._tell()
            elif self._teller is None:
                self._teller = threading.Thread(target=self._tell_later, name="qj-progress", daemon=True)
                self._teller.start()
            else:
                self._has_news.notify()

    def close(self) -> None:
        """The body is over: tell what is left, and nothing more."""
        with self._lock:
            self._tell()
            self._is_over = True
            self._has_news.notify()

    def _tell(self) -> None:
        if self._news is not None:
            news, self._news = self._news, None
            self._child.send(Frame.PROGRESS, to_json(news))

    def _tell_later(self) -> None:
        pause = threading.Event()
        with contextlib.suppress(OSError):  # the app is gone
            while True:
                pause.wait(BETWEEN_S)
                with self._lock:
                    self._told_at = SYSTEM_CLOCK.monotonic()
                    self._tell()
                    while self._news is None:
                        if self._is_over:
                            return
                        self._has_news.wait()


def _taken_from(name: bytes) -> bytes:
    path = Path(name.decode())
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
