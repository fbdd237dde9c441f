"""The gate through which an interruption reaches a body in a child process, and nothing else.

The app writes CANCEL and rings with SIGUSR1. The signal alone means nothing: its
handler looks for the frame, and raises only while a body runs and no frame is
being written (*is_open*, *masked*). So a signal that comes late finds no frame
and hits nobody: neither the next body nor the code that reports this one. It
raises at most once for each body, and has closed the gate by then; so whoever
catches what comes out of the body may rely on being left alone.

A coroutine is not raised into but cancelled, by its loop."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Final, TypeVar

__all__ = ["DOORBELL", "Gate", "Interrupted"]

T = TypeVar("T")
DOORBELL: Final = signal.SIGUSR1 if hasattr(signal, "SIGUSR1") else None


class Interrupted(BaseException):
    """Raised in a plain function where it stands: its job was cancelled, or took too long."""


class Gate:
    """Interruptions of the one body that runs at a time, in the main thread.

    Args:
        is_cancelled: Looks, without waiting, whether a cancel has come.
    """

    def __init__(self, is_cancelled: Callable[[], bool]) -> None:
        self._is_cancelled = is_cancelled
        self._is_open = False
        self._masked = 0
        self._rung = False
        self._cancel: Callable[[], None] | None = None
        self._main = threading.get_ident()
        self.is_unwanted = False
        """True once the present body should end."""

    def install(self) -> None:
        """Listen for the doorbell; in the main thread."""
        if DOORBELL is not None:
            signal.signal(DOORBELL, self._on_ring)

    # -- around a body -------------------------------------------------------------------

    def reset(self) -> None:
        """Another body is about to run."""
        self.is_unwanted = False
        self._cancel = None

    def run(self, call: Callable[[], T]) -> T:
        """Call a plain function that may be interrupted; the gate is closed when this returns or raises.

        Raises:
            Interrupted: If it was.
        """
        try:
            self._open()
            result = call()
            self._is_open = False
        except BaseException:
            self._is_open = False  # a ring in this very line is raised from here, and has closed it itself
            raise
        return result

    async def run_async(self, body: Callable[[], Any]) -> Any:
        """Await a body that is cancelled by a ring."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def cancel() -> None:
            if task is not None:
                loop.call_soon_threadsafe(task.cancel)

        self._cancel = cancel
        try:
            self._open()
            return await body()
        finally:
            self._is_open = False
            self._cancel = None

    def _open(self) -> None:
        self._is_open = True
        if self._rung:
            self._look()

    # -- around what must not be interrupted -----------------------------------------------

    def __enter__(self) -> None:
        """Put rings off: a frame is being written. Other threads than the main one are never interrupted."""
        if threading.get_ident() == self._main:
            self._masked += 1

    def __exit__(self, *_: object) -> None:
        if threading.get_ident() != self._main:
            return
        self._masked -= 1
        if self._rung and self._is_open and not self._masked:
            self._look()

    # -- the signal ----------------------------------------------------------------------------

    def _on_ring(self, _: int, __: FrameType | None) -> None:
        self.ring()

    def ring(self) -> None:
        """Let a cancel through, if there is one; what the handler of a signal calls, in the main thread.

        Raises:
            Interrupted: In the body.
        """
        self._rung = True
        if self._is_open and not self._masked:
            self._look()

    def _look(self) -> None:
        self._masked += 1  # a second ring meanwhile is answered by this look, or the next
        try:
            self._rung = False
            is_cancelled = self._is_cancelled()
        finally:
            self._masked -= 1
        if not is_cancelled or self.is_unwanted:
            return
        self.is_unwanted = True
        if self._cancel is not None:
            self._cancel()
            return
        self._is_open = False
        raise Interrupted
