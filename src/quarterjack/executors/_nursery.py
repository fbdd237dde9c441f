"""The nursery: a small process that starts children for an app, tells how they end, and rings or kills them.

It has loaded quarterjack and what the app wants preloaded, has one thread, and
forks a child in a millisecond or two; where forking is no good it starts each as
a new interpreter. The app itself never forks. As the children's parent it alone
knows their exit codes, and that a pid is still theirs when it is signalled.

It talks to the app over a socket, one line of JSON per message; each ``start``
brings two descriptors, the child's socket and its leash. Once the app is gone,
however that came, it kills its children and ends."""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import traceback
from collections import deque
from typing import Any, Final, NoReturn, cast

from . import _child

__all__ = ["child_main", "main"]

_SPAWNED: Final = (
    "import sys; sys.path[:] = {path!r}; from quarterjack.executors._nursery import child_main; child_main()"
)


def main() -> None:
    """Serve the app whose end of the socket is the descriptor in ``sys.argv[1]``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stay)  # a stop of all processes of a service: the app is to end us when it is ready
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _Nursery(socket.socket(fileno=int(sys.argv[1]))).serve()
    os._exit(0)


def child_main() -> None:
    """Be a child that was started as a new interpreter: its descriptors are in ``sys.argv``."""
    link, leash = map(int, sys.argv[1:3])
    sys.argv[:] = sys.argv[3:]
    _live(link, leash)


def _stay(*_: object) -> None:
    """Do nothing."""


def _live(link: int, leash: int) -> NoReturn:
    """Be a child, to the end."""
    code = 1
    try:
        _child.main(link, leash)
        atexit._run_exitfuncs()  # what its bodies registered
        code = 0
    except BaseException:  # nothing of ours should raise; a user's atexit function may
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or nobody reads it
                stream.flush()
        os._exit(code)


class _Nursery:
    """This process."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._own = contextlib.ExitStack()
        """What no child is to have."""
        self._buffer = b""
        self._fds: deque[int] = deque()
        self._children: set[int] = set()
        self._spawns = False
        self._argv: list[str] = []

    def serve(self) -> None:
        """Do what the app says until it is gone."""
        bell, ringer = os.pipe()
        for fd in (bell, ringer):
            os.set_blocking(fd, False)
            self._own.callback(os.close, fd)
        signal.set_wakeup_fd(ringer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _stay)
        self._own.enter_context(self._link)
        selector = self._own.enter_context(selectors.DefaultSelector())
        selector.register(self._link, selectors.EVENT_READ)
        selector.register(bell, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if bell in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(bell, 4096)
                self._reap()
            if self._link in ready and not self._listen():
                break
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _listen(self) -> bool:
        """Do what has come; False once the app is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._link, 65536, 64)
        except ConnectionResetError:
            return False
        self._fds += fds
        self._buffer += data
        *lines, self._buffer = self._buffer.split(b"\n")
        for line in lines:
            self._do(json.loads(line))
        return bool(data)

    def _do(self, order: dict[str, Any]) -> None:
        match order["do"]:
            case "begin":
                self._begin(order)
            case "start":
                self._start(order["number"], self._fds.popleft(), self._fds.popleft())
            case "signal" if order["pid"] in self._children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(order["pid"], order["signal"])
            case _:  # a signal for one that has ended, which the app is about to hear
                pass

    def _tell(self, **words: Any) -> None:
        with contextlib.suppress(OSError):  # the app is gone, as the next look tells
            self._link.sendall(json.dumps(words).encode() + b"\n")

    def _begin(self, order: dict[str, Any]) -> None:
        self._spawns, self._argv = order["spawns"], order["argv"]
        sys.argv[:] = self._argv
        if self._spawns:
            return
        for name in order["preload"]:
            try:
                importlib.import_module(name)
            except Exception:  # the user's module runs here; who needs it will see the same
                self._tell(unloaded=name, why=traceback.format_exc())
        gc.collect()
        gc.freeze()  # else each child's collector would write to, and so copy, all of it

    def _start(self, number: int, link: int, leash: int) -> None:
        try:
            pid = self._spawn(link, leash) if self._spawns else self._fork(link, leash)
        except OSError as error:
            self._tell(unstarted=number, why=str(error))
            return
        finally:
            os.close(link)
            os.close(leash)
        self._children.add(pid)
        self._tell(started=number, pid=pid)

    def _fork(self, link: int, leash: int) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            atexit._clear()  # what preloaded modules registered is the nursery's
            self._own.close()  # or the app would not see the nursery end while a child lives
            for fd in self._fds:
                os.close(fd)
        finally:
            _live(link, leash)

    def _spawn(self, link: int, leash: int) -> int:
        flags = cast("list[str]", subprocess._args_from_interpreter_flags())  # type: ignore[attr-defined]  # multiprocessing's way, too
        words = [sys.executable, *flags, "-c", _SPAWNED.format(path=sys.path), str(link), str(leash), *self._argv]
        process = subprocess.Popen(words, pass_fds=(link, leash), stdin=subprocess.DEVNULL)  # noqa: S603
        process.returncode = 0  # reaped below with all the others
        return process.pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self._children:
                self._children.discard(pid)
                self._tell(ended=pid, code=os.waitstatus_to_exitcode(status))
