"""Searching a rule that knows only ``next``: backwards by bisection, counting by walking.

Pure functions over nanoseconds. Both are bounded, so that no rule, however
dense or empty, can hold up a scheduler."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from quarterjack.errors import InvalidTrigger

__all__ = ["SEARCH_STEPS", "count_forward", "last_at_or_before"]

SEARCH_STEPS: Final = 10_000
"""How many fire times of a rule are looked at before a search gives up."""
_RESOLUTION_NS: Final = 1_000
"""Datetimes count microseconds, so no two answers lie closer."""
_FIRST_LEAP_NS: Final = 1_000_000_000
_FARTHEST_NS: Final = 400 * 366 * 86_400 * 1_000_000_000
"""The calendar repeats after 400 years; what did not happen in them never did."""


class _Forward(Protocol):
    def next_ns(self, after: int, /) -> int | None: ...


def last_at_or_before(next_ns: Callable[[int], int | None], before: int) -> int | None:
    """Return the last fire time at or before *before*, or None if the 400 years before it hold none.

    ``next_ns`` never falls as its argument rises, so "the next one is no later
    than *before*" is true up to some instant and false from there on: leap back
    until it is true, then halve. About fifty questions, however dense the rule is.
    """
    leap, high = _FIRST_LEAP_NS, before
    low = before - leap
    found = next_ns(low)
    while found is None or found > before:
        if leap >= _FARTHEST_NS:
            return None
        high, leap = low, min(leap * 8, _FARTHEST_NS)
        low = before - leap
        found = next_ns(low)
    while high - low > _RESOLUTION_NS and high > found:
        middle = max(found, (low + high) // 2)
        later = next_ns(middle)
        if later is not None and later <= before:
            low, found = middle, later
        else:
            high = middle
    return found


def count_forward(rule: _Forward, after: int, until: int, cap: int | None) -> int:
    """Return how many fire times lie in ``(after, until]``, stopping at *cap*.

    Raises:
        InvalidTrigger: Without a cap, past 10,000 of them.
    """
    found, limit = 0, SEARCH_STEPS if cap is None else cap
    at = rule.next_ns(after)
    while at is not None and at <= until:
        if found >= limit:
            if cap is not None:
                return found
            raise InvalidTrigger(
                f"{type(rule).__name__}: over {SEARCH_STEPS:,} fire times to count one by one; "
                "pass a cap, or define count(after, until, cap) next to next(after)"
            )
        found += 1
        at = rule.next_ns(at)
    return found
