"""SIGINT and SIGTERM while an app serves: the first drains, the second means now.

The handlers are Python's own (``signal.signal``), not the loop's: those would wait
for the loop's next turn, and a body that blocks the loop would make Ctrl-C dead. A
Python handler runs in the main thread wherever that stands. So a signal counts from
its arrival, is told although the loop is blocked, and a second one that finds the
first still waiting interrupts what blocks the loop; a third ends the process.

Programs that end others send SIGTERM twice for one: ``timeout`` of coreutils to its
child, and then to the group that the child is in. Nobody types it, so one that
follows the first within half a second is the same. SIGINT is what people press."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

from quarterjack._durations import NS_PER_S
from quarterjack.clock import SYSTEM_CLOCK

from ._stacks import Sleeping

__all__ = ["Signals", "without_handler"]

log = logging.getLogger("quarterjack")

_WATCHED: Final = (signal.SIGINT, signal.SIGTERM)
SAME_NS: Final = NS_PER_S // 2
"""A second SIGTERM so soon after the first is the same one."""
BLOCKED_NS: Final = NS_PER_S // 2
"""A loop that has not taken up a signal after this long is blocked; two signals in one moment are not."""


class Signals:
    """Calls *on_signal* on the loop for each SIGINT or SIGTERM while the block is open.

    A signal that the process was told to ignore stays ignored, as for ``nohup``.
    Puts the handlers back that were there before. Outside the main thread, where
    Python delivers no signals, it does nothing.

    Args:
        on_signal: Called on the loop.
        arrived: Called at once, between any two steps of what runs in the main thread: it may set flags, no more.
        tell: Called once for each signal that interrupts nothing, before *on_signal*, to tell people: at once
            where the loop is busy and logging is not, else on the loop.
        end_process: Called with the exit code when a blocked loop cannot even be interrupted.
        counts_all: Whether every SIGTERM counts, however soon it follows: where each is sent on purpose.
    """

    def __init__(
        self,
        on_signal: Callable[[signal.Signals], None],
        *,
        arrived: Callable[[signal.Signals], None] | None = None,
        tell: Callable[[signal.Signals], None] | None = None,
        end_process: Callable[[int], object] = os._exit,
        counts_all: bool = False,
    ) -> None:
        self._on_signal = on_signal
        self._on_arrival = arrived
        self._tell = tell
        self._untold: list[signal.Signals] = []
        self._sleeping = Sleeping()
        self._end_process = end_process
        self._before: dict[signal.Signals, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting_since_ns: int | None = None
        """When the oldest signal came that the loop has not taken up."""
        self._interrupted = False
        self._counts_all = counts_all
        self._first: tuple[int, int] | None = None
        """The first signal that came, and when."""

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._loop = asyncio.get_running_loop()
        for number in _WATCHED:
            before = signal.getsignal(number)
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._arrived)
        return self

    def _arrived(self, number: int, frame: FrameType | None) -> None:
        """In the main thread, between any two steps of whatever runs there."""
        loop = self._loop
        if loop is None or loop.is_closed():
            return
        now = SYSTEM_CLOCK.monotonic_ns()
        if self._is_the_first_again(number, now):
            return
        came = signal.Signals(number)
        if self._on_arrival is not None:
            self._on_arrival(came)
        loop.call_soon_threadsafe(self._deliver, came)
        if self._waiting_since_ns is not None and now - self._waiting_since_ns >= BLOCKED_NS:
            self._break_through(number, frame)
        self._waiting_since_ns = self._waiting_since_ns or now
        self._untold.append(came)
        if not self._sleeping.is_so(frame) and not _is_logging(frame):
            with suppress(Exception):  # a stream that was being written to raises; who is interrupted must not
                self._tell_all()

    def _is_the_first_again(self, number: int, now: int) -> bool:
        if self._first is None:
            self._first = number, now
            return False
        first, at = self._first
        return number == first == signal.SIGTERM and now - at < SAME_NS and not self._counts_all

    def _deliver(self, number: signal.Signals) -> None:
        self._waiting_since_ns, self._interrupted = None, False
        self._tell_all()
        self._on_signal(number)

    def _tell_all(self) -> None:
        while self._untold:
            number = self._untold.pop(0)
            if self._tell is not None:
                self._tell(number)

    def _break_through(self, number: int, frame: FrameType | None) -> None:
        name, where = signal.Signals(number).name, _place(frame)
        if self._interrupted:
            log.critical("%s: the event loop is still blocked at %s; the process ends", name, where)
            self._end_process(128 + number)
            return
        self._interrupted = True
        log.error("%s: the event loop is blocked at %s; this is interrupted now", name, where)
        raise KeyboardInterrupt(f"the event loop was blocked at {where}")

    def __exit__(self, *exc: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()


def _is_logging(frame: FrameType | None) -> bool:
    """Say whether the interrupted code is in the middle of a log record: a handler's lock may be held."""
    while frame is not None:
        if frame.f_globals.get("__name__", "").partition(".")[0] == "logging":
            return True
        frame = frame.f_back
    return False


def without_handler(error: BaseException) -> BaseException:
    """Cut our handler's own frames off the end of a traceback: the user's line is the last one then."""
    last, at = None, error.__traceback__
    while at is not None and at.tb_frame.f_code.co_filename != __file__:
        last, at = at, at.tb_next
    if last is not None:
        last.tb_next = None
    return error


def _place(frame: FrameType | None) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "an unknown place"
