"""The dispatcher: who may start now, and who is asked again when.

One per event loop, so that a gate may be shared by any number of flows, queues
and bare passes. Jobs wait in *lanes* (`quarterjack.flow.room`), one per
combination of keys; the jobs of a lane pass the same gates. At any moment a
lane is in one place:

- *ready*: its best job is to be asked for,
- *parked* at the first of its gates that was closed, in the order of rank, or
- empty.

A job starts when every gate of its lane answers "now" in one go: nothing is
awaited between the first question and the last ``take``, so there is no
hold-and-wait, nothing is taken back, and two jobs never take one slot. Of the
lanes parked at a gate only the best is asked when the gate may have opened, and
the next only once that one has started: what happens costs O(log n), however
many wait. Nothing overtakes a better rank at the gate where that one is parked.

A gate is asked again when somebody gives it something back, when the instant
comes that it named, when it says so itself (`Gate.wake`), and after a jump of
the wall clock. There is one timer. Nothing polls: an idle dispatcher never
wakes the process.

Everything runs in `Dispatcher._pump`, a callback of the loop in an empty
context: starting a job from inside the one that ends would leak its context
variables."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextvars import Context
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, ClassVar, Final
from weakref import WeakValueDictionary

from quarterjack.clock import clock_of
from quarterjack.errors import WrongLoop

from .outcome import NOT_STARTED, Ended
from .waiting import Phase, Waiting

if TYPE_CHECKING:
    from .base import Gate
    from .room import Lane

__all__ = ["Alarm", "Dispatcher", "Post"]

log = logging.getLogger("quarterjack.flow")

NEVER: Final = float("inf")
LONGEST_S: Final = 30.0
"""A gate that goes by the wall clock is asked again at least this often: clocks are set, machines sleep."""

SHORTEST_S: Final = 1e-6
"""An instant may lie so close that the loop's clock, a float, cannot tell it from now: a timer would ring at once, find
nothing due, and be set anew, without end where time stands still meanwhile (a virtual clock counts nanoseconds)."""

_TAKEN, _STARTED, _OVER = Phase.TAKEN, Phase.STARTED, Phase.OVER


class Post:
    """Where lanes wait at one gate: the best of them in front."""

    __slots__ = ("__weakref__", "armed", "at", "dispatcher", "entries", "gate", "is_open")

    def __init__(self, gate: Gate, dispatcher: Dispatcher) -> None:
        self.gate = gate
        self.dispatcher = dispatcher
        self.entries: list[tuple[float, int, Lane]] = []
        """A heap by rank; an entry that is not its lane's `Lane.entry` any more is void."""
        self.at = NEVER
        """When the gate said that its best lane may be asked again."""
        self.armed = NEVER
        """For which instant there is an alarm."""
        self.is_open = False
        """It is to be looked at in the next pump."""

    @property
    def best(self) -> tuple[float, int, Lane] | None:
        """The first entry that counts."""
        entries = self.entries
        while entries and entries[0][2].entry is not entries[0]:
            heappop(entries)
        return entries[0] if entries else None

    def ring(self) -> None:
        """The instant has come that the gate named."""
        self.dispatcher.open(self)


class Alarm:
    """Something to be done at an instant, unless it is cancelled."""

    __slots__ = ("at", "callback")

    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do nothing then."""
        self.callback = None

    def ring(self) -> None:
        """Do it."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class Dispatcher:
    """Admits jobs on one event loop. Get it from `of`; it lives as long as somebody uses it."""

    _by_loop: ClassVar[WeakValueDictionary[int, Dispatcher]] = WeakValueDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.clock = clock_of(loop)
        self.monotonic = self.clock.monotonic
        self._ready: list[tuple[float, int, Lane]] = []
        self._open: list[Post] = []
        self._alarms: list[tuple[float, int, Post | Alarm]] = []
        self._seq = count()
        self._handle: asyncio.TimerHandle | None = None
        self._is_scheduled = False
        self._context = Context()

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Dispatcher:
        """Return the dispatcher of *loop*."""
        found = cls._by_loop.get(id(loop))
        if found is None or found.loop is not loop or found.clock is not clock_of(loop):
            found = cls._by_loop[id(loop)] = cls(loop)
        return found

    def post(self, gate: Gate) -> Post:
        """Return where lanes wait at *gate*, which belongs to this loop from now on.

        Raises:
            WrongLoop: If it belongs to another loop that is still open.
        """
        post = gate._post  # the dispatcher's own
        if post is not None and post.dispatcher is self:
            return post
        if post is not None:
            if post.dispatcher.loop is not self.loop and not post.dispatcher.loop.is_closed():
                raise WrongLoop(
                    f"{gate!r} belongs to the event loop that used it first, and cannot guard two; "
                    'make one for each loop, or a limit for all processes with scope="fleet"'
                )
            gate.forget()  # who held it went down with that loop
        gate.clock = self.clock
        gate._post = post = Post(gate, self)
        return post

    # -- what happens ----------------------------------------------------------------

    def next_seq(self) -> int:
        """Return a number above all before: equal ranks go in this order."""
        return next(self._seq)

    def ready(self, lane: Lane) -> None:
        """The best job of *lane* has changed, or is the first: ask for it."""
        left, lane.parked = lane.parked, None
        head = lane.head()
        if head is None:
            lane.entry = None
            left, lane.promoted = left or lane.promoted, None
        if left is not None:  # who was parked behind it may come in its place
            self.open(left)
        if head is None:
            return
        lane.entry = entry = (head._rank, head._seq, lane)
        heappush(self._ready, entry)
        self._schedule()

    def open(self, post: Post) -> None:
        """The gate may let somebody through: ask the best who is parked there."""
        if not post.is_open and post.entries:
            post.is_open = True
            self._open.append(post)
            self._schedule()

    def give(self, job: Waiting, ended: Ended, now: float | None = None) -> None:
        """The pass of *job* is over; gives back what it took. Once per job that was started."""
        lane = job._lane
        job._phase = _OVER
        if now is None:
            now = self.monotonic()
        for gate in lane.givers:
            try:
                gate.give(job, now, ended)
            except Exception:  # a user's gate runs here; its slot is its own business, the job's end is not
                log.exception("%r raised in give", gate)
        for post in lane.posts:
            if post.entries and not post.is_open:
                post.is_open = True
                self._open.append(post)
        lane.inside -= 1
        if not lane.inside and not lane.size:
            lane.room.idle(lane)
        if self._open:
            self._schedule()

    def started(self, job: Waiting, now: float) -> None:
        """The body of *job* begins."""
        lane = job._lane
        job._phase = _STARTED
        job.started_at = now
        for gate in lane.starters:
            try:
                gate.started(job, now)
            except Exception:  # a user's gate runs here; the body has begun all the same
                log.exception("%r raised in started", gate)
            post = gate._post
            if post is not None and post.at == NEVER:  # it waited to know when this one began
                self.open(post)

    def call_at(self, at: float, callback: Callable[[], None]) -> Alarm:
        """Call *callback* at a monotonic instant, in seconds."""
        alarm = Alarm(at, callback)
        self._arm(at, alarm)
        return alarm

    # -- the pump --------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._pump, context=self._context)

    def _pump(self) -> None:
        """Start all who may start now, best first."""
        self._is_scheduled = False
        now = self.monotonic()
        opened, self._open = self._open, []
        for post in opened:
            post.is_open = False
            self._promote(post)
        ready = self._ready
        while ready:
            entry = heappop(ready)
            lane = entry[2]
            if lane.entry is not entry:
                continue
            closed = self._advance(lane, now)
            if lane.promoted is not None and (lane.entry is None or lane.parked is not None):
                before, lane.promoted = lane.promoted, None
                if before is not closed:
                    self._promote(before)

    def _promote(self, post: Post) -> None:
        """Let the best who is parked at *post* be asked; the next one follows when it has got through."""
        best = post.best
        post.at = NEVER
        if best is not None:
            heappop(post.entries)
            best[2].parked, best[2].promoted = None, post
            heappush(self._ready, best)

    def _advance(self, lane: Lane, now: float) -> Post | None:
        """Start jobs of *lane* until it is empty, parked or not the best any more; return who was found closed."""
        ready = self._ready
        while (job := lane.head()) is not None:
            rank = (job._rank, job._seq)
            if ready and ready[0] < rank:
                lane.entry = entry = (*rank, lane)
                heappush(ready, entry)
                return None
            try:
                for post in lane.posts:
                    if post.entries and (best := post.best) is not None and best < rank:
                        self._park(lane, post, job)
                        return None
                    eta = post.gate.eta(job, now)
                    if not eta <= now:
                        if math.isnan(eta):
                            raise ValueError(f"{post.gate!r}.eta returned nan")
                        self._park(lane, post, job)
                        self._expect(post, eta)
                        return post
            except Exception as error:  # a gate rejects the job, or a user's gate is broken: it fails this job alone
                lane.pop()
                lane.room.refuse(job, error)
                continue
            lane.pop()
            self._admit(lane, job, now)
        lane.entry = None
        return None

    def _admit(self, lane: Lane, job: Waiting, now: float) -> None:
        taken: list[Gate] = []
        try:
            for gate in lane.takers:
                gate.take(job, now)
                taken.append(gate)
        except Exception as error:  # a user's gate runs here; it fails this job alone
            for gate in taken:
                gate.give(job, now, NOT_STARTED)
            lane.room.refuse(job, error)
            return
        job._phase = _TAKEN
        lane.inside += 1
        lane.room.start(job)

    def _park(self, lane: Lane, post: Post, head: Waiting) -> None:
        lane.parked = post
        lane.entry = entry = (head._rank, head._seq, lane)
        heappush(post.entries, entry)

    # -- time ------------------------------------------------------------------------

    def _expect(self, post: Post, at: float) -> None:
        """Ask at *post* again at that instant, if nothing happens there before."""
        if post.gate.follows_wall_clock:
            at = min(at, self.monotonic() + LONGEST_S)
        post.at = at
        if at not in {NEVER, post.armed}:  # the same answer again and again is one alarm
            post.armed = at
            self._arm(at, post)

    def _arm(self, at: float, what: Post | Alarm) -> None:
        first = self._alarms[0][0] if self._alarms else NEVER
        heappush(self._alarms, (at, next(self._seq), what))
        if at < first:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None
        alarms = self._alarms
        while alarms and self._is_void(alarms[0]):
            at, _, what = heappop(alarms)
            if isinstance(what, Post) and what.armed == at:
                what.armed = NEVER
        if alarms:
            delay = alarms[0][0] - self.monotonic()
            delay = max(delay, SHORTEST_S) if delay > 0 else 0.0
            self._handle = self.loop.call_later(delay, self._on_timer, context=self._context)

    @staticmethod
    def _is_void(entry: tuple[float, int, Post | Alarm]) -> bool:
        at, _, what = entry
        return what.at != at or (isinstance(what, Alarm) and what.callback is None)

    def _on_timer(self) -> None:
        self._handle = None
        now = self.monotonic()
        alarms = self._alarms
        while alarms and alarms[0][0] <= now:  # a loop may ring a little early; then it is set anew
            entry = heappop(alarms)
            is_void = self._is_void(entry)
            if isinstance(entry[2], Post) and entry[2].armed == entry[0]:
                entry[2].armed = NEVER
            if not is_void:
                entry[2].ring()
        self._set_timer()
