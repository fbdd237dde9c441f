"""What tests in real time share: waiting for what others do, and whether processes live.

Nothing is timed here. The limit is for what never comes; a busy machine is far from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

__all__ = ["LONG_S", "heirs_of", "is_alive", "until", "until_true", "wait_until"]

LONG_S: Final = 40.0
LOOK_S: Final = 0.01


async def until(is_so: Callable[[], Any]) -> None:
    """Wait for something that happens in other tasks, threads or processes."""
    async with asyncio.timeout(LONG_S):
        while not is_so():
            await asyncio.sleep(LOOK_S)


async def until_true(is_so: Callable[[], Awaitable[bool]]) -> None:
    """As `until`, for what is asked of a store."""
    async with asyncio.timeout(LONG_S):
        while not await is_so():
            await asyncio.sleep(LOOK_S)


def wait_until(is_so: Callable[[], Any]) -> None:
    """As `until`, without a loop."""
    deadline = time.monotonic() + LONG_S
    while not is_so():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(LOOK_S)


def is_alive(pid: int | str) -> bool:
    """Say whether a process runs; one that has ended and waits for its parent to look does not."""
    try:
        return (
            Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()[0] != "Z"
        )
    except OSError:
        return False


def heirs_of(variable: str) -> list[int]:
    """Return the processes that were started with an environment variable, wherever they hang by now (Linux)."""
    return [int(place.parent.name) for place in Path("/proc").glob("[0-9]*/environ") if _has(place, variable.encode())]


def _has(place: Path, variable: bytes) -> bool:
    try:
        return any(one.startswith(variable + b"=") for one in place.read_bytes().split(b"\0"))
    except OSError:  # it has ended, or is somebody else's
        return False
