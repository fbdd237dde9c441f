"""What tests in real time share: waiting for what others do, and whether processes live.

Nothing is timed here. The limit is for what never comes; a busy machine is far from it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

__all__ = ["LONG_S", "is_alive", "until", "wait_until"]

LONG_S: Final = 40.0
LOOK_S: Final = 0.01


async def until(is_so: Callable[[], Any]) -> None:
    """Wait for something that happens in other tasks, threads or processes."""
    async with asyncio.timeout(LONG_S):
        while not is_so():
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
