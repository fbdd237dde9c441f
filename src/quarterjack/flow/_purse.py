"""What a process holds of a limit that a whole fleet shares.

A gate answers at once, and a store does not. So each process has a *purse* for
each limit: slots or starts that the store has granted it already, which the gate
spends without asking anybody. When somebody waits and the purse is too light,
whoever fills it (`Filler`) is told, asks the store, puts in what it got and wakes
the gate. Purses know no store and wait for nothing.

What is granted is good until an instant by *this* machine's time since boot,
counted from before the store was asked: so it ends here before it does there, and
a machine that was suspended finds its purse empty."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeVar

from quarterjack._durations import NS_PER_S

from ._options import CRUMBS
from .waiting import Waiting

if TYPE_CHECKING:
    from .base import Gate
    from .concurrency import ConcurrencyLimit

__all__ = ["Credit", "CreditPurse", "Filler", "OnStoreError", "Purse", "PurseT", "SlotPurse", "Terms", "Tie"]

PurseT = TypeVar("PurseT", bound="Purse")
OnStoreError = Literal["closed", "open", "local"]

ASKED_KINDS_MOST: Final = 64
"""So many lanes are looked at to see how much is wanted: more would not be asked for at once anyway."""


class Filler(Protocol):
    """Who asks the store for what purses lack."""

    def fill(self, purse: Purse) -> None:
        """Somebody waits for *purse*, or something in it is to be given back. Cheap, and does nothing by itself."""


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a gate holds for a fleet."""

    batch: int
    """The most that is asked for at once beyond what the first in line needs."""
    on_store_error: OnStoreError


@dataclass(slots=True, eq=False)
class Tie:
    """What ties a gate, with all its keys, to a store; empty while no store was given to it."""

    filler: Filler | None = None


class Purse(ABC):
    """What both kinds have in common.

    Args:
        gate: Whose it is.
        tie: Shared with the gate's other keys.
        limit: The limit's name in the store.
        terms: The gate's.
    """

    def __init__(self, gate: Gate, tie: Tie, limit: str, terms: Terms) -> None:
        self.gate: Final = gate
        self.tie: Final = tie
        self.limit = limit
        self.terms: Final = terms
        self.is_cut_off = False
        """The store does not answer, and has not for a while."""
        self.is_tended = False
        """Somebody looks after it: it is not to be dropped."""

    def fill(self) -> None:
        """Let the store be asked for what is lacking."""
        if self.tie.filler is not None:
            self.tie.filler.fill(self)

    def wanted(self) -> tuple[float, float]:
        """Return what the first in line costs, and what those cost that wait here, up to a batch; 0, 0 for nobody."""
        post = self.gate._post
        best = None if post is None else post.best
        head = None if best is None else best[2].head()
        if post is None or head is None:
            return 0.0, 0.0
        total, number = 0.0, 0
        for entry in islice(post.entries, ASKED_KINDS_MOST):
            lane = entry[2]
            if lane.entry is entry and (first := lane.head()) is not None:
                some = min(lane.size, self.terms.batch - number)
                total, number = total + some * first.cost, number + some
            if number >= self.terms.batch:
                break
        return head.cost, max(head.cost, total)

    def boottime(self) -> float:
        """Return this machine's time since boot, in seconds."""
        return self.gate.clock.boottime_ns() / NS_PER_S

    @abstractmethod
    def eta(self, job: Waiting, now: float) -> float:
        """Return when *job* may start, as `Gate.eta`."""

    @property
    @abstractmethod
    def why_closed(self) -> str:
        """What is waited for where `eta` names no time, as words behind the gate's name."""

    def is_known_to_lack(self, job: Waiting) -> bool:
        """Say whether no store need be asked to know that it has nothing for *job* now."""
        return False

    @property
    @abstractmethod
    def is_empty(self) -> bool:
        """True if it holds nothing that anybody could want back."""

    @abstractmethod
    def forget(self) -> None:
        """Forget all that was granted: the loop on which that was used is closed."""


class SlotPurse(Purse):
    """Slots, held while jobs use them and a little longer; renewed as long as they are held."""

    def __init__(self, gate: ConcurrencyLimit, tie: Tie, limit: str, terms: Terms) -> None:
        super().__init__(gate, tie, limit, terms)
        self._slots_of = gate
        self._held: dict[str, float] = {}
        """Until when each slot is good."""
        self._soonest = math.inf
        self.giving: list[str] = []
        """Slots that are to go back to the store: no longer ours to use."""
        self.others = 0
        """How many other processes waited when the store was last asked."""
        self.shares_from = -math.inf
        """Before, by the loop's clock, no slot is given to others: it was hardly used."""

    @property
    def maximum(self) -> int:
        """Slots of the whole fleet."""
        most: int = self._slots_of.max_concurrent
        return most

    @property
    def held(self) -> list[str]:
        """The slots, those that ran out excepted."""
        self._drop_ended()
        return list(self._held)

    @property
    def needed(self) -> int:
        """Slots that running jobs use."""
        slots: int = math.ceil(self._slots_of.used - CRUMBS)
        return slots

    @property
    def free(self) -> int:
        """Slots that nobody uses."""
        self._drop_ended()
        return max(0, len(self._held) - self.needed)

    def eta(self, job: Waiting, now: float) -> float:
        gate = self._slots_of
        self._drop_ended()
        if gate.used + job.cost <= min(len(self._held), gate.max_concurrent) + CRUMBS:
            return now
        gate.check(job)
        self.fill()
        return math.inf

    @property
    def why_closed(self) -> str:
        return "is full for all processes, and opens when one of them gives something back"

    def is_known_to_lack(self, job: Waiting) -> bool:
        return self._slots_of.used + job.cost > self.maximum + CRUMBS

    def left(self) -> None:
        """A job is over: its slot serves the next one here, unless others have waited long enough for it."""
        if self.others and len(self._held) > self.fair_share and self.gate.clock.monotonic() >= self.shares_from:
            self.give(1)
        post = self.gate._post
        if self.giving or post is None or not post.entries:
            self.fill()

    @property
    def fair_share(self) -> int:
        """How many slots are ours while others wait: as many as theirs."""
        return self.maximum // (self.others + 1)

    def lacking(self) -> int:
        """Return how many slots are to be asked for: for those who wait, and for those who run without one."""
        head, total = self.wanted()
        target: int = math.ceil(self._slots_of.used + total - CRUMBS) if head else self.needed
        self._drop_ended()
        return max(0, min(self.maximum, target) - len(self._held))

    def is_short(self, cost: float) -> bool:
        """Say whether a job of this *cost* finds too few slots."""
        self._drop_ended()
        return self._slots_of.used + cost > min(len(self._held), self.maximum) + CRUMBS

    def put(self, slots: Iterable[str], until: float) -> None:
        """Hold these: until then by `boottime`."""
        self._held.update(dict.fromkeys(slots, until))
        self._soonest = min(self._held.values(), default=math.inf)

    def prolong(self, slots: Iterable[str], until: float) -> None:
        """Hold these longer, those that were set aside or ran out meanwhile excepted."""
        self.put([slot for slot in slots if slot in self._held], until)

    def lose(self, slots: Iterable[str]) -> None:
        """The store says that these are gone."""
        for slot in slots:
            self._held.pop(slot, None)

    def give(self, n: int) -> None:
        """Set *n* free slots aside, to be given back."""
        for _ in range(min(n, self.free)):
            slot, _ = self._held.popitem()
            self.giving.append(slot)

    def _drop_ended(self) -> None:
        if self._soonest == math.inf or self.boottime() < self._soonest:
            return
        now = self.boottime()
        self._held = {slot: until for slot, until in self._held.items() if until > now}
        self._soonest = min(self._held.values(), default=math.inf)

    @property
    def is_empty(self) -> bool:
        return not self._held and not self.giving

    def forget(self) -> None:
        self._held, self._soonest, self.giving, self.others = {}, math.inf, [], 0


@dataclass(slots=True, eq=False)
class Credit:
    """Starts that were granted."""

    left: float
    until: float
    """Good until then, by `Purse.boottime`."""
    slot: str | None = None
    """The row in the store that stands for it; a token has none."""
    limit: str = ""
    """Of which that is a row: each window of the clock is a limit of its own."""
    is_spent: bool = False
    """Somebody began on it, or on a part of it."""


class CreditPurse(Purse):
    """Starts, each good for a moment: who does not begin by then begins on another one."""

    def __init__(self, gate: Gate, tie: Tie, limit: str, terms: Terms) -> None:
        super().__init__(gate, tie, limit, terms)
        self._credits: deque[Credit] = deque()
        """Those that are left, the eldest first."""
        self._spent: dict[Waiting, list[tuple[Credit, float]]] = {}
        """On what those go that were admitted and have not begun."""
        self.stale: list[Credit] = []
        """Those with rows whose moment has passed and that nobody began on: to be given back."""
        self.late: list[Credit] = []
        """Those with rows on which somebody began after their moment."""
        self.opens_at = -math.inf
        """When the store will have more, by the loop's clock, as far as is known."""

    @property
    def available(self) -> float:
        """How much may start now."""
        self.drop_ended()
        return sum(credit.left for credit in self._credits)

    def eta(self, job: Waiting, now: float) -> float:
        if self._credits and self.available + CRUMBS >= job.cost:
            return now
        self.gate.check(job)
        self.fill()
        return self.opens_at if self.opens_at > now else math.inf

    @property
    def why_closed(self) -> str:
        return "asks its store when the next one may start, for all processes"

    def lacking(self) -> tuple[float, float]:
        """Return what the first in line lacks, and what all do, up to a batch."""
        head, total = self.wanted()
        available = self.available
        return max(0.0, head - available), max(0.0, total - available)

    def put(self, granted: Iterable[Credit]) -> None:
        """Have more."""
        self._credits.extend(granted)

    def take(self, job: Waiting) -> None:
        """*job* is admitted, on what there was when its `eta` was asked: what has ended since counts as late."""
        cost = job.cost
        spent: list[tuple[Credit, float]] = []
        self._spent[job] = spent
        while cost > CRUMBS and self._credits:
            credit = self._credits[0]
            part = min(credit.left, cost)
            credit.left, cost = credit.left - part, cost - part
            spent.append((credit, part))
            if credit.left <= CRUMBS:
                self._credits.popleft()

    def began(self, job: Waiting) -> None:
        """The body of *job* begins."""
        now = self.boottime()
        for credit, _ in self._spent.pop(job, ()):
            credit.is_spent = True
            if credit.slot is not None and credit.until <= now:
                self.late.append(credit)
        if self.late:
            self.fill()

    def take_back(self, job: Waiting) -> None:
        """*job* was admitted, and never began."""
        for credit, part in reversed(self._spent.pop(job, ())):
            credit.left += part
            if credit not in self._credits:  # it was used up, or let go of when its moment had passed
                self._credits.appendleft(credit)

    def set_aside(self) -> None:
        """Let go of what nobody began on, though its moment may not have passed."""
        self.drop_ended(at=math.inf)

    def ends_in(self) -> float:
        """Return in how many seconds the first credit that is left ends."""
        first = min((credit.until for credit in self._credits), default=math.inf)
        return max(0.0, first - self.boottime())

    def drop_ended(self, at: float | None = None) -> None:
        """Let go of what is good no longer; rows that nobody began on are stale."""
        if not self._credits:
            return
        now = self.boottime() if at is None else at
        ended = [credit for credit in self._credits if credit.until <= now]
        if ended:
            self._credits = deque(credit for credit in self._credits if credit.until > now)
            self.stale += [one for one in ended if one.slot is not None and not self._is_begun(one)]

    def _is_begun(self, credit: Credit) -> bool:
        """Say whether somebody began on a part of it, or is about to."""
        return credit.is_spent or any(credit is one for spent in self._spent.values() for one, _ in spent)

    @property
    def is_empty(self) -> bool:
        self.drop_ended()
        return not (self._credits or self._spent or self.stale or self.late)

    def forget(self) -> None:
        self._credits.clear()
        self._spent.clear()
        self.stale, self.late, self.opens_at = [], [], -math.inf
