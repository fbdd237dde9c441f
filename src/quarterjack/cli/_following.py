"""In a process of the app that another ``qj run`` has started: leave Ctrl-C to that one, and do not outlive it.

Both belong to the terminal, so Ctrl-C reaches both; if this one counted it too,
one Ctrl-C would be two. And it holds an end of a pipe or of a pair of sockets
that closes when the other process ends, however that ends."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final, cast

from quarterjack.errors import StoreError

from ._shell import EXIT_FAILED

if TYPE_CHECKING:
    from quarterjack import Quarterjack

__all__ = [
    "APART_S",
    "FORGET",
    "FORGOT",
    "LAST_GRACE_S",
    "LOADED",
    "RESTART_GRACE_S",
    "STARTED",
    "Member",
    "follow",
]

log = logging.getLogger("quarterjack.run")

RESTART_GRACE_S: Final = 1.0
"""How long running jobs may take to end before a restart cancels them."""
LAST_GRACE_S: Final = 4.0
"""How long what was told to end now may take before it is killed: its hooks and its lifespan are left in it."""
APART_S: Final = 0.05
"""Two orders in one moment would be one: a signal that is still to be delivered is not counted twice."""
LOADED: Final = "loaded"
STARTED: Final = "started"
FORGOT: Final = "forgot"
FORGET: Final = "forget"
"""What a process reports, the second with its id in the registry, the third with that of a dead one, and an order."""
FORGET_PAUSE_S: Final = 5.0
"""A store that does not answer is asked again so often to forget a dead process."""


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

    An order to end is the number of signals that it should have got by now. Who ends
    a service often signals each of its processes, as systemd does; the order to
    drain after such a signal must not count as the second one. The other order is
    to forget one of its like that has died.
    """

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self._socket = socket.socket(fileno=fd)
        self._socket.set_inheritable(False)
        self._app: Quarterjack | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._sent = 0
        self._forgetting: set[asyncio.Task[None]] = set()

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
        """Report that the start is complete; on the app's loop."""
        self._loop = asyncio.get_running_loop()
        owner = "" if self._app is None else self._app._running().owner
        self._report(f"{STARTED} {owner}")
        log.debug("started, as worker %s", owner)

    def _report(self, line: str) -> None:
        with suppress(OSError):  # nobody is there: then this process ends already
            self._socket.sendall(line.encode() + b"\n")

    def _obey(self) -> None:
        for order in self._orders():
            what, _, worker_id = order.partition(" ")
            if what == FORGET and self._loop is not None:
                with suppress(RuntimeError):  # the loop has ended, and so will this process: another one is told
                    self._loop.call_soon_threadsafe(self._begin_to_forget, worker_id)
            elif what.isdigit():
                self._end(int(what))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for fd in (1, 2):  # nobody reads any more: a body that prints should not fail for that
            os.dup2(nowhere, fd)
        _end_alone()

    def _orders(self) -> Iterator[str]:
        with suppress(OSError), self._socket.makefile(encoding="ascii") as lines:
            for line in lines:
                yield line.strip()

    def _end(self, wanted: int) -> None:
        came = 0 if self._app is None else len(self._app.signals_came)
        for _ in range(wanted - max(self._sent, came)):
            self._sent += 1
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(APART_S)

    def _begin_to_forget(self, worker_id: str) -> None:
        task = asyncio.create_task(self._forget(worker_id))
        self._forgetting.add(task)
        task.add_done_callback(self._forgetting.discard)

    async def _forget(self, worker_id: str) -> None:
        """Strike off one that has died, on the app's loop; should this process end before, another one is told to."""
        while self._app is not None and self._app.is_serving:
            try:
                freed = await self._app.forget_worker(worker_id)
            except StoreError as error:
                log.warning("worker %s has died and cannot be struck off yet: %s", worker_id, error)
                await asyncio.sleep(FORGET_PAUSE_S)
                continue
            except Exception:  # nobody awaits this; the one who asked hears that it is over, and the leases do the rest
                log.exception(
                    "worker %s has died and cannot be struck off: its leases run out by themselves", worker_id
                )
                freed = None
            if freed is not None:
                log.info("worker %s has died and is struck off; jobs it held, free now: %d", worker_id, freed)
            self._report(f"{FORGOT} {worker_id}")
            return
