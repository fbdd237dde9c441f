"""`FixedWindow`: so many starts per window, as an upstream counts its own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, Literal, Protocol, cast

from quarterjack._durations import NS_PER_S, Seconds, to_ns, to_seconds
from quarterjack._numbers import shown, whole_number
from quarterjack.clock import Clock
from quarterjack.errors import InvalidOption, InvalidTrigger
from quarterjack.triggers import Aligned, Cron, Trigger
from quarterjack.triggers._zone import zone

from ._fleet import FleetRate, OnStoreError, Scope, settle_scope
from ._keys import By
from ._options import CRUMBS, changed
from ._rate import LONG_AGO, RateGate
from .waiting import Waiting

__all__ = ["FixedWindow", "FleetFixedWindow"]

CalendarWord = Literal["day", "week", "month"]
_BEGINS: Final[Mapping[str, str]] = {"day": "0 0 * * *", "week": "0 0 * * mon", "month": "0 0 1 * *"}
_KEPT: Final = 4
"""Windows whose counts are kept: a clock that is set back leads into one of the last, as a rule."""
_SETTINGS: Final = ("max_requests",)


class FixedWindow(RateGate):
    """Lets at most *max_requests* jobs start in each window; then they wait for the next one.

    It mirrors an upstream that counts in windows of its own, such as 1,000 calls per
    calendar day or 300 from one quarter of an hour to the next: what is left of a
    window may be used up to its last moment. Where the two sides' windows agree, that is
    all the upstream allows. Where they do not, up to twice *max_requests* start within
    *per* seconds, at the end of one window and the beginning of the next: take
    `SlidingWindow` then.

    A job of ``cost=3`` counts as three starts. O(1) time and space.

    With ``scope="fleet"`` the starts of all processes are counted together, in windows by the
    store's clock, see ``docs/flow/fleet.md``.

    Args:
        max_requests: Starts per window, 1 or more.
        per: The window in seconds, as a number or a ``timedelta``, above 0; or ``"day"``,
            ``"week"`` (from Monday) or ``"month"`` of the calendar.
        anchor: Where windows begin: ``"epoch"`` (default) at the multiples of *per* since
            1970 in UTC, so at :00, :15, :30 and :45 for 900; ``"first"`` with the first start
            after the last window's end; or a zone such as ``"America/Los_Angeles"``, at the clock
            tops of its days, the nights when its clocks change included.
        window_seconds: Another name of *per*.
        by: A count for each key, such as ``by="tenant"``.
        name: What it is called in `why_waiting` and `stats`.
        scope: ``"process"``, or ``"fleet"``: the limit holds for all processes on one store, by its *name*.
        batch: Of a fleet: how many starts are asked for at once, 10 by default; 1 is strict.
        on_store_error: Of a fleet: ``"closed"`` (default), ``"open"`` or ``"local"``, while the store does not answer.

    Raises:
        InvalidOption: Naming the option, the value and the range.
        InvalidTrigger: If *anchor* is no zone.
    """

    def __init__(
        self,
        max_requests: int,
        per: Seconds | CalendarWord | None = None,
        *,
        anchor: str = "epoch",
        window_seconds: Seconds | None = None,
        by: By | None = None,
        name: str | None = None,
        scope: Scope = "process",
        batch: int | None = None,
        on_store_error: OnStoreError | None = None,
    ) -> None:
        super().__init__(by=by, name=name)
        if (per is None) == (window_seconds is None):
            raise InvalidOption("FixedWindow takes one of per= and window_seconds=, which mean the same")
        self.max_requests: int = whole_number(max_requests, "max_requests", 1)
        self.per: Final = per if per is not None else window_seconds
        self.anchor: Final = anchor
        self.follows_wall_clock = anchor != "first"
        self._windows = _windows(self.per, anchor, "per" if window_seconds is None else "window_seconds")
        if anchor == "first" and scope == "fleet":
            raise InvalidOption('anchor="first" means one process; with scope="fleet" take "epoch" or a zone')
        settle_scope(self, FixedWindow, FleetFixedWindow, scope, batch, on_store_error)

    def eta(self, job: Waiting, now: float) -> float:
        room = self.max_requests + CRUMBS - self._reserved - job.cost
        used, ends_at = self._windows.look(now, self.clock)
        if used <= room:
            return self._held_until
        if room < 0.0:
            self.check(job)
            return math.inf  # who was admitted must begin first: in this window or in the next
        return max(ends_at, self._held_until)

    def _count(self, job: Waiting, now: float) -> None:
        self._windows.add(job.cost, now, self.clock)

    _has_fast_path = True

    def _take_one(self, now: float) -> bool:
        if now < self._held_until or self._jobs_reserved:
            return False
        self._counted_by = self.clock
        return self._windows.add_one(self.max_requests - 1, now, self.clock)

    def _untake_one(self) -> None:
        self._windows.undo_one()

    def is_idle(self, now: float) -> bool:
        return not self._jobs_reserved and not self._windows.look(now, self.clock)[0] and self._held_until <= now

    def stats(self) -> dict[str, Any]:
        now = self.clock.monotonic()
        used, ends_at = self._windows.look(now, self.clock)
        return {"max_requests": self.max_requests, "used": used + self._reserved, "ends_in": max(0.0, ends_at - now)}

    @property
    def _capacity(self) -> float:
        return self.max_requests

    @property
    def _capacity_name(self) -> str:
        return "max_requests"

    def _forget_starts(self) -> None:
        self._windows = _windows(self.per, self.anchor)

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        changed(self, changes, _SETTINGS)
        whole_number(changes.get("max_requests", self.max_requests), "max_requests", 1)

    def _change(self, changes: Mapping[str, Any]) -> None:
        self.max_requests = changes.get("max_requests", self.max_requests)


class FleetFixedWindow(FleetRate, FixedWindow):
    """The same for all processes on one store."""

    _kind = "window"

    def window_at(self, wall_ns: int) -> tuple[int, int]:
        """Return where the window of an instant begins and ends, in nanoseconds since the epoch."""
        return cast("_OnTheClock", self._windows).window_at(wall_ns)  # the other kind is refused


# -- where windows begin ---------------------------------------------------------------


class _Windows(Protocol):
    """Windows one after the other, and what has started in them."""

    def look(self, now: float, clock: Clock) -> tuple[float, float]:
        """Return what has started in the window of now, and when that ends, in monotonic seconds."""
        ...

    def add(self, cost: float, now: float, clock: Clock) -> None:
        """Something starts now."""
        ...

    def add_one(self, most: float, now: float, clock: Clock) -> bool:
        """Something that costs 1 starts now, unless more than *most* has started; say whether it does."""
        ...

    def undo_one(self) -> None:
        """What `add_one` has added just now did not start."""
        ...


def _windows(per: Any, anchor: Any, field: str = "per") -> _Windows:
    """Return the windows that were asked for, where *per* was called *field*.

    Raises:
        InvalidOption: If *per* and *anchor* do not go together.
    """
    if not isinstance(anchor, str):
        raise InvalidOption(f'anchor must be "epoch", "first" or a zone such as "Europe/Rome", got {shown(anchor)}')
    if anchor not in {"epoch", "first"}:
        _check_zone(anchor)
    if isinstance(per, str):
        if per not in _BEGINS:
            raise InvalidOption(
                f"{field} must be seconds, a timedelta, or one of {', '.join(map(repr, _BEGINS))}, got {shown(per)}"
            )
        if anchor == "first":
            raise InvalidOption(
                f'per={per!r} begins with the calendar; anchor="first" takes seconds, such as per=86400'
            )
        return _OnTheClock(Cron(_BEGINS[per], tz="UTC" if anchor == "epoch" else anchor))
    if anchor == "first":
        return _FromTheFirst(to_seconds(per, field, exclusive=True))
    per_ns = to_ns(per, field, exclusive=True)
    return _OnTheClock(per_ns if anchor == "epoch" else _tops_of_day(per_ns, anchor))


def _check_zone(anchor: str) -> None:
    try:
        zone(anchor)
    except InvalidTrigger as error:
        raise InvalidTrigger(f'anchor must be "epoch", "first" or a zone: {error}') from None


def _tops_of_day(per_ns: int, name: str) -> Trigger:
    day_ns = 86_400 * NS_PER_S
    if day_ns % per_ns or per_ns % 1_000_000:
        raise InvalidOption(
            f"per={per_ns / NS_PER_S:g} does not divide a day into equal windows of whole milliseconds, "
            f'as anchor={name!r} needs; take one that does, or "day", "week" or "month"'
        )
    return Aligned(milliseconds=per_ns // 1_000_000, tz=name)


class _FromTheFirst:
    """A window begins with the first start after the end of the last one."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._began_at = LONG_AGO
        self._used = 0.0
        self._before = (LONG_AGO, 0.0)
        """The window before this one, and what had started in that."""

    def look(self, now: float, clock: Clock) -> tuple[float, float]:
        ends_at = self._began_at + self._per_s
        return (self._used, ends_at) if now < ends_at else (0.0, now + self._per_s)

    def add(self, cost: float, now: float, clock: Clock) -> None:
        if now >= self._began_at + self._per_s:
            self._before = (self._began_at, self._used)
            self._began_at, self._used = now, 0.0
        self._used += cost

    def add_one(self, most: float, now: float, clock: Clock) -> bool:
        is_open = self.look(now, clock)[0] <= most + CRUMBS
        if is_open:
            self.add(1.0, now, clock)
        return is_open

    def undo_one(self) -> None:
        self._used -= 1.0
        if self._used < CRUMBS:  # it had begun with that
            self._began_at, self._used = self._before


class _OnTheClock:
    """Windows begin at multiples of so many nanoseconds, or at the fire times of a rule."""

    def __init__(self, beginnings: int | Trigger) -> None:
        self._beginnings = beginnings
        self._last = (0, 0)
        """The window that was looked at last: most questions are about the same one."""
        self._used_by_start: dict[int, float] = {}

    def look(self, now: float, clock: Clock) -> tuple[float, float]:
        wall_ns = clock.now_ns()
        start, end = self.window_at(wall_ns)
        return self._used_by_start.get(start, 0.0), now + (end - wall_ns) / NS_PER_S

    def add(self, cost: float, now: float, clock: Clock) -> None:
        start, _ = self.window_at(clock.now_ns())
        self._add(cost, start)

    def add_one(self, most: float, now: float, clock: Clock) -> bool:
        start, end = self._last
        if not start <= (wall_ns := clock.now_ns()) < end:
            start, _ = self.window_at(wall_ns)
        is_open = self._used_by_start.get(start, 0.0) <= most + CRUMBS
        if is_open:
            self._add(1.0, start)
        return is_open

    def undo_one(self) -> None:
        self._used_by_start[self._last[0]] -= 1.0

    def _add(self, cost: float, start: int) -> None:
        used = self._used_by_start
        used[start] = used.pop(start, 0.0) + cost
        if len(used) > _KEPT:
            del used[next(iter(used))]

    def window_at(self, wall_ns: int) -> tuple[int, int]:
        """Return where the window of an instant begins and ends."""
        if not self._last[0] <= wall_ns < self._last[1]:
            self._last = self._find(wall_ns)
        return self._last

    def _find(self, wall_ns: int) -> tuple[int, int]:
        rule = self._beginnings
        if isinstance(rule, int):
            start = wall_ns // rule * rule
            return start, start + rule
        before, after = rule.prev_ns(wall_ns), rule.next_ns(wall_ns)
        if before is None or after is None:  # the years 1 and 9999
            raise InvalidOption(f"{rule!r} has no window at {wall_ns} ns since the epoch")
        return before, after
