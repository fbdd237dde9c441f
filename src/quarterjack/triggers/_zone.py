"""Local time: the one place that knows gaps and folds.

A *grid* is a rule over wall-clock times, in nanoseconds as if the zone were
UTC. This module maps it to instants. Twice a year a wall time does not exist
(a *gap*) or exists twice (a *fold*); what happens then is a policy:

    gap   run_after  at the first instant after the gap (the default of named times)
          shift      later by the gap's length, as if the clock had not moved
          skip       not at all
          error      raises, for those who want to be told
    fold  first, last, both

A rule that counts elapsed time takes ``skip`` and ``both``: it fires at every
real instant whose local time matches. Gaps over three hours are no daylight
saving but a country that crossed the date line: always skipped.

Zones come from `zoneinfo`. Source of the policies: Debian's cron(8)."""

from __future__ import annotations

import difflib
import os
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, NamedTuple, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from quarterjack.errors import InvalidTrigger

__all__ = ["DAY_NS", "HOUR_NS", "Fold", "Gap", "Grid", "next_instant", "prev_instant", "zone"]

Gap = Literal["run_after", "shift", "skip", "error"]
Fold = Literal["first", "last", "both"]

HOUR_NS: Final = 3_600 * 1_000_000_000
DAY_NS: Final = 24 * HOUR_NS
_NS: Final = 1_000_000_000
_LONGEST_NS: Final = 3 * HOUR_NS
"""Changes up to this are daylight saving; a longer gap is a move across the date line."""
_NEAR_NS: Final = 25 * HOUR_NS
"""No zone changes twice within this."""
_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001  # wall arithmetic: deliberately without a zone


class Grid(Protocol):
    """A rule over wall times, in nanoseconds as if the zone were UTC."""

    def next_wall(self, after: int, /) -> int | None:
        """Return the first match after *after*."""

    def prev_wall(self, before: int, /) -> int | None:
        """Return the last match at or before *before*."""


@lru_cache(maxsize=256)
def zone(name: str) -> tzinfo:
    """Return the zone called *name*; ``"local"`` is the machine's.

    Raises:
        InvalidTrigger: If there is none, with the nearest names.
    """
    if name == "UTC":
        return UTC
    if name == "local":
        return _local_zone()
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        names = available_timezones()
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
        by_city = sorted(one for one in names if one.rpartition("/")[2].lower() == name.lower())
        hint = ", ".join(by_city or near) or "UTC, Europe/Rome"
        raise InvalidTrigger(f"no time zone is called {name!r}; did you mean {hint}?") from None


def _local_zone() -> tzinfo:
    name = os.environ.get("TZ", "").lstrip(":")
    if name:
        return ZoneInfo(name)
    link = Path("/etc/localtime")
    if link.is_symlink():
        _, found, name = str(link.resolve()).partition("zoneinfo/")
        if found:
            return ZoneInfo(name)
    raise InvalidTrigger('tz="local": this machine does not tell its zone; name one, such as "Europe/Rome"')


def _offset_ns(tz: tzinfo, utc_ns: int) -> int:
    """Return how far local time is ahead of UTC at an instant."""
    offset = datetime.fromtimestamp(utc_ns // _NS, tz).utcoffset()
    return 0 if offset is None else (offset.days * 86_400 + offset.seconds) * _NS


class _Meaning(NamedTuple):
    """What a wall time means: one instant, two (a fold), or none (a gap of *gap_ns*)."""

    first: int
    second: int
    gap_ns: int


def _meaning(tz: tzinfo, wall: int) -> _Meaning:
    local = _EPOCH + timedelta(microseconds=wall // 1_000)
    early, late = (
        (offset.days * 86_400 + offset.seconds) * _NS
        for fold in (0, 1)
        if (offset := local.replace(tzinfo=tz, fold=fold).utcoffset()) is not None
    )
    if early >= late:
        return _Meaning(wall - early, wall - late, 0)
    return _Meaning(wall - early, wall - late, late - early)


def _transition(tz: tzinfo, low: int, high: int) -> int:
    """Return the first instant in ``(low, high]`` with another offset than at *low*; there is one."""
    before = _offset_ns(tz, low)
    low_s, high_s = low // _NS, -(-high // _NS)
    while high_s - low_s > 1:
        middle = (low_s + high_s) // 2
        if _offset_ns(tz, middle * _NS) == before:
            low_s = middle
        else:
            high_s = middle
    return high_s * _NS


def _instants(tz: tzinfo, wall: int, gap: Gap, fold: Fold) -> tuple[int, ...]:
    """Return the instants a wall time stands for under the policies."""
    meaning = _meaning(tz, wall)
    if meaning.gap_ns:
        if gap == "skip" or meaning.gap_ns > _LONGEST_NS:
            return ()
        if gap == "error":
            raise InvalidTrigger(f"{_shown(wall)} does not exist in {tz}: the clocks go forward over it")
        # `first` read the wall time with the offset before the gap: later by the gap's length.
        return (meaning.first if gap == "shift" else _transition(tz, meaning.second - 1, meaning.first),)
    if meaning.first == meaning.second or fold == "first":
        return (meaning.first,)
    return (meaning.second,) if fold == "last" else (meaning.first, meaning.second)


def _shown(wall: int) -> str:
    return (_EPOCH + timedelta(microseconds=wall // 1_000)).isoformat(" ")


def next_instant(tz: tzinfo, grid: Grid, after: int, gap: Gap, fold: Fold) -> int | None:
    """Return the first instant after *after* that the grid means in *tz*."""
    if tz is UTC:
        return grid.next_wall(after)
    offset = _offset_ns(tz, after)
    wall = grid.next_wall(after + offset)
    if wall is not None and _offset_ns(tz, after - _LONGEST_NS) == offset:
        found = wall - offset
        near = found - after < _NEAR_NS and fold != "last"
        if _offset_ns(tz, found) == offset and (near or _is_plain(tz, wall)):
            return found
    if gap == "skip" and fold == "both":
        return _next_elapsed(tz, grid, after)
    return _next_named(tz, grid, after, gap, fold)


def _is_plain(tz: tzinfo, wall: int) -> bool:
    meaning = _meaning(tz, wall)
    return meaning.first == meaning.second and not meaning.gap_ns


def _next_elapsed(tz: tzinfo, grid: Grid, after: int) -> int | None:
    """Walk the stretches of constant offset: each real instant whose local time matches."""
    start = after + 1
    while True:
        offset = _offset_ns(tz, start)
        wall = grid.next_wall(start + offset - 1)
        if _offset_ns(tz, start + _NEAR_NS) != offset:
            change = _transition(tz, start, start + _NEAR_NS)
            if wall is None or wall - offset >= change:
                start = change
                continue
        if wall is None or wall - offset - start < _NEAR_NS:
            return None if wall is None else wall - offset
        # Far away, beyond other changes. No earlier match hides in a fold on the way: its wall time
        # would lie between and have been found first.
        meaning = _meaning(tz, wall)
        if not meaning.gap_ns:
            return meaning.first
        start = _transition(tz, meaning.second - 1, meaning.first)


def _next_named(tz: tzinfo, grid: Grid, after: int, gap: Gap, fold: Fold) -> int | None:
    """Look at the wall times around *after*, in any order their instants come."""
    wall = grid.next_wall(after + _offset_ns(tz, after) - 2 * _LONGEST_NS)
    best: int | None = None
    while wall is not None:
        for instant in _instants(tz, wall, gap, fold):
            if instant > after and (best is None or instant < best):
                best = instant
        if best is not None and wall - (best + _offset_ns(tz, best)) > _LONGEST_NS:
            break
        wall = grid.next_wall(wall)
    return best


def prev_instant(tz: tzinfo, grid: Grid, before: int, gap: Gap, fold: Fold) -> int | None:
    """Return the last instant at or before *before* that the grid means in *tz*."""
    if tz is UTC:
        return grid.prev_wall(before)
    offset = _offset_ns(tz, before)
    wall = grid.prev_wall(before + offset)
    near = _offset_ns(tz, before - _LONGEST_NS) == offset == _offset_ns(tz, before + _LONGEST_NS)
    if wall is not None and near:
        found = wall - offset
        if _offset_ns(tz, found) == offset and _is_plain(tz, wall):
            return found
    if gap == "skip" and fold == "both":
        return _prev_elapsed(tz, grid, before)
    return _prev_named(tz, grid, before, gap, fold)


def _prev_elapsed(tz: tzinfo, grid: Grid, before: int) -> int | None:
    """As `_next_elapsed`, backwards."""
    end = before
    while True:
        offset = _offset_ns(tz, end)
        wall = grid.prev_wall(end + offset)
        if _offset_ns(tz, end - _NEAR_NS) != offset:
            change = _transition(tz, end - _NEAR_NS, end)
            if wall is None or wall - offset < change:
                end = change - 1
                continue
        if wall is None or end - (wall - offset) < _NEAR_NS:
            return None if wall is None else wall - offset
        meaning = _meaning(tz, wall)
        if not meaning.gap_ns:
            return meaning.second
        end = _transition(tz, meaning.second - 1, meaning.first) - 1


def _prev_named(tz: tzinfo, grid: Grid, before: int, gap: Gap, fold: Fold) -> int | None:
    wall = grid.prev_wall(before + _offset_ns(tz, before) + 2 * _LONGEST_NS)
    best: int | None = None
    while wall is not None:
        for instant in _instants(tz, wall, gap, fold):
            if instant <= before and (best is None or instant > best):
                best = instant
        if best is not None and wall < best + _offset_ns(tz, best) - 2 * _LONGEST_NS:
            break
        wall = grid.prev_wall(wall - 1)
    return best
