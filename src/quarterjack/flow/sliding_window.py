"""`SlidingWindow`: at most so many starts in any stretch of time."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

from quarterjack._choices import flag
from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import whole_number
from quarterjack.errors import InvalidOption

from ._fleet import FleetRate, OnStoreError, Scope, settle_scope
from ._keys import By
from ._options import CRUMBS, changed
from ._rate import Pace, RateGate
from .waiting import Waiting

__all__ = ["FleetSlidingWindow", "SlidingWindow"]

_SETTINGS: Final = ("max_requests", "per")
_SLACK_SHARE: Final = 0.1
"""A tenth of the window: what `smooth` catches up after the loop was busy."""


class SlidingWindow(RateGate):
    """Lets at most *max_requests* jobs start in any *per* seconds, wherever one begins to count.

    The exact limit: it keeps the instant of each start of the last *per* seconds, so
    start number i + N comes *per* seconds after start number i or later, and never
    later than that if somebody waits. Use it for the quotas of others' APIs, up to
    some 10,000 per window; beyond that, or where a burst on top of a mean rate is
    what you want, see `TokenBucket`. Not for what is scarce while in use: see
    `ConcurrencyLimit`.

    A job of ``cost=3`` counts as three starts. A full window lets the next N start at
    once; ``smooth=True`` spaces them ``per / N`` apart instead, and after the loop
    was busy catches up for a tenth of the window at most. O(1) time for jobs of equal
    cost, O(cost) for one among cheaper ones; space for N starts.

    After ``update(per=…)`` what started within the window stays counted; a longer one begins with what the shorter
    one still held.

    With ``scope="fleet"`` no stretch of *per* seconds holds more of all processes together, see ``docs/flow/fleet.md``.

    Args:
        max_requests: Starts per window, 1 or more.
        per: The window in seconds, as a number or a ``timedelta``, above 0.
        smooth: Space the starts evenly.
        by: A window for each key, such as ``by="tenant"``.
        name: What it is called in `why_waiting` and `stats`.
        scope: ``"process"``, or ``"fleet"``: the limit holds for all processes on one store, by its *name*.
        batch: Of a fleet: how many starts are asked for at once, 10 by default; 1 is strict.
        on_store_error: Of a fleet: ``"closed"`` (default), ``"open"`` or ``"local"``, while the store does not answer.

    Raises:
        InvalidOption: Naming the option, the value and the range.
    """

    def __init__(
        self,
        max_requests: int,
        per: Seconds,
        *,
        smooth: bool = False,
        by: By | None = None,
        name: str | None = None,
        scope: Scope = "process",
        batch: int | None = None,
        on_store_error: OnStoreError | None = None,
    ) -> None:
        super().__init__(by=by, name=name)
        self.max_requests: int = whole_number(max_requests, "max_requests", 1)
        self.per = to_seconds(per, "per", exclusive=True)
        self.smooth: Final = flag(smooth, "smooth")
        self._starts: deque[tuple[float, float]] = deque()
        """When each started and what it cost, oldest first; some may have left the window."""
        self._counted = 0.0
        """What those cost."""
        self._pace = Pace()
        if self.smooth and scope == "fleet":
            raise InvalidOption('smooth=True spaces starts in one process; take TokenBucket(…, burst=1, scope="fleet")')
        settle_scope(self, SlidingWindow, FleetSlidingWindow, scope, batch, on_store_error)

    def eta(self, job: Waiting, now: float) -> float:
        room = self.max_requests + CRUMBS - self._reserved - job.cost
        at = self._held_until
        if self._counted > room:
            at = max(at, self._free_at(job, room))
        if self.smooth:
            at = math.inf if self._jobs_reserved else max(at, self._pace.due(self.per / self.max_requests))
        return at

    def _free_at(self, job: Waiting, room: float) -> float:
        """Return when no more than *room* is left of what has started."""
        if room < 0.0:
            self.check(job)
            return math.inf  # who was admitted must begin first: a reservation is in every window
        too_much = self._counted - room
        for at, cost in self._starts:
            too_much -= cost
            if too_much <= 0.0:
                return at + self.per
        return self._starts[-1][0] + self.per  # all must leave, and fractions did not add up

    def _count(self, job: Waiting, now: float) -> None:
        starts = self._starts
        self._leave(now)
        starts.append((max(now, starts[-1][0]) if starts else now, job.cost))
        self._counted += job.cost
        if self.smooth:
            share = self.per / self.max_requests
            self._pace.begin(job.enqueued_at, now, share, _SLACK_SHARE * self.per, job.cost)

    def _leave(self, now: float) -> None:
        """Let go of what has left the window."""
        starts = self._starts
        while starts and starts[0][0] + self.per <= now:
            self._counted -= starts.popleft()[1]
        if not starts:
            self._counted = 0.0

    _has_fast_path = True

    def _take_one(self, now: float) -> bool:
        starts = self._starts
        while starts and starts[0][0] + self.per <= now:  # as `_leave`, which is a call
            self._counted -= starts.popleft()[1]
        if not starts:
            self._counted = 0.0
        if (
            self._counted + 1.0 > self.max_requests + CRUMBS
            or now < self._held_until
            or self._jobs_reserved
            or self.smooth
        ):
            return False
        starts.append((starts[-1][0] if starts and starts[-1][0] > now else now, 1.0))
        self._counted += 1.0
        self._counted_by = self.clock
        return True

    def _untake_one(self) -> None:
        self._starts.pop()
        self._counted -= 1.0

    def is_idle(self, now: float) -> bool:
        has_left = not self._starts or self._starts[-1][0] + self.per <= now
        return has_left and not self._jobs_reserved and self._held_until <= now

    def stats(self) -> dict[str, Any]:
        now = self.clock.monotonic()
        started = sum(cost for at, cost in self._starts if at + self.per > now)
        return {"max_requests": self.max_requests, "per": self.per, "used": started + self._reserved}

    @property
    def _capacity(self) -> float:
        return self.max_requests

    @property
    def _capacity_name(self) -> str:
        return "max_requests"

    def _forget_starts(self) -> None:
        self._starts.clear()
        self._counted = 0.0
        self._pace = Pace()

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        changed(self, changes, _SETTINGS)
        whole_number(changes.get("max_requests", self.max_requests), "max_requests", 1)
        to_seconds(changes.get("per", self.per), "per", exclusive=True)

    def _change(self, changes: Mapping[str, Any]) -> None:
        self.max_requests = changes.get("max_requests", self.max_requests)
        self.per = to_seconds(changes.get("per", self.per), "per", exclusive=True)


class FleetSlidingWindow(FleetRate, SlidingWindow):
    """The same for all processes on one store."""

    _kind = "log"
