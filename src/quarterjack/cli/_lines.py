"""What a process writes into a pipe, line by line."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Final

__all__ = ["Lines"]

CHUNK: Final = 64 * 1024
LONGEST: Final = 1024 * 1024
"""What goes on for so many bytes without an end of line is broken there: it must not grow for ever."""
LAST_CHUNKS: Final = 32
"""At the end so much is read at once; a pipe holds 1 MiB at most, and who holds it may write on."""


class Lines:
    """Calls *on_line* on the loop with each line, without its end; made and closed on the loop.

    Args:
        fd: The reading end, which is closed with this.
        on_line: Called with bytes: whatever the process has written.
    """

    def __init__(self, fd: int, on_line: Callable[[bytes], None]) -> None:
        self._fd, self._on_line = fd, on_line
        self._rest = b""
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)
        self._loop.add_reader(fd, self._read)
        self._is_reading = True

    def _read(self) -> bool:
        """Take what is there; say whether there may be more."""
        try:
            chunk = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return False
        if not chunk:
            self._stop()
            return False
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            self._on_line(line)
        if len(self._rest) > LONGEST:
            self._flush()
        return True

    def _flush(self) -> None:
        rest, self._rest = self._rest, b""
        if rest:
            self._on_line(rest)

    def _stop(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._fd)

    def close(self) -> None:
        """Read what was written so far, and no more."""
        for _ in range(LAST_CHUNKS):
            if not self._is_reading or not self._read():
                break
        self._stop()
        self._flush()
        os.close(self._fd)
