"""In a process of the app that another ``qj run`` has started: leave Ctrl-C to that one, and do not outlive it.

Both belong to the terminal, so Ctrl-C reaches both; if this one counted it too,
one Ctrl-C would be two. And it holds an end of a pipe or of a pair of sockets
that closes when the other process ends, however that ends."""

from __future__ import annotations

import io
import os
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, cast

from ._shell import EXIT_FAILED

if TYPE_CHECKING:
    from quarterjack import Quarterjack

__all__ = ["APART_S", "LAST_GRACE_S", "LOADED", "RESTART_GRACE_S", "STARTED", "Member", "follow"]

RESTART_GRACE_S: Final = 1.0
"""How long running jobs may take to end before a restart cancels them."""
LAST_GRACE_S: Final = 4.0
"""How long what was told to end now may take before it is killed: its hooks and its lifespan are left in it."""
APART_S: Final = 0.05
"""Two orders in one moment would be one: a signal that is still to be delivered is not counted twice."""
LOADED: Final = b"l"
STARTED: Final = b"s"


def follow(lifeline: int) -> None:
    """Leave Ctrl-C to the process that started this one, and end when it has.

    Called before the app is imported, so that SIGTERM ends even an import that hangs.
    """
    _leave_interrupts()
    if lifeline >= 0:
        os.set_inheritable(lifeline, False)
        threading.Thread(target=_end_with_parent, args=(lifeline,), name="qj-lifeline", daemon=True).start()


def _leave_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform != "win32":
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _end_with_parent(lifeline: int) -> None:
    os.read(lifeline, 1)  # nobody writes: it returns when the other end is closed, by whatever end of the parent
    _end_alone()


def _end_alone() -> None:
    for grace_s in (RESTART_GRACE_S, LAST_GRACE_S):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
    os._exit(EXIT_FAILED)


class Member:
    """This process as one of several: it takes its orders from the one that started it, and reports to it.

    An order is the number of signals that it should have got by now. Who ends a
    service often signals each of its processes, as systemd does; the order to
    drain after such a signal must not count as the second one.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._app: Quarterjack | None = None
        self._sent = 0

    def follow(self) -> None:
        """Leave Ctrl-C to the process that started this one, obey its orders, and end when it has."""
        _leave_interrupts()
        stdout: object = sys.stdout
        if isinstance(stdout, io.TextIOWrapper):  # into a pipe it would be written by the block
            cast("io.TextIOWrapper", stdout).reconfigure(line_buffering=True)
        threading.Thread(target=self._obey, name="qj-lifeline", daemon=True).start()

    def loaded(self, app: Quarterjack) -> None:
        """Report that the app is imported and may be run like this."""
        self._app = app
        self._report(LOADED)

    def started(self) -> None:
        """Report that the start is complete."""
        self._report(STARTED)

    def _report(self, what: Literal[b"l", b"s"]) -> None:
        with suppress(OSError):  # nobody is there: then this process ends already
            self._socket.sendall(what)

    def _obey(self) -> None:
        while wanted := self._order():
            came = 0 if self._app is None else len(self._app.signals_came)
            for _ in range(wanted - max(self._sent, came)):
                self._sent += 1
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(APART_S)
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):  # nobody reads any more: a body that prints should not fail for that
            os.dup2(nowhere, fd)
        _end_alone()

    def _order(self) -> int:
        """Return the next order; 0 where none will come."""
        try:
            return int(self._socket.recv(1) or b"0")
        except OSError:
            return 0
