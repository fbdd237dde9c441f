"""A heat: some ways, each in a process of its own, over the same ticks.

All of them set themselves up and say so; then one first tick is chosen for all, and
when the time is over the processes are killed, with all that they have started. So
nothing that a way does at its end can hurt or last, and what was recorded is there
however the heat ends: by its time, by Ctrl-C, by a way that died.

Linux tells what the processes take; elsewhere CPU time and memory are unknown."""

from __future__ import annotations

import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

from ._case import NS_PER_S, VARIABLE, Case, ready_line
from ._usage import Usage, usage_of

__all__ = ["Heat", "Recorded"]

SET_UP_S: Final = 60.0
"""How long ways may take to set themselves up; Celery's processes take three seconds on an idle machine."""
NS_PER_MS: Final = 1_000_000
LEAD_NS: Final = NS_PER_S // 2
"""How much before the first tick the ways are told of it."""
LATE_NS: Final = 2 * NS_PER_S
"""A start of the last tick is waited for so long, or for a period where that is less: it may be late, as all others."""
LOOK_S: Final = 0.2
MAIN: Final = Path(__file__).with_name("__main__.py")


@dataclass(slots=True)
class Recorded:
    """What one way did, as it was recorded.

    Attributes:
        way: Its name.
        origin_ns: The first tick by the wall clock; 0 if it did not come to that.
        seconds: How long it went on from there.
        starts_ns: When its bodies began, by the wall clock, in order.
        cpu_s: CPU time of all its processes over so many seconds; None where the system does not tell.
        memory_bytes: Resident memory of all its processes at the end; likewise.
        error: Why it is not to be counted; empty if it is.
    """

    way: str
    origin_ns: int = 0
    seconds: float = 0.0
    starts_ns: list[int] = field(default_factory=list[int])
    cpu_s: float | None = None
    memory_bytes: int | None = None
    error: str = ""


class Heat:
    """Runs ways side by side, or a single one. A context manager: leaving it ends every process.

    Args:
        ways: The names of the ways.
        period_ns: The time from one tick to the next.
        seconds: How long to measure.
        body: One of `quarterjack.lab.ways._case.BODIES`.
        loop: ``asyncio`` or ``uvloop``.
        gc: ``on`` or ``off``.
        python: The interpreter of the ways.
    """

    def __init__(
        self,
        ways: Iterable[str],
        *,
        period_ns: int,
        seconds: float,
        body: str = "none",
        loop: str = "asyncio",
        gc: str = "on",
        python: str = sys.executable,
    ) -> None:
        self._names = tuple(ways)
        self._period_ns, self._seconds = period_ns, seconds
        self._options = {"period_ns": period_ns, "seconds": seconds, "body": body, "loop": loop, "gc": gc}
        self._python = python
        self._stack = ExitStack()
        self._runners: list[_Runner] = []
        self._used: list[Usage | None] = []
        self._origin_ns = 0

    def __enter__(self) -> Self:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="qj", ignore_cleanup_errors=True)))
        try:
            for number, name in enumerate(self._names):
                place = folder / str(number)
                place.mkdir()
                case = Case(way=name, stamps=str(place / "starts"), **self._options)  # type: ignore[arg-type]
                self._runners.append(self._stack.enter_context(_Runner(case, place, self._python)))
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self, on_look: Callable[[float], None] = lambda _: None) -> None:
        """Set up, measure, and return when the time is over.

        Ways that run side by side share the period between them: were all to wake at the same
        instant, each would be as late as the others are slow.

        Args:
            on_look: Called a few times a second with the seconds measured so far, negative before the first tick.
        """
        self._await_set_up(on_look)
        self._origin_ns = -(-(time.time_ns() + LEAD_NS) // self._period_ns) * self._period_ns
        for number, runner in enumerate(self._runners):
            apart_ms = self._period_ns * number // len(self._runners) // NS_PER_MS
            runner.go(self._origin_ns + apart_ms * NS_PER_MS)
        self._sleep_until(self._origin_ns, on_look)
        for runner in self._runners:
            runner.meter()
        self._sleep_until(self._origin_ns + round(self._seconds * NS_PER_S), on_look)
        self._used = [runner.used() for runner in self._runners]
        end_ns = self._runners[-1].origin_ns + round(self._seconds * NS_PER_S)
        self._sleep_until(end_ns + min(self._period_ns, LATE_NS), on_look)

    def results(self) -> list[Recorded]:
        """Return what there is so far; the processes end with it."""
        now_ns = time.time_ns()
        used = self._used or [runner.used() for runner in self._runners]  # before any of them ends
        for runner in self._runners:
            runner.end()
        return [runner.recorded(now_ns, usage) for runner, usage in zip(self._runners, used, strict=True)]

    def _sleep_until(self, until_ns: int, on_look: Callable[[float], None]) -> None:
        while (left_ns := until_ns - time.time_ns()) > 0 and any(runner.is_running for runner in self._runners):
            on_look((time.time_ns() - self._origin_ns) / NS_PER_S)
            time.sleep(min(LOOK_S, left_ns / NS_PER_S))

    def _await_set_up(self, on_look: Callable[[float], None]) -> None:
        """Wait for the ways that can be set up; of the others `recorded` tells."""
        deadline = time.monotonic() + SET_UP_S
        with selectors.DefaultSelector() as selector:
            for runner in self._runners:
                selector.register(runner.output, selectors.EVENT_READ, runner)
            while selector.get_map() and time.monotonic() < deadline:
                on_look(-1.0)
                for key, _ in selector.select(LOOK_S):
                    runner = key.data
                    runner.is_set_up = ready_line(os.read(runner.output, 4096))
                    selector.unregister(runner.output)


class _Runner:
    """The process of one way."""

    def __init__(self, case: Case, folder: Path, python: str) -> None:
        self._case, self._folder, self._python = case, folder, python
        self.is_set_up = self._is_ended = False
        self.origin_ns = 0
        self._before: Usage | None = None

    def __enter__(self) -> Self:
        environment = {
            **os.environ,
            VARIABLE: self._case.to_environment(),
            "TMPDIR": str(self._folder),  # what its processes leave behind goes with them
        }
        with (self._folder / "errors").open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603  # our own interpreter
                [self._python, "-P", str(MAIN)],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=self._folder,
                start_new_session=True,  # Ctrl-C is for whoever measures
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.end()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):  # it holds what a process that died did not take
                    pipe.close()

    @property
    def output(self) -> int:
        assert self._process.stdout is not None  # noqa: S101  # it was asked for
        return self._process.stdout.fileno()

    @property
    def is_running(self) -> bool:
        return self.is_set_up and self._process.poll() is None

    def go(self, origin_ns: int) -> None:
        """Tell the first tick."""
        assert self._process.stdin is not None  # noqa: S101  # likewise
        self.origin_ns = origin_ns
        if self.is_running:
            with suppress(BrokenPipeError):  # it has just died
                os.write(self._process.stdin.fileno(), f"{origin_ns}\n".encode())

    def meter(self) -> None:
        """Begin to count what the processes take."""
        self._before = usage_of(self._process.pid)

    def used(self) -> Usage | None:
        """Return what they have taken since, and hold."""
        if self._before is None or not self.is_running:
            return None
        after = usage_of(self._process.pid)
        return None if after is None else after.since(self._before)

    def end(self) -> None:
        """Kill the process and all that it has started; idempotent."""
        if self._is_ended:
            return
        self._is_ended = True
        self._process.poll()
        with suppress(ProcessLookupError):  # the process may have died, and left others of its group
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def recorded(self, now_ns: int, usage: Usage | None) -> Recorded:
        """Return what the process has left by *now_ns*."""
        seconds = max(0.0, (now_ns - self.origin_ns) / NS_PER_S) if self.origin_ns else 0.0
        found = Recorded(self._case.way, self.origin_ns, min(seconds, self._case.seconds))
        if self._process.returncode != -signal.SIGKILL or not self.is_set_up:
            found.error = self._what_went_wrong()
        with suppress(FileNotFoundError):
            found.starts_ns = _stamps(Path(self._case.stamps))
        if usage is not None:
            found.cpu_s, found.memory_bytes = usage.cpu_ns / NS_PER_S, usage.memory_bytes
        return found

    def _what_went_wrong(self) -> str:
        lines = (self._folder / "errors").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        if lines:
            return lines[-1]
        return "it ended before its time" if self.is_set_up else "it was not set up in time"


def _stamps(path: Path) -> list[int]:
    """Return the starts in order; those of several processes may stand in any."""
    written: Sequence[tuple[int]] = list(struct.iter_unpack("<q", path.read_bytes()))
    return sorted(stamp for (stamp,) in written)
