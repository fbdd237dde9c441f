"""SIGINT and SIGTERM while an app serves: the first drains, the second means now."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

__all__ = ["Signals"]

_WATCHED: Final = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """Calls *on_signal* on the loop for each SIGINT or SIGTERM while the block is open.

    Puts the handlers back that were there before. Outside the main thread, where
    Python delivers no signals, it does nothing.
    """

    def __init__(self, on_signal: Callable[[signal.Signals], None]) -> None:
        self._on_signal = on_signal
        self._before: dict[signal.Signals, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self
        self._loop = asyncio.get_running_loop()
        for number in _WATCHED:
            self._before[number] = signal.getsignal(number)
            try:
                self._loop.add_signal_handler(number, self._on_signal, number)
            except (NotImplementedError, RuntimeError):  # a loop that cannot: hand over by hand
                signal.signal(number, self._by_hand)
        return self

    def _by_hand(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._on_signal, signal.Signals(number))

    def __exit__(self, *exc: object) -> None:
        for number, before in self._before.items():
            if self._loop is not None:
                try:
                    self._loop.remove_signal_handler(number)
                except (NotImplementedError, RuntimeError):
                    pass
            signal.signal(number, signal.SIG_DFL if before is None else before)
        self._before.clear()
