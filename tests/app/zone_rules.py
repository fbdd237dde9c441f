"""Rules of a zone, each with the fire times that brute force finds for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from quarterjack import Aligned, At, Cron, Every, Trigger
from quarterjack.triggers import Between, Calendar, Dates, Weekdays
from tests.oracles.walk import DAY, HOUR, MINUTE, Walk

__all__ = ["STEP", "Rule", "rules_of"]

STEP: Final = 5 * MINUTE
"""All these rules fire on it, in every zone: a year is walked in a tenth of a second."""
_EPOCH: Final = date(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class Rule:
    """A trigger, its fire times in a window, and whether it counts elapsed time."""

    name: str
    trigger: Trigger
    nominals: list[int]
    is_elapsed: bool
    most_jitter: int = 6 * HOUR
    """Longer than the distance of most fire times: no run is put off beyond the next."""


def day_of(wall: int) -> date:
    """Return the date of a wall time."""
    return _EPOCH + timedelta(days=wall // DAY)


def _named(hour: int, minute: int = 0) -> Callable[[int], bool]:
    return lambda wall: wall % DAY == hour * HOUR + minute * MINUTE


def _on(weekdays: set[int]) -> Callable[[int], bool]:
    return lambda wall: (wall // DAY + 4) % 7 in weekdays  # 1970 began on a Thursday; Sunday is 0


def _both(*predicates: Callable[[int], bool]) -> Callable[[int], bool]:
    return lambda wall: all(matches(wall) for matches in predicates)


def rules_of(walk: Walk) -> list[Rule]:
    """Return one rule of each kind in the walk's zone."""
    zone = walk.zone
    shown = dict(walk.steps)

    def every(period: int, phase: int = 0) -> list[int]:
        first = (walk.start - phase) // period + 1
        return list(range(phase + first * period, walk.end + 1, period))

    def fixed(matches: Callable[[int], bool]) -> list[int]:
        return walk.fire_times(matches, gap="run_after", fold="first")

    def elapsed(matches: Callable[[int], bool]) -> list[int]:
        return walk.fire_times(matches, gap="skip", fold="both")

    def kept(nominals: list[int], allows: Callable[[int], bool]) -> list[int]:
        return [at for at in nominals if allows(shown[at])]

    nine = fixed(_both(_named(9), _on({1, 2, 3, 4, 5})))
    half_past_two = fixed(_named(2, 30))
    halves = elapsed(lambda wall: wall % HOUR % (30 * MINUTE) == 0 and 1 <= wall % DAY // HOUR <= 3)
    start = day_of(walk.steps[0][1])
    holidays = [start + timedelta(days=n) for n in range(0, 400, 11)]
    last_days = fixed(_both(_named(0, 5), lambda wall: day_of(wall + DAY).day == 1))
    tenth_days = fixed(_both(_named(3), lambda wall: (day_of(wall) - start).days % 10 == 0))
    return [
        Rule("every-100m", Every(minutes=100), every(100 * MINUTE), True, 100 * MINUTE),
        Rule("every-4h-phase", Every(hours=4, phase=2100), every(4 * HOUR, 35 * MINUTE), True, 4 * HOUR),
        Rule(
            "aligned-150m",
            Aligned(minutes=150, tz=zone),
            elapsed(lambda wall: wall % DAY % (150 * MINUTE) == 0),
            True,
            150 * MINUTE,
        ),
        Rule("at-weekdays", At("09:00", on="mon-fri", tz=zone), nine, False),
        Rule("cron-night", Cron("30 2 * * *", tz=zone), half_past_two, False),
        Rule("cron-halves", Cron("*/30 1-3 * * *", tz=zone), halves, True),
        Rule("cron-last-day", Cron("5 0 L * *", tz=zone), last_days, False),
        Rule("calendar-10d", Calendar(days=10, at="03:00", start=start, tz=zone), tenth_days, False),
        Rule(
            "union",
            At("09:00", on="mon-fri", tz=zone) | Every(hours=3),
            sorted({*nine, *every(3 * HOUR)}),
            False,
        ),
        Rule(
            "union-elapsed",
            Aligned(hours=5, tz=zone) | Every(hours=4),
            sorted({*elapsed(lambda wall: wall % DAY % (5 * HOUR) == 0), *every(4 * HOUR)}),
            True,
        ),
        Rule(
            "filtered",
            Every(minutes=40) & Between("22:00", "04:30", tz=zone) & Weekdays("sat-tue", tz=zone),
            kept(
                kept(every(40 * MINUTE), lambda wall: wall % DAY >= 22 * HOUR or wall % DAY < 4 * HOUR + 30 * MINUTE),
                _on({6, 0, 1, 2}),
            ),
            True,
        ),
        Rule(
            "but-holidays",
            Cron("0 */2 * * *", tz=zone) - Dates(*holidays, tz=zone),
            kept(
                elapsed(lambda wall: wall % DAY % (2 * HOUR) == 0),
                lambda wall: day_of(wall) not in holidays,
            ),
            True,
        ),
    ]
