"""The grid of the punctuality cases: which tick a start served, and how late it was.

Times of day are read with ``time.time_ns``, the clock that schedules promise to
keep to. What a start costs here is one reading and one append, the same for every
contender; everything else is worked out after the last one."""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from measure import SECOND, Meter, answer, options, percentile

__all__ = ["Periodic"]

MS: Final = 1_000_000
EARLIEST_NS: Final = 5 * MS
"""A start this much before a tick still counts as that tick's, and as early; timers' roundings stay below 2 ms."""


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
    draws: random.Random = field(default_factory=lambda: random.Random(1))

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

    def hit(self, task: int) -> None:
        """Task number *task* has begun."""
        self.stamps[task].append(time.time_ns())

    async def body(self, task: int = 0) -> None:
        """The body of every contender's task: a stamp, then the case's pause."""
        self.stamps[task].append(time.time_ns())
        if self.args.body:
            await asyncio.sleep(self.pause())

    def pause(self) -> float:
        """Return how long the next body takes, in seconds: an even draw, the same ones for every contender."""
        return self.draws.uniform(0, self.args.body) if self.args.body else 0.0

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
        """Return lag in ms, wrong ticks, drift in ms and CPU per start."""
        lags: list[float] = []
        drifts: list[float] = []
        missed = doubled = 0
        for stamps in self.stamps:
            origin = stamps[0] if self.own_origin and stamps else self.origin_ns
            count = round((self.origin_ns + self.args.seconds * SECOND - origin) / self.period_ns)
            kept = [(stamp, slot) for stamp, slot in self._served(stamps, origin) if 0 <= slot < count]
            served = {slot for _, slot in kept}
            missed += count - len(served)
            doubled += len(kept) - len(served)
            lags += [(stamp - origin - slot * self.period_ns) / MS for stamp, slot in kept]
            if len(kept) > 1:
                first_starts = {slot: stamp for stamp, slot in reversed(kept)}
                drifts.append(self._drift_ms(sorted(first_starts.values())))
        lags.sort()
        fires = len(lags)
        return {
            "p50_ms": percentile(lags, 0.5) if lags else float("nan"),
            "p99_ms": percentile(lags, 0.99) if lags else float("nan"),
            "max_ms": lags[-1] if lags else float("nan"),
            "early": sum(lag < 0 for lag in lags),
            "doubled": doubled,
            "missed": missed,
            "drift_ms": percentile(sorted(drifts), 0.5) if drifts else float("nan"),
            "cpu_us_per_fire": self.meter.cpu_s / max(fires, 1) * 1e6,
            "cpu_s": self.meter.cpu_s,
            "fires": fires,
            "set_up_s": self.set_up_s,
        }

    def _served(self, stamps: Sequence[int], origin: int) -> list[tuple[int, int]]:
        """Return each start with the tick it serves: the last one due, or the next if it is a little early.

        Two starts within one period serve two ticks when the tick before got none: the first is
        then more than a period late. Otherwise the tick was doubled. In the same way a start just
        before a tick is not early but nearly a period late when the tick before it got none.
        """
        # Who sleeps a period after each run cannot be early, only drift past the next tick.
        early_ns = 0 if self.own_origin else min(EARLIEST_NS, self.period_ns // 10)
        slots = [(stamp - origin + early_ns) // self.period_ns for stamp in stamps]
        served = set(slots)
        following: int | None = None  # the tick that the start after this one serves
        for i in reversed(range(len(slots))):
            is_shared = following is not None and slots[i] >= following
            is_early = stamps[i] < origin + slots[i] * self.period_ns
            before = (following if following is not None and is_shared else slots[i]) - 1
            if (is_shared or is_early) and before >= 0 and before not in served:
                slots[i] = before
                served.add(before)
            following = slots[i]
        return list(zip(stamps, slots, strict=True))

    def _drift_ms(self, stamps: Sequence[int]) -> float:
        """Return how far the late starts have moved from a grid on the first, against the early ones.

        The i-th start is compared with i periods, so a missed tick counts as a period lost.
        """
        off = [stamp - stamps[0] - i * self.period_ns for i, stamp in enumerate(stamps)]
        tenth = max(1, len(off) // 10)
        return (_median(off[-tenth:]) - _median(off[:tenth])) / MS


def _median(values: Iterable[float]) -> float:
    return percentile(sorted(values), 0.5)
