"""`AdaptiveLimit`: as many at once as go well, found out by trying.

Once per window, when a job ends, the limit is looked at again:

    drop      too many failures, too slow, or this machine is strained   limit · backoff
    growth    all went well, and the limit was what held jobs back       limit + step
    else      nobody would have needed more                              as it is

Decisions are pure functions of what was seen in the window (`Sample`) and of the
limit, and a worse sample never leads to a higher limit."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import number, shown, whole_number
from quarterjack._signatures import check_plain
from quarterjack.errors import InvalidOption

from ._counts import Counts, judge_of
from ._keys import By
from ._options import CRUMBS, changed
from .alarms import Alarm
from .base import Gate
from .outcome import Ended
from .pressure import Pressure
from .waiting import Waiting

__all__ = ["AdaptiveLimit", "AdaptiveSettings", "Sample", "by_latency", "by_queue", "has_dropped"]

INITIAL: Final = 10
"""The limit to begin with, where nothing else is said."""

log = logging.getLogger("quarterjack.flow")

_CHANGEABLE: Final = ("min", "max", "target_latency", "window", "backoff", "failure_ratio")
RELEARN_AFTER: Final = 30
"""Windows after which the latency without load is learnt anew: routes and services change."""
FORGET_AFTER: Final = 300
"""Windows without a job after which the limit of one key need not be remembered."""


@dataclass(slots=True)
class Sample:
    """What was seen in one window."""

    ends: int = 0
    """Jobs that said something by how they ended."""
    failures: int = 0
    worked: int = 0
    total_s: float = 0.0
    """How long those took together that worked."""
    shortest_s: float = math.inf
    most: float = 0.0
    """The most slots in use at once."""
    strained: bool = False

    @property
    def latency_s(self) -> float:
        """How long a job took that worked, on average."""
        return self.total_s / self.worked if self.worked else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AdaptiveSettings:
    """Settings of an adaptive limit; durations are seconds once it is made."""

    min: int
    max: int
    target_latency: Seconds | None
    window: Seconds
    backoff: float
    failure_ratio: float

    def __post_init__(self) -> None:
        whole_number(self.min, "min", 1)
        whole_number(self.max, "max", self.min)
        number(self.failure_ratio, "failure_ratio", 0.0, 1.0, exclusive=True)
        number(self.backoff, "backoff", 0.0, 1.0, exclusive=True)
        if self.backoff == 1.0:
            raise InvalidOption("backoff must be below 1, got 1.0: the limit would never fall")
        if self.target_latency is not None:
            self._keep_seconds("target_latency")
        self._keep_seconds("window")

    def _keep_seconds(self, field: str) -> None:
        object.__setattr__(self, field, to_seconds(getattr(self, field), field, exclusive=True))


def has_dropped(sample: Sample, settings: AdaptiveSettings) -> bool:
    """Say whether a window went so badly that less must be tried, whatever the rest of it looked like."""
    is_failing = sample.ends > 0 and sample.failures / sample.ends >= settings.failure_ratio
    target: Any = settings.target_latency
    is_slow = target is not None and sample.latency_s > target
    return sample.strained or is_failing or is_slow


def by_latency(limit: float, sample: Sample) -> float:
    """Return the next limit where a target latency is known and was met: more, if more were wanted.

    Source:
        Netflix, concurrency-limits, ``AIMDLimit``: growth only while at least half of the limit
        is in use; a step of the root of the limit is that of ``GradientLimit``.
    """
    return limit + max(1.0, math.sqrt(limit)) if sample.most * 2 >= limit else limit


def by_queue(limit: float, sample: Sample, unloaded_s: float) -> float:
    """Return the next limit by how many jobs must have queued at the service, judging by its latency.

    Args:
        limit: The one that held.
        sample: What was seen.
        unloaded_s: The latency without load: the shortest that was seen.

    Source:
        L. Brakmo, L. Peterson, "TCP Vegas", 1995; its thresholds as in Netflix, concurrency-limits, ``VegasLimit``.
    """
    if not sample.worked or sample.most * 2 < limit:
        return limit
    queued = limit * max(0.0, 1.0 - unloaded_s / sample.latency_s) if sample.latency_s > 0 else 0.0
    step = max(1.0, math.log10(limit))
    if queued <= step:
        return limit + 6 * step
    if queued < 3 * step:
        return limit + step
    return limit - step if queued > 6 * step else limit


class AdaptiveLimit(Gate):
    """Lets as many jobs run at once as the service and this machine can stand, from *min* to *max*.

    Use it where the right number is not known, or changes: a service that others use
    too, a machine that is shared. Not where it is known: `ConcurrencyLimit` has nothing to
    find out. Not for a service that is down as a whole: see `CircuitBreaker`.

    With *target_latency* it is AIMD: up by the root of the limit after each window that
    met it, down to *backoff* of the limit after one that did not. Without it is Vegas: it
    compares the latency with the shortest it knows, infers how many jobs queue at
    the service, and keeps those between 3 and 6 (more for limits above 10). Failures and
    `Pressure` lower it in both, once per window at most. O(1) time and space.

    A job of ``cost=3`` takes three slots; one that costs more than the limit of the
    moment starts when nothing else runs.

    Args:
        initial: The limit to begin with; 10, or the nearer of *min* and *max*, without it.
        min: Lowest limit, 1 or more: some must try.
        max: Highest limit.
        target_latency: Seconds that a body should take on average.
        window: Seconds for which ends are gathered before the limit is looked at.
        backoff: What is left of the limit after a drop, above 0 and below 1.
        failure_ratio: Share of failures in a window from which it counts as a drop.
        pressure: What this process and its machine may be strained: a `Pressure`, or a
            function without arguments that returns what is strained, in words, or None; None
            does not look.
        counts: Which exceptions count as failures, or a function, as for `CircuitBreaker`.
        by: A limit for each key, such as ``by="host"``.
        name: What it is called in `why_waiting` and `stats`.

    Raises:
        InvalidOption: Naming the option, the value and the range.

    Source:
        Netflix, concurrency-limits; V. Jacobson, "Congestion Avoidance and Control", 1988.
    """

    def __init__(
        self,
        initial: int | None = None,
        min: int = 1,  # noqa: A002  # the name that says it
        max: int = 200,  # noqa: A002  # likewise
        target_latency: Seconds | None = None,
        *,
        window: Seconds = 1.0,
        backoff: float = 0.7,
        failure_ratio: float = 0.1,
        pressure: Pressure | Callable[[], str | None] | None = Pressure(),  # noqa: B008  # a value, never changed
        counts: Counts = (Exception,),
        by: By | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(by=by, name=name)
        self._settings = AdaptiveSettings(
            min=min,
            max=max,
            target_latency=target_latency,
            window=window,
            backoff=backoff,
            failure_ratio=failure_ratio,
        )
        began_with = sorted((min, INITIAL, max))[1] if initial is None else initial
        self._initial = float(whole_number(began_with, "initial", min, max))
        if pressure is not None and not isinstance(pressure, Pressure) and not callable(pressure):
            raise InvalidOption(
                f"pressure must be a Pressure, a function without arguments, or None, got {shown(pressure)}"
            )
        if callable(pressure):
            check_plain(pressure, "pressure")
        self._pressure = pressure
        self._judge = judge_of(counts)
        self._begin()

    def _begin(self) -> None:
        self._limit = self._initial
        self.used = 0.0
        """Slots in use."""
        self._users = 0
        """Jobs that use some."""
        self._sample = Sample()
        self._window_ends: float | None = None
        self._unloaded_s = math.inf
        self._windows = 0
        self._left_at = -math.inf
        self._lag_s = 0.0
        self._lag_due = math.inf
        """When the timer is to ring by which the loop's lag is measured."""
        self._lag_alarm: Alarm | None = None
        self.last: str = "begun"
        """What was decided last, in words."""

    @property
    def limit(self) -> int:
        """How many may run at once."""
        return int(self._limit)

    @property
    def algorithm(self) -> Literal["aimd", "vegas"]:
        """Which one moves the limit."""
        return "vegas" if self._settings.target_latency is None else "aimd"

    # -- as a gate -------------------------------------------------------------------

    def eta(self, job: Waiting, now: float) -> float:
        if self.used + job.cost <= self.limit + CRUMBS:
            return now
        self.check(job)  # `max` may have shrunk since it came, and a bare pass was not asked before
        return math.inf if self._users else now

    def stays_closed(self, job: Waiting, held: float) -> bool:
        return held + job.cost > self._settings.max

    def take(self, job: Waiting, now: float) -> None:
        self._users += 1
        self.used += job.cost
        sample = self._sample
        sample.most = max(sample.most, self.used)
        if self._window_ends is None:
            self._window_ends = now + self._window_s
        if self._lag_alarm is None and isinstance(self._pressure, Pressure) and self._pressure.max_lag_s is not None:
            self._watch_lag(now)

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        self._users -= 1
        self.used = self.used - job.cost if self._users else 0.0
        self._left_at = now
        failed = self._judge(ended)
        sample = self._sample
        if failed is not None and job.started_at is not None:
            sample.ends += 1
            sample.failures += failed
            if not failed:
                took_s = max(0.0, now - job.started_at)
                sample.worked += 1
                sample.total_s += took_s
                sample.shortest_s = min(sample.shortest_s, took_s)
        if self._window_ends is not None and now >= self._window_ends and sample.ends:
            self._look(now)

    _spares_light = True

    def check(self, job: Waiting) -> None:
        if job.cost > self._settings.max:
            raise InvalidOption(
                f"cost={job.cost:g} is above max={self._settings.max} of {self!r}: "
                "it could never start; lower the cost or raise the limit with update(max=…)"
            )

    # -- once per window -------------------------------------------------------------

    def _look(self, now: float) -> None:
        """The window is over: decide, and begin the next one. Who waits is asked anyway, after every `give`."""
        sample = self._sample
        strain = self._strain(now)
        sample.strained = strain is not None
        before = self.limit
        self._set(self._decide(sample))
        word = "held" if self.limit == before else "raised" if self.limit > before else "lowered"
        self.last = f"{word}: {strain}" if strain else word
        self._learn(sample)
        self._sample = Sample(most=self.used)
        self._window_ends = now + self._window_s if self.used else None

    def _decide(self, sample: Sample) -> float:
        settings = self._settings
        if has_dropped(sample, settings):
            return self._limit * settings.backoff
        if settings.target_latency is not None:
            return by_latency(self._limit, sample)
        if math.isinf(self._unloaded_s):
            return self._limit  # nothing to compare with yet
        return by_queue(self._limit, sample, self._unloaded_s)

    def _learn(self, sample: Sample) -> None:
        """Keep the shortest latency; it is used from the next window on, so that no sample is its own measure."""
        self._windows += 1
        if self._windows % RELEARN_AFTER == 0 and sample.worked:
            self._unloaded_s = sample.shortest_s
        else:
            self._unloaded_s = min(self._unloaded_s, sample.shortest_s)

    def _set(self, limit: float) -> None:
        self._limit = float(min(max(limit, self._settings.min), self._settings.max))

    def _strain(self, now: float) -> str | None:
        pressure, lag_s = self._pressure, max(self._lag_s, now - self._lag_due)
        self._lag_s = 0.0
        if pressure is None:
            return None
        try:
            return pressure.reason(lag_s) if isinstance(pressure, Pressure) else pressure()
        except Exception:  # the user's function, or a file that is gone: the limit goes by what else it knows
            log.exception("%r: its pressure cannot be read", self)
            return None

    def _watch_lag(self, now: float) -> None:
        """See how late one timer rings; once per window, and only while jobs run."""
        self._lag_alarm = self._call_at(now + self._window_s, self._on_lag)
        self._lag_due = math.inf if self._lag_alarm is None else self._lag_alarm.at

    def _on_lag(self) -> None:
        now = self.clock.monotonic()
        self._lag_s = max(self._lag_s, now - self._lag_due)
        self._lag_alarm, self._lag_due = None, math.inf
        if self.used:
            self._watch_lag(now)

    @property
    def _window_s(self) -> float:
        window: Any = self._settings.window
        return float(window)

    # -- views and settings ----------------------------------------------------------

    def is_idle(self, now: float) -> bool:
        return not self.used and now - self._left_at > FORGET_AFTER * self._window_s

    def forget(self) -> None:
        self._begin()

    def fresh(self) -> AdaptiveLimit:
        gate = self._bare()  # not a deep one: a pressure may be the method of anything
        gate._begin()
        return gate

    def stats(self) -> dict[str, Any]:
        shortest_s = None if math.isinf(self._unloaded_s) else self._unloaded_s
        return {
            "limit": self.limit,
            "used": self.used,
            "algorithm": self.algorithm,
            "unloaded_s": shortest_s,
            "last": self.last,
        }

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        changed(self, changes, _CHANGEABLE)
        replace(self._settings, **changes)

    def _change(self, changes: Mapping[str, Any]) -> None:
        self._settings = replace(self._settings, **changes)
        self._initial = float(min(max(self._initial, self._settings.min), self._settings.max))
        self._set(self._limit)
