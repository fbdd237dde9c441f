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
variables. A pump takes a bounded number of steps and leaves the rest to the
loop's next turn. Users' code runs in every gate: what one raises, or answers
that is no instant, ends the job that met it and nothing else."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from contextvars import Context
from heapq import heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, ClassVar, Final
from weakref import WeakSet, WeakValueDictionary, ref

from quarterjack.clock import clock_of
from quarterjack.errors import InvalidOption, WrongLoop

from ._wall import WallAlarm
from .alarms import Alarm, Alarms
from .outcome import NOT_STARTED, Ended
from .waiting import INSTANTS_ARE, Phase, Waiting, instant

if TYPE_CHECKING:
    from .base import Gate
    from .deadlock import Waits
    from .lane import Lane
    from .permit import Turnstile

__all__ = ["Dispatcher", "Post"]

log = logging.getLogger("quarterjack.flow")

NEVER: Final = float("inf")
LONGEST_S: Final = 30.0
"""A gate that goes by the wall clock and names no instant is asked again this often. One that names an instant is asked
then by the wall clock, and when that jumps: the timer sees to it that this is noticed."""

STEPS_PER_TURN: Final = 64
"""So many jobs are started, refused or found waiting in one turn of the loop. Where tasks start eagerly a
start runs the body's first part: a hundred thousand of them in one go would let nobody else in for a second."""

DEEPEST: Final = 8
"""Turns in each other, where a task factory begins bodies at once and those ask to `settle`: Python's stack ends."""

FEW: Final = 8
"""With more lanes about to be asked for it is cheaper to queue than to look at them."""

_WAITING, _TAKEN, _STARTED, _OVER = Phase.WAITING, Phase.TAKEN, Phase.STARTED, Phase.OVER


def asking(gate: Gate) -> Callable[[Waiting, float], float]:
    """Return the gate's `eta`; one of a user's own is looked at: None would be a riddle, and False an open gate."""
    if type(gate).__module__.startswith("quarterjack."):
        return gate.eta

    def eta(job: Waiting, now: float) -> float:
        return instant(gate.eta(job, now), f"eta of {gate!r}")

    return eta


class Post:
    """Where lanes wait at one gate: the best of them in front."""

    __slots__ = ("alarm", "at", "dispatcher", "entries", "eta", "gate", "is_open", "lanes", "wall")

    def __init__(self, gate: Gate, dispatcher: Dispatcher) -> None:
        self.gate = gate
        self.eta = asking(gate)
        self.dispatcher = dispatcher
        self.entries: list[tuple[float, int, Lane]] = []
        """A heap by rank; an entry that is not its lane's `Lane.entry` any more is void."""
        self.lanes: set[ref[Lane]] | None = None
        """Who passes this gate, if it is one of several by key: while anybody does, it stays that key's gate."""
        self.at = NEVER
        """When the gate said that its best lane may be asked again."""
        self.alarm: Alarm | None = None
        """For that instant, or an earlier one that it named before."""
        self.is_open = False
        """It is to be looked at in the next pump."""
        self.wall: WallAlarm | None = None
        """Of a gate that goes by the wall clock, while somebody waits there."""

    @property
    def best(self) -> tuple[float, int, Lane] | None:
        """The first entry that counts."""
        entries = self.entries
        while entries and entries[0][2].entry is not entries[0]:
            heappop(entries)
        return entries[0] if entries else None

    def hold(self, lane: Lane) -> None:
        """Let *lane* pass here from now on."""
        if self.lanes is None:
            self.lanes = set()
        self.lanes.add(ref(lane, self.lanes.discard))

    def release(self, lane: Lane) -> None:
        """*lane* is gone for good."""
        if self.lanes is not None:
            self.lanes.discard(ref(lane))

    def watch(self, delay_s: float | None) -> None:
        """Ring when so much of the wall clock has passed, or when it jumps; None: no more."""
        if self.wall is not None:
            self.wall.close()
        self.wall = None if delay_s is None else WallAlarm(self.dispatcher.clock, delay_s, self._open)

    def expect(self, at: float) -> None:
        """Ask the gate again at that instant, if nothing happens here before."""
        self.at = at
        if self.gate.follows_wall_clock:
            self.watch(LONGEST_S if at == NEVER else at - self.dispatcher.monotonic())
            return
        if at == NEVER or (self.alarm is not None and self.alarm.at <= at):
            return  # an earlier alarm looks when it rings: a gate that names another instant each time costs no more
        if self.alarm is not None:
            self.alarm.cancel()
        self.alarm = self.dispatcher.call_at(at, self._ring)

    def _open(self) -> None:
        self.dispatcher.open(self)

    def _ring(self) -> None:
        self.alarm = None
        if self.at <= self.dispatcher.monotonic():
            self.dispatcher.open(self)
        elif self.entries:
            self.expect(self.at)


class Dispatcher:
    """Admits jobs on one event loop. Get it from `of`; it lives as long as somebody uses it."""

    _by_loop: ClassVar[WeakValueDictionary[int, Dispatcher]] = WeakValueDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.clock = clock_of(loop)
        self.monotonic = self.clock.monotonic
        self._ready: list[tuple[float, int, Lane]] = []
        self._open: list[Post] = []
        self.seq: Final = count()
        """Numbers, each above all before: equal ranks go in this order."""
        self._steps = 0
        """Left in this turn."""
        self._is_scheduled = False
        self.is_pumping = False
        """True while the bodies of jobs that are started may begin at once: in a turn of the loop that is its own."""
        self._settled = 0
        """Turns that `settle` has borrowed, and in which jobs were started whose bodies begin after it: until they
        have, no other body may begin at once, before them."""
        self._advancing: Lane | None = None
        """Whose jobs are being started: it stands nowhere meanwhile, and a body that begins at once may ask for it."""
        self._depth = 0
        """How many turns are in each other."""
        self._context = Context()
        self.waits: Waits | None = None
        """Who waits while it holds something; None while nobody did yet."""
        self.flows: WeakSet[Turnstile] = WeakSet()
        """Those of flows that are passed by ``async with``; a gate knows its own."""
        self.alarms = Alarms(loop, self.monotonic, self._context)
        self.call_at = self.alarms.call_at

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
            InvalidOption: If it belongs to another gate, a router.
        """
        post = gate._post  # the dispatcher's own
        if post is not None and post.dispatcher is self:
            return post
        self._refuse_foreign(gate)
        if post is not None:
            post.watch(None)
        for one in (gate, *gate._led):
            one.clock = self.clock
        if post is not None:
            gate.forget()  # who held it went down with that loop
        gate._post = post = Post(gate, self)
        return post

    def posts(self, gates: Sequence[Gate]) -> tuple[Post, ...]:
        """Return where lanes wait at each of *gates*: all of them belong to this loop from now on, or none does.

        Raises:
            WrongLoop, InvalidOption: As `post` does.
        """
        for gate in gates:
            self._refuse_foreign(gate)
        return tuple(map(self.post, gates))

    def _refuse_foreign(self, gate: Gate) -> None:
        if gate._leader is not None:
            raise InvalidOption(f"{gate!r} belongs to a resource of {gate._leader!r} alone; make one for each")
        other = None if gate._post is None else gate._post.dispatcher.loop
        if other is not None and other is not self.loop and not other.is_closed():
            raise WrongLoop(
                f"{gate!r} belongs to the event loop that used it first, and cannot guard two; make one for each loop"
            )

    # -- what happens ----------------------------------------------------------------

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
        sole = lane.sole
        if sole is not None and job.cost == 1.0:
            sole.gate._give_one()
        else:
            for gate in lane.givers:
                try:
                    gate.give(job, now, ended)
                except Exception:  # a user's gate runs here; its slot is its own business, the job's end is not
                    log.exception("%r raised in give", gate)
        for post in lane.posts:
            if post.entries:
                self.open(post)
        lane.inside -= 1
        if lane.keys and not lane.inside and not lane.size:
            lane.room.idle(lane)

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

    def look_again(self) -> None:
        """Something may have made a wait one without end: a limit that shrank, a retry that came back."""
        if self.waits is not None:
            self.waits.look_again()

    def is_sought(self, posts: tuple[Post, ...]) -> bool:
        """Say whether somebody may be about to be asked for at one of *posts*: who comes now comes after."""
        ready, lane = self._ready, self._advancing
        if len(ready) > FEW:
            return True
        if lane is not None and lane.size and any(post in posts for post in lane.posts):
            return True  # a body that has begun eagerly asks, and those of its lane come next
        return any(post in posts for entry in ready if entry[2].entry is entry for post in entry[2].posts)

    def settle(self) -> None:
        """Admit at once whoever may start now: somebody wants to know who is left waiting.

        A body that has begun eagerly, in the middle of a turn, may ask as well: who begins then does so in
        the loop's next turn.
        """
        lane, steps = self._advancing, self._steps
        if lane is not None:
            self.ready(lane)
        if self._depth >= DEEPEST or not (self._ready or self._open):
            return
        self.is_pumping = False
        self._settled += 1
        try:
            Context().run(self._turn)
        finally:
            self._advancing, self._steps = lane, steps
            self.loop.call_soon(self._have_begun, context=self._context)

    def _have_begun(self) -> None:
        self._settled -= 1

    # -- the pump --------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            self.loop.call_soon(self._pump, context=self._context)

    def _pump(self) -> None:
        """Start who may start now, best first; those that are too many for one turn in the next."""
        self._is_scheduled = False
        self.is_pumping = not self._settled
        try:
            self._turn()
        finally:
            self.is_pumping = False
            if self._ready:
                self._schedule()

    def _turn(self) -> None:
        self._depth += 1
        try:
            self._start_all(self.monotonic())
        finally:
            self._advancing = None
            self._depth -= 1

    def _start_all(self, now: float) -> None:
        self._steps = STEPS_PER_TURN
        opened, self._open = self._open, []
        for post in opened:
            post.is_open = False
            self._promote(post)
        ready = self._ready
        while ready and self._steps > 0:
            entry = heappop(ready)
            lane = entry[2]
            if lane.entry is not entry:
                continue
            self._advancing = lane
            closed = self._advance(lane, now)
            self._advancing = None
            if lane.promoted is not None and (lane.entry is None or lane.parked is not None):
                before, lane.promoted = lane.promoted, None
                if before is not closed:
                    self._promote(before)

    def _promote(self, post: Post) -> None:
        """Let the best who is parked at *post* be asked; the next one follows when it has got through."""
        best = post.best
        post.at = NEVER
        if post.wall is not None:
            post.watch(None)
        if best is not None:
            heappop(post.entries)
            best[2].parked, best[2].promoted = None, post
            heappush(self._ready, best)

    def _advance(self, lane: Lane, now: float) -> Post | None:
        """Start jobs of *lane* until it is empty, parked or not the best any more; return who was found closed."""
        ready = self._ready
        while (job := lane.head()) is not None:
            if lane.parked is not None:  # a body that began has settled the rest
                return lane.parked
            if self._steps <= 0 or (ready and ready[0] < (job._rank, job._seq)):
                lane.entry = entry = (job._rank, job._seq, lane)
                heappush(ready, entry)
                return None
            self._steps -= 1
            if (sole := lane.sole) is not None and job.cost == 1.0 and not sole.entries and sole.gate._take_one(now):
                self._admit(lane, job, now, ())
                continue
            try:
                for post in lane.posts:
                    if post.entries and (best := post.best) is not None and best < (job._rank, job._seq):
                        self._park(lane, post, job)
                        return None
                    was_open = post.is_open
                    eta = post.eta(job, now)
                    if not eta <= now:
                        self._hold_up(lane, post, job, eta)
                        if post.is_open and not was_open:  # it woke itself by being asked, and would do so for ever
                            self._open.remove(post)
                            post.is_open = False
                        return post
            except Exception as error:  # a gate rejects the job, or a user's gate is broken: it fails this job alone
                if job._phase is _WAITING:
                    lane.pop(job)
                    lane.room.turn_away(job, error)
                continue
            if job._phase is _WAITING:  # else a gate has cancelled it while it was asked
                self._admit(lane, job, now, lane.takers)
        lane.entry = None
        return None

    def _hold_up(self, lane: Lane, post: Post, job: Waiting, eta: float) -> None:
        """The gate of *post* is closed for *job*, the best of *lane*."""
        if math.isnan(eta):
            raise InvalidOption(f"eta of {post.gate!r} returned nan; {INSTANTS_ARE}")
        self._park(lane, post, job)
        post.expect(eta)
        if self.waits is not None and eta == NEVER:
            self.waits.look_at_gate(post.gate, job)

    def _admit(self, lane: Lane, job: Waiting, now: float, takers: tuple[Gate, ...]) -> None:
        lane.pop(job)
        taken = 0
        try:
            for gate in takers:
                gate.take(job, now)
                taken += 1
        except Exception as error:  # a user's gate runs here; it fails this job alone
            self.undo(job, takers[:taken], now)
            lane.room.turn_away(job, error)
            return
        lane.inside += 1
        room = lane.room
        if room.order is not None:
            room.tell(room.order.chosen, job, now)
        try:
            room.start(job)
        except Exception as error:  # a loop's own task factory runs here
            self.give(job, NOT_STARTED)
            lane.room.turn_away(job, error)

    def undo(self, job: Waiting, taken: tuple[Gate, ...], now: float) -> None:
        """A later gate of *job* raised in take: those before take it back."""
        for gate in taken:
            try:
                gate.give(job, now, NOT_STARTED)
            except Exception:  # a user's gate runs here; the others still get theirs
                log.exception("%r raised in give", gate)
            if gate._post is not None:
                self.open(gate._post)

    def _park(self, lane: Lane, post: Post, head: Waiting) -> None:
        lane.parked = post
        lane.entry = entry = (head._rank, head._seq, lane)
        heappush(post.entries, entry)
