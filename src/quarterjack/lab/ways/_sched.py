"""The standard library's `sched`: one event at a time, and all of them in advance."""

from __future__ import annotations

import sched
import time

from ._case import Case
from ._catalog import way

__all__ = ["sched_advance", "sched_one"]


@way("sched-one", "sched, one by one", "interval", "each event enters the next one a period later, then runs the body")
def sched_one(case: Case) -> None:
    """Enter the next event from within the one that runs."""
    scheduler = sched.scheduler(time.time, time.sleep)

    def turn() -> None:
        scheduler.enter(case.period_s, 1, turn)
        case.run_body()

    case.go()
    case.wait_for_origin()
    turn()
    scheduler.run()


@way("sched-advance", "sched, in advance", "grid", "all events are entered before the first one runs, each at its tick")
def sched_advance(case: Case) -> None:
    """Enter every tick of the run."""
    scheduler = sched.scheduler(time.time, time.sleep)
    case.go()
    for tick in range(case.count):
        scheduler.enterabs((case.origin_ns + tick * case.period_ns) / 1e9, 1, case.run_body)
    scheduler.run()
    time.sleep(case.seconds)
