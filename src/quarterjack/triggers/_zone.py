"""Local time: the one place that knows gaps and folds.

A *grid* is a rule over wall-clock times, in nanoseconds as if the zone were
UTC. This module maps it to instants. Twice a year a wall time does not exist
(a *gap*) or exists twice (a *fold*); what happens then is a policy:

    gap   run_after  once, at the first instant after the gap
          shift      later by the gap's length, as if the clocks had not moved
          skip       not at all
          error      raises, for those who want to be told
    fold  first, last, both

Time is cut into *stretches* of one offset. Inside a stretch wall time and
instants differ by a constant, so a search asks the grid once per stretch, and
the policies only decide about its two ends:

    wall   ... 01:59 | 03:00 ...          the stretch after a gap begins with what the gap held
    wall   ... 02:59 | 02:00 ... 02:59    its walls up to a fold's end were there before

Gaps over three hours are no daylight saving but a country that crossed the
date line: always skipped. Searches end after 400 years.

Source of the policies: Debian's cron(8)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final, Literal, Protocol

from quarterjack.errors import InvalidTrigger

from ._stretches import DAY_NS, FIRST_NS, LAST_NS, SWAY_NS, Stretch, stretch, zone

__all__ = [
    "DAY_NS",
    "FIRST_NS",
    "HORIZON_NS",
    "LAST_NS",
    "SWAY_NS",
    "Fold",
    "Gap",
    "Grid",
    "Stretch",
    "count_instants",
    "next_instant",
    "prev_instant",
    "stretch",
    "zone",
]

Gap = Literal["run_after", "shift", "skip", "error"]
Fold = Literal["first", "last", "both"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

HORIZON_NS: Final = 400 * 366 * DAY_NS
"""The calendar repeats after 400 years: what does not happen in them never does."""


class Grid(Protocol):
    """A rule over wall times, in nanoseconds as if the zone were UTC."""

    def next_wall(self, after: int, /) -> int | None:
        """Return the first match after *after*."""

    def prev_wall(self, before: int, /) -> int | None:
        """Return the last match at or before *before*."""

    def count_wall(self, after: int, until: int, /) -> int:
        """Return how many matches lie in ``(after, until]``."""
        ...


# -- forwards ------------------------------------------------------------------------------


def next_instant(tz: tzinfo, grid: Grid, after: int, gap: Gap, fold: Fold) -> int | None:
    """Return the first instant after *after* that the grid means in *tz*, or None within 400 years.

    Raises:
        InvalidTrigger: With ``gap="error"``, at a time that does not exist.
    """
    at = max(after, FIRST_NS) + 1
    limit = min(at + HORIZON_NS, LAST_NS)
    if tz is UTC:
        return grid.next_wall(at - 1) if at < limit else None
    while at < limit:
        here = stretch(tz, at)
        wall = grid.next_wall(at - 1 + here.offset)
        if not here.is_plain:
            found = _first_in(here, grid, at, gap, fold)
        else:
            found = None if wall is None else wall - here.offset
        if found is not None and found < here.end:
            return found
        # Far from the stretch's end the grid's answer holds for what follows; near it, an earlier
        # match may come again in a fold.
        if here.end - SWAY_NS < at:
            wall = grid.next_wall(here.end + here.offset - SWAY_NS)
        if wall is None:
            return None
        at = max(here.end, wall - here.offset - SWAY_NS)
    return None


def _first_in(here: Stretch, grid: Grid, at: int, gap: Gap, fold: Fold) -> int | None:
    """Return the first instant of the stretch from *at* on, by the policies."""
    low = max(at, here.second_until) if fold == "first" else at
    wall = grid.next_wall(low - 1 + here.offset)
    found = None if wall is None else wall - here.offset
    if found is not None and (found >= here.end or (fold == "last" and found >= here.again_from)):
        found = None
    if not here.gap_ns or gap == "skip":
        return found
    from_gap = _first_of_gap(here, grid, at, gap)
    if from_gap is None or found is None:
        return found if from_gap is None else from_gap
    return min(found, from_gap)


def _first_of_gap(here: Stretch, grid: Grid, at: int, gap: Gap) -> int | None:
    """Return the first instant from *at* on that stands for a wall time inside the gap."""
    offset = here.offset - here.gap_ns
    if gap == "shift":
        wall = grid.next_wall(max(at, here.gap_at) - 1 + offset)
        end = min(here.gap_at + here.gap_ns, here.end)
        return wall - offset if wall is not None and wall - offset < end else None
    if at > here.gap_at:
        return None
    wall = grid.next_wall(here.gap_at - 1 + offset)
    if wall is None or wall >= here.gap_at + here.offset:
        return None
    if gap == "error":
        raise _not_there(wall)
    return here.gap_at


def _not_there(wall: int) -> InvalidTrigger:
    shown = (_EPOCH + timedelta(microseconds=wall // 1_000)).replace(tzinfo=None).isoformat(" ")
    return InvalidTrigger(f'{shown} does not exist: the clocks go forward over it; gap="run_after" runs right after')


# -- backwards -----------------------------------------------------------------------------


def prev_instant(tz: tzinfo, grid: Grid, before: int, gap: Gap, fold: Fold) -> int | None:
    """Return the last instant at or before *before* that the grid means in *tz*; otherwise as `next_instant`."""
    at = min(before, LAST_NS)
    limit = max(at - HORIZON_NS, FIRST_NS)
    if tz is UTC:
        return grid.prev_wall(at) if at > limit else None
    while at > limit:
        here = stretch(tz, at)
        wall = grid.prev_wall(at + here.offset)
        if not here.is_plain:
            found = _last_in(here, grid, at, gap, fold)
        else:
            found = None if wall is None else wall - here.offset
        if found is not None and found >= here.start:
            return found
        if here.start + SWAY_NS > at:
            wall = grid.prev_wall(here.start + here.offset + SWAY_NS)
        if wall is None:
            return None
        at = min(here.start - 1, wall - here.offset + SWAY_NS)
    return None


def _last_in(here: Stretch, grid: Grid, at: int, gap: Gap, fold: Fold) -> int | None:
    """Return the last instant of the stretch up to *at*, by the policies."""
    high = min(at, here.again_from - 1) if fold == "last" else at
    wall = grid.prev_wall(high + here.offset)
    found = None if wall is None else wall - here.offset
    if found is not None and (found < here.start or (fold == "first" and found < here.second_until)):
        found = None
    if not here.gap_ns or gap == "skip":
        return found
    if gap != "shift":
        return _last_of_gap(here, grid, gap) if found is None else found
    offset = here.offset - here.gap_ns
    wall = grid.prev_wall(min(at, here.gap_at + here.gap_ns - 1) + offset)
    if wall is None or wall - offset < max(here.gap_at, here.start):
        return found
    return wall - offset if found is None else max(found, wall - offset)


def _last_of_gap(here: Stretch, grid: Grid, gap: Gap) -> int | None:
    """Return the gap's end if the gap lies right before the stretch and held a match."""
    if here.gap_at != here.start:
        return None
    wall = grid.prev_wall(here.start - 1 + here.offset)
    if wall is None or wall < here.start + here.offset - here.gap_ns:
        return None
    if gap == "error":
        raise _not_there(wall)
    return here.start


# -- counting ------------------------------------------------------------------------------


def count_instants(tz: tzinfo, grid: Grid, after: int, until: int, cap: int, gap: Gap, fold: Fold) -> int:
    """Return how many instants in ``(after, until]`` the grid means in *tz*, at most *cap*.

    A plain stretch is counted at once, one that a gap or fold touches is walked.
    """
    at, until = max(after, FIRST_NS), min(until, LAST_NS)
    if tz is UTC:
        return min(cap, grid.count_wall(at, until)) if at < until else 0
    total = 0
    while at < until and total < cap:
        here = stretch(tz, at + 1)
        end = min(here.end - 1, until)
        if here.is_plain:
            total += grid.count_wall(at + here.offset, end + here.offset)
            at = end
        else:
            found = next_instant(tz, grid, at, gap, fold)
            if found is None or found > until:
                break
            total, at = total + 1, found
    return min(total, cap)
