"""Silence of the store: after a long one leases have run out though nobody has died.

An outage cuts off every process alike. Once it is over, a claim would rescue
what still runs here, and what runs in the processes that are not through yet:
bodies would be run twice side by side, and jobs that have ended well be LOST.
So a process renews its own leases before it claims again, and then leaves the
others a moment to do the same. Leases may also run out while claims are
answered, where the connection that renews them fails alone."""

from __future__ import annotations

from typing import Final

from quarterjack._durations import NS_PER_S
from quarterjack.clock import Clock

__all__ = ["Silence"]

SHARE: Final = 2
"""A silence is long from half a lease on: leases are renewed three times before they run out."""
CALM_S: Final = 3.0
"""How long the others have; no longer than a long silence, where leases are short."""


class Silence:
    """What one process knows of how long its store has been silent. From any thread.

    Args:
        clock: The app's.
        lease_s: How long the leases here last.
    """

    def __init__(self, clock: Clock, lease_s: float) -> None:
        self._monotonic_ns = clock.monotonic_ns
        self._long_ns = round(lease_s * NS_PER_S) // SHARE
        self._calm_ns = min(round(CALM_S * NS_PER_S), self._long_ns)
        self._answered_ns = self._renewed_ns = clock.monotonic_ns()
        self._calm_until_ns = self._answered_ns

    @property
    def is_long(self) -> bool:
        """True if leases of ours may have run out: they are to be renewed before anything is claimed."""
        return self._monotonic_ns() - self._renewed_ns >= self._long_ns

    @property
    def calm_s(self) -> float:
        """For how many seconds nothing is to be claimed yet, as others may be about to renew."""
        return max(0, self._calm_until_ns - self._monotonic_ns()) / NS_PER_S

    def renewed(self, asked_ns: int) -> None:
        """Everything held here was renewed, by a call made at *asked_ns* on the monotonic clock."""
        self._renewed_ns = asked_ns
        self.answered()

    def answered(self) -> None:
        """The store answered."""
        now_ns = self._monotonic_ns()
        if now_ns - self._answered_ns >= self._long_ns:
            self._calm_until_ns = now_ns + self._calm_ns
        self._answered_ns = max(now_ns, self._calm_until_ns)  # to keep quiet oneself is no silence of the store
