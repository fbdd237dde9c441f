"""Slots and tokens shared by name, for the memory store.

Slots are rows with a holder and an end, never a counter: a holder that vanishes
frees its slot when it runs out. Tokens follow the generic cell rate algorithm
(GCRA): one instant per key, the *theoretical arrival time*.

Source:
    ITU-T I.371 (03/2004), annex A: the virtual scheduling form of GCRA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from quarterjack._durations import NS_PER_S

from .base import WAITER_S, Acquired

__all__ = ["Limits"]

_SWEPT_EVERY: Final = 1_024
"""After so many calls what says nothing any more is dropped: names may be made without end, one per window or key."""


class Limits:
    """Concurrency slots and token buckets. *now_ns* is always the caller's."""

    __slots__ = ("_arrivals", "_calls", "_slots", "_waiters")

    def __init__(self) -> None:
        self._slots: dict[str, dict[str, int]] = {}
        """When each holder's slot runs out, by limit."""
        self._waiters: dict[str, dict[str, int]] = {}
        """Until when somebody is known to wait."""
        self._arrivals: dict[str, int] = {}
        self._calls = 0

    def acquire(
        self, limit: str, holders: Sequence[str], maximum: int, ttl_ns: int, now_ns: int, waiter: str | None
    ) -> Acquired:
        """Take a slot for each of *holders*, as many as are free."""
        self._sweep(now_ns)
        slots, waiters = _live(self._slots, limit, now_ns), _live(self._waiters, limit, now_ns)
        taken: list[str] = []
        for holder in holders:
            if len(slots) - (holder in slots) < maximum:
                slots[holder] = now_ns + ttl_ns
                taken.append(holder)
        if waiter is not None:
            waiters.pop(waiter, None)
        waiting = len(waiters)
        if len(taken) == len(holders):
            return Acquired(tuple(taken), waiting)
        if waiter is not None:
            waiters[waiter] = now_ns + round(WAITER_S * NS_PER_S)
        return Acquired(tuple(taken), waiting, (min(slots.values(), default=now_ns) - now_ns) / NS_PER_S)

    def renew(self, limit: str, holders: Sequence[str], ttl_ns: int, now_ns: int) -> list[str]:
        """Extend slots; return the holders that have none any more."""
        slots = _live(self._slots, limit, now_ns)
        slots.update(dict.fromkeys(slots.keys() & set(holders), now_ns + ttl_ns))
        return [holder for holder in holders if holder not in slots]

    def release(self, limit: str, holders: Sequence[str], now_ns: int) -> bool:
        """Give slots back; say whether somebody waits for one."""
        slots = self._slots.get(limit, {})
        for holder in holders:
            slots.pop(holder, None)
        return bool(_live(self._waiters, limit, now_ns))

    def shift(self, step_ns: int) -> None:
        """The clock was set by so much: what counts elapsed time moves with it."""
        for ends in (*self._slots.values(), *self._waiters.values(), self._arrivals):
            for name in ends:
                ends[name] += step_ns

    def _sweep(self, now_ns: int) -> None:
        self._calls += 1
        if self._calls % _SWEPT_EVERY:
            return
        for table in (self._slots, self._waiters):
            for limit in [limit for limit in table if not _live(table, limit, now_ns)]:
                del table[limit]
        self._arrivals = {limit: at for limit, at in self._arrivals.items() if at > now_ns}

    def take(self, limit: str, n: float, rate: float, burst: float, now_ns: int) -> float:
        """Take *n* tokens and return 0.0, or take none and return the seconds until they are there."""
        self._sweep(now_ns)
        per_token = NS_PER_S / rate
        arrival = max(self._arrivals.get(limit, now_ns), now_ns) + round(n * per_token)
        wait = arrival - now_ns - round(burst * per_token)
        if wait > 0:
            return wait / NS_PER_S
        self._arrivals[limit] = arrival
        return 0.0


def _live(table: dict[str, dict[str, int]], limit: str, now_ns: int) -> dict[str, int]:
    """Return what counts of a limit, by name; what ran out goes."""
    ends = table.setdefault(limit, {})
    for name in [name for name, end in ends.items() if end <= now_ns]:
        del ends[name]
    return ends
