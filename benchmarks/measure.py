"""What every contender's script shares: the grid, the meters and the answer.

Standard library only, because it runs inside each contender's own environment.
A script measures itself and prints one line of JSON; nothing else decides what a
number means. CPU time is user + system of this process. Times of day are read
with ``time.time_ns``, the clock that schedules promise to keep to."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import os
import platform
import random
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

__all__ = ["Memory", "Meter", "Periodic", "Wakes", "answer", "options", "percentile", "run"]

MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
LONGEST_BODY_S: Final = 0.9
"""Bodies of case A2 take an even draw from 0 to this, the same draws for every contender."""


def options(**defaults: Any) -> argparse.Namespace:
    """Return the script's options, each with the default given; ``--gc`` is set at once.

    An option is an int, a float or a string, as its default is.
    """
    parser = argparse.ArgumentParser()
    for name, default in {"gc": "on", "loop": "asyncio", "packages": "", **defaults}.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    args = parser.parse_args()
    if args.gc == "off":
        gc.disable()
    return args


def run(main: Callable[[], Coroutine[Any, Any, None]], args: argparse.Namespace) -> None:
    """Run *main* on the loop that ``--loop`` names: ``asyncio`` or ``uvloop``."""
    if args.loop == "uvloop":
        import uvloop  # noqa: PLC0415  # only the environments that have it ask for it

        uvloop.run(main())
    else:
        asyncio.run(main())


def answer(args: argparse.Namespace, metrics: dict[str, Any], note: str = "") -> None:
    """Print what was measured, with the versions of ``--packages`` and how Python was set."""
    packages = [name for name in args.packages.split(",") if name]
    print(
        json.dumps(
            {
                "metrics": metrics,
                "note": note,
                "versions": {name: _version(name) for name in packages},
                "python": f"{platform.python_implementation()} {platform.python_version()}",
                "gc": f"on, thresholds {gc.get_threshold()}" if gc.isenabled() else "off",
                "loop": args.loop,
            }
        )
    )
    sys.stdout.flush()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # a checkout on the path has no metadata
        return "checkout"


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below which *share* (0 to 1) of the sorted values lie, by nearest rank."""
    return ordered[min(len(ordered) - 1, max(0, round(share * len(ordered)) - 1))]


def _resident_bytes() -> int:
    """Return this process's resident memory (Linux)."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


class Meter:
    """CPU and wall time between ``start`` and ``stop``, in seconds."""

    cpu_s = wall_s = 0.0

    def start(self) -> None:
        self._cpu, self._wall = _cpu_s(), time.perf_counter()

    def stop(self) -> None:
        self.cpu_s = _cpu_s() - self._cpu
        self.wall_s = time.perf_counter() - self._wall

    def per(self, count: int, what: str = "job") -> dict[str, float]:
        """Return both as microseconds per job, with the number of jobs they were measured over."""
        return {
            f"cpu_us_per_{what}": self.cpu_s / count * 1e6,
            f"wall_us_per_{what}": self.wall_s / count * 1e6,
            "n": count,
        }


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


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

    @classmethod
    def from_options(cls, *, own_origin: bool = False, **more: Any) -> Periodic:
        """Read the case from the command line and choose the grid."""
        args = options(period=0.1, seconds=20.0, tasks=1, body=0.0, lead=2.0, **more)
        now = time.time_ns()
        periodic = cls(args, own_origin)
        periodic.origin_ns = -(-(now + int(args.lead * SECOND)) // SECOND) * SECOND
        periodic.stamps = [[] for _ in range(args.tasks)]
        periodic._began_ns = now
        periodic._draws = random.Random(1)
        return periodic

    @property
    def period_ns(self) -> int:
        return round(self.args.period * SECOND)

    def hit(self, task: int) -> None:
        """Task number *task* has begun."""
        self.stamps[task].append(time.time_ns())

    async def body(self, task: int = 0) -> None:
        """The body of every contender's task: a stamp, then the case's pause."""
        self.stamps[task].append(time.time_ns())
        if self.args.body:
            await asyncio.sleep(self.pause())

    def pause(self) -> float:
        """Return how long the next body takes, in seconds."""
        return self._draws.uniform(0, self.args.body) if self.args.body else 0.0

    def monotonic_origin(self, monotonic_s: float) -> float:
        """Return the grid's origin on a monotonic clock that reads *monotonic_s* now."""
        return monotonic_s + (self.origin_ns - time.time_ns()) / SECOND

    def begin(self) -> None:
        """Set-up is over; the CPU meter starts just before the grid does."""
        self.set_up_s = (time.time_ns() - self._began_ns) / SECOND
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
            slots = [(stamp, self._slot(stamp, origin)) for stamp in stamps]
            kept = [(stamp, slot) for stamp, slot in slots if 0 <= slot < count]
            served = {slot for _, slot in kept}
            missed += count - len(served)
            doubled += len(kept) - len(served)
            lags += [(stamp - origin - slot * self.period_ns) / MS for stamp, slot in kept]
            if len(kept) > 1:
                drifts.append(self._drift_ms([stamp for stamp, _ in kept]))
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

    def _slot(self, stamp: int, origin: int) -> int:
        """Return which tick a start serves: the last one due, or the next if at most a tenth of a period early."""
        return (stamp - origin + self.period_ns // 10) // self.period_ns

    def _drift_ms(self, stamps: Sequence[int]) -> float:
        """Return how far the late starts have moved from a grid on the first, against the early ones.

        The i-th start is compared with i periods, so a missed tick counts as a period lost.
        """
        off = [stamp - stamps[0] - i * self.period_ns for i, stamp in enumerate(stamps)]
        tenth = max(1, len(off) // 10)
        return (_median(off[-tenth:]) - _median(off[:tenth])) / MS


def _median(values: Iterable[float]) -> float:
    return percentile(sorted(values), 0.5)


class Memory:
    """What waiting jobs hold: by ``tracemalloc`` (bytes asked for) or by resident size (bytes the system gave).

    One process measures one of the two, for tracing itself takes memory.
    """

    def __init__(self, meter: str) -> None:
        if meter == "traced":
            tracemalloc.start(1)
        self._read = _traced_bytes if meter == "traced" else _resident_bytes

    def start(self) -> None:
        gc.collect()
        self._before = self._read()

    def per(self, count: int) -> dict[str, float]:
        """Return the bytes per job."""
        gc.collect()
        return {"bytes_per_job": (self._read() - self._before) / count, "n": count}


def _traced_bytes() -> int:
    return tracemalloc.get_traced_memory()[0]


class Wakes:
    """How often an idle process is woken: switches of all its threads, and turns of its event loop."""

    def __init__(self) -> None:
        self._turns = 0
        loop = asyncio.get_running_loop()
        turn = getattr(loop, "_run_once", None)
        if turn is not None:  # uvloop turns in C and cannot be counted from here

            def counted() -> None:
                self._turns += 1
                turn()

            loop._run_once = counted  # type: ignore[attr-defined]

    async def during(self, seconds: float) -> dict[str, float]:
        """Sleep for *seconds* and return what happened meanwhile, less the two turns of the sleep itself."""
        await asyncio.sleep(0)
        meter, switches, turns = Meter(), _switches(), self._turns
        meter.start()
        await asyncio.sleep(seconds)
        meter.stop()
        return {
            "turns": self._turns - turns - 2,
            "switches": _switches() - switches,
            "cpu_ms": meter.cpu_s * 1e3,
            "seconds": seconds,
        }


def _switches() -> int:
    """Return how often this process's threads have given up the CPU to wait (Linux)."""
    total = 0
    for thread in Path("/proc/self/task").iterdir():
        lines = (thread / "status").read_text(encoding="ascii").splitlines()
        total += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return total
