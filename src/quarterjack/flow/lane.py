"""Lanes: the jobs of one waiting room that pass the same gates, in the room's order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Sequence
from functools import lru_cache
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from .waiting import Phase, Waiting

if TYPE_CHECKING:
    from .base import Gate, Order
    from .dispatcher import Post
    from .room import WaitingRoom

__all__ = ["COMPACT_ABOVE", "FifoLane", "Lane", "RankedLane", "says", "spares_light"]

COMPACT_ABOVE: Final = 64
"""Fewer entries of jobs that wait no more are left to be popped."""

_WAITING, _TAKEN = Phase.WAITING, Phase.TAKEN


def says(strategy: Gate | Order, method: str) -> bool:
    """Say whether the class of *strategy* has a *method* of its own: the inherited ones need no call."""
    return _has_own(type(strategy), method)


@lru_cache(maxsize=1024)  # asked three times for each gate of each key
def _has_own(kind: type[Gate | Order], method: str) -> bool:
    for cls in kind.__mro__:
        if method in vars(cls):
            return "_is_contract" not in vars(cls)
    return False


def spares_light(strategy: Gate | Order) -> bool:
    """Say whether its `check` never refuses a job that costs 1 or less: those need not be asked about."""
    return _spares_light(type(strategy))


@lru_cache(maxsize=1024)
def _spares_light(kind: type[Gate | Order]) -> bool:
    owner = next(cls for cls in kind.__mro__ if "check" in vars(cls))  # a subclass's own check is another one
    return bool(vars(owner).get("_spares_light", False))


def _is_light(gate: Gate) -> bool:
    """Say whether a slot is all that a job takes: nothing happens at its start, and it is lent to nobody."""
    return gate._has_fast_path and not gate.lends and not says(gate, "started")


class Lane(ABC):
    """Jobs of one room that pass the same gates."""

    __slots__ = (
        "__weakref__",
        "entry",
        "etas",
        "givers",
        "inside",
        "is_faded",
        "keys",
        "parked",
        "posts",
        "promoted",
        "room",
        "size",
        "sole",
        "starters",
        "takers",
    )

    def __init__(self, room: WaitingRoom, keys: tuple[Hashable, ...], gates: Sequence[Gate]) -> None:
        self.room = room
        self.keys = keys
        self.posts: tuple[Post, ...] = tuple(map(room.dispatcher.post, gates))
        self.etas = tuple((post, post.eta) for post in self.posts)
        self.takers = tuple(gate for gate in gates if says(gate, "take"))
        self.starters = tuple(gate for gate in gates if says(gate, "started"))
        self.givers = tuple(gate for gate in gates if says(gate, "give"))
        alone = self.posts[0] if len(gates) == 1 else None
        self.sole = alone if alone is not None and _is_light(alone.gate) else None
        """Its only gate, where a job that costs 1 may take its slot by `Gate._take_one`."""
        self.size: int = 0
        """Jobs that wait."""
        self.inside = 0
        """Jobs that were admitted and are not over."""
        self.is_faded = False
        """It stands among those of its room that may be dropped."""
        self.entry: tuple[float, int, Lane] | None = None
        """Its place among the ready or the parked; any other entry of it is void."""
        self.parked: Post | None = None
        self.promoted: Post | None = None
        """Where it was parked before it became ready: the next there is asked once this one got through."""

    @abstractmethod
    def push(self, job: Waiting) -> bool:
        """Add *job*; return whether it is the best now."""

    @abstractmethod
    def head(self) -> Waiting | None:
        """Return the best job that waits."""

    @abstractmethod
    def _unlink(self, job: Waiting) -> None:
        """Drop the entry of *job*, unless a gate let a better one in meanwhile: then it is void where it stands."""

    @abstractmethod
    def _first(self) -> Waiting | None:
        """Return the job of the entry in front, whether it waits or not."""

    @abstractmethod
    def _compact(self) -> None:
        """Drop what is void, if that is most of it."""

    def pop(self, job: Waiting) -> None:
        """Take *job*, the best, out."""
        self._unlink(job)
        job._phase = _TAKEN
        self.size -= 1
        room = self.room
        room.size -= 1
        if room._blocked:
            room.let_next_come()

    def forget(self) -> bool:
        """A job of it waits no more; return whether it was the best."""
        self.size -= 1
        gone = self._first()
        self._compact()
        return gone is not None and gone._phase is not _WAITING


class FifoLane(Lane):
    """First come, first served."""

    __slots__ = ("_jobs",)

    def __init__(self, room: WaitingRoom, keys: tuple[Hashable, ...], gates: Sequence[Gate]) -> None:
        super().__init__(room, keys, gates)
        self._jobs: deque[Waiting] = deque()

    def push(self, job: Waiting) -> bool:
        self._jobs.append(job)
        self.size += 1
        return self.size == 1

    def head(self) -> Waiting | None:
        jobs = self._jobs
        while jobs:
            job = jobs[0]
            if job._phase is _WAITING:
                return job
            jobs.popleft()
        return None

    def _unlink(self, job: Waiting) -> None:
        if self._jobs[0] is job:
            self._jobs.popleft()

    def _first(self) -> Waiting | None:
        return self._jobs[0] if self._jobs else None

    def _compact(self) -> None:
        if len(self._jobs) > 2 * self.size + COMPACT_ABOVE:
            self._jobs = deque(job for job in self._jobs if job._phase is _WAITING)


class RankedLane(Lane):
    """By rank, as an `Order` gives it."""

    __slots__ = ("_jobs",)

    def __init__(self, room: WaitingRoom, keys: tuple[Hashable, ...], gates: Sequence[Gate]) -> None:
        super().__init__(room, keys, gates)
        self._jobs: list[tuple[float, int, Waiting]] = []
        """A heap; an entry whose job waits no more, or has another rank by now, is void."""

    def push(self, job: Waiting) -> bool:
        heappush(self._jobs, (job._rank, job._seq, job))
        self.size += 1
        return self._jobs[0][2] is job

    def head(self) -> Waiting | None:
        jobs = self._jobs
        while jobs:
            rank, seq, job = jobs[0]
            if job._phase is _WAITING and rank == job._rank and seq == job._seq:
                return job
            heappop(jobs)
        return None

    def _unlink(self, job: Waiting) -> None:
        if self._jobs[0][2] is job:
            heappop(self._jobs)

    def _first(self) -> Waiting | None:
        return self._jobs[0][2] if self._jobs else None

    def _compact(self) -> None:
        if len(self._jobs) > 2 * self.size + COMPACT_ABOVE:
            self._jobs = [
                one for one in self._jobs if one[2]._phase is _WAITING and one[:2] == (one[2]._rank, one[2]._seq)
            ]
            heapify(self._jobs)
