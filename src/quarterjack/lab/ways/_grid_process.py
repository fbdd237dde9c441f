"""The grid with a new process for every body."""

from __future__ import annotations

import multiprocessing

from ._case import Case
from ._catalog import way
from ._grid import ticks_of

__all__ = ["grid_process"]


@way("grid-process", "grid, a process each", "grid", "sleeps until the next tick, runs the body in a new process")
def grid_process(case: Case) -> None:
    """Start a process per tick, as the platform does by default."""
    case.go()
    for tick in ticks_of(case):
        multiprocessing.active_children()  # collects those that have ended
        multiprocessing.Process(target=work, args=(tick + 1,)).start()


def work(number: int) -> None:
    """Run one body: what the new process does."""
    Case.from_environment().run_body(number)
