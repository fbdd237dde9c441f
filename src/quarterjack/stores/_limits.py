"""Slots and tokens shared by name, for the memory store.

Slots are rows with a holder and an expiry, never a counter: a holder that
vanishes frees its slots when they run out. Tokens follow the generic cell rate
algorithm (GCRA): one instant per key, the *theoretical arrival time*.

Source:
    ITU-T I.371 (03/2004), annex A: the virtual scheduling form of GCRA."""

from __future__ import annotations

from dataclasses import dataclass

from quarterjack._durations import NS_PER_S

__all__ = ["Limits"]


@dataclass(slots=True)
class _Slot:
    n: int
    expires_ns: int


class Limits:
    """Concurrency slots and token buckets. *now_ns* is always the caller's."""

    __slots__ = ("_arrivals", "_slots")

    def __init__(self) -> None:
        self._slots: dict[str, dict[str, _Slot]] = {}
        self._arrivals: dict[str, int] = {}

    def acquire(self, limit: str, holder: str, n: int, maximum: int, ttl_ns: int, now_ns: int) -> bool:
        """Take *n* slots for *holder*, in place of what it has; all or none."""
        slots = self._live(limit, now_ns)
        others = sum(slot.n for name, slot in slots.items() if name != holder)
        if others + n > maximum:
            return False
        slots[holder] = _Slot(n, now_ns + ttl_ns)
        return True

    def renew(self, limit: str, holder: str, ttl_ns: int, now_ns: int) -> bool:
        """Extend the holder's slots; False if it has none any more."""
        slot = self._live(limit, now_ns).get(holder)
        if slot is None:
            return False
        slot.expires_ns = now_ns + ttl_ns
        return True

    def release(self, limit: str, holder: str) -> None:
        """Give the holder's slots back."""
        slots = self._slots.get(limit)
        if slots is not None:
            slots.pop(holder, None)
            if not slots:
                del self._slots[limit]

    def _live(self, limit: str, now_ns: int) -> dict[str, _Slot]:
        slots = self._slots.setdefault(limit, {})
        for holder in [name for name, slot in slots.items() if slot.expires_ns <= now_ns]:
            del slots[holder]
        return slots

    def take(self, limit: str, n: float, rate: float, burst: float, now_ns: int) -> float:
        """Take *n* tokens and return 0.0, or take none and return the seconds until they are there."""
        per_token = NS_PER_S / rate
        arrival = max(self._arrivals.get(limit, now_ns), now_ns) + round(n * per_token)
        wait = arrival - now_ns - round(burst * per_token)
        if wait > 0:
            return wait / NS_PER_S
        self._arrivals[limit] = arrival
        return 0.0
