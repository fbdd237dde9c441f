"""The scale of the pictures: lags from microseconds to hours on one logarithmic axis, and starts in bins of time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["Bin", "LogScale", "bins_of", "histogram"]

MARKS: Final = (
    (10_000, "10 µs"),
    (100_000, "0.1 ms"),
    (1_000_000, "1 ms"),
    (10_000_000, "10 ms"),
    (100_000_000, "0.1 s"),
    (1_000_000_000, "1 s"),
    (10_000_000_000, "10 s"),
    (60_000_000_000, "1 min"),
    (600_000_000_000, "10 min"),
    (3_600_000_000_000, "1 h"),
    (36_000_000_000_000, "10 h"),
    (360_000_000_000_000, "100 h"),
)


@dataclass(frozen=True, slots=True)
class LogScale:
    """A logarithmic axis between two of the marks."""

    low_ns: int
    high_ns: int

    @classmethod
    def around(cls, lags_ns: Iterable[int]) -> LogScale:
        """Return the axis that begins with 10 µs and holds the longest of *lags_ns*, and 1 ms at the least."""
        longest = max(lags_ns, default=0)
        return cls(MARKS[0][0], next((mark for mark, _ in MARKS[2:] if mark >= longest), MARKS[-1][0]))

    def share(self, ns: int) -> float:
        """Return where *ns* lies on the axis, from 0 to 1; what is beyond an end lies on it."""
        kept = min(max(ns, self.low_ns), self.high_ns)
        return math.log(kept / self.low_ns) / math.log(self.high_ns / self.low_ns)

    def marks(self) -> list[tuple[int, str]]:
        """Return the marks on the axis, with their words."""
        return [(mark, words) for mark, words in MARKS if self.low_ns <= mark <= self.high_ns]


@dataclass(frozen=True, slots=True)
class Bin:
    """The starts within one stretch of time: its middle, the least, the median and the largest lag."""

    at_ns: int
    low_ns: int
    mid_ns: int
    high_ns: int


def bins_of(points: Sequence[tuple[int, int]], length_ns: int, most: int) -> list[Bin]:
    """Return at most *most* bins of even width over *length_ns*; those without a start are left out."""
    lags_by_bin: dict[int, list[int]] = {}
    for at, lag in points:
        lags_by_bin.setdefault(min(most - 1, max(0, at * most // length_ns)), []).append(lag)
    found: list[Bin] = []
    for number, lags in sorted(lags_by_bin.items()):
        lags.sort()
        found.append(Bin((2 * number + 1) * length_ns // (2 * most), lags[0], lags[len(lags) // 2], lags[-1]))
    return found


def histogram(lags_ns: Iterable[int], scale: LogScale, bars: int) -> list[int]:
    """Return how many lags lie in each of *bars* even parts of the axis."""
    counts = [0] * bars
    for lag in lags_ns:
        counts[min(bars - 1, int(scale.share(lag) * bars))] += 1
    return counts
