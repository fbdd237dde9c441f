"""A steward: the task that looks after one purse, as long as there is something to do."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from quarterjack.errors import StoreError, StoreUnavailable
from quarterjack.flow._purse import PurseT

if TYPE_CHECKING:
    from .fleet import Fleet

__all__ = ["Steward"]

T = TypeVar("T")

LONGEST_CALL_S: Final = 5.0
"""Who has not answered by then does not answer."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 2.0
"""Between two calls to a store that does not answer."""
GIVE_UP_S: Final = 0.5
"""A store that does not answer for so long is done without, where the gate may: no single lost call opens it."""
SHORTEST_S: Final = 1e-6
"""A pause that a clock of floats cannot tell from none would ring at once, without end where time is virtual."""

log = logging.getLogger("quarterjack.flow")

_MEANWHILE: Final = {
    "closed": "nothing starts beyond what was granted",
    "open": "all start, without the limit",
    "local": "the limit holds in this process alone",
}


class Steward(ABC, Generic[PurseT]):
    """Looks after one purse. It belongs to a `Fleet`."""

    def __init__(self, fleet: Fleet, purse: PurseT) -> None:
        self.purse = purse
        self.fleet = fleet
        self.store = fleet.store
        self.rng = fleet.rng
        self.try_at = -float("inf")
        """When the store is to be asked for more again, at the earliest."""
        self.round_trip_s = 0.0
        """How long the store takes to answer, of late."""
        self._failures = 0
        self._fails_since = 0.0
        """When the first call was made of those that failed one after the other."""
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def now(self) -> float:
        """The loop's clock."""
        return self.fleet.clock.monotonic()

    def poke(self) -> None:
        """There may be something to do."""
        self._news.set()
        if self._task is None:
            self._task = self.fleet.create_task(self)

    def look_now(self) -> None:
        """Somebody gave something back: wait no longer to ask."""
        self.try_at = self.now
        self.poke()

    def cancel(self) -> list[asyncio.Task[None]]:
        """Do nothing more; return what is to be waited for."""
        if self._task is None:
            return []
        self._task.cancel()
        return [self._task]

    async def run(self) -> None:
        """Do what there is to do, until nothing is left."""
        while True:
            self._news.clear()
            pause = await self._try_turn()
            if pause is None:
                if self._news.is_set():
                    continue
                self.fleet.ended(self.purse)
                return
            if self._failures:  # whoever comes meanwhile makes the store answer no sooner
                await asyncio.sleep(pause)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, SHORTEST_S)):
                    await self._news.wait()

    async def _try_turn(self) -> float | None:
        try:
            if self._failures:
                await self.call(self.store.limit_acquire(self.purse.limit, (), maximum=1, ttl_s=1.0))
            pause = await self.turn()
        except StoreError as error:
            return self._failed(error)
        except Exception as error:  # a third party's store runs here: without this task the gate is closed for good
            log.exception("the limit %s met an error that is none of a store's", self.purse.limit)
            return self._failed(error)
        self._failures = 0
        if self.purse.is_cut_off:
            self.purse.is_cut_off = False
            log.info("the limit %s holds again: the store answers", self.purse.limit)
            self.purse.gate.wake()
            return 0.0
        return pause

    def _failed(self, error: Exception) -> float:
        purse = self.purse
        if not self._failures:
            self._fails_since = self.now  # not from when the call began: a lost one takes seconds to fail
        self._failures += 1
        if not purse.is_cut_off and self.now - self._fails_since >= GIVE_UP_S:
            purse.is_cut_off = True
            meanwhile = _MEANWHILE[purse.terms.on_store_error]
            log.warning("the limit %s: %s; until the store answers, %s", purse.limit, error, meanwhile)
            purse.gate.wake()
        pause: float = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** min(self._failures, 10))
        return pause * self.rng.uniform(0.5, 1.0)

    async def call(self, answer: Awaitable[T]) -> T:
        """Await a call of the store, not for ever.

        Raises:
            StoreError: If it fails; `StoreUnavailable` if it does not answer.
        """
        longest_s = min(LONGEST_CALL_S, self.fleet.lease_s / 4)
        since = self.fleet.clock.boottime_ns()
        try:
            async with asyncio.timeout(longest_s):
                found = await answer
        except TimeoutError:
            raise StoreUnavailable(f"no answer within {longest_s:.3g} s") from None
        took = (self.fleet.clock.boottime_ns() - since) / 1e9
        self.round_trip_s += (took - self.round_trip_s) / (4 if took < self.round_trip_s else 2)
        return found

    @abstractmethod
    async def turn(self) -> float | None:
        """Do what is due; return in how many seconds to look again, None if nothing is left to do."""

    @abstractmethod
    async def give_back_all(self) -> None:
        """Give back what nobody uses any more; the process lets go of its limits."""
