"""A long time, made of the turns that were measured. Pure: no clock, no process.

What one turn costs a way was measured; what ten thousand of them add up to is
arithmetic. Who promises an interval loses in each turn what one of its measured
turns lost. Who promises a grid is late at each tick as it was at one of the measured
ticks, and misses as often. quarterjack's fire times are not walked here: they come
from the scheduler itself, run on a virtual clock, and only the lag is drawn.

Turns are drawn evenly with a fixed seed, so the same measurement gives the same day.
What a day has that a minute has not (suspends, clock steps, memory that grows) is
not in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Final

from .results import Results, Row
from .ways._heat import Recorded

__all__ = ["simulated", "turns_of"]

SEED: Final = 1
NS_PER_S: Final = 1_000_000_000


def simulated(results: Results, seconds: float, fires_ns: Sequence[int] | None = None) -> Results:
    """Return what *results* would be after *seconds*.

    Args:
        results: What was measured.
        seconds: How long to go on.
        fires_ns: The fire times of quarterjack's own scheduler after the first tick, from a virtual clock;
            None where no way of ours is among the rows.
    """
    settings = replace(results.settings, simulated_s=seconds)
    rows = tuple(
        _row(row, settings.period_ns, seconds, fires_ns if row.way.is_ours else None)
        for row in results.rows
        if row.account is not None
    )
    return replace(results, settings=settings, rows=rows)


def turns_of(row: Row, period_ns: int) -> list[tuple[int, ...]]:
    """Return what was measured of each turn.

    For a grid: the lags of the starts of each tick, none for a missed one. For an interval:
    by how much each start came later than a period after the one before; doubled ones are left out.
    """
    account = row.account
    if account is None:
        return []
    if row.way.promise == "interval":
        starts = [at for at, _ in account.points]
        return [(gap - period_ns,) for gap in (b - a for a, b in pairwise(starts)) if gap > period_ns // 2]
    lags_by_tick: dict[int, tuple[int, ...]] = dict.fromkeys(range(account.ticks), ())
    for at, lag in account.points:
        tick = (at - lag) // period_ns
        lags_by_tick[tick] = (*lags_by_tick.get(tick, ()), lag)
    return list(lags_by_tick.values())


def _row(row: Row, period_ns: int, seconds: float, fires_ns: Sequence[int] | None) -> Row:
    turns, length_ns = turns_of(row, period_ns), round(seconds * NS_PER_S)
    if not turns:
        return row
    if row.way.promise == "interval":
        offsets = _intervals(turns, period_ns, length_ns)
    else:
        ticks = range(0, length_ns - length_ns % period_ns, period_ns) if fires_ns is None else fires_ns
        offsets = _grid(turns, ticks)
    recorded = row.recorded
    count = max(1, len(recorded.starts_ns))
    return Row.of(
        row.way,
        Recorded(
            recorded.way,
            recorded.origin_ns,
            seconds,
            [recorded.origin_ns + offset for offset in offsets],
            None if recorded.cpu_s is None else recorded.cpu_s * len(offsets) / count,
            recorded.memory_bytes,
        ),
        period_ns,
    )


def _intervals(turns: Sequence[tuple[int, ...]], period_ns: int, length_ns: int) -> list[int]:
    """Walk from start to start, each a period and a measured loss after the one before."""
    draw, at, found = Random(SEED), 0, list[int]()  # noqa: S311  # no secret
    while at < length_ns:
        found.append(at)
        at += period_ns + draw.choice(turns)[0]
    return found


def _grid(turns: Sequence[tuple[int, ...]], ticks: Sequence[int]) -> list[int]:
    """Serve each tick as a measured one was."""
    draw = Random(SEED)  # noqa: S311  # likewise
    return sorted(tick + lag for tick in ticks for lag in draw.choice(turns))
