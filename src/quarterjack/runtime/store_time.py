"""The store's time, without asking for it each time.

Due times and leases go by the store's clock, timers by this machine's. How far
the two are apart is estimated from round trips: the store read its clock at
some moment between the question and the answer, so half the round trip is the
most the estimate can be off. The best of the latest looks counts; in between,
elapsed time goes on from it, so that a machine whose clock is wrong, or is set,
fires to the millisecond all the same.

A store that goes by the local clock is asked nothing at all."""

from __future__ import annotations

from typing import Final

from quarterjack._durations import NS_PER_S
from quarterjack.clock import Clock
from quarterjack.stores.base import Store

__all__ = ["StoreTime"]

DRIFT: Final = 10_000
"""A machine's counter is taken to be wrong by one part in so many (100 ppm): older looks count for less."""
FIRST_LOOKS: Final = 3
"""Round trips at the start: the first of a new connection is a slow one."""


class StoreTime:
    """Tells the store's time from the machine's counters. Read from any thread.

    Args:
        store: Whose clock is meant.
        clock: The app's.
    """

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self.is_local = store.uses_local_clock
        self._ahead_ns = clock.now_ns() - clock.boottime_ns()
        self._error_ns: int | None = None
        self._looked_ns = 0

    def now_ns(self) -> int:
        """Return what the store's clock shows, as far as is known here."""
        return self._clock.now_ns() if self.is_local else self._ahead_ns + self._clock.boottime_ns()

    def local_ns(self, store_ns: int) -> int:
        """Return what this machine's wall clock shows when the store's shows *store_ns*."""
        return store_ns if self.is_local else store_ns + self._clock.now_ns() - self.now_ns()

    @property
    def skew_s(self) -> float:
        """By how many seconds this machine's clock is ahead of the store's."""
        return 0.0 if self.is_local else (self._clock.now_ns() - self.now_ns()) / NS_PER_S

    async def open(self) -> None:
        """Look for the first time.

        Raises:
            StoreError: If the store does not answer.
        """
        for _ in range(0 if self.is_local else FIRST_LOOKS):
            await self.look()

    async def look(self) -> None:
        """Ask the store once; keep the answer if it says more than what is known.

        Raises:
            StoreError: If the store does not answer.
        """
        if self.is_local:
            return
        before = self._clock.boottime_ns()
        now = await self._store.now_ns()
        after = self._clock.boottime_ns()
        error = (after - before) // 2 + 1
        known = self._error_ns
        if (
            known is None
            or error <= known + (after - self._looked_ns) // DRIFT
            or self._contradicts(now, before, after)
        ):
            self._ahead_ns = now - before - (after - before) // 2
            self._error_ns, self._looked_ns = error, after

    def _contradicts(self, now: int, before: int, after: int) -> bool:
        """Say whether the store's clock was set: what is known lies outside of this round trip."""
        slack = (self._error_ns or 0) + (after - self._looked_ns) // DRIFT
        return not before - slack <= now - self._ahead_ns <= after + slack

    def was_early(self, by_ns: int) -> None:
        """The store found us early by so much: its clock is behind what is thought of it."""
        if not self.is_local:
            self._ahead_ns -= by_ns
