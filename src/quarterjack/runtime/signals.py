"""SIGINT and SIGTERM while an app serves: the first drains, the second means now.

The handlers are Python's own (``signal.signal``), not the loop's: those would wait
for the loop's next turn, and a body that blocks the loop would make Ctrl-C dead. A
Python handler runs in the main thread wherever that stands. So a second signal that
finds the first one still waiting interrupts what blocks the loop, and a third ends
the process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

from quarterjack._durations import NS_PER_S
from quarterjack.clock import SYSTEM_CLOCK

__all__ = ["Signals"]

log = logging.getLogger("quarterjack")

_WATCHED: Final = (signal.SIGINT, signal.SIGTERM)
BLOCKED_NS: Final = NS_PER_S // 2
"""A loop that has not taken up a signal after this long is blocked; two signals in one moment are not."""


class Signals:
    """Calls *on_signal* on the loop for each SIGINT or SIGTERM while the block is open.

    A signal that the process was told to ignore stays ignored, as for ``nohup``.
    Puts the handlers back that were there before. Outside the main thread, where
    Python delivers no signals, it does nothing.

    Args:
        on_signal: Called on the loop.
        end_process: Called with the exit code when a blocked loop cannot even be interrupted.
    """

    def __init__(
        self, on_signal: Callable[[signal.Signals], None], end_process: Callable[[int], object] = os._exit
    ) -> None:
        self._on_signal = on_signal
        self._end_process = end_process
        self._before: dict[signal.Signals, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting_since_ns: int | None = None
        """When the oldest signal came that the loop has not taken up."""
        self._interrupted = False

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
        loop.call_soon_threadsafe(self._deliver, signal.Signals(number))
        now = SYSTEM_CLOCK.monotonic_ns()
        if self._waiting_since_ns is None:
            self._waiting_since_ns = now
        elif now - self._waiting_since_ns >= BLOCKED_NS:
            self._break_through(number, frame)

    def _deliver(self, number: signal.Signals) -> None:
        self._waiting_since_ns, self._interrupted = None, False
        self._on_signal(number)

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


def _place(frame: FrameType | None) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "an unknown place"
