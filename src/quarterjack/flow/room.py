"""Waiting rooms: where the jobs of one flow wait for their gates, in lanes."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from quarterjack.errors import InvalidOption, QueueFull, WaitedTooLong

from .alarms import Alarm
from .dispatcher import Dispatcher
from .lane import COMPACT_ABOVE, FifoLane, Lane, RankedLane, says, spares_light
from .waiting import INSTANTS_ARE, Phase, Waiting, instant

if TYPE_CHECKING:
    from .base import Gate, Order

__all__ = ["HeldUp", "MadeWay", "Overflow", "WaitingRoom"]

log = logging.getLogger("quarterjack.flow")

Overflow = Literal["reject", "drop_oldest", "block"]

_WAITING, _STARTED, _OVER = Phase.WAITING, Phase.STARTED, Phase.OVER


class HeldUp(NamedTuple):
    """What a job waits for: *words* follow the *label*, where *until* (monotonic) is infinite, for nobody knows."""

    label: str
    until: float
    words: str
    gate: Gate | None = None


class MadeWay(QueueFull):
    """What ``"drop_oldest"`` tells the one that waited longest: it did nothing wrong, and can do nothing about it."""

    def __str__(self) -> str:
        return f"a newer one came while max_queue={self.max_queue} jobs waited"


class WaitingRoom:
    """The jobs of one flow that wait, on one loop.

    Args:
        dispatcher: The loop's.
        gates: What every job passes, asked in this order; those with ``by=`` once per key.
        order: Which job is next; None is first come, first served.
        start: Called with a job that is admitted; `Dispatcher.give` ends its pass.
        refuse: Called with a job that is turned away and why; it took nothing.
        max_queue: Jobs that may wait; None is no bound.
        overflow: What becomes of one more.
        max_wait_s: How long a job may wait.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        gates: Sequence[Gate],
        order: Order | None,
        *,
        start: Callable[[Any], None],
        refuse: Callable[[Any, Exception], None],
        max_queue: int | None = None,
        overflow: Overflow = "reject",
        max_wait_s: float | None = None,
    ) -> None:
        # Gates that all jobs share come first: whom they stop is parked there, whatever its key.
        self.gates: Final = tuple(sorted(gates, key=lambda gate: gate.by is not None))
        self.dispatcher = dispatcher
        self.order = order
        self.start = start
        self.refuse = refuse
        self.max_queue = max_queue
        self.overflow = overflow
        self.max_wait_s = max_wait_s
        self._is_plain = order is None and max_queue is None and max_wait_s is None
        """Nothing stands between a job that comes and its place at the end of its lane."""
        self.size = 0
        """Jobs that wait."""
        self._keyed = tuple(gate for gate in self.gates if gate.by is not None)
        dispatcher.posts(self.gates)  # they belong to this loop, whatever keys will come
        self._checkers: tuple[Gate | Order, ...] = tuple(gate for gate in self.gates if says(gate, "check"))
        if order is not None and says(order, "check"):
            self._checkers += (order,)
        self._light_checkers = tuple(checker for checker in self._checkers if not spares_light(checker))
        """Those that are asked about a job that costs 1 or less."""
        self._lanes: dict[tuple[Hashable, ...], Lane] = {}
        self._faded: deque[Lane] = deque()
        """Lanes that had no job when they were put here; each once."""
        self.only = None if self._keyed else self._make_lane(())
        """The lane of all, where no gate goes by keys."""
        self._arrivals: deque[tuple[float, int, Waiting]] = deque()
        """Since when who waits here, where something goes by that; void once the job left or came back."""
        self._alarm: Alarm | None = None
        self._blocked: deque[asyncio.Future[None]] = deque()
        """Who waits for room, first come first."""

    # -- coming ----------------------------------------------------------------------

    @property
    def is_full(self) -> bool:
        """True if no more may wait."""
        return self.max_queue is not None and self.size >= self.max_queue

    def put(self, job: Waiting) -> None:
        """Let *job* wait for its gates. `Waiting.enqueued_at` is set.

        Raises:
            InvalidOption: If a gate can never let it through, or its key cannot be found.
            QueueFull: If the room is full and turns away what comes (a sheer ``"block"`` does, too).
        """
        for checker in self._light_checkers if job.cost <= 1.0 else self._checkers:
            checker.check(job)
        if not self._is_plain:
            self._put_by_rule(job)
            return
        lane = self.only or self._lane_of(job)
        job._rank, job._seq = job.enqueued_at, next(self.dispatcher.seq)
        job._lane, job._phase = lane, _WAITING
        self.size += 1
        if lane.push(job):
            self.dispatcher.ready(lane)

    def _put_by_rule(self, job: Waiting) -> None:
        """As `put`, where there is an order or a bound."""
        lane, order = self.only, self.order
        keys = () if lane is not None else self._keys_of(job)
        rank = job.enqueued_at if order is None else self._rank(order, job)
        if self.max_queue is not None and self.is_full:
            self._make_room(job)
        if lane is None:
            lane = self._lanes.get(keys) or self._make_lane(keys)
        job._rank, job._seq = rank, next(self.dispatcher.seq)
        job._lane, job._phase = lane, _WAITING
        self.size += 1
        if self.max_wait_s is not None or self.overflow == "drop_oldest":
            self._note_arrival(job._seq, job)
        if lane.push(job):
            self.dispatcher.ready(lane)
        if order is not None:
            self.tell(order.came, job, self.dispatcher.monotonic())

    def pass_at_once(self, job: Waiting) -> bool:
        """Admit *job* and begin it if nobody waits before it and every gate lets it through: no turn of the loop.

        Raises:
            Whatever a gate rejects it with.
        """
        lane = self.only or self._lane_of(job)
        dispatcher = self.dispatcher
        now = job.enqueued_at = dispatcher.monotonic()
        if lane.size or ((dispatcher._ready or dispatcher._advancing) and dispatcher.is_sought(lane.posts)):
            return False
        try:
            for post, eta in lane.etas:  # no `check`: who passes now cannot be one who never could
                if post.entries or not eta(job, now) <= now:
                    self.idle(lane)  # should the job be refused, nobody else will see to it
                    return False
        except BaseException:
            self.idle(lane)
            raise
        taken = 0
        try:
            for gate in lane.takers:
                gate.take(job, now)
                taken += 1
        except BaseException:
            dispatcher.undo(job, lane.takers[:taken], now)
            self.idle(lane)
            raise
        job._lane = lane
        lane.inside += 1
        job._phase = _STARTED
        job.started_at = now
        if lane.starters:
            dispatcher.started(job, now)
        return True

    @property
    def must_wait(self) -> bool:
        """True if one more would have to `wait_for_room`."""
        return self.is_full or bool(self._blocked)

    async def wait_for_room(self, *, first: bool = False) -> None:
        """Wait until one more may come, first come first served. Who returns from this comes before anybody else.

        With *first* it is before all who wait for room already.
        """
        if not (self.is_full if first else self.must_wait):
            return
        mine = self.dispatcher.loop.create_future()
        self._blocked.insert(0 if first else len(self._blocked), mine)
        try:
            await mine
            while self.is_full:  # a sheer put was faster
                place = self._blocked.index(mine)
                self._blocked[place] = mine = self.dispatcher.loop.create_future()
                await mine
        finally:
            self._blocked.remove(mine)
            self.let_next_come()

    def let_next_come(self) -> None:
        """There may be room for one who waits for some."""
        if self._blocked and not self.is_full and not self._blocked[0].done():
            self._blocked[0].set_result(None)

    def _lane_of(self, job: Waiting) -> Lane:
        keys = self._keys_of(job)
        return self._lanes.get(keys) or self._make_lane(keys)

    def _keys_of(self, job: Waiting) -> tuple[Hashable, ...]:
        return tuple([gate.key_of(job) for gate in self._keyed])

    def _rank(self, order: Order, job: Waiting) -> float:
        rank = instant(order.rank(job, self.dispatcher.monotonic()), f"rank of {type(order).__name__}")
        if math.isnan(rank):
            raise InvalidOption(f"rank of {order!r} returned nan; {INSTANTS_ARE}")
        return rank

    def _note_arrival(self, seq: int, job: Waiting) -> None:
        arrivals = self._arrivals
        now = self.dispatcher.monotonic()
        arrivals.append((now, seq, job))
        if self.max_wait_s is not None and self._alarm is None:
            self._alarm = self.dispatcher.call_at(now + self.max_wait_s, self._on_waited)
        if len(arrivals) > 2 * self.size + COMPACT_ABOVE:
            self._arrivals = deque(entry for entry in arrivals if self._waits(entry))

    def _waits(self, arrival: tuple[float, int, Waiting]) -> bool:
        _, seq, job = arrival
        return job._phase is _WAITING and job._seq == seq

    def rerank(self, job: Waiting) -> None:
        """The order thinks otherwise of *job* now, if it waits here."""
        lane = job._lane if job._phase is _WAITING else None
        if lane is None or lane.room is not self or self.order is None:
            return
        rank = self._rank(self.order, job)
        if rank == job._rank:
            return
        job._rank = rank
        lane.size -= 1  # the entry it has is void now; push counts it again
        lane.push(job)
        self.dispatcher.ready(lane)

    def refuse_if_full(self, what: str) -> None:
        """Raise `QueueFull` if there is no room for *what*."""
        if self.is_full:
            self.dispatcher.settle()  # who came in this very turn may have gates that are open: they do not wait
        if self.is_full:
            raise QueueFull(self.max_queue or 0, f"no room for {what}")

    def _make_room(self, job: Waiting) -> None:
        if self.overflow == "drop_oldest":
            self.dispatcher.settle()
            if not self.is_full:
                return
            while self._arrivals:
                arrival = self._arrivals.popleft()
                if self._waits(arrival):
                    self.remove(arrival[2])
                    self.refuse(arrival[2], MadeWay(self.max_queue or 0))
                    return
        self.refuse_if_full(job.task or "one more")

    def _make_lane(self, keys: tuple[Hashable, ...]) -> Lane:
        for _ in range(min(2, len(self._faded))):  # two looked at for one made: never more left over than in use
            self._drop(self._faded.popleft())
        key = iter(keys)
        gates = [gate if gate.by is None else gate.at(next(key)) for gate in self.gates]
        kind = FifoLane if self.order is None else RankedLane
        lane = self._lanes[keys] = kind(self, keys, gates)
        if self._keyed:
            for post in lane.posts:
                post.hold(lane)
        return lane

    # -- out of here -----------------------------------------------------------------

    def turn_away(self, job: Waiting, error: Exception) -> None:
        """*job*, which is not in its lane any more and holds nothing, ends with *error*."""
        job._phase = _OVER
        if self.order is not None:
            self.tell(self.order.left, job, self.dispatcher.monotonic())
        self.idle(job._lane)
        self.refuse(job, error)

    def tell(self, hook: Callable[[Waiting, float], None], job: Waiting, now: float) -> None:
        """Tell the order what became of *job*."""
        try:
            hook(job, now)
        except Exception:  # a user's order runs here; the job goes its way
            log.exception("%r raised", hook)

    # -- going -----------------------------------------------------------------------

    def remove(self, job: Waiting) -> bool:
        """Take *job* out if it waits here; say whether it did."""
        if job._phase is not _WAITING or job._lane.room is not self:
            return False
        lane = job._lane
        job._phase = _OVER
        self.size -= 1
        self.let_next_come()
        if lane.forget():
            self.dispatcher.ready(lane)
        if self.order is not None:
            self.tell(self.order.left, job, self.dispatcher.monotonic())
        self.idle(lane)
        return True

    def idle(self, lane: Lane) -> None:
        """If no job is in *lane* any more it may be dropped: it remembers nothing, its gates do."""
        if self._keyed and not lane.is_faded and not lane.size and not lane.inside:
            lane.is_faded = True
            self._faded.append(lane)

    def _drop(self, lane: Lane) -> None:
        lane.is_faded = False
        if not lane.size and not lane.inside:
            del self._lanes[lane.keys]
            for post in lane.posts:
                post.release(lane)

    def _on_waited(self) -> None:
        """Turn away whoever has waited too long."""
        self._alarm = None
        longest = self.max_wait_s or 0.0
        now = self.dispatcher.monotonic()
        while self._arrivals:
            since, _, job = arrival = self._arrivals[0]
            waits = self._waits(arrival)
            if waits and since + longest > now:
                self._alarm = self.dispatcher.call_at(since + longest, self._on_waited)
                return
            self._arrivals.popleft()
            if waits:
                self.remove(job)
                self.refuse(job, WaitedTooLong(longest))

    # -- views -----------------------------------------------------------------------

    def why_or_behind(self, job: Waiting) -> HeldUp | None:
        """Return what holds *job* up: a gate, or who waits for one before it; None if it begins in the next turn."""
        held = self.why(job)
        first = None if held is not None or job._phase is not _WAITING else self._first_before(job)
        ahead = None if first is None else self.why(first)
        if first is None or ahead is None:
            return held
        price = "" if first.cost == 1.0 else f" and costs {first.cost:g}"
        return HeldUp(ahead.label, math.inf, f"lets a job in first that came before it{price}", ahead.gate)

    @staticmethod
    def _first_before(job: Waiting) -> Waiting | None:
        lane = job._lane
        bests = [post.best for post in lane.posts if post.entries]
        heads = [lane.head(), *(best[2].head() for best in bests if best is not None)]
        before = [one for one in heads if one is not None and (one._rank, one._seq) < (job._rank, job._seq)]
        return min(before, key=lambda one: (one._rank, one._seq), default=None)

    def why(self, job: Waiting) -> HeldUp | None:
        """Return what holds *job* up, or None.

        A gate that would turn it away now holds it up no longer than the others do.
        """
        if job._phase is not _WAITING:
            return None
        now = self.dispatcher.monotonic()
        slowest: HeldUp | None = None
        for post in job._lane.posts:
            gate = post.gate
            try:
                eta = gate.eta(job, now)
                if eta > now and (slowest is None or eta > slowest.until):
                    if math.isinf(eta) and gate._is_unasked(job):
                        continue
                    slowest = HeldUp(gate.label, eta, gate.why_closed(job) if math.isinf(eta) else "", gate)
            except Exception:  # noqa: S112  # its rejection, or a user's gate is broken: told when the job's turn comes
                continue
        return slowest
