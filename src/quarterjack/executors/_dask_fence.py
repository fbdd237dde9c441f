"""Who runs an attempt on Dask: a queue on its scheduler for each, which holds one thing at any time.

    "free"          the body may begin: whoever finds this puts himself there
    a `Holder`      there the body was begun
    "withdrawn"     it was cancelled before that

Dask runs a task anew whose worker died, up to four times. The run that comes
second finds out here who was first, and does not begin."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any, Final, NamedTuple

import psutil

__all__ = ["WITHDRAWN", "Holder", "close_fence", "fence_of", "key_of", "open_fence", "take"]

FREE: Final = "free"
WITHDRAWN: Final = "withdrawn"
TRIES: Final = 50
PAUSE_S: Final = 0.02
"""Another one may hold what stands there in his hands; not for longer than a second."""


class Holder(NamedTuple):
    """A Dask worker, as others can tell whether it is still there."""

    address: str
    place: str
    """Where its pid means something."""
    pid: int
    born: float

    @classmethod
    def here(cls, address: str) -> Holder:
        """Return this process."""
        return cls(address, _place(), os.getpid(), psutil.Process().create_time())

    def is_gone(self) -> bool:
        """Say whether it has certainly ended; False as well if that cannot be told from here."""
        if self.place != _place():
            return False
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.born) > 1.0)
        except psutil.NoSuchProcess:
            return True


def _place() -> str:
    """Return what processes have in common that know each other by their pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return socket.gethostname()


def key_of(task: str, ref: str) -> str:
    """Return an attempt's key: Dask counts, draws and estimates by what stands before the first figures."""
    return f"{task}-{ref}"


def fence_of(ref: str) -> str:
    """Return the name of an attempt's queue."""
    return f"quarterjack-{ref}"


async def open_fence(client: Any, ref: str) -> None:
    """Let the body of *ref* begin, once."""
    name = fence_of(ref)
    await client.scheduler.queue_create(name=name, client=client.id, maxsize=0)
    await client.scheduler.queue_put(name=name, data=FREE, client=client.id, timeout=None)


def close_fence(client: Any, ref: str) -> None:
    """Forget *ref*."""
    if client.status == "running":
        client._send_to_scheduler({"op": "queue_release", "name": fence_of(ref)})


async def take(scheduler: Any, ref: str, mine: str | Holder) -> str | Holder | None:
    """Put *mine* into the place that is free; return None, or who has been there before.

    Raises:
        LookupError: If nobody wants *ref* any more.
    """
    name = fence_of(ref)
    for _ in range(TRIES):
        found = await scheduler.queue_get(name=name, timeout=None, batch=True)
        if found:
            value = found[0]["value"]
            new = mine if value == FREE else value
            await scheduler.queue_put(name=name, data=new, client="", timeout=None)
            return None if value == FREE else value if isinstance(value, str) else Holder(*value)
        await asyncio.sleep(PAUSE_S)
    raise LookupError(ref)
