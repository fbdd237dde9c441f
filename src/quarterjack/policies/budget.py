"""`RetryBudget`: how many retries all jobs that share it may make.

Each job's own attempts bound what one job costs a service that is down; they
do not bound what ten thousand jobs cost it together. A budget does: it lets
retries through in proportion to what succeeds, and a few per second beside
that, so that an outage is not multiplied by the number of attempts.

It is told the time, as gates are, and reads no clock."""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import number
from quarterjack._signatures import Explained

__all__ = ["RetryBudget"]

SLICES: Final = 10
"""The window is counted in so many slices: what it remembers does not grow with the number of jobs."""


ROUNDING: Final = 1e-9
"""Five fifths are one."""


class RetryBudget(Explained):
    """At most so many retries per success, and so many per second beside that, over all jobs that share the object.

    In any window, retries ≤ *per_second* × *window* + *ratio* × the successes in it.
    With the defaults a service that fails every call sees ten calls more in ten
    seconds, and one that fails a few sees all of those retried. A retry that the
    budget does not cover is not put off: the job fails with its error. O(1) time and space.

    Use it where many jobs call one service. Not to spare one job some attempts; that is ``attempts=``.

    Args:
        ratio: Retries for each success, 0 or more: 0.2 lets a fifth of the calls be retries.
        per_second: Retries per second that need no success, 0 or more, saved up over the window.
        window: Seconds that a success, and a retry, counts.

    Raises:
        InvalidOption: Naming the option, the value and the range.

    Source:
        ``RetryBudget`` of Twitter's Finagle. It earns by requests; this one by successes, so that
        an outage earns nothing. Envoy's ``retry_budget`` bounds retries in flight instead.
    """

    def __init__(self, *, ratio: float = 0.2, per_second: float = 1.0, window: Seconds = 10.0) -> None:
        self.ratio: Final = float(number(ratio, "ratio", 0, 1e9))
        self.per_second: Final = float(number(per_second, "per_second", 0, 1e9))
        self.window_s: Final = to_seconds(window, "window", exclusive=True)
        self._slices: deque[tuple[int, int, int]] = deque()
        """The slice's number, its successes, its retries."""
        self._retries = self._refused = 0

    def earn(self, now: float) -> None:
        """A job that shares the budget has succeeded."""
        self._count(now, 1, 0)

    def spend(self, now: float) -> bool:
        """Take one retry out of the budget, if there is one; say whether there was."""
        if self.left(now) < 1 - ROUNDING:
            self._refused += 1
            return False
        self._retries += 1
        self._count(now, 0, 1)
        return True

    def left(self, now: float) -> float:
        """Return how many retries are left now."""
        newest = self._forget(now)
        # Retries count a slice longer than successes: so the bound holds in every window, wherever it begins.
        earned = sum(successes for number, successes, _ in self._slices if number > newest - SLICES)
        spent = sum(retries for _, _, retries in self._slices)
        return self.per_second * self.window_s + self.ratio * earned - spent

    def stats(self, now: float) -> dict[str, Any]:
        """Return what a person wants to see of it: what is left, and counts of retries since the start."""
        return {"left": self.left(now), "retries": self._retries, "refused": self._refused}

    def _count(self, now: float, successes: int, retries: int) -> None:
        number = self._forget(now)
        slices = self._slices
        if slices and slices[-1][0] == number:
            _, before, tried = slices[-1]
            slices[-1] = (number, before + successes, tried + retries)
        else:
            slices.append((number, successes, retries))

    def _forget(self, now: float) -> int:
        number = int(now * SLICES // self.window_s)
        slices = self._slices
        if slices and slices[-1][0] > number:
            if slices[-1][0] - number <= SLICES:  # another thread's reading, a moment older
                return slices[-1][0]
            slices.clear()  # another clock, as tests have: what it counted is of no use here
        while slices and slices[0][0] < number - SLICES:
            slices.popleft()
        return number

    def __copy__(self) -> RetryBudget:
        """Return itself: who copies a policy still shares its budget."""
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> RetryBudget:
        del memo
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.ratio, self.per_second, self.window_s)

    def __repr__(self) -> str:
        return f"RetryBudget(ratio={self.ratio:g}, per_second={self.per_second:g}, window={self.window_s:g})"


def _restored(ratio: float, per_second: float, window_s: float) -> RetryBudget:
    return RetryBudget(ratio=ratio, per_second=per_second, window=window_s)
