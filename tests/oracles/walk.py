"""Fire times by brute force: walk UTC, convert each instant, match, and only then apply the policies.

It shares nothing with the code under test but `zoneinfo`. A rule is a predicate
over wall times; a `Walk` is what the clock on the wall of a zone showed at each
step of a window, and so what it skipped and what it showed twice. Everything is
in nanoseconds since the epoch, wall times as if the zone were UTC."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import cached_property, lru_cache
from math import gcd
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

__all__ = ["DAY", "HOUR", "MINUTE", "SECOND", "Change", "Walk", "changes", "local", "offset", "shown", "zones"]

SECOND: Final = 1_000_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR
LONGEST_GAP: Final = 3 * HOUR
"""What the clock skips beyond it is a move across the date line, and nothing stands in for it."""
NEAR: Final = 2 * DAY
"""No zone changes twice so soon, so two days around a window show every offset that matters in it."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WALL_EPOCH: Final = datetime(1970, 1, 1)
_MICROSECOND: Final = timedelta(microseconds=1)


@lru_cache(maxsize=1)
def zones() -> list[str]:
    """Return every zone of tzdata, but the machine's own."""
    return sorted(available_timezones() - {"localtime"})


def local(tz: tzinfo, at: int) -> int:
    """Return what the clock on the wall shows at the instant *at*."""
    there = (_EPOCH + timedelta(microseconds=at // 1_000)).astimezone(tz).replace(tzinfo=None)
    return (there - _WALL_EPOCH) // _MICROSECOND * 1_000


def offset(tz: tzinfo, at: int) -> int:
    """Return local time minus UTC."""
    return local(tz, at) - at


def shown(ns: int, zone: str = "UTC") -> str:
    """Return an instant as people read it."""
    return (_EPOCH + timedelta(microseconds=ns // 1_000)).astimezone(ZoneInfo(zone)).isoformat()


@dataclass(frozen=True, slots=True)
class Change:
    """An instant at which a zone's clock is set; *shift* is how far, negative for back."""

    at: int
    shift: int


def changes(zone: str, first_year: int, last_year: int) -> list[Change]:
    """Return the changes of a zone's offset in these years, found by looking at every midnight of UTC."""
    tz = ZoneInfo(zone)
    low, high = (_year(first_year), _year(last_year + 1))
    found: list[Change] = []
    before = offset(tz, low)
    for end in range(low + DAY, high + 1, DAY):
        after = offset(tz, end)
        if after != before:
            found.append(Change(_instant_of_change(tz, end - DAY, end), after - before))
        before = after
    return found


def _year(year: int) -> int:
    return (datetime(year, 1, 1, tzinfo=UTC) - _EPOCH).days * DAY


def _instant_of_change(tz: tzinfo, low: int, high: int) -> int:
    before = offset(tz, low)
    while high - low > SECOND:
        middle = (low + high) // 2 // SECOND * SECOND
        low, high = (middle, high) if offset(tz, middle) == before else (low, middle)
    return high


class Walk:
    """What a zone's clock showed at each step of a window ``(start, end]``, and for some hours around it.

    Args:
        zone: The zone's name.
        start: The window's beginning, a whole step; itself not a possible answer.
        end: The last possible answer.
        step: How far to go at a time; a divisor of it is taken where the zone's offsets, counted
            in whole steps, would leave the grid (Monrovia was 44 minutes and 30 seconds behind).
    """

    def __init__(self, zone: str, start: int, end: int, step: int) -> None:
        self.zone, self.start, self.end = zone, start, end
        self.tz = ZoneInfo(zone)
        offsets = {offset(self.tz, at) for at in range(start - NEAR, end + NEAR, 6 * HOUR)}
        self.step = gcd(step, start, *offsets)
        # A wall time that comes twice comes twice within the difference of two offsets.
        margin = max(offsets) - min(offsets) + self.step
        self._from, self._until = start - margin, end + margin + 1

    @cached_property
    def steps(self) -> list[tuple[int, int]]:
        """Every instant of the window and its margins, with what the clock shows."""
        tz = self.tz
        return [(at, local(tz, at)) for at in range(self._from, self._until, self.step)]

    @cached_property
    def instants_by_wall(self) -> dict[int, list[int]]:
        """The instants at which the clock showed each wall time."""
        found: dict[int, list[int]] = {}
        for at, wall in self.steps:
            found.setdefault(wall, []).append(at)
        return found

    @cached_property
    def gaps(self) -> list[tuple[int, int, int]]:
        """What the clock skipped: the first instant after it, and the wall times ``[first, end)`` that were lost."""
        found: list[tuple[int, int, int]] = []
        for (_, before), (at, wall) in zip(self.steps, self.steps[1:], strict=False):
            if wall - before > self.step:
                found.append((at, before + self.step, wall))
        return found

    def lost(self, matches: Callable[[int], bool]) -> list[tuple[int, int]]:
        """Return the instant after each gap of daylight saving with each match inside it, as (instant, wall)."""
        return [
            (at, wall)
            for at, first, end in self.gaps
            if end - first <= LONGEST_GAP
            for wall in range(first, end, self.step)
            if matches(wall)
        ]

    def fire_times(self, matches: Callable[[int], bool], *, gap: str, fold: str) -> list[int]:
        """Return the instants in ``(start, end]`` that a rule stands for; no policy may be ``auto``."""
        found: set[int] = set()
        for wall, instants in self.instants_by_wall.items():
            if matches(wall):
                found.update({"first": instants[:1], "last": instants[-1:], "both": instants}[fold])
        if gap != "skip":
            first_lost = {at: first for at, first, _ in self.gaps}
            late = gap == "shift"
            found.update(at + (wall - first_lost[at] if late else 0) for at, wall in self.lost(matches))
        return self.inside(found)

    def inside(self, instants: Iterable[int]) -> list[int]:
        """Return those in the window, in order."""
        return sorted(at for at in instants if self.start < at <= self.end)
