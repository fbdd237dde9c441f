"""One of the processes of ``qj run --workers N``, as the process sees it that looks after them.

The two talk through a pair of sockets, a line for each thing, which is the
process's lifeline too: see `_following.Member`, its other end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Self

from quarterjack.executors.process import PROCESSES

from ._children import Child, held_back
from ._following import APART_S, FORGET, FORGOT, LOADED, STARTED
from ._lines import Lines

if TYPE_CHECKING:
    from ._fleet import Fleet

__all__ = ["Member"]

LAST_WORDS: Final = 8
"""As many lines of its stderr are told if it never starts."""


class Member(Child):
    """A process in its place, what it writes, and what it reports."""

    def __init__(self, process: asyncio.subprocess.Process, name: str, fleet: Fleet) -> None:
        super().__init__(process, name)
        self._fleet = fleet
        self.has_loaded = self.has_started = False
        self.owner = ""
        """Its id in the registry, once it has started."""
        self.burying: list[str] = []
        """The dead that it was told to strike off, and has not yet."""
        self._last: deque[bytes] = deque(maxlen=LAST_WORDS)
        self._report = b""

    @classmethod
    async def start(cls, fleet: Fleet, name: str, role: Sequence[str]) -> Self:
        """Start the process, with Ctrl-C held back until it has said that it ignores it (see `follow`).

        Raises:
            OSError: If it cannot be started.
        """
        ours, theirs = socket.socketpair()
        out, out_end = os.pipe()
        err, err_end = os.pipe()
        words = [*fleet.words, *role, "--member", name, "--lifeline", str(theirs.fileno())]
        try:
            with held_back(signal.SIGINT):
                process = await asyncio.create_subprocess_exec(
                    *words,
                    pass_fds=(theirs.fileno(),),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out_end,
                    stderr=err_end,
                    env={**os.environ, PROCESSES: str(fleet.sharing)},
                )
        except BaseException:
            ours.close()
            os.close(out)
            os.close(err)
            raise
        finally:
            theirs.close()
            os.close(out_end)
            os.close(err_end)
        self = cls(process, name, fleet)
        self._attach(ours, out, err, partial(fleet.write, name))
        return self

    def _attach(self, ours: socket.socket, out: int, err: int, write: Callable[[bool, bytes], None]) -> None:
        ours.setblocking(False)
        self._socket, self._loop = ours, asyncio.get_running_loop()
        self._loop.add_reader(ours, self._on_report)

        def on_error_line(line: bytes) -> None:
            self._last.append(line)
            write(True, line)

        self._lines = (Lines(out, partial(write, False)), Lines(err, on_error_line))

    def _on_report(self) -> None:
        try:
            told = self._socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            told = b""
        if not told:
            self._loop.remove_reader(self._socket)
        *reports, self._report = (self._report + told).split(b"\n")
        for report in reports:
            self._take(*report.decode().split())

    def _take(self, what: str, worker_id: str = "") -> None:
        if what == LOADED:
            self.has_loaded = True
            self._fleet.loaded.set()
        elif what == STARTED:
            self.has_started, self.owner = True, worker_id
            self._fleet.started(self)
        elif what == FORGOT and worker_id in self.burying:
            self.burying.remove(worker_id)

    def last_words(self) -> list[str]:
        """Return the last lines of its stderr."""
        return [line.decode(errors="replace") for line in self._last]

    async def end(self, grace_s: float | None, hurry: asyncio.Event) -> None:
        """Drain it; who has signalled us may be about to signal it too, and that goes first (see `Member`)."""
        await asyncio.sleep(APART_S)
        await super().end(grace_s, hurry)

    def order(self, times: int) -> None:
        """Tell it how many signals it should have got by now."""
        self._send(str(times))

    def bury(self, worker_id: str) -> None:
        """Have it strike a dead process off the registry; until it has, that is another one's to do should it end."""
        self.burying.append(worker_id)
        self._send(f"{FORGET} {worker_id}")

    def _send(self, line: str) -> None:
        with suppress(OSError):  # it has ended
            self._socket.send(line.encode() + b"\n")

    def close(self) -> None:
        """Take what it has still written and reported, and let go of it."""
        self._on_report()
        self._loop.remove_reader(self._socket)
        self._socket.close()
        for lines in self._lines:
            lines.close()
