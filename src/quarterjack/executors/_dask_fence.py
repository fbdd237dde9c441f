"""Who runs an attempt on Dask: the first who asks its scheduler, and nobody after that.

Dask runs a task anew whose worker died, up to four times. A plugin of its
scheduler keeps, by the key of each task of ours, whose turn it is:

    "free"          the body may begin: whoever asks now is put there
    a `Holder`      there the body was begun
    "withdrawn"     it was cancelled before that

To ask and to be put there is one step of the scheduler's, so that one who dies
thereafter is known to whoever comes next. What stands there goes with the task,
or with the client that wanted it; the workers that have begun anything for that
client are told that it has left."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import psutil

if TYPE_CHECKING:  # where Dask is not installed, its classes are no classes

    class SchedulerPlugin:
        """Dask's."""
else:
    from distributed import SchedulerPlugin

__all__ = ["LEFT", "WITHDRAWN", "Fences", "Holder", "bring_fences", "key_of", "open_fence", "take"]

NAME: Final = "quarterjack"
FREE: Final = "free"
WITHDRAWN: Final = "withdrawn"
UNKNOWN: Final = "unknown"
LEFT: Final = "quarterjack_left"
"""What Dask workers are told when a client has left."""


class Holder(NamedTuple):
    """A Dask worker, as others can tell whether it is still there."""

    address: str
    place: str
    """Where its pid means something."""
    pid: int
    born: float
    """When it began, as the system counts it."""

    @classmethod
    def here(cls, address: str) -> Holder:
        """Return this process."""
        return cls(address, _place(), os.getpid(), _birth(os.getpid()))

    def is_gone(self) -> bool:
        """Say whether it has certainly ended; False as well if that cannot be told from here."""
        if self.place != _place():
            return False
        try:
            os.kill(self.pid, 0)
            return _birth(self.pid) != self.born
        except (ProcessLookupError, psutil.NoSuchProcess):
            return True
        except (OSError, psutil.Error):  # somebody else's, and hidden from us
            return False


def _place() -> str:
    """Return what processes have in common that know each other by their pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # no Linux
        return socket.gethostname()


def _birth(pid: int) -> float:
    """Return when a process began, in figures that a step of the wall clock does not change.

    Raises:
        ProcessLookupError: If it has ended, and nobody has asked how.
    """
    if not sys.platform.startswith("linux"):  # the system itself has noted it
        return float(psutil.Process(pid).create_time())
    state, *fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    if state in {b"Z", b"X"}:
        raise ProcessLookupError(pid)
    return float(fields[18])  # in ticks since the system began, which is part of its place


class Fences(SchedulerPlugin):
    """On Dask's scheduler: whose turn each task is."""

    idempotent = True
    """Once there is one, another one is not wanted."""

    def __init__(self) -> None:
        self._turn_by_key: dict[str, str | Holder] = {}
        self._client_by_key: dict[str, str] = {}
        self._workers_by_client: dict[str, set[str]] = {}

    async def start(self, scheduler: Any) -> None:
        """Answer what is asked below."""
        scheduler.handlers.update({"quarterjack_open": self.open, "quarterjack_take": self.take})

    def open(self, key: str, client: str) -> str | Holder:
        """Let the body of *key* begin; return whose turn it is."""
        self._client_by_key[key] = client
        return self._turn_by_key.setdefault(key, FREE)

    def take(self, key: str, mine: str | Holder) -> str | Holder:
        """Put *mine* there if it is free; return what stood there."""
        turn = self._turn_by_key.get(key, UNKNOWN)
        if turn == FREE:
            self._turn_by_key[key] = mine
            if not isinstance(mine, str):
                self._workers_by_client.setdefault(self._client_by_key[key], set()).add(mine[0])
        return turn

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Forget a task that Dask forgets."""
        del start, args, kwargs
        if finish == "forgotten" and key in self._turn_by_key:
            self._forget(key)

    def remove_worker(self, scheduler: Any, worker: str, **kwargs: Any) -> None:
        """Tell nothing to a worker that has left: the next one at its address does not know these words, and fails."""
        del scheduler, kwargs
        for workers in self._workers_by_client.values():
            workers.discard(worker)

    def remove_client(self, scheduler: Any, client: str) -> None:
        """Forget what a client has not handed over any more."""
        for key in [key for key, owner in self._client_by_key.items() if owner == client]:
            self._forget(key)
        for address in self._workers_by_client.pop(client, set()) & scheduler.workers.keys():
            scheduler.worker_send(address, {"op": LEFT, "client": client})

    def _forget(self, key: str) -> None:
        del self._turn_by_key[key], self._client_by_key[key]


def key_of(task: str, ref: str) -> str:
    """Return an attempt's key: Dask counts, draws and estimates by what stands before the first figures."""
    return f"{task}-{ref}"


async def bring_fences(client: Any) -> None:
    """See that the scheduler has them.

    Raises:
        ImportError: If it does not find this module.
    """
    await client.register_plugin(Fences(), name=NAME)


async def open_fence(client: Any, key: str) -> None:
    """Let the body of *key* begin, once.

    Raises:
        OSError: If the scheduler is out of reach, or another one than that to which the fences were brought.
    """
    if await client.scheduler.quarterjack_open(key=key, client=client.id) is None:
        raise ConnectionError("the scheduler was started anew")


async def take(scheduler: Any, key: str, mine: str | Holder) -> str | Holder | None:
    """Put *mine* into the place that is free; return None, or who has been there before.

    Raises:
        LookupError: If nobody wants *key* any more, or the scheduler was started anew.
    """
    turn = await scheduler.quarterjack_take(key=key, mine=mine)
    if turn is None or turn == UNKNOWN:  # None is its answer to what it does not understand
        raise LookupError(key)
    if turn == FREE:
        return None
    return turn if isinstance(turn, str) else Holder(*turn)
