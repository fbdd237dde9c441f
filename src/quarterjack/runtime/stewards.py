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
from abc import abstractmethod
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
"""Within so much, at random, those who are told of a free slot ask for it."""
SOONEST_S: Final = 0.05
LATEST_S: Final = 1.0
"""Between two questions for slots while all are taken; what is given back is told at once where stores can."""
LONGEST_WAIT_S: Final = 5.0
"""Between two questions for starts: what others did not use comes back early."""
HOLD_S: Final = (0.2, 1.0)
"""A part of what a heavy job needs is held so long, then let go: two who each hold a part would wait for ever."""

AGAIN_S: Final = 0.05
SOONEST_AGAIN_S: Final = 0.001
"""After a refusal, at the least; and as much more, at random, where another heavy job may be in the way."""
KEPT_S: Final = 1.0
"""What is left of a clock's window is kept so long for the next job of this process."""
MOMENT_SHARE: Final = 0.02
MOMENT_S: Final = 0.005
ROUND_TRIPS: Final = 4
"""A credit is good for this share of its window, at least so long, and for so many round trips to the store."""
TOKEN_S: Final = 0.1
"""How long a token is good here, at least."""
SCARCE_S: Final = 1.0
"""After a refusal no more tokens are asked for at once than come in a `TOKEN_S`."""
ANY_NUMBER: Final = 10**9
"""Of rows: a start that was made counts, also beyond the limit."""
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
            self.try_at = now + self.rng.uniform(0.0, SPREAD_S)
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
            return self.try_at
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
            self._pause_s = SOONEST_S
            purse.gate.wake()
        if len(answer.taken) < lacking:
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
            if now >= self._free_until:
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
        # Those that bodies use still, which were left behind, are theirs until the lease is over.
        self.purse.give(self.purse.free)
        await self._give_back()


class CreditSteward(Steward[CreditPurse]):
    """Gets starts for the jobs that wait here."""

    def __init__(self, fleet: Fleet, purse: CreditPurse) -> None:
        super().__init__(fleet, purse)
        self._refused = math.inf
        """How much was asked for in vain: who needs less need not wait as long."""

    async def turn(self) -> float | None:
        purse = self.purse
        await self.settle()
        head, total = purse.lacking()
        if head > CRUMBS and (self.now >= self.try_at or head < self._refused - CRUMBS):
            got, wait_s = await self.fetch(purse.boottime(), head, total)
            if got:
                purse.put(got)
            else:
                self._refused = head
                purse.opens_at = self.now + wait_s
                self.try_at = self.now + min(wait_s, LONGEST_WAIT_S)
            purse.gate.wake()  # so that somebody starts, or it is known when
            head, total = purse.lacking()
        if purse.stale:  # their moment passed while the store was asked
            return 0.0
        first = min(purse.ends_in(), self.try_at - self.now if head > CRUMBS else math.inf)
        return None if first == math.inf else max(0.0, first)

    @abstractmethod
    async def settle(self) -> None:
        """Give back what nobody began on, and have late starts count from when they were."""

    @abstractmethod
    async def fetch(self, since: float, head: float, total: float) -> tuple[list[Credit], float]:
        """Ask for what is lacking: what the first in line needs, and up to a batch; or return when to ask again."""

    async def give_back_all(self) -> None:
        self.purse.set_aside()
        await self.settle()


class RowSteward(CreditSteward):
    """Starts that are rows."""

    async def settle(self) -> None:
        purse = self.purse
        purse.drop_ended()
        late = tuple(purse.late)
        if late:
            await self.count_late(late)
            purse.late = [one for one in purse.late if one not in late]
        while purse.stale:
            limit = purse.stale[0].limit
            gone = [one for one in purse.stale if one.limit == limit]
            await self.call(self.store.limit_release(limit, _slots_of(gone)))
            purse.stale = [one for one in purse.stale if one not in gone]

    @abstractmethod
    async def count_late(self, late: Sequence[Credit]) -> None:
        """Have starts count from now, that came after their credit's moment."""

    async def count(self, limit: str, n: int, ttl_s: float) -> None:
        """Count *n* starts that were made: they count whether there is room for them or not."""
        await self.call(self.store.limit_acquire(limit, self.fleet.names(n), maximum=ANY_NUMBER, ttl_s=ttl_s))

    async def take(
        self, limit: str, head: float, total: float, *, maximum: int, ttl_s: float, until: float
    ) -> tuple[list[Credit], float]:
        """Take rows: enough for the first in line, or none; parts of what a heavy job needs would bar others."""
        names = self.fleet.names(math.ceil(max(head, total) - CRUMBS))
        answer = await self.call(self.store.limit_acquire(limit, names, maximum=maximum, ttl_s=ttl_s))
        if len(answer.taken) + CRUMBS >= head:
            return [Credit(1.0, until, name, limit) for name in answer.taken], 0.0
        if not answer.taken:
            return [], max(answer.wait_s, SOONEST_AGAIN_S)
        await self.call(self.store.limit_release(limit, answer.taken))
        return [], max(answer.wait_s, SOONEST_AGAIN_S) + self.rng.uniform(0.0, AGAIN_S)


def _slots_of(credits_: Sequence[Credit]) -> list[str]:
    """Return the rows, each once: parts of one may have been used by several."""
    return list(dict.fromkeys(credit.slot for credit in credits_ if credit.slot is not None))


class SlidingSteward(RowSteward):
    """Each start is a row that lives as long as it counts: *per*, and the moment in which it may begin."""

    def __init__(self, fleet: Fleet, purse: CreditPurse, gate: FleetSlidingWindow) -> None:
        super().__init__(fleet, purse)
        self._gate = gate

    async def fetch(self, since: float, head: float, total: float) -> tuple[list[Credit], float]:
        gate = self._gate
        moment_s = max(gate.per * MOMENT_SHARE, MOMENT_S, ROUND_TRIPS * self.round_trip_s)
        ttl_s, until = gate.per + moment_s, since + moment_s
        return await self.take(self.purse.limit, head, total, maximum=gate.max_requests, ttl_s=ttl_s, until=until)

    async def count_late(self, late: Sequence[Credit]) -> None:
        limit, per_s = self.purse.limit, self._gate.per
        gone = await self.call(self.store.limit_renew(limit, _slots_of(late), per_s))
        if gone:  # so late that their rows had run out
            await self.count(limit, len(gone), per_s)


class FixedSteward(RowSteward):
    """Each window is a limit of its own, by the store's clock; a start is a row of it."""

    def __init__(self, fleet: Fleet, purse: CreditPurse, gate: FleetFixedWindow) -> None:
        super().__init__(fleet, purse)
        self._gate = gate
        self._look_at = self.now + LOOK_S

    async def fetch(self, since: float, head: float, total: float) -> tuple[list[Credit], float]:
        if self.now >= self._look_at:
            await self.call(self.fleet.time.look())
            self._look_at = self.now + LOOK_S
        limit, left_s, ttl_s = self._window()
        until = since + min(left_s, KEPT_S)
        got, _ = await self.take(limit, head, total, maximum=self._gate.max_requests, ttl_s=ttl_s, until=until)
        return got, left_s

    async def count_late(self, late: Sequence[Credit]) -> None:
        limit, _, ttl_s = self._window()
        elsewhere = [credit for credit in late if credit.limit != limit]
        if elsewhere:  # they were granted in a window that was over when they began
            await self.count(limit, len(_slots_of(elsewhere)), ttl_s)

    def _window(self) -> tuple[str, float, float]:
        """Return the window of now: its limit, the seconds until it ends, and how long a row of it lives."""
        now_ns = self.fleet.time.now_ns()
        begins_ns, ends_ns = self._gate.window_at(now_ns)
        left_s = (ends_ns - now_ns) / NS_PER_S
        # One window more: whose idea of the time is behind finds it still full, and not begun anew.
        return f"{self.purse.limit}@{begins_ns}", left_s, left_s + (ends_ns - begins_ns) / NS_PER_S


class TokenSteward(CreditSteward):
    """Tokens of one bucket, on the store's clock; those that nobody used in a moment are gone."""

    def __init__(self, fleet: Fleet, purse: CreditPurse, gate: FleetTokenBucket) -> None:
        super().__init__(fleet, purse)
        self._gate = gate
        self._scarce_until = -math.inf

    async def settle(self) -> None:
        self.purse.drop_ended()

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
