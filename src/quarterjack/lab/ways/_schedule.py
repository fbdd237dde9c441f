"""The package ``schedule``, as its front page shows it."""

from __future__ import annotations

import time
from importlib import import_module

from ._case import Case
from ._catalog import way

__all__ = ["schedule_package"]


@way(
    "schedule",
    "schedule",
    "interval",
    "every(T).seconds.do(body), and run_pending() each second",
    needs=(("schedule", "schedule"),),
)
def schedule_package(case: Case) -> None:
    """Ask each second, or each period if that is shorter, what is pending."""
    schedule = import_module("schedule")
    case.go()
    case.wait_for_origin()
    case.run_body()
    schedule.every(case.period_s).seconds.do(case.run_body)
    while True:
        schedule.run_pending()
        time.sleep(min(1.0, case.period_s))
