"""When several filters and triggers are open all at once: pure arithmetic on wall-clock nanoseconds.

Each part says whether it is open at an instant and how long that holds at least;
a search leaps from one change to the next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import tzinfo
from typing import Any, Final, NamedTuple, Protocol

from quarterjack._durations import NS_PER_S
from quarterjack._numbers import shown
from quarterjack.errors import InvalidOption
from quarterjack.triggers import Filter, Trigger
from quarterjack.triggers._zone import HORIZON_NS, LAST_NS, zone

__all__ = ["NEVER_NS", "Known", "Openings"]

NEVER_NS: Final = LAST_NS + 1
_LEAPS: Final = 10_000
"""How many openings and closings are looked at before it is given up that they ever meet."""
_LEAPS_BY_MINUTE: Final = 1_500
"""Of filters that do not say how long their verdict lasts: a day is looked ahead."""
_MINUTE_NS: Final = 60 * NS_PER_S


class Known(NamedTuple):
    """From *since* until *until* a job may start at *opens*, or at once if that has passed."""

    since: int
    until: int
    opens: int


class Openings:
    """The instants at which all *windows* are open, and stay so for a margin.

    Args:
        windows: Filters, and triggers whose fire times open it.
        tz: The zone of those that name none; None is UTC.
        lasts_ns: How long a fire time keeps it open.
        margin_ns: How long it must stay open yet.

    Raises:
        InvalidOption: If one of them is no filter and no trigger with fire times.
        InvalidTrigger: If *tz* is no zone.
    """

    def __init__(self, windows: Sequence[Filter | Trigger], tz: str | None, *, lasts_ns: int, margin_ns: int) -> None:
        self._margin_ns = margin_ns
        shown_in = zone(tz or "UTC")
        self.windows = tuple(_in_zone(one, tz) for one in windows)
        self._parts = [_part(one, shown_in, lasts_ns, margin_ns) for one in self.windows]
        self._is_exact = not any(isinstance(part, _Asked) for part in self._parts)

    def look(self, at: int) -> Known:
        """Return what is to be known at an instant, and until when."""
        opens = self.opening(at)
        if opens is None:
            return Known(at, LAST_NS, NEVER_NS)
        if opens > at:
            return Known(at, opens, opens)
        return Known(at, min(part.look(at)[1] for part in self._parts) - self._margin_ns, at)

    def opening(self, at: int) -> int | None:
        """Return the first instant at or after *at* at which a job may start, None if there is none in 400 years."""
        limit = min(at + HORIZON_NS, LAST_NS)
        for _ in range(_LEAPS if self._is_exact else _LEAPS_BY_MINUTE):
            closed_until = [end for is_open, end in (part.look(at) for part in self._parts) if not is_open]
            closes_at = None if closed_until else self._closing(at)
            if closed_until:
                at = max(closed_until)
            elif closes_at is None:
                return at
            else:
                at = closes_at
            if at > limit:
                return None
        return None if self._is_exact else at

    def _closing(self, at: int) -> int | None:
        """Return when one of them is closed within the margin after *at*."""
        end = at + self._margin_ns
        while at <= end:
            looks = [part.look(at) for part in self._parts]
            if not all(is_open for is_open, _ in looks):
                return at
            at = min(until for _, until in looks)
        return None


# -- parts -----------------------------------------------------------------------------


class _Part(Protocol):
    def look(self, at: int) -> tuple[bool, int]:
        """Return whether it is open at an instant, and until when that holds at least."""
        ...


class _Filtering(NamedTuple):
    """Open where a filter allows it."""

    filter: Filter

    def look(self, at: int) -> tuple[bool, int]:
        return self.filter.allows_ns(at, None), self.filter.span_ns(at)[1]


class _Asked(NamedTuple):
    """Open where a filter allows it that does not say how long: it is asked again at the next whole minute."""

    filter: Filter
    zone: tzinfo
    margin_ns: int

    def look(self, at: int) -> tuple[bool, int]:
        is_open = self.filter.allows_ns(at, self.zone)
        return is_open, at + max(1, self.margin_ns) if is_open else (at // _MINUTE_NS + 1) * _MINUTE_NS


class _Fired(NamedTuple):
    """Open for a while from each fire time of a trigger."""

    trigger: Trigger
    lasts_ns: int

    def look(self, at: int) -> tuple[bool, int]:
        before = self.trigger.prev_ns(at)
        if before is not None and at < before + self.lasts_ns:
            return True, before + self.lasts_ns
        after = self.trigger.next_ns(at)
        return False, NEVER_NS if after is None else after


def _part(window: Filter | Trigger, shown_in: tzinfo, lasts_ns: int, margin_ns: int) -> _Part:
    if isinstance(window, Trigger):
        if not window.is_periodic or window.needs_resolution:
            raise InvalidOption(f"window {window!r} has no fire times of its own; take Cron(…), At(…) or a filter")
        return _Fired(window, lasts_ns)
    if type(window).span_ns is Filter.span_ns:
        return _Asked(window, shown_in, margin_ns)
    return _Filtering(window)


def _in_zone(window: Any, tz: str | None) -> Filter | Trigger:
    """Return *window* in the zone *tz*, if it has one and named none itself."""
    if not isinstance(window, Filter | Trigger):
        raise InvalidOption(
            'window must be a filter such as Between("09:00", "17:00"), or a trigger such as Cron(…), '
            f"got {shown(window)}"
        )
    fields = type(window).model_fields
    if tz is None or "tz" not in fields or "tz" in window.model_fields_set:
        return window
    return type(window)(**{name: getattr(window, name) for name in fields} | {"tz": tz})
