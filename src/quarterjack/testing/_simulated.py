"""What a simulation tells: how schedules, executors and seconds fared. Made by `simulate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from quarterjack.errors import InvalidOption
from quarterjack.triggers import ClockChange

__all__ = ["Collision", "ExecutorLoad", "ScheduleLoad", "Simulation", "TooManyFires"]


class TooManyFires(InvalidOption):
    """The schedules fire too often to play so long a time; the text names the busiest and how long would do."""

    def __init__(self, most: int, busiest: str, fits_s: float) -> None:
        super().__init__(most, busiest, fits_s)
        self.most, self.busiest, self.fits_s = most, busiest, fits_s

    def __str__(self) -> str:
        return (
            f"the schedules fire more than {self.most:,} times in that time, most of all {self.busiest!r}; "
            f"no more are played, which is enough for {self.fits}"
        )

    @property
    def fits(self) -> str:
        """How long a time can be simulated, as a duration: ``"55h"``."""
        whole = int(self.fits_s)
        return f"{whole // 3_600}h" if whole >= 7_200 else f"{whole // 60}m" if whole >= 120 else f"{whole}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleLoad:
    """What became of one schedule. Waits and work are in seconds.

    Attributes:
        id: The schedule.
        runs: Bodies that began.
        skipped: Fire times left out by its overlap policy, or by a unique key.
        missed: Runs that waited beyond their start deadline.
        cancelled: Runs that a newer one cancelled.
        refused: Runs that their flow turned away: they waited too long, or a gate refused them.
        waiting: Runs that had not begun at the end.
        longest_wait_s: From when a run was due to when its body began, or to the end, at most.
        busy_s: How long its bodies ran in all.
    """

    id: str
    runs: int = 0
    skipped: int = 0
    missed: int = 0
    cancelled: int = 0
    refused: int = 0
    waiting: int = 0
    longest_wait_s: float = 0.0
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutorLoad:
    """How full an executor was: the most bodies at once beside its slots, and when that was first so."""

    name: str
    slots: int
    peak: int
    peak_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collision:
    """Several starts within one second.

    Attributes:
        at: The first second in which these schedules started together.
        starts: How many starts there were in that second.
        schedules: Which.
        seconds: In how many seconds of the simulation it was so.
    """

    at: datetime
    starts: int
    schedules: tuple[str, ...]
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What came out of `simulate`; instants are in UTC.

    Attributes:
        start: When it began.
        end: When it ended, inclusive.
        assumed: For each task how many seconds its body was assumed to take.
        schedules: What became of each, by id.
        executors: How full each was.
        collisions: Seconds in which several runs started: each set of schedules once, the most starts first.
        busiest: The minutes with the most starts, and how many.
        clock_changes: Which schedule met which day on which a clock is set.
        parked: Schedules whose triggers raised, and what.
        unplayed: Strategies of flows that took no part, and why.
    """

    start: datetime
    end: datetime
    assumed: Mapping[str, float]
    schedules: tuple[ScheduleLoad, ...]
    executors: tuple[ExecutorLoad, ...]
    collisions: tuple[Collision, ...]
    busiest: tuple[tuple[datetime, int], ...]
    clock_changes: tuple[tuple[str, ClockChange], ...]
    parked: Mapping[str, str]
    unplayed: Mapping[str, str]

    @property
    def runs(self) -> int:
        """Bodies that began, of all schedules."""
        return sum(one.runs for one in self.schedules)
