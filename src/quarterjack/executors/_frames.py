"""Frames between an app and a child process: a kind, a length, and that many bytes.

    to the child     HELLO (settings)  RUN (a request)  CANCEL  EXIT
    from the child   READY  UNLOADABLE (why)  STARTED  PROGRESS  KEEP  MEMORY (its KiB)  ENDED (an answer)

A request or an answer over `LARGE` bytes goes through a file instead, and the
frame (RUN_FILE, ENDED_FILE) names it; whoever reads it deletes it."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

__all__ = ["LARGE", "Frame", "Frames", "pack"]

LARGE: Final = 8 * 2**20
"""A larger message goes through a file: a socket takes it in pieces of 200 KB, each a turn of the loop."""
_HEAD: Final = struct.Struct("!BI")


class Frame(IntEnum):
    """What a frame is about."""

    HELLO = 1
    RUN = 2
    RUN_FILE = 3
    CANCEL = 4
    EXIT = 5
    READY = 11
    UNLOADABLE = 12
    STARTED = 13
    PROGRESS = 14
    KEEP = 15
    MEMORY = 16
    ENDED = 17
    ENDED_FILE = 18


def pack(kind: Frame, data: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    return _HEAD.pack(kind, len(data)) + data


class Frames:
    """Puts frames together from what a stream brings."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | bytearray) -> None:
        """Take what came."""
        self._buffer += data

    def take(self) -> tuple[Frame, bytes] | None:
        """Return the next whole frame; None if there is none."""
        buffer = self._buffer
        if len(buffer) < _HEAD.size:
            return None
        kind, size = _HEAD.unpack_from(buffer)
        end = _HEAD.size + size
        if len(buffer) < end:
            return None
        data = bytes(buffer[_HEAD.size : end])
        del buffer[:end]
        return Frame(kind), data
