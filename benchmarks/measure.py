"""What every contender's script shares: its options, the meters and the answer.

Standard library only, because it runs inside each contender's own environment.
A script measures itself and prints one line of JSON; nothing else decides what a
number means. CPU time is user + system of this process."""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
import tracemalloc
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["SECOND", "Memory", "Meter", "Server", "Wakes", "answer", "batches", "options", "percentile", "run"]

SECOND: Final = 1_000_000_000


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


async def batches(play: Callable[[int], Coroutine[Any, Any, None]], n: int, size: int = 100) -> float:
    """Play *n* turns, *size* at a time; return the time one took in the best tenth of the batches, in µs.

    On a busy machine that is what it costs; the rest of the wall time is waiting for the others.
    """
    found: list[float] = []
    for _ in range(n // size):
        began = time.perf_counter()
        await play(size)
        found.append((time.perf_counter() - began) * 1e6 / size)
    return percentile(sorted(found), 0.1)


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


class Server(NamedTuple):
    """A server that a contender works with: where it listens, and which process it is."""

    url: str
    port: int
    pid: int

    def cpu_us(self) -> float:
        """Return the CPU time of the server and of those processes of it that still run (Linux)."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text(encoding="ascii").split()
        ticks = 0
        for pid in (self.pid, *map(int, children)):
            with suppress(FileNotFoundError):  # it has ended meanwhile
                fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks * 1e6 / os.sysconf("SC_CLK_TCK")


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
