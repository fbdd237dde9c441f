"""The ledger: what happened, noted by those who did it, in a file that only ever grows.

A line is one write at the end of the file, which the system keeps whole, and
which outlives the process that made it. Times are the machine's monotonic
clock, which all its processes share."""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import monotonic_ns
from typing import NamedTuple

__all__ = ["Entry", "Ledger"]


class Entry(NamedTuple):
    """One line: what, when, by or to whom, and the attempt that it is about."""

    kind: str
    at_ns: int
    who: str
    job: str = ""
    attempt: int = 0
    task: str = ""


class Ledger:
    """Appends to one file; every process opens it for itself."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        self._read = 0
        self._entries: list[Entry] = []

    def note(self, kind: str, who: str, job: str = "", attempt: int = 0, task: str = "") -> None:
        """Write one line now."""
        os.write(self._file, json.dumps([kind, monotonic_ns(), who, job, attempt, task]).encode() + b"\n")

    def read(self) -> list[Entry]:
        """Return all lines of all processes, by time; asked again it reads only what has come since."""
        size = os.fstat(self._file).st_size
        lines = os.pread(self._file, size - self._read, self._read)
        whole = lines[: lines.rfind(b"\n") + 1]
        self._read += len(whole)
        if whole:
            self._entries += (Entry(*json.loads(line)) for line in whole.splitlines())
            self._entries.sort(key=lambda entry: entry.at_ns)
        return self._entries

    def close(self) -> None:
        os.close(self._file)
