"""The expressions of case F and the walk every cron contender makes: fire time after fire time from one instant."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Final
from zoneinfo import ZoneInfo

from measure import Meter, answer, options, percentile

__all__ = ["EXPRESSIONS", "START", "measure_walks", "options_of_walk"]

EXPRESSIONS: Final = (
    "* * * * *",
    "*/5 9-17 * * mon-fri",
    "0 * * * *",
    "0 0 * * *",
    "30 2 1 * *",
    "0 12 * * sun",
    "15 3 1 1,4,7,10 *",
    "0 0 29 2 *",
)
START: Final = datetime(2026, 1, 1, tzinfo=UTC)


def options_of_walk() -> tuple[Any, Any]:
    """Return the options and the zone to walk in."""
    args = options(zone="UTC", steps=300, how="next")
    return args, UTC if args.zone == "UTC" else ZoneInfo(args.zone)


def measure_walks(args: Any, make: Callable[[str], Iterator[object]], note: str = "") -> None:
    """Walk every expression and print the CPU time per step; *make* returns an endless iterator over an expression.

    29 February comes once in four years: walks of rare dates are shorter.
    """
    per_step: list[float] = []
    per_make: list[float] = []
    for expression in EXPRESSIONS:
        steps = 20 if expression == "0 0 29 2 *" else args.steps
        making, walking = Meter(), Meter()
        making.start()
        fires = make(expression)
        next(fires)
        making.stop()
        walking.start()
        for _ in range(steps):
            next(fires)
        walking.stop()
        per_make.append(making.cpu_s * 1e6)
        per_step.append(walking.cpu_s / steps * 1e6)
    per_step.sort()
    metrics = {
        "us_per_next": percentile(per_step, 0.5),
        "least_us": per_step[0],
        "most_us": per_step[-1],
        "first_us": percentile(sorted(per_make), 0.5),
    }
    answer(args, metrics, note)
