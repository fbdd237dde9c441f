"""What is kept of a command's output: its beginning, its end, how much there was, and what it says of its progress."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final

__all__ = ["KEPT", "Output"]

KEPT: Final = 32 * 1024
"""Bytes that are kept of the beginning, and as many of the end."""
PROGRESS: Final = b"::qj progress "
"""A line ``::qj progress done total text`` is progress of the job, and no output."""
LONGEST_LINE: Final = 4096
"""A line of progress is no longer."""

_EXACT: Final = 2**53
"""From here on a float skips whole numbers."""
_PLAIN: Final = {code: "�" for code in range(32) if chr(code) not in "\t\n\r\x1b"}
"""Control characters that a database does not keep, or that would mess up a terminal."""


class Output:
    """Takes what a command writes, in memory that does not grow with it.

    Args:
        on_progress: Told what the command says of its progress: done, total, text.
    """

    def __init__(self, on_progress: Callable[[float, float | None, str], None]) -> None:
        self._on_progress = on_progress
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._line = b""
        self._is_at_start = True
        self._said_until_cr = False
        """A line of progress ended in "\\r" at the end of what came; a "\\n" that comes next is its as well."""
        self.size = 0
        """Bytes so far, without lines of progress; a line that may become one counts once `text` was asked for."""

    def feed(self, data: bytes) -> None:
        """Take what came."""
        data = self._line + (data.removeprefix(b"\n") if self._said_until_cr else data)
        self._line, self._said_until_cr = b"", False
        last = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if PROGRESS in data or _may_begin(data[last:]):
            self._feed_lines(data)
        else:
            self._keep(data)

    def _feed_lines(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True):
            if not self._is_at_start or not _may_begin(line):
                self._keep(line)
            elif line.endswith((b"\n", b"\r")):
                self._said(line)
            elif len(line) < LONGEST_LINE:
                self._line = line  # the rest of it is on its way
            else:
                self._keep(line)

    def _said(self, line: bytes) -> None:
        words = line.removeprefix(PROGRESS).decode(errors="replace").split(None, 2)
        try:
            if not line.startswith(PROGRESS):
                raise ValueError
            done = _figure(words[0])
            total = _figure(words[1]) if len(words) > 1 and words[1] not in {"-", "?"} else None
        except (ValueError, IndexError):  # no progress, but a line like any other
            self._keep(line)
            return
        self._said_until_cr = line.endswith(b"\r")
        self._on_progress(done, total, words[2].strip() if len(words) > 2 else "")

    def _keep(self, data: bytes) -> None:
        if not data:
            return
        self._said_until_cr = False
        self.size += len(data)
        self._is_at_start = data.endswith((b"\n", b"\r"))
        room = KEPT - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        if not data:
            return
        self._tail.append(data[-KEPT:])
        self._tail_size += len(self._tail[-1])
        while self._tail_size - len(self._tail[0]) >= KEPT:
            self._tail_size -= len(self._tail.popleft())

    def text(self) -> str:
        """Return what is kept, with a word about what is not."""
        if self._line:
            line, self._line = self._line, b""
            self._keep(line)
        tail = b"".join(self._tail)[-KEPT:]
        left_out = self.size - len(self._head) - len(tail)
        gap = f"\n… {left_out} bytes left out …\n".encode() if left_out > 0 else b""
        return (self._head + gap + tail).decode(errors="replace").translate(_PLAIN)


def _may_begin(line: bytes) -> bool:
    """Say whether *line* is one of progress, or could become one."""
    return line.startswith(PROGRESS) or (len(line) < len(PROGRESS) and bool(line) and PROGRESS.startswith(line))


def _figure(word: str) -> float:
    """Return a number of a line of progress, a whole one as such.

    Raises:
        ValueError: If it is none, or none that says how far anything is: nan, inf.
    """
    figure = float(word)
    if not math.isfinite(figure):
        raise ValueError(word)
    return int(figure) if figure.is_integer() and abs(figure) < _EXACT else figure
