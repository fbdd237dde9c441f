"""The account: what was recorded, counted against the grid that was promised.

Pure functions of integers: no clock, no process. The module needs the standard
library alone and imports nothing, so that the benchmarks can load it by its path.

Two promises, two ways to count. Who promises a *grid* is measured against it: each
start serves a tick, ticks without a start are missed, and lag is what lies between.
Who promises an *interval* after each start has no grid but the one that its first
start draws: the n-th start is compared with n intervals, so that what each turn
loses adds up, and is never mistaken for a missed tick."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, Literal

__all__ = ["Account", "count", "percentile", "served"]

EARLIEST_NS: Final = 5_000_000
"""A start this much before a tick still counts as that tick's, and as early; timers' roundings stay below 2 ms."""
PUNCTUAL_PART: Final = 20
"""A start within this part of a period after a tick is that tick's, and no late one of the tick before."""
STRETCHES: Final = 6
"""On a grid, drift is what lies between the medians of the first and the last of so many stretches of the starts."""
STEADY_PART: Final = 20
"""Each stretch must add its part to it, a twentieth at least where a fifth would be even: a machine that is busy
for a while makes starts late, and one in 360 such whiles at the most looks like this."""
FEWEST: Final = 4
"""With fewer starts nothing is said of drift; on a grid, with fewer than two for each stretch."""
NS_PER_HOUR: Final = 3_600_000_000_000


@dataclass(frozen=True, slots=True)
class Account:
    """What one way did.

    Attributes:
        ticks: How many starts were promised.
        starts: How many ticks were served, and those that were doubled once more.
        missed: Promised starts that never came.
        doubled: Starts of ticks that had been served.
        early: Starts before their tick of a grid.
        p50_ns: The median lag, from the promised moment to the start.
        p99_ns: The lag that 99 of 100 starts stay below.
        max_ns: The longest lag.
        drift_ns: By how much lag grew over the whole time; 0 where that is within what lags differ by anyway.
        scatter_ns: By how much they do, from one start to the next.
        drift_per_hour_ns: The same growth over an hour.
        points: When each start was, in nanoseconds after the first tick, and its lag.
    """

    ticks: int
    starts: int
    missed: int
    doubled: int
    early: int
    p50_ns: int
    p99_ns: int
    max_ns: int
    drift_ns: int
    scatter_ns: int
    drift_per_hour_ns: int
    points: tuple[tuple[int, int], ...]


def count(
    starts_ns: Sequence[int],
    *,
    origin_ns: int,
    period_ns: int,
    length_ns: int,
    promise: Literal["grid", "interval"],
) -> Account | None:
    """Count what was recorded.

    Args:
        starts_ns: When bodies began, by the wall clock, in order.
        origin_ns: The first tick, by the same clock.
        period_ns: From one tick to the next.
        length_ns: How long was measured; ticks and starts beyond do not count.
        promise: ``grid`` or ``interval``, as the module's head says.

    Returns:
        The account; None if there was no start.
    """
    if promise == "grid":
        ticks = max(1, length_ns // period_ns)
        kept = [(at, slot) for at, slot in served(starts_ns, origin_ns, period_ns) if 0 <= slot < ticks]
    else:
        within = [at for at in starts_ns if origin_ns <= at < origin_ns + length_ns]
        if not within:
            return None
        ticks = max(1, -(-(origin_ns + length_ns - within[0]) // period_ns))
        origin_ns, kept = within[0], _in_turn(within, period_ns)
    if not kept:
        return None
    points = tuple((at - origin_ns, at - origin_ns - slot * period_ns) for at, slot in kept)
    firsts = _first_of_each(kept, points)
    lags = sorted(lag for _, lag in points)
    drift_ns, scatter_ns, per_hour_ns = _drift(firsts, length_ns, is_grid=promise == "grid")
    return Account(
        ticks=ticks,
        starts=len(kept),
        missed=max(0, ticks - len(firsts)),
        doubled=len(kept) - len(firsts),
        # Who has no grid cannot be before it: a first start that was late itself would make early ones of the rest.
        early=sum(lag < 0 for lag in lags) if promise == "grid" else 0,
        p50_ns=percentile(lags, 0.5),
        p99_ns=percentile(lags, 0.99),
        max_ns=lags[-1],
        drift_ns=drift_ns,
        scatter_ns=scatter_ns,
        drift_per_hour_ns=per_hour_ns,
        points=points,
    )


def percentile(ordered: Sequence[int], share: float) -> int:
    """Return the value below which *share* (0 to 1) of the sorted values lie, by nearest rank."""
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def served(starts_ns: Sequence[int], origin_ns: int, period_ns: int) -> list[tuple[int, int]]:
    """Return each start with the tick of a grid that it serves: the last one due, or the next if it is a little early.

    A second start within one period is the late one of a tick before that got none, and all starts between them are
    then late by as much: a queue that once fell behind serves its ticks one after the other. A start that is
    punctual has an end of that: what was not served before it is missed, and a second start after it doubles a tick.
    In the same way a start just before a tick is not early but nearly a period late when the tick before it got none.
    """
    slack_ns = min(EARLIEST_NS, period_ns // 10)
    ticks: list[int] = []
    free: list[int] = []  # ticks before that a second start may serve
    following = 0  # the first tick that none of the starts so far belongs to
    is_cut = False
    for at in starts_ns:
        tick = (at - origin_ns + slack_ns) // period_ns
        lag_ns = at - origin_ns - tick * period_ns
        if tick >= following:
            if is_cut:
                free.clear()
            free += range(following, tick)
            following, is_cut = tick, lag_ns <= max(slack_ns, period_ns // PUNCTUAL_PART)
            if lag_ns < 0 and free and free[-1] == tick - 1:
                tick, is_cut = free.pop(), False
            else:
                following += 1
        elif tick >= 0 and free:
            tick = free.pop()
        ticks.append(tick)
    return list(zip(starts_ns, sorted(ticks), strict=True))


def _in_turn(starts_ns: Sequence[int], period_ns: int) -> list[tuple[int, int]]:
    """Return each start with its number; one that comes within half a period of the one before doubles it."""
    numbered, number = [(starts_ns[0], 0)], 0
    for before, at in pairwise(starts_ns):
        number += at - before > period_ns // 2
        numbered.append((at, number))
    return numbered


def _first_of_each(kept: Sequence[tuple[int, int]], points: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the points of the first start of each tick, in the order of the ticks."""
    by_slot: dict[int, tuple[int, int]] = {}
    for (_, slot), point in zip(kept, points, strict=True):
        by_slot.setdefault(slot, point)
    return [by_slot[slot] for slot in sorted(by_slot)]


def _drift(points: Sequence[tuple[int, int]], length_ns: int, *, is_grid: bool) -> tuple[int, int, int]:
    """Return by how much lag grew over *length_ns*, by how much lags differ, and the growth over an hour.

    What is within the scatter from one start to the next is no drift: no machine is that even.
    """
    if len(points) < (2 * STRETCHES if is_grid else FEWEST):
        return 0, 0, 0
    scatter_ns = _scatter([lag for _, lag in points])
    if is_grid:
        grown_ns, elapsed_ns = _grown_on_grid(points)
        total_ns = grown_ns * length_ns // elapsed_ns
    else:
        (began_ns, low_ns), (ended_ns, high_ns) = points[0], points[-1]
        total_ns = grown_ns = high_ns - low_ns
        elapsed_ns = max(1, ended_ns - began_ns)
    if abs(grown_ns) <= scatter_ns:
        return 0, scatter_ns, 0
    return total_ns, scatter_ns, grown_ns * NS_PER_HOUR // elapsed_ns


def _grown_on_grid(points: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return by how much lag grew from the first to the last stretch of the starts, if steadily, and in what time.

    Medians are compared, so that a few late starts are no drift.
    """
    edges = [len(points) * number // STRETCHES for number in range(STRETCHES + 1)]
    stretches = [points[low:high] for low, high in pairwise(edges)]
    lags_ns = [_median([lag for _, lag in stretch]) for stretch in stretches]
    elapsed_ns = max(1, _median([at for at, _ in stretches[-1]]) - _median([at for at, _ in stretches[0]]))
    grown_ns = lags_ns[-1] - lags_ns[0]
    is_steady = all((b - a) * STEADY_PART >= abs(grown_ns) for a, b in pairwise(lags_ns[:: 1 if grown_ns > 0 else -1]))
    return (grown_ns if is_steady else 0), elapsed_ns


def _scatter(lags_ns: Sequence[int]) -> int:
    """Return within which span nine of ten changes from one lag to the next lie, were they spread as their middle half.

    A few starts that are late by a busy machine do not widen it, nor does a drift.
    """
    changes = sorted(b - a for a, b in pairwise(lags_ns))
    return (percentile(changes, 0.75) - percentile(changes, 0.25)) * 5 // 2


def _median(values: Sequence[int]) -> int:
    ordered = sorted(values)
    return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2
