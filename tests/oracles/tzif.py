"""The changes that tzdata's own files list: a second witness beside `zoneinfo`.

The files end where a zone's rules become regular, mostly in 2007 or 2037; what
follows is a rule in words, which is left to `zoneinfo`. Format: RFC 9636."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from struct import Struct, unpack_from
from typing import Final
from zoneinfo import TZPATH

__all__ = ["listed_changes"]

_HEADER: Final = Struct(">4s1s15x6l")
_KIND: Final = Struct(">lbB")
_SECOND: Final = 1_000_000_000


def listed_changes(zone: str) -> list[tuple[int, int]]:
    """Return the instants, in nanoseconds, at which the offset changes, and by how much."""
    data = _contents(zone)
    magic, version, *first = _HEADER.unpack_from(data)
    assert magic == b"TZif"
    assert version >= b"2"
    start = _HEADER.size + _length(first, 4)
    _, _, *counts = _HEADER.unpack_from(data, start)
    start += _HEADER.size
    times, kinds = counts[3], counts[4]
    instants = unpack_from(f">{times}q", data, start)
    indices = unpack_from(f">{times}B", data, start + 8 * times)
    offsets = [_KIND.unpack_from(data, start + 9 * times + _KIND.size * n)[0] for n in range(kinds)]
    found: list[tuple[int, int]] = []
    before = offsets[0]
    for at, index in zip(instants, indices, strict=True):
        if offsets[index] != before:
            found.append((at * _SECOND, (offsets[index] - before) * _SECOND))
        before = offsets[index]
    return found


def _length(counts: list[int], time_size: int) -> int:
    """Return how long a data block is."""
    ut, std, leap, times, kinds, letters = counts
    return times * (time_size + 1) + kinds * _KIND.size + letters + leap * (time_size + 4) + std + ut


def _contents(zone: str) -> bytes:
    for folder in TZPATH:
        if (path := Path(folder, zone)).is_file():
            return path.read_bytes()
    found = resources.files("tzdata") / "zoneinfo"
    for part in zone.split("/"):
        found /= part
    return found.read_bytes()
