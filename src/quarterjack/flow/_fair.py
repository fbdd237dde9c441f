"""Fair shares: start-time fair queueing over the keys of jobs that wait.

Each key has a *start*, the virtual instant at which its next job begins; the
key with the earliest start is next. Being served moves it on by the job's cost
divided by the key's weight. A key that comes anew starts where the one served
last did: it is neither owed what it did not ask for nor behind those who did.

Within a key the more urgent job goes first. Only that one has the key's start
for a rank and all others the rank infinity, which is what keeps a step at
O(log n): nobody else moves when one is served. Where a key's jobs stand in
several lanes (they pass different gates) each lane has one in front, so that a
closed gate holds up only those behind it.

**Source:** P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing: A Scheduling
Algorithm for Integrated Services Packet Switching Networks", SIGCOMM 1996."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Final

from .waiting import Waiting

if TYPE_CHECKING:
    from .lane import Lane

__all__ = ["FairShares"]

UNIT_S: Final = 0.001
"""How far a job of cost 1 moves a key of weight 1, in seconds of virtual time. Ranks are instants, so it is
small: a flow that is busy for an hour then ranks at most where it began, not hours ahead, among flows that
share its gates; and it is far above what a float can tell apart at any uptime."""


class _Share:
    """One key: where it stands, and its jobs by lane."""

    __slots__ = ("key", "queues", "start")

    def __init__(self, key: Hashable, start: float) -> None:
        self.key = key
        self.start = start
        self.queues: dict[Lane, _Queue] = {}


class _Queue:
    """The jobs of one key in one lane, the most urgent in front."""

    __slots__ = ("entries", "first", "lane", "share")

    def __init__(self, share: _Share, lane: Lane) -> None:
        self.share = share
        self.lane = lane
        self.entries: list[tuple[float, int, _Place]] = []
        self.first: _Place | None = None


class _Place:
    """Where one job stands."""

    __slots__ = ("instant", "job", "queue")

    def __init__(self, job: Waiting, queue: _Queue, instant: float) -> None:
        self.job = job
        self.queue = queue
        self.instant = instant


class FairShares:
    """Who of those that wait is next.

    Args:
        weight_of: The weight of a key, above 0.
    """

    def __init__(self, weight_of: Callable[[Hashable], float]) -> None:
        self._weight_of = weight_of
        self._shares: dict[Hashable, _Share] = {}
        self._places: dict[Waiting, _Place] = {}
        self._leaving: list[tuple[float, int, _Share]] = []
        """Shares without jobs, by their start: forgotten once virtual time has reached it."""
        self._virtual = -math.inf
        """The start of who was served last."""
        self._count = 0

    def rank(self, job: Waiting, instant: float) -> float:
        """Return the rank of *job*; of one that is not known yet, the last.

        Args:
            job: Its lane and its sequence number are set, if it is known.
            instant: Where it belongs among the jobs of its key; earlier than before, if it was lifted.
        """
        place = self._places.get(job)
        if place is None:
            return math.inf
        if place.instant != instant:
            place.instant = instant
            self._push(place)
        return place.queue.share.start if place.queue.first is place else math.inf

    def came(self, job: Waiting, instant: float, key: Hashable, now: float) -> None:
        """*job* waits from now on."""
        if not self._places:  # nobody competes: what was served before counts no more
            self._shares.clear()
            self._leaving.clear()
            self._virtual = now
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = _Share(key, self._virtual)
        elif not share.queues:
            share.start = max(share.start, self._virtual)
        queue = share.queues.get(job._lane)
        if queue is None:
            queue = share.queues[job._lane] = _Queue(share, job._lane)
        place = self._places[job] = _Place(job, queue, instant)
        self._push(place)

    def chosen(self, job: Waiting) -> None:
        """*job* is served: its key moves on."""
        place = self._places.pop(job, None)
        if place is None:
            return
        share = place.queue.share
        self._virtual = max(self._virtual, share.start)
        share.start += UNIT_S * job.cost / self._weight_of(share.key)
        self._taken_out(place)
        for queue in tuple(share.queues.values()):
            _rerank(queue.first)
        while self._leaving and self._leaving[0][0] <= self._virtual:
            idle = heappop(self._leaving)[2]
            if not idle.queues and idle.start <= self._virtual and self._shares.get(idle.key) is idle:
                del self._shares[idle.key]

    def left(self, job: Waiting) -> None:
        """*job* goes without being served: its key keeps its turn."""
        place = self._places.pop(job, None)
        if place is not None:
            self._taken_out(place)

    @property
    def waiting(self) -> dict[Hashable, int]:
        """How many wait, by key."""
        counts: dict[Hashable, int] = {}
        for place in self._places.values():
            key = place.queue.share.key
            counts[key] = counts.get(key, 0) + 1
        return counts

    def _push(self, place: _Place) -> None:
        heappush(place.queue.entries, (place.instant, place.job._seq, place))
        self._settle(place.queue)

    def _taken_out(self, place: _Place) -> None:
        queue = place.queue
        share = queue.share
        if queue.first is place:
            queue.first = None
        self._settle(queue)
        if queue.first is None:
            del share.queues[queue.lane]
            if not share.queues:
                self._count += 1
                heappush(self._leaving, (share.start, self._count, share))

    def _settle(self, queue: _Queue) -> None:
        """Put the most urgent in front; tell the room where that is another one."""
        entries = queue.entries
        while entries and not self._counts(entries[0]):
            heappop(entries)
        before, queue.first = queue.first, entries[0][2] if entries else None
        if before is not queue.first:
            _rerank(before)
            _rerank(queue.first)

    def _counts(self, entry: tuple[float, int, _Place]) -> bool:
        instant, _, place = entry
        return self._places.get(place.job) is place and instant == place.instant


def _rerank(place: _Place | None) -> None:
    if place is not None:
        place.job._lane.room.rerank(place.job)
