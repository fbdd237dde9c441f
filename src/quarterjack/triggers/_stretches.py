"""Zones by name, and time cut into stretches of one offset.

`zoneinfo` tells the offset at an instant but not where it changes; this module
finds the changes by probing, two weeks at a time, and keeps what it found."""

from __future__ import annotations

import difflib
import os
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from quarterjack.errors import InvalidTrigger

__all__ = [
    "DAY_NS",
    "FIRST_NS",
    "LAST_NS",
    "LONGEST_GAP_NS",
    "SWAY_NS",
    "Change",
    "Stretch",
    "changes_in",
    "stretch",
    "zone",
]

_NS: Final = 1_000_000_000
DAY_NS: Final = 86_400 * _NS
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_NS: Final = (datetime(2, 1, 1, tzinfo=UTC) - _EPOCH).days * DAY_NS
LAST_NS: Final = (datetime(9999, 1, 1, tzinfo=UTC) - _EPOCH).days * DAY_NS
"""The years a datetime can name, with one to spare at each end for zones and margins."""
SWAY_NS: Final = 2 * DAY_NS
"""More than any two offsets of a zone differ: they lie within 26 hours, folds across the date line included."""
_PROBE_NS: Final = 2 * DAY_NS
"""Changes lie at least 95 hours apart in all zones, so none is undone between two probes."""
LONGEST_GAP_NS: Final = 3 * 3_600 * _NS
"""A longer gap is no daylight saving but a move across the date line."""
_BLOCK_BITS: Final = 50
"""Stretches are found and kept by blocks of 2**50 ns, 13 days."""


# -- zones ---------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
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
        raise InvalidTrigger(_unknown_zone(name)) from None


def _unknown_zone(name: str) -> str:
    names = available_timezones()
    if not names:
        return f"no time zone is called {name!r}: this machine has no zone data; pip install tzdata"
    wanted = name.lower().replace(" ", "_")
    by_city = sorted(one for one in names if one.rpartition("/")[2].lower() == wanted)
    by_lower = {one.lower(): one for one in names}
    near = [by_lower[one] for one in difflib.get_close_matches(wanted, by_lower, n=3, cutoff=0.6)]
    hint = ", ".join(by_city or near)
    return f"no time zone is called {name!r}; " + (f"did you mean {hint}?" if hint else "write one such as Europe/Rome")


def _local_zone() -> tzinfo:
    name = os.environ.get("TZ", "").lstrip(":")
    if not name:
        link = Path("/etc/localtime")
        _, _, name = str(link.resolve()).partition("zoneinfo/") if link.exists() else ("", "", "")
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidTrigger(
            'tz="local": this machine does not tell the name of its zone; write one, such as "Europe/Rome"'
        ) from None


# -- stretches -----------------------------------------------------------------------------


class Stretch(NamedTuple):
    """Instants ``[start, end)`` at which the zone's offset is one and the same; not always all of them."""

    start: int
    end: int
    offset: int
    """Local time minus UTC."""
    is_plain: bool
    """True if no gap or fold touches it: the other fields say nothing then."""
    second_until: int
    """Instants before this are the second pass of a fold."""
    again_from: int
    """Instants from this on are the first pass of a fold."""
    gap_at: int
    """Where the last gap lies."""
    gap_ns: int
    """Its length; 0 if there is none, or one that crossed the date line."""


def stretch(tz: tzinfo, at: int) -> Stretch:
    """Return the stretch that holds the instant *at*."""
    found = _block(tz, at >> _BLOCK_BITS)
    one = found[0]
    if at < one.end:
        return one
    return next(one for one in found if at < one.end)


class Change(NamedTuple):
    """An instant at which a zone's clock is set, and its offsets (local time minus UTC) before and after."""

    at: int
    before: int
    after: int


@lru_cache(maxsize=8192)
def _block(tz: tzinfo, number: int) -> tuple[Stretch, ...]:
    low, high = number << _BLOCK_BITS, (number + 1) << _BLOCK_BITS
    changes = changes_in(tz, low - SWAY_NS, high + SWAY_NS)
    # Cut beside each change as well, where its gap or fold ends: all but those hours is plain then.
    edges = {edge for at, before, after in changes for edge in (at, at - abs(after - before), at + abs(after - before))}
    cuts = [low, *sorted(edge for edge in edges if low < edge < high), high]
    return tuple(_stretch_of(tz, start, end, changes) for start, end in pairwise(cuts))


def _stretch_of(tz: tzinfo, start: int, end: int, changes: list[Change]) -> Stretch:
    second_until, again_from, gap_at, gap_ns = start, end, start, 0
    for at, before, after in changes:
        shift = after - before
        if shift < 0 and at <= start:
            second_until = max(second_until, at - shift)
        elif shift < 0:
            again_from = min(again_from, at + shift) if at >= end else again_from
        elif at <= start < at + shift and shift <= LONGEST_GAP_NS:
            gap_at, gap_ns = at, shift
    is_plain = second_until <= start and again_from >= end and not gap_ns
    return Stretch(start, end, _offset_ns(tz, start), is_plain, second_until, again_from, gap_at, gap_ns)


def changes_in(tz: tzinfo, low: int, high: int) -> list[Change]:
    """Return where the offset changes in ``(low, high]``."""
    found: list[Change] = []
    before = _offset_ns(tz, low)
    for end in range(low + _PROBE_NS, high + _PROBE_NS, _PROBE_NS):
        after = _offset_ns(tz, end)
        if after != before:
            found.append(Change(_transition(tz, end - _PROBE_NS, end), before, after))
        before = after
    return found


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


def _offset_ns(tz: tzinfo, at: int) -> int:
    # Not fromtimestamp: it refuses instants before 1970 on some platforms.
    at = min(max(at, FIRST_NS), LAST_NS)
    offset = (_EPOCH + timedelta(seconds=at // _NS)).astimezone(tz).utcoffset() or timedelta()
    return (offset.days * 86_400 + offset.seconds) * _NS
