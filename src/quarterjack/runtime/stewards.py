"""Stewards: how the purse of each kind of limit is filled.

*Slots* are rows in the store that are renewed while they are held. A slot that
is free stays a moment for the next job of this process, then it goes back; while
others wait for one, a process with more than its share gives back what its jobs
leave. *Starts* are credits for a moment: rows that end with the window (so a
sliding window is exact: a row lives as long as a start counts, and a moment more),
or tokens of a bucket on the store's clock (GCRA)."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from quarterjack._durations import NS_PER_S
from quarterjack.flow._options import CRUMBS
from quarterjack.flow._purse import Credit, CreditPurse, Purse, SlotPurse
from quarterjack.flow.fixed_window import FleetFixedWindow
from quarterjack.flow.sliding_window import FleetSlidingWindow
from quarterjack.flow.token_bucket import FleetTokenBucket

from .steward import Steward

if TYPE_CHECKING:
    from .fleet import Fleet

__all__ = ["steward_of"]

log = logging.getLogger("quarterjack.flow")

TRUSTED_SHARE: Final = 0.9
"""Of a lease: afterwards a slot counts as lost here, before it is anybody else's there."""
LINGER_S: Final = 0.05
"""A free slot waits so long for the next job of this process."""
TURN_S: Final = 0.1
"""A new slot is used so long before it is shared: or each job would cost two calls."""
SPREAD_S: Final = 0.005
"""Within so much, those who are told of a free slot ask for it; the sooner, the longer they have waited."""
SOONEST_S: Final = 0.05
LATEST_S: Final = 1.0
"""Between two questions for slots while all are taken; what is given back is told at once where stores can."""
LONGEST_WAIT_S: Final = 5.0
"""Between two questions for starts: what others did not use comes back early."""
HOLD_S: Final = (0.2, 1.0)
"""A part of what a heavy job needs is held so long, then let go: two who each hold a part would wait for ever."""

MOMENT_SHARE: Final = 0.02
MOMENT_S: Final = 0.005
ROUND_TRIPS: Final = 4
"""A credit is good for this share of its window, at least so long, and for so many round trips to the store."""
TOKEN_S: Final = 0.1
"""How long a token is good here, at least."""
SCARCE_S: Final = 1.0
"""After a refusal no more tokens are asked for at once than come in a `TOKEN_S`."""
LOOK_S: Final = 60.0
"""How often the store's clock is looked at, for windows that go by it."""


def steward_of(fleet: Fleet, purse: Purse) -> Steward[Any]:
    """Return who looks after *purse*."""
    if isinstance(purse, SlotPurse):
        return SlotSteward(fleet, purse)
    assert isinstance(purse, CreditPurse)  # noqa: S101  # there are two kinds
    gate = purse.gate
    if isinstance(gate, FleetFixedWindow):
        return FixedSteward(fleet, purse, gate)
    if isinstance(gate, FleetSlidingWindow):
        return SlidingSteward(fleet, purse, gate)
    assert isinstance(gate, FleetTokenBucket)  # noqa: S101  # and three of this one
    return TokenSteward(fleet, purse, gate)


class SlotSteward(Steward[SlotPurse]):
    """Holds slots for the jobs that run here."""

    def __init__(self, fleet: Fleet, purse: SlotPurse) -> None:
        super().__init__(fleet, purse)
        self._renew_at = math.inf
        self._refused_since = math.inf
        self._look_at = -math.inf
        self._pause_s = SOONEST_S
        self._free_until = math.inf
        """Free slots go back then."""
        self._parts_until = math.inf
        """So does a part of what a heavy job needs."""

    def look_now(self) -> None:
        """A slot may be free."""
        now, self._pause_s = self.now, SOONEST_S
        if self.try_at <= now + LATEST_S:  # else it let go of parts, for the others
            self.try_at = now + self.rng.uniform(0.0, SPREAD_S) / (1.0 + now - min(now, self._refused_since))
        self.poke()

    async def turn(self) -> float | None:
        purse = self.purse
        await self._give_back()
        if purse.held and self.now >= self._renew_at:
            await self._renew()
        if self.now >= self._ask_at():
            await self._acquire(purse.lacking())
        self._set_aside()
        if purse.giving:
            return 0.0
        first = min(self._ask_at(), self._free_until, self._parts_until, self._renew_at if purse.held else math.inf)
        return None if first == math.inf else max(0.0, first - self.now)

    def _ask_at(self) -> float:
        """Return when to ask for slots; where all are ours and somebody waits, whether others wait as well."""
        purse = self.purse
        if purse.lacking():
            return max(self.try_at, purse.asks_again_at)
        return self._look_at if purse.wanted()[0] else math.inf

    async def _renew(self) -> None:
        purse, slots, since = self.purse, self.purse.held, self.purse.boottime()
        gone = await self.call(self.store.limit_renew(purse.limit, slots, self.fleet.lease_s))
        purse.lose(gone)
        if gone and purse.needed > len(purse.held):
            log.warning("the limit %s: %d slots in use ran out before they were renewed", purse.limit, len(gone))
        purse.prolong(set(slots).difference(gone), since + self.fleet.lease_s * TRUSTED_SHARE)
        self._renew_at = self.now + self.fleet.lease_s / 3

    async def _acquire(self, lacking: int) -> None:
        purse, since = self.purse, self.purse.boottime()
        names = self.fleet.names(lacking)
        purse.giving += names  # until it is known which are ours: should the answer be lost, all go back
        answer = await self.call(
            self.store.limit_acquire(
                purse.limit, names, maximum=purse.maximum, ttl_s=self.fleet.lease_s, waiter=self.fleet.process
            )
        )
        purse.giving = [slot for slot in purse.giving if slot not in names]
        purse.others = answer.waiting
        self._look_at = self.now + LATEST_S
        if answer.taken:
            if not purse.held:
                self._renew_at = self.now + self.fleet.lease_s / 3
            purse.put(answer.taken, since + self.fleet.lease_s * TRUSTED_SHARE)
            purse.shares_from = self.now + TURN_S
            self._pause_s, self._refused_since = SOONEST_S, math.inf
            purse.gate.wake()
        if len(answer.taken) < lacking:
            self._refused_since = min(self._refused_since, self.now)
            self.try_at = self.now + min(self._pause_s, max(answer.wait_s, 0.001)) * self.rng.uniform(0.75, 1.0)
            self._pause_s = min(LATEST_S, self._pause_s * 2)

    def _set_aside(self) -> None:
        """Put aside what is free and of no use here."""
        purse, now = self.purse, self.now
        purse.give(len(purse.held) - purse.maximum)
        head, _ = purse.wanted()
        if not purse.free:
            self._free_until = self._parts_until = math.inf
        elif not head:
            self._parts_until = math.inf
            self._free_until = min(self._free_until, now + (LINGER_S if purse.terms.batch > 1 else 0.0))
            if purse.others or now >= self._free_until:
                purse.give(purse.free)
                self._free_until = math.inf
        elif purse.is_short(head):
            self._free_until = math.inf
            self._parts_until = min(self._parts_until, now + self.rng.uniform(*HOLD_S))
            if now >= self._parts_until:
                purse.give(purse.free)
                self._parts_until, self.try_at = math.inf, now + LATEST_S + self.rng.uniform(*HOLD_S)

    async def _give_back(self) -> None:
        purse, slots = self.purse, tuple(self.purse.giving)
        if slots:
            await self.call(self.store.limit_release(purse.limit, slots))
            purse.giving = [slot for slot in purse.giving if slot not in slots]

    async def give_back_all(self) -> None:
        purse = self.purse
        purse.giving += purse.held
        await self._give_back()


class CreditSteward(Steward[CreditPurse]):
    """Gets starts for the jobs that wait here."""

    def __init__(self, fleet: Fleet, purse: CreditPurse) -> None:
        super().__init__(fleet, purse)
        self._parts_until = math.inf

    async def turn(self) -> float | None:
        purse = self.purse
        await self.count_late()
        head, total = purse.lacking()
        self._hold_parts(head)
        await self.use_stale()
        head, total = purse.lacking()
        if head > CRUMBS and self.now >= self.try_at:
            since = purse.boottime()
            got, wait_s = await self.fetch(since, head, total)
            if got:
                purse.put(got)
                purse.gate.wake()
            if sum(credit.left for credit in got) + CRUMBS < head:
                purse.opens_at = self.now + wait_s
                self.try_at = self.now + min(max(wait_s, 0.001), LONGEST_WAIT_S)
                purse.gate.wake()  # so that it says when
            head, total = purse.lacking()
        due = [self._parts_until, self.ends_in() + self.now]
        if head > CRUMBS:
            due.append(self.try_at)
        first = min(due)
        return None if first == math.inf else max(0.0, first - self.now)

    def _hold_parts(self, head: float) -> None:
        purse, now = self.purse, self.now
        if head <= CRUMBS or not (purse.available or purse.stale):
            self._parts_until = math.inf
            return
        self._parts_until = min(self._parts_until, now + self.rng.uniform(*HOLD_S))
        if now >= self._parts_until:
            purse.set_aside()
            self._parts_until, self.try_at = math.inf, now + self.rng.uniform(*HOLD_S)

    def ends_in(self) -> float:
        """Return after how many seconds the first credit that is left ends."""
        return max(0.0, self.purse.soonest - self.purse.boottime())

    async def count_late(self) -> None:
        """Have those starts count from when they were that came after their credit's moment."""
        self.purse.late = []

    async def use_stale(self) -> None:
        """Use anew what nobody began on, or give it back."""
        self.purse.stale = []

    async def fetch(self, since: float, head: float, total: float) -> tuple[list[Credit], float]:
        """Ask for what is lacking; return what there is, and after how many seconds there will be more."""
        raise NotImplementedError

    async def give_back_all(self) -> None:
        self.purse.set_aside()
        self._parts_until = math.inf
        await self.use_stale()


class SlidingSteward(CreditSteward):
    """Each start is a row that lives as long as it counts: *per*, and the moment in which it may begin."""

    def __init__(self, fleet: Fleet, purse: CreditPurse, gate: FleetSlidingWindow) -> None:
        super().__init__(fleet, purse)
        self._gate = gate

    def _moment_s(self) -> float:
        return max(self._gate.per * MOMENT_SHARE, MOMENT_S, ROUND_TRIPS * self.round_trip_s)

    async def fetch(self, since: float, head: float, total: float) -> tuple[list[Credit], float]:
        gate, moment_s = self._gate, self._moment_s()
        names = self.fleet.names(math.ceil(max(head, min(total, self.purse.terms.batch)) - CRUMBS))
        answer = await self.call(
            self.store.limit_acquire(self.purse.limit, names, maximum=gate.max_requests, ttl_s=gate.per + moment_s)
        )
        return [Credit(1.0, since + moment_s, name) for name in answer.taken], answer.wait_s

    async def count_late(self) -> None:
        purse = self.purse
        late, purse.late = purse.late, []
        if late:
            await self.call(self.store.limit_renew(purse.limit, late, self._gate.per))

    async def use_stale(self) -> None:
        purse = self.purse
        purse.drop_ended()
        stale, purse.stale = purse.stale, []
        if not stale:
            return
        if self._parts_until == math.inf:
            await self.call(self.store.limit_release(purse.limit, stale))
            return
        since, moment_s = purse.boottime(), self._moment_s()
        gone = set(await self.call(self.store.limit_renew(purse.limit, stale, self._gate.per + moment_s)))
        purse.put([Credit(1.0, since + moment_s, name) for name in stale if name not in gone])
        purse.gate.wake()


class FixedSteward(CreditSteward):
    """Each window is a limit of its own, by the store's clock; a start is a row of it."""

    def __init__(self, fleet: Fleet, purse: CreditPurse, gate: FleetFixedWindow) -> None:
        super().__init__(fleet, purse)
        self._gate = gate
        self._name = purse.limit
        self._look_at = self.now + LOOK_S

    async def fetch(self, since: float, head: float, total: float) -> tuple[list[Credit], float]:
        if self.now >= self._look_at:
            await self.call(self.fleet.time.look())
            self._look_at = self.now + LOOK_S
        now_ns = self.fleet.time.now_ns()
        begins_ns, ends_ns = self._gate.window_at(now_ns)
        left_s = (ends_ns - now_ns) / NS_PER_S
        self._name = f"{self.purse.limit}@{begins_ns}"
        names = self.fleet.names(math.ceil(max(head, min(total, self.purse.terms.batch)) - CRUMBS))
        answer = await self.call(
            self.store.limit_acquire(
                self._name,
                names,
                maximum=self._gate.max_requests,
                # One window more: whose idea of the time is behind finds it still full, and not begun anew.
                ttl_s=left_s + (ends_ns - begins_ns) / NS_PER_S,
            )
        )
        return [Credit(1.0, since + left_s, name) for name in answer.taken], left_s

    async def use_stale(self) -> None:
        purse = self.purse
        stale, purse.stale = purse.stale, []
        if stale:  # of a window that is over it changes nothing
            await self.call(self.store.limit_release(self._name, stale))


class TokenSteward(CreditSteward):
    """Tokens of one bucket, on the store's clock; those that nobody used in a moment are gone."""

    def __init__(self, fleet: Fleet, purse: CreditPurse, gate: FleetTokenBucket) -> None:
        super().__init__(fleet, purse)
        self._gate = gate
        self._scarce_until = -math.inf

    async def fetch(self, since: float, head: float, total: float) -> tuple[list[Credit], float]:
        gate, wait_s = self._gate, 0.0
        for asked in self._amounts(head, total):
            wait_s = await self.call(
                self.store.limit_take(self.purse.limit, asked, rate=gate.per_second, burst=gate.burst)
            )
            if not wait_s:
                moment_s = max(TOKEN_S, ROUND_TRIPS * self.round_trip_s)
                return [Credit(asked, since + moment_s)], 0.0
            self._scarce_until = self.now + SCARCE_S
        return [], wait_s

    def _amounts(self, head: float, total: float) -> Sequence[float]:
        """Return what to ask for: at first as much as is wanted, later no more than comes in a moment."""
        gate = self._gate
        few = max(head, min(total, gate.burst, gate.per_second * TOKEN_S))
        many = max(head, min(total, gate.burst))
        if self.now < self._scarce_until or many <= few:
            return (few,)
        return (many, few)
