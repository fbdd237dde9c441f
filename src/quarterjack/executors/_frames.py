"""Frames between an app and a child process: a kind, a length, and that many bytes.

    to the child     HELLO (settings)  RUN (a request)  CANCEL  EXIT
    from the child   READY  UNLOADABLE (why)  STARTED  PROGRESS  KEEP  MEMORY (its KiB)  ENDED (an answer)

The process that speaks to a cluster has many bodies out: there each frame about one
begins with the body's number (`numbered`), and there are two more:

    to it            KILL
    from it          ACCEPTED (by the cluster's queue)

A request or an answer over `LARGE` bytes goes through a file instead, and the
frame (RUN_FILE, ENDED_FILE) names it; whoever reads it deletes it."""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import Final

__all__ = ["LARGE", "Frame", "Frames", "number_of", "numbered", "pack"]

LARGE: Final = 8 * 2**20
"""A larger message goes through a file: a socket takes it in pieces of 200 KB, each a turn of the loop."""
_HEAD: Final = struct.Struct("!BI")
_NUMBER: Final = struct.Struct("!Q")


class Frame(IntEnum):
    """What a frame is about."""

    HELLO = 1
    RUN = 2
    RUN_FILE = 3
    CANCEL = 4
    EXIT = 5
    KILL = 6
    READY = 11
    UNLOADABLE = 12
    STARTED = 13
    PROGRESS = 14
    KEEP = 15
    MEMORY = 16
    ENDED = 17
    ENDED_FILE = 18
    ACCEPTED = 19


def pack(kind: Frame, data: bytes = b"") -> bytes:
    """Return a frame's bytes."""
    return _HEAD.pack(kind, len(data)) + data


def numbered(number: int, data: bytes = b"") -> bytes:
    """Return the data of a frame about one body of many."""
    return _NUMBER.pack(number) + data


def number_of(data: bytes) -> tuple[int, bytes]:
    """Return which body a frame is about, and the rest of its data."""
    return _NUMBER.unpack_from(data)[0], data[_NUMBER.size :]


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
