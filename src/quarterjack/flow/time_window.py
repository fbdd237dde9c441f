"""`TimeWindow`: jobs start at certain times only."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from quarterjack._choices import name_or_none
from quarterjack._durations import NS_PER_S, Seconds, to_ns
from quarterjack._numbers import shown
from quarterjack.errors import FlowRefused, InvalidOption
from quarterjack.triggers import Filter, Trigger
from quarterjack.triggers.base import from_ns, instant_ns

from ._openings import NEVER_NS, Known, Openings
from .base import Gate
from .waiting import Waiting

__all__ = ["TimeWindow"]


class TimeWindow(Gate):
    """Lets jobs start inside of certain times only; the others wait for the next opening.

    Use it for work that disturbs, or costs less at night: ``Between("22:00",
    "06:00")``, ``Weekdays("mon-fri")``, or ``Cron("0 2 * * *")`` with
    ``lasts=7200``, open for two hours from each fire time. Not for work that is to
    run *at* a time: that is a schedule with a trigger, which makes a job when it
    is due, where a gate makes those wait that are there.

    Times are the wall clock's of a zone, and what is right on the days when it is set is
    the triggers' business: an opening that such a night leaves out is left out, one
    that comes twice is open twice. A job that has begun runs on after the closing. O(1) time
    within one opening or closing, and a search at each of them.

    Args:
        window: A filter, a trigger whose fire times open it, or several, which must then all
            be open. A filter of your own is asked at each whole minute, and at once if it
            says how long its verdict lasts (``span_ns``).
        tz: The zone for those that name none, such as ``"Europe/Rome"``; UTC by default.
        lasts: How long a fire time of a trigger keeps it open, in seconds; a minute by
            default, so that ``Cron("* 9-16 * * mon-fri")`` is open from 9:00 to 17:00. With fire times
            that always come before it is over, as ``Every(seconds=5)`` has, the window never closes.
        margin: Seconds before a closing in which nothing is let in any more. A body begins a
            moment after its job is let in, later still if the loop is busy; with a margin
            above that it never begins outside.
        name: What it is called in `why_waiting` and `stats`.

    Raises:
        InvalidOption: Naming the option, the value and what is allowed.
        InvalidTrigger: If *tz* is no zone.
    """

    follows_wall_clock = True

    def __init__(
        self,
        window: Filter | Trigger | Sequence[Filter | Trigger],
        tz: str | None = None,
        *,
        lasts: Seconds = 60.0,
        margin: Seconds = 0.0,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        windows = [window] if isinstance(window, Filter | Trigger) else window
        if isinstance(window, str) and window.strip():
            hours = [hour.strip() for hour in window.split("-")]
            is_span = len(hours) == 2 and all(hour.replace(":", "").isdecimal() for hour in hours)
            meant = f"Between({hours[0]!r}, {hours[1]!r})" if is_span else f"Cron({window!r})"
            raise InvalidOption(f"window must be a filter or a trigger, got a text; write {meant}")
        if not isinstance(windows, Sequence) or isinstance(windows, str) or not windows:
            raise InvalidOption(
                f'window must be a filter such as Between("09:00", "17:00"), a trigger, or several, got {shown(window)}'
            )
        name_or_none(tz, "tz", "Europe/Rome")
        lasts_ns, margin_ns = to_ns(lasts, "lasts", exclusive=True), to_ns(margin, "margin")
        self._openings = Openings(windows, tz, lasts_ns=lasts_ns, margin_ns=margin_ns)
        self._known = Known(0, 0, 0)

    @property
    def windows(self) -> tuple[Filter | Trigger, ...]:
        """What must be open, each in its zone."""
        return self._openings.windows

    def eta(self, job: Waiting, now: float) -> float:
        wall_ns = self.clock.now_ns()
        known = self._known
        if not known.since <= wall_ns < known.until:
            self._known = known = self._openings.look(wall_ns)
        if known.opens <= wall_ns:
            return now
        if known.opens == NEVER_NS:
            raise FlowRefused(f"{self!r} does not open any more: {', '.join(map(repr, self.windows))}")
        return now + (known.opens - wall_ns) / NS_PER_S

    def next_opening(self, after: datetime) -> datetime | None:
        """Return the first instant at or after *after* at which a job may start, in its zone; None if there is none.

        Raises:
            NaiveDatetime: If *after* has no zone.
        """
        found = self._openings.opening(instant_ns(after, "after"))
        return None if found is None else from_ns(found, after.tzinfo)

    def is_idle(self, now: float) -> bool:
        return True

    def stats(self) -> dict[str, Any]:
        wall_ns = self.clock.now_ns()
        opens = self._openings.opening(wall_ns)
        return {"is_open": opens == wall_ns, "opens_in": None if opens is None else (opens - wall_ns) / NS_PER_S}
