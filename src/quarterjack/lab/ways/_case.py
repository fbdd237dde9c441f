"""One case: every how many seconds, with which body, and where starts are noted.

What a start costs is the same for every way: one reading of the wall clock, the
clock that schedules promise to keep to, and one write of eight bytes to a file. It
stands there at once, so that a process may be killed at any moment."""

from __future__ import annotations

import json
import os
import random
import struct
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Final

__all__ = ["BODIES", "NS_PER_S", "VARIABLE", "Case", "ready_line"]

NS_PER_S: Final = 1_000_000_000
VARIABLE: Final = "QUARTERJACK_LAB_CASE"
BODIES: Final = {
    "none": "nothing",
    "sleep": "waits for 0 to 0.9 of the period, on a loop by await",
    "cpu": "computes for 0.3 of the period, in Python",
    "blocking": "blocks its thread for 0 to 0.9 of the period, on a loop the loop",
}
SLEEP_SHARE: Final = 0.9
CPU_SHARE: Final = 0.3
READY: Final = "ready"
TOLD: Final = ("way", "period_ns", "seconds", "body", "stamps", "loop", "gc")


@dataclass(slots=True)
class Case:
    """What one way is to do. The process that measures makes it, the way's own reads it from its environment.

    Attributes:
        way: The way's name.
        period_ns: The time from one tick to the next.
        seconds: How long it goes on.
        body: One of `BODIES`.
        stamps: The file of the starts.
        loop: The event loop of those ways that have one: ``asyncio`` or ``uvloop``.
        gc: Python's garbage collector: ``on`` or ``off``.
        origin_ns: The first tick by the wall clock; known once `go` has returned.
        answers: The descriptor on which `go` says that the way is set up.
        next_order: What it then waits for: the first tick, as whoever measures has chosen it.
    """

    way: str
    period_ns: int
    seconds: float
    body: str
    stamps: str
    loop: str = "asyncio"
    gc: str = "on"
    origin_ns: int = 0
    answers: int = 1
    next_order: Callable[[], int] = field(default=int, repr=False)
    _file: int | None = field(default=None, repr=False)
    _starts: int = 0

    # -- between the processes -------------------------------------------------------

    def to_environment(self) -> str:
        """Return the case as the value of the variable `VARIABLE`."""
        told = asdict(self)
        return json.dumps({name: told[name] for name in TOLD})

    @classmethod
    def from_environment(cls) -> Case:
        """Return the case that this process was started with, or the one that started it.

        Raises:
            KeyError: If there is none.
        """
        return cls(**json.loads(os.environ[VARIABLE]))

    def go(self) -> None:
        """Say that the way is set up, and return when the first tick has been chosen; it is still to come."""
        os.write(self.answers, f"{READY}\n".encode())
        self.origin_ns = self.next_order()

    # -- time ------------------------------------------------------------------------

    @property
    def period_s(self) -> float:
        """The period in seconds."""
        return self.period_ns / NS_PER_S

    @property
    def count(self) -> int:
        """How many ticks there are."""
        return round(self.seconds * NS_PER_S) // self.period_ns

    def until_origin_s(self) -> float:
        """Return how many seconds are left until the first tick."""
        return (self.origin_ns - time.time_ns()) / NS_PER_S

    def wait_for_origin(self) -> None:
        """Sleep until the first tick."""
        time.sleep(max(0.0, self.until_origin_s()))

    def monotonic_origin(self, monotonic_s: float) -> float:
        """Return the first tick on a monotonic clock that reads *monotonic_s* now."""
        return monotonic_s + self.until_origin_s()

    # -- the body --------------------------------------------------------------------

    def run_body(self, number: int | None = None) -> None:
        """Note the start, then do what the body does.

        Args:
            number: Which start it is, where the process does not count them itself.
        """
        pause_s = self._begin(number)
        if self.body == "cpu":
            _compute(CPU_SHARE * self.period_s)
        elif pause_s:
            time.sleep(pause_s)

    async def run_body_async(self) -> None:
        """As `run_body`, for ways that run on a loop: the body ``sleep`` awaits, the others do not."""
        if self.body != "sleep":
            self.run_body()
            return
        import asyncio  # noqa: PLC0415  # a way without a loop must not be measured with it

        await asyncio.sleep(self._begin(None))

    def _begin(self, number: int | None) -> float:
        """Note the start; return how many seconds the body is to sleep."""
        now_ns = time.time_ns()
        if self._file is None:
            self._file = os.open(self.stamps, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(self._file, struct.pack("<q", now_ns))
        self._starts += 1
        if self.body not in {"sleep", "blocking"}:
            return 0.0
        # The n-th body takes equally long in every way.
        draw = random.Random(self._starts if number is None else number).random()  # noqa: S311  # no secret
        return SLEEP_SHARE * self.period_s * draw


def ready_line(line: bytes) -> bool:
    """Say whether *line* is how a process says that it is set up."""
    return line.decode(errors="replace").strip() == READY


def _compute(seconds: float) -> None:
    """Compute for so long by the thread's own CPU time: the same work however busy the machine is."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        sum(range(500))
