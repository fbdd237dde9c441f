"""`TokenBucket`: a mean rate, and a burst on top of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

from quarterjack._durations import NS_PER_S, Seconds, to_ns
from quarterjack._numbers import number
from quarterjack.errors import InvalidOption

from ._fleet import FleetRate, OnStoreError, Scope, settle_scope
from ._keys import By
from ._options import CRUMBS, changed
from ._rate import RateGate
from .waiting import Waiting

__all__ = ["FleetTokenBucket", "TokenBucket"]

_SETTINGS: Final = ("rate", "burst")
_LONGEST_NS: Final = 200 * 366 * 86_400 * NS_PER_S
_NOTHING_YET: Final = -(2**63)
"""Before every instant of a clock, in nanoseconds."""


class TokenBucket(RateGate):
    """Lets jobs start at *rate* per second in the mean, and up to *burst* at once after a pause.

    A bucket of *burst* tokens that is full at first and gains *rate* tokens a second;
    a start takes one, a job of ``cost=3`` takes three. In any W seconds at most
    ``burst + rate * W`` start. Use it for large rates and for a load that comes in
    gusts: it keeps one number, however many start. Not where an API counts: in its
    first second it lets ``burst + rate`` through, which a quota of *rate* a second
    refuses; see `SlidingWindow`.

    Reckoned in whole nanoseconds, as one instant (the generic cell rate algorithm):
    no sum of small amounts loses anything over the years. The nanoseconds per token are
    rounded up, so that the rate is never above the given one, and below it by less
    than a thousandth up to a million a second. O(1) time and space.

    With ``scope="fleet"`` all processes share one bucket, on the store's clock, see ``docs/flow/fleet.md``.

    Args:
        rate: Tokens per second, above 0; 0.5 is one in two seconds.
        burst: The most tokens there are, 1 or more; also the highest cost of a job.
        per: Seconds in which *rate* tokens come, 1 by default: ``TokenBucket(300, 20, per=60)``.
        by: A bucket for each key, such as ``by="tenant"``.
        name: What it is called in `why_waiting` and `stats`.
        scope: ``"process"``, or ``"fleet"``: the limit holds for all processes on one store, by its *name*.
        batch: Of a fleet: how many tokens are asked for at once, 10 by default; 1 is strict.
        on_store_error: Of a fleet: ``"closed"`` (default), ``"open"`` or ``"local"``, while the store does not answer.

    Raises:
        InvalidOption: Naming the option, the value and the range.

    Source:
        ITU-T I.371, generic cell rate algorithm, virtual scheduling.
    """

    def __init__(
        self,
        rate: float,
        burst: float,
        *,
        per: Seconds = 1.0,
        by: By | None = None,
        name: str | None = None,
        scope: Scope = "process",
        batch: int | None = None,
        on_store_error: OnStoreError | None = None,
    ) -> None:
        super().__init__(by=by, name=name)
        self._per_ns = to_ns(per, "per", exclusive=True)
        self.rate: float = number(rate, "rate", 0, exclusive=True)
        self.burst: float = number(burst, "burst", 1)
        self._token_ns = _token_ns(rate, self._per_ns)
        self._full_at_ns = _NOTHING_YET
        """When the bucket is full again: the one number it keeps (GCRA's theoretical arrival time)."""
        settle_scope(self, TokenBucket, FleetTokenBucket, scope, batch, on_store_error)

    def eta(self, job: Waiting, now: float) -> float:
        left = self.burst - self._reserved - job.cost
        if left < -CRUMBS:
            self.check(job)
            return math.inf  # who was admitted must begin first
        at_ns = self._full_at_ns - int(max(left, 0.0) * self._token_ns)
        return max(self._held_until, at_ns / NS_PER_S)

    def _count(self, job: Waiting, now: float) -> None:
        self._full_at_ns = max(self._full_at_ns, round(now * NS_PER_S)) + math.ceil(job.cost * self._token_ns)

    _has_fast_path = True

    def _take_one(self, now: float) -> bool:
        now_ns, full_at_ns = round(now * NS_PER_S), self._full_at_ns
        if full_at_ns < now_ns:  # noqa: PLR1730  # max() is a call, and this is the fast path
            full_at_ns = now_ns
        if (
            full_at_ns - now_ns > int((self.burst - 1.0) * self._token_ns)
            or now < self._held_until
            or self._jobs_reserved
        ):
            return False
        self._full_at_ns = full_at_ns + self._token_ns
        self._counted_by = self.clock
        return True

    def _untake_one(self) -> None:
        self._full_at_ns -= self._token_ns

    def is_idle(self, now: float) -> bool:
        return not self._jobs_reserved and max(self._full_at_ns / NS_PER_S, self._held_until) <= now

    def stats(self) -> dict[str, Any]:
        missing_ns = max(0, self._full_at_ns - self.clock.monotonic_ns())
        tokens = self.burst - self._reserved - missing_ns / self._token_ns
        return {"rate": self.rate, "burst": self.burst, "tokens": max(0.0, tokens)}

    @property
    def _capacity(self) -> float:
        return self.burst

    @property
    def _capacity_name(self) -> str:
        return "burst"

    def _forget_starts(self) -> None:
        self._full_at_ns = _NOTHING_YET

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        changed(self, changes, _SETTINGS)
        rate = number(changes.get("rate", self.rate), "rate", 0, exclusive=True)
        number(changes.get("burst", self.burst), "burst", 1)
        _token_ns(rate, self._per_ns)

    def _change(self, changes: Mapping[str, Any]) -> None:
        now_ns = self.clock.monotonic_ns()
        missing = max(0, self._full_at_ns - now_ns) / self._token_ns
        self.rate = changes.get("rate", self.rate)
        self.burst = changes.get("burst", self.burst)
        self._token_ns = _token_ns(self.rate, self._per_ns)
        if missing:  # so many tokens are still missing, whatever time they take to come now
            self._full_at_ns = now_ns + math.ceil(missing * self._token_ns)


class FleetTokenBucket(FleetRate, TokenBucket):
    """The same for all processes on one store."""

    _kind = "tokens"

    @property
    def per_second(self) -> float:
        """Tokens that come in a second."""
        return NS_PER_S / self._token_ns


def _token_ns(rate: float, per_ns: int) -> int:
    """Return the nanoseconds in which a token comes."""
    found = per_ns / rate
    if not math.isfinite(found) or found > _LONGEST_NS:
        raise InvalidOption(f"rate={rate!r} brings less than a token in 200 years; raise it")
    return math.ceil(found)
