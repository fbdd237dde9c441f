"""What a strategy is: a `Gate` admits, an `Order` chooses, a `Wrap` surrounds.

All three are objects of plain synchronous methods over a job (`Waiting`) and a
moment (*now*, monotonic seconds); a `Wrap` alone is awaited. None of them reads
a clock or touches the loop, so each can be tried by hand. What they may rely on
is written beside each method; `quarterjack.flow.dispatcher` keeps it."""

from __future__ import annotations

import copy
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, Self

from quarterjack._choices import name_or_none
from quarterjack._signatures import Explained, check_plain
from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.errors import InvalidOption

from ._keys import By, check_by, key_of
from .outcome import Ended
from .permit import Passable
from .room import WaitingRoom
from .waiting import Waiting

if TYPE_CHECKING:
    from .alarms import Alarm
    from .dispatcher import Dispatcher, Post

__all__ = ["Gate", "Order", "Wrap"]

log = logging.getLogger("quarterjack.flow")

_SHARED: Final = frozenset(
    {"_by_key", "_counted_by", "_leader", "_led", "_post", "_purse", "_sweep", "_tie", "_turnstile", "by", "clock"}
)
"""Attributes of a gate that a copy for another key has of its own, or shares."""

_PLAIN: Final = frozenset({bool, float, int, str, type(None)})
"""What cannot change, and is most of what a gate holds: copying it deeply costs more than all the rest of a new key."""


_NO_FLEET_FORM: Final = {
    "scope": "it holds in one process: ConcurrencyLimit, SlidingWindow, FixedWindow and TokenBucket have a form for all"
}


def _check_methods(cls: type, contract: type) -> None:
    """Refuse methods of a user's class that were to be awaited: those of the *contract* are called plainly."""
    for name, method in vars(cls).items():
        if name in vars(contract):
            check_plain(method, f"{cls.__name__}.{name}")


class Gate(Explained, Passable, ABC):
    """Says when a job may start. A subclass needs `eta` alone.

    A gate belongs to the event loop that uses it first. Whoever holds the same
    object shares it: two tasks, a queue and an ``async with`` pass one limit.

    Args:
        by: One gate per key: a name that is looked up in the job's ``key=`` and then
            among its arguments, or a function of the job.
        name: What it is called in `why_waiting` and `stats`.
    """

    _meant: ClassVar = _NO_FLEET_FORM
    _is_contract: ClassVar[bool] = True
    _spares_light: ClassVar[bool] = False
    """The `check` of this very class never refuses a job that costs 1 or less."""
    _has_fast_path: ClassVar[bool] = False
    """A pass without a job may go by `_take_one` through gates of this very class; its subclasses say so anew."""
    by: By | None = None
    name: str | None = None
    clock: Clock = SYSTEM_CLOCK
    """The wall clock of its loop, for gates that go by it."""
    follows_wall_clock: bool = False
    """The instant it names is waited for on the wall clock, and it is asked again after each jump of that."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_methods(cls, Gate)
        cls._has_fast_path = vars(cls).get("_has_fast_path", False)  # never inherited: a subclass may say otherwise

    # The dispatcher's, and of one gate per key the keys'. Class attributes: a subclass need not call __init__.
    _post: Post | None = None
    _by_key: dict[Hashable, Gate] | None = None
    _sweep: deque[Hashable] | None = None
    """The keys, in the order in which they are looked at next."""
    _leader: Gate | None = None
    """The gate that asks this one itself: nobody waits here, but there."""
    _led: tuple[Gate, ...] = ()
    """Those that it asks itself."""

    def __init__(self, *, by: By | None = None, name: str | None = None) -> None:
        check_by(by)
        self.by, self.name = by, name_or_none(name)

    # -- what a strategy says --------------------------------------------------------

    @abstractmethod
    def eta(self, job: Waiting, now: float) -> float:
        """Return when *job* may start, in monotonic seconds: *now* or less means at once.

        A later instant means "ask again then", ``math.inf`` "ask again when
        somebody leaves or I say so" (`wake`). What it raises is the job's
        rejection. It changes nothing: it may be asked at any time, for any job.
        """

    def take(self, job: Waiting, now: float) -> None:
        """*job* is admitted: reserve what it needs. All gates of a job are taken in one step after their `eta`."""

    def started(self, job: Waiting, now: float) -> None:
        """The body of *job* begins, now: what counts starts counts here, not in `take`, which may be earlier."""

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        """The pass of *job* is over. Exactly once per `take`, with NOT_STARTED if `started` never came."""

    def check(self, job: Waiting) -> None:
        """Raise `InvalidOption` if *job* can never pass; asked when it is submitted.

        A bare pass that nobody is before is not asked: let `eta` refuse as well what it must not let through.
        """

    def why_closed(self, job: Waiting) -> str:
        """Say what *job* waits for while `eta` names no time: what follows the gate's name in `why_waiting`."""
        return "is full, and opens when somebody leaves"

    def stays_closed(self, job: Waiting, held: float) -> bool:
        """Say whether *job* cannot pass as long as jobs whose costs sum up to *held* keep what they took.

        What is given back by time alone, as rate gates do, says no: only slots that are held make a deadlock.
        """
        return False

    lends: bool = False
    """A job that awaits others lends them its slots meanwhile, by `lend` and `take_back`."""

    def lend(self, job: Waiting) -> None:
        """*job*, which is inside, waits: what it took is free for others."""

    def take_back(self, job: Waiting) -> None:
        """*job* goes on, and has what it took again; what it lent may be taken still, if it was interrupted."""

    def _is_unasked(self, job: Waiting) -> bool:
        """Say whether `eta` named no time for *job* because the gate asks elsewhere, and has not been needed yet."""
        return False

    def is_idle(self, now: float) -> bool:
        """Say whether it remembers nothing: of one gate per key those are dropped. False keeps it for ever."""
        return False

    def forget(self) -> None:
        """Forget all jobs: the loop on which they ran was closed. `clock` is the next loop's already."""

    def fresh(self) -> Gate:
        """Return a gate of these settings that has seen no job yet, for another key.

        With ``by=`` this gate itself never sees a job, so a deep copy of it is one.
        """
        gate = self._bare()
        for name, value in vars(self).items():
            if name not in _SHARED:
                setattr(gate, name, value if type(value) in _PLAIN else copy.deepcopy(value))
        return gate

    def _anew(self, clock: Clock) -> Any:
        """Return a gate of these settings, its ``by=`` too, for a loop of its own: it has seen no job."""
        gate = self.fresh()
        gate.clock = clock
        gate.forget()
        return gate

    def _bare(self) -> Self:
        """Return a copy that shares its attributes, and belongs to nobody yet."""
        gate = copy.copy(self)
        gate._by_key = gate._sweep = gate._post = gate._turnstile = gate._leader = None
        return gate

    def stats(self) -> dict[str, Any]:
        """Return what a person wants to see of it, as plain values."""
        return {}

    def stats_by_key(self) -> dict[Any, Any]:
        """Return `stats`, or those of each key."""
        if self.by is None:
            return self.stats()
        return {key: gate.stats() for key, gate in (self._by_key or {}).items()}

    # -- alone -----------------------------------------------------------------------

    def _take_one(self, now: float) -> bool:
        """Let a pass that costs 1 take what it needs and begin if the gate is open: `eta`, `take`, `started` in one.

        The fast path: asked only where nobody waits. Not if it is closed, or cannot tell: then nothing has changed.
        """
        return False

    def _untake_one(self) -> None:
        """Undo a `_take_one` of this very instant: another gate was closed."""

    def _give_one(self) -> None:
        """What `_take_one` took is given back."""

    def _room_of_passes(
        self, dispatcher: Dispatcher, start: Callable[[Any], None], refuse: Callable[[Any, Exception], None]
    ) -> WaitingRoom:
        return WaitingRoom(dispatcher, (self,), None, start=start, refuse=refuse)

    # -- what others ask of it -------------------------------------------------------

    def wake(self) -> None:
        """Something changed that only this gate knows: whoever waits is to be asked again."""
        for gate in self._all():
            post = (gate._leader or gate)._post
            if post is not None:
                post.dispatcher.open(post)

    def update(self, **changes: Any) -> None:
        """Change settings at run time, for every key; whoever waits is asked again.

        Raises:
            InvalidOption: If it has no such setting, or the value is out of range; nothing is changed.
        """
        self._check_changes(changes)
        for gate in self._all():
            gate._change(changes)
            if gate._post is not None:
                gate._post.dispatcher.look_again()
        self.wake()

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        raise InvalidOption(f"{type(self).__name__} has no settings that change at run time, got {dict(changes)!r}")

    def _change(self, changes: Mapping[str, Any]) -> None:
        """Take over settings that were checked."""

    def key_of(self, job: Waiting) -> Hashable:
        """Return the key of *job* at this gate.

        Raises:
            InvalidOption: If it has none, or it cannot be hashed.
        """
        return key_of(self.by, job, self)

    def at(self, key: Hashable) -> Gate:
        """Return the gate of *key*; this one itself without ``by=``."""
        if self.by is None:
            return self
        if self._by_key is None or self._sweep is None:
            self._by_key, self._sweep = {}, deque()
        gate = self._by_key.get(key)
        if gate is None:
            for _ in range(min(2, len(self._sweep))):  # two looked at for one made: never more left over than in use
                self._look_at_next(self._by_key, self._sweep)
            gate = self.fresh()
            gate.by, gate._by_key, gate._sweep, gate._post, gate._turnstile = None, None, None, None, None
            gate.name = f"{self.label}[{self.by if isinstance(self.by, str) else 'key'}={key!r}]"
            self._by_key[key] = gate
            self._sweep.append(key)
        return gate

    def _look_at_next(self, by_key: dict[Hashable, Gate], sweep: deque[Hashable]) -> None:
        """Drop the gate whose turn it is if nobody passes it and it remembers nothing."""
        key = sweep.popleft()
        gate = by_key[key]
        if gate._can_go(self._post):
            del by_key[key]
        else:
            sweep.append(key)

    def _can_go(self, root: Post | None) -> bool:
        """Say whether a gate of one key may be dropped: a new one in its place would say the same to the same lanes."""
        if root is None or (self._post is not None and self._post.lanes and self._post.dispatcher is root.dispatcher):
            return False
        try:
            if self._post is not None and self._post.dispatcher is not root.dispatcher:
                self.forget()  # who held it went down with another loop
            return self.is_idle(root.dispatcher.monotonic())
        except Exception:  # a user's gate runs here, and the job of another key is not its business
            log.exception("%r raised when it was asked whether it may be dropped", self)
            return False

    def keys(self) -> list[Hashable]:
        """Return the keys that are remembered."""
        return list(self._by_key or ())

    def _call_at(self, at: float, callback: Callable[[], None]) -> Alarm | None:
        """Call *callback* at a monotonic instant; None while no loop uses this gate: then nobody waits for that."""
        dispatcher = self._dispatcher
        return None if dispatcher is None else dispatcher.call_at(at, callback)

    @property
    def _dispatcher(self) -> Dispatcher | None:
        post = (self._leader or self)._post
        return None if post is None else post.dispatcher

    def _all(self) -> list[Gate]:
        return [self, *(self._by_key or {}).values()]

    @property
    def label(self) -> str:
        """Its name, or what it is."""
        return self.name or type(self).__name__

    def __repr__(self) -> str:
        return self.label


class Order(Explained, ABC):
    """Says which of the waiting jobs is next. A subclass needs `rank` alone.

    Ranks are compared with those of other flows where they share a gate, whose
    jobs rank by when they came: so let a rank be an instant, in monotonic
    seconds, moved to where the job belongs.
    """

    _is_contract: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        _check_methods(cls, Order)

    @abstractmethod
    def rank(self, job: Waiting, now: float) -> float:
        """Return the rank of a job that comes (or comes back) now; the lowest goes first, equal ones as they came.

        Asked once per job, not again as time passes: age is in the instant already.
        `WaitingRoom.rerank` asks again.
        """

    def check(self, job: Waiting) -> None:
        """Raise `InvalidOption` if *job* has no place in this order; asked when it is submitted."""

    def came(self, job: Waiting, now: float) -> None:
        """*job* waits from now on, until it is `chosen` or has `left`."""

    def chosen(self, job: Waiting, now: float) -> None:
        """*job* is admitted: it waits no more."""

    def left(self, job: Waiting, now: float) -> None:
        """*job* was cancelled or turned away while it waited."""

    def _anew(self, clock: Clock) -> Any:
        """Return an order of these settings that has seen no job."""
        return copy.deepcopy(self)

    def __repr__(self) -> str:
        return type(self).__name__


class Wrap(Explained, ABC):
    """Surrounds an attempt, inside its gates: the body runs where `proceed` is awaited."""

    @abstractmethod
    async def __call__(self, job: Waiting, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Return the attempt's result, or raise what it ends with; *proceed* may be awaited several times or never."""

    def __repr__(self) -> str:
        return type(self).__name__
