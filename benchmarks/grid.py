"""The grid of the punctuality cases, for contenders with many tasks or in other libraries' words.

Times of day are read with ``time.time_ns``, the clock that schedules promise to
keep to. What a start costs here is one reading and one append, the same for every
contender; everything else is worked out after the last one, by the account of the
drift laboratory."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from laboratory import account
from measure import SECOND, Meter, answer, options, percentile

__all__ = ["Periodic", "metrics_of"]

MS: Final = 1_000_000


@dataclass
class Periodic:
    """One periodic case: the grid that was promised, and when each task really began.

    The grid starts on a whole second, late enough for the contender to set up. A contender
    without a grid of its own (``own_origin``) is measured from each task's first start.
    """

    args: argparse.Namespace
    own_origin: bool = False
    origin_ns: int = 0
    set_up_s: float = 0.0
    stamps: list[list[int]] = field(default_factory=list)
    meter: Meter = field(default_factory=Meter)
    began_ns: int = field(default_factory=time.time_ns)
    _pauses: int = 0

    @classmethod
    def from_options(cls, *, own_origin: bool = False, **more: Any) -> Periodic:
        """Read the case from the command line and choose the grid."""
        args = options(period=0.1, seconds=20.0, tasks=1, body=0.0, lead=2.0, **more)
        origin_ns = -(-(time.time_ns() + int(args.lead * SECOND)) // SECOND) * SECOND
        return cls(args, own_origin, origin_ns, stamps=[[] for _ in range(args.tasks)])

    @property
    def period_ns(self) -> int:
        period_s: float = self.args.period
        return round(period_s * SECOND)

    async def body(self, task: int = 0) -> None:
        """The body of every contender's task: a stamp, then the case's pause."""
        self.stamps[task].append(time.time_ns())
        if self.args.body:
            await asyncio.sleep(self.pause())

    def pause(self) -> float:
        """Return how long the next body takes, in seconds: as long as that of the laboratory with this number."""
        self._pauses += 1
        return random.Random(self._pauses).random() * self.args.body if self.args.body else 0.0

    def monotonic_origin(self, monotonic_s: float) -> float:
        """Return the grid's origin on a monotonic clock that reads *monotonic_s* now."""
        return monotonic_s + (self.origin_ns - time.time_ns()) / SECOND

    def begin(self) -> None:
        """Set-up is over; the CPU meter starts just before the grid does."""
        self.set_up_s = (time.time_ns() - self.began_ns) / SECOND
        time_left_s = (self.origin_ns - time.time_ns()) / SECOND
        if time_left_s < 0.05:
            raise SystemExit(f"set-up took {self.set_up_s:.1f} s; give it more with --lead")

    async def watch(self) -> None:
        """Wait beside the contender until the case is over, metering its CPU."""
        self.begin()
        await asyncio.sleep((self.origin_ns - time.time_ns()) / SECOND - 0.02)
        self.meter.start()
        await asyncio.sleep((self.origin_ns - time.time_ns()) / SECOND + self.args.seconds)
        self.meter.stop()

    def report(self, note: str = "") -> None:
        """Print the answer."""
        answer(self.args, self.metrics(), note)

    def metrics(self) -> dict[str, float]:
        """Return lag in ms, wrong ticks, drift in ms and CPU per start, all tasks together."""
        length_ns = round(self.args.seconds * SECOND)
        promise = "interval" if self.own_origin else "grid"
        accounts = [
            account.count(
                stamps, origin_ns=self.origin_ns, period_ns=self.period_ns, length_ns=length_ns, promise=promise
            )
            for stamps in self.stamps
        ]
        none = sum(length_ns // self.period_ns for one in accounts if one is None)
        found = metrics_of([one for one in accounts if one is not None], self.meter.cpu_s, none)
        return {**found, "set_up_s": self.set_up_s}


def metrics_of(accounts: Sequence[Any], cpu_s: float, never_served: int = 0) -> dict[str, float]:
    """Return the columns of the punctuality cases for tasks that have been counted.

    Args:
        accounts: An account of the laboratory per task.
        cpu_s: What the process took for all of them.
        never_served: Ticks of tasks without any start.
    """
    lags = sorted(lag for one in accounts for _, lag in one.points)
    drifts = sorted(one.drift_ns for one in accounts)
    fires = len(lags)
    return {
        "p50_ms": percentile(lags, 0.5) / MS if lags else float("nan"),
        "p99_ms": percentile(lags, 0.99) / MS if lags else float("nan"),
        "max_ms": lags[-1] / MS if lags else float("nan"),
        "early": sum(one.early for one in accounts),
        "doubled": sum(one.doubled for one in accounts),
        "missed": never_served + sum(one.missed for one in accounts),
        "drift_ms": percentile(drifts, 0.5) / MS if drifts else float("nan"),
        "cpu_us_per_fire": cpu_s / max(fires, 1) * 1e6,
        "cpu_s": cpu_s,
        "fires": fires,
    }
