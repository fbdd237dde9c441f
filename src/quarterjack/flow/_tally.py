"""How many of the latest calls have failed, over a span of time or a number of calls."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from typing import Final

__all__ = ["CallTally", "Tally", "TimeTally"]

GRAINS: Final = 10
"""A span of time is forgotten in tenths: ten counters, however many calls."""
KEPT_S: Final = 86_400.0
"""A number of calls is remembered for ever, but for a key that nobody used for a day: keys come and go."""


class Tally(ABC):
    """Counts of the calls that are remembered."""

    __slots__ = ("calls", "failures")

    def __init__(self) -> None:
        self.calls = 0
        self.failures = 0

    @abstractmethod
    def add(self, now: float, failed: bool) -> None:
        """Remember one call that ended *now*."""

    @abstractmethod
    def trim(self, now: float) -> None:
        """Forget what is too old."""

    @abstractmethod
    def matters(self, now: float) -> bool:
        """Say whether what is remembered could still decide something."""

    @abstractmethod
    def clear(self) -> None:
        """Forget everything."""

    @property
    def ratio(self) -> float:
        """The share that has failed; 0 without any call."""
        return self.failures / self.calls if self.calls else 0.0


class TimeTally(Tally):
    """The calls of the last *window_s* seconds, to a tenth of it. O(1) time, ten counters."""

    __slots__ = ("_grain_s", "_grains")

    def __init__(self, window_s: float) -> None:
        super().__init__()
        self._grain_s = window_s / GRAINS
        self._grains: deque[list[int]] = deque()
        """Number of the grain since the epoch of the clock, calls, failures."""

    def add(self, now: float, failed: bool) -> None:
        self.trim(now)
        grains, number = self._grains, int(now // self._grain_s)
        if not grains or grains[-1][0] < number:
            grains.append([number, 0, 0])
        last = grains[-1]
        last[1] += 1
        last[2] += failed
        self.calls += 1
        self.failures += failed

    def trim(self, now: float) -> None:
        grains, oldest = self._grains, int(now // self._grain_s) - GRAINS
        while grains and grains[0][0] <= oldest:
            _, calls, failures = grains.popleft()
            self.calls -= calls
            self.failures -= failures

    def matters(self, now: float) -> bool:
        self.trim(now)
        return self.calls > 0

    def clear(self) -> None:
        self._grains.clear()
        self.calls = self.failures = 0


class CallTally(Tally):
    """The last *size* calls. O(1) time, O(size) space."""

    __slots__ = ("_calls", "_last_at")

    def __init__(self, size: int) -> None:
        super().__init__()
        self._calls: deque[bool] = deque(maxlen=size)
        self._last_at = -math.inf

    def add(self, now: float, failed: bool) -> None:
        calls, self._last_at = self._calls, now
        if len(calls) == calls.maxlen:
            self.failures -= calls[0]
        calls.append(failed)
        self.calls = len(calls)
        self.failures += failed

    def trim(self, now: float) -> None:
        """Do nothing: calls are pushed out by calls."""

    def matters(self, now: float) -> bool:
        return self.calls > 0 and now < self._last_at + KEPT_S

    def clear(self) -> None:
        self._calls.clear()
        self.calls = self.failures = 0
