"""The memory store's waiting room: who is next among the jobs whose time has come.

Order is ``order_at``, then arrival. A lane (`JobRecord.lane`) holds the jobs of
one task on one executor. They mostly arrive in order, so it is a plain deque plus
a small heap for what arrives out of order (another priority, a retry): a push and
a pop of the common case cost no comparison beyond one. A heap of lanes by their
heads finds the most urgent one, and a lane nobody wants (its task is unknown, or
its executor is full) costs one step, not one per waiting job."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from heapq import heapify, heappop, heappush
from itertools import count
from operator import attrgetter

from quarterjack.model import JobRecord, JobState

__all__ = ["ReadyQueue"]

_SUBMITTED = JobState.SUBMITTED
_EVER = 2**63
_order = attrgetter("order_at_ns")


class _Lane:
    """The waiting jobs of one lane. Entries whose job no longer waits are passed over."""

    __slots__ = ("fifo", "listed", "late", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.fifo: deque[JobRecord] = deque()
        self.late: list[tuple[int, int, JobRecord]] = []
        self.listed: int | None = None
        """The order under which the lane stands in the queue's heap; other entries of it are stale."""

    def head(self) -> int | None:
        """Return the order of the most urgent waiting job, after dropping stale entries."""
        fifo, late = self.fifo, self.late
        while fifo and fifo[0].state is not _SUBMITTED:
            fifo.popleft()
        while late and late[0][2].state is not _SUBMITTED:
            heappop(late)
        if fifo:
            order = fifo[0].order_at_ns
            return order if not late or order <= late[0][0] else late[0][0]
        return late[0][0] if late else None

    def pop(self, bound: int) -> JobRecord | None:
        """Return the most urgent waiting job, or None if there is none up to order *bound*."""
        fifo = self.fifo
        if fifo and not self.late:
            job = fifo[0]
            if job.state is _SUBMITTED:
                return fifo.popleft() if job.order_at_ns <= bound else None
        head = self.head()
        if head is None or head > bound:
            return None
        if fifo and fifo[0].order_at_ns == head:
            return fifo.popleft()
        return heappop(self.late)[2]


class ReadyQueue:
    """The waiting jobs of one queue."""

    __slots__ = ("_lanes", "_heap", "_ticket")

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._heap: list[tuple[int, int, _Lane]] = []
        self._ticket = count()

    def push(self, job: JobRecord) -> None:
        """Add a SUBMITTED job whose time has come. O(1) in order, O(log n) out of order."""
        lane = self._lanes.get(job.lane)
        if lane is None:
            lane = self._lanes[job.lane] = _Lane(job.lane)
        order, fifo = job.order_at_ns, lane.fifo
        if not fifo or fifo[-1].order_at_ns <= order:
            fifo.append(job)
        else:
            heappush(lane.late, (order, next(self._ticket), job))
        if lane.listed is None or order < lane.listed:
            self._list(lane, order)

    def _list(self, lane: _Lane, order: int | None) -> None:
        """Place *lane* by its most urgent job; an older, later entry of it becomes stale."""
        lane.listed = order
        if order is not None:
            heappush(self._heap, (order, next(self._ticket), lane))

    def take(self, lanes: Container[str], most: int, admit: Callable[[JobRecord], bool], out: list[JobRecord]) -> int:
        """Move up to *most* jobs of *lanes* to *out*, most urgent first; return how many.

        *admit* may turn a job away (its serial key is held); it is then the
        caller's to bring back.
        """
        heap, taken = self._heap, 0
        unwanted: list[_Lane] = []
        while heap and taken < most:
            order, _, lane = heappop(heap)
            if order != lane.listed:
                continue
            if lane.name not in lanes:
                unwanted.append(lane)
                lane.listed = None
                continue
            bound = heap[0][0] if heap else _EVER
            while taken < most:
                job = lane.pop(bound)
                if job is None:
                    break
                if not job.serial or admit(job):
                    out.append(job)
                    taken += 1
            self._list(lane, lane.head())
        for lane in unwanted:
            self._list(lane, lane.head())
        return taken

    def rekey(self) -> None:
        """Take up the jobs' new orders, after somebody changed them; O(n log n)."""
        self._heap.clear()
        for lane in self._lanes.values():
            jobs = [job for job in (*lane.fifo, *(entry[2] for entry in lane.late)) if job.state is _SUBMITTED]
            lane.fifo = deque(sorted(jobs, key=_order))
            lane.late.clear()
            self._list(lane, lane.head())

    def compact(self) -> int:
        """Drop the entries of jobs that wait no more; return how many are left. O(n)."""
        left = 0
        for lane in self._lanes.values():
            lane.fifo = deque(job for job in lane.fifo if job.state is _SUBMITTED)
            lane.late = [entry for entry in lane.late if entry[2].state is _SUBMITTED]
            heapify(lane.late)
            left += len(lane.fifo) + len(lane.late)
        return left

    def __len__(self) -> int:
        """Return how many jobs wait; O(n), for views."""
        return sum(
            sum(job.state is _SUBMITTED for job in lane.fifo) + sum(e[2].state is _SUBMITTED for e in lane.late)
            for lane in self._lanes.values()
        )
