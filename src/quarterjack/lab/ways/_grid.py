"""Loops that sleep until the next tick of a fixed grid, and run the body at hand or in a thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from ._case import NS_PER_S, Case
from ._catalog import way

__all__ = ["grid_main", "grid_thread", "ticks_of"]


def ticks_of(case: Case) -> Iterator[int]:
    """Sleep until each tick and yield its number; ticks that have passed meanwhile are left out."""
    tick = 0
    while True:
        due_ns = case.origin_ns + tick * case.period_ns
        while (left_ns := due_ns - time.time_ns()) > 0:
            time.sleep(left_ns / NS_PER_S)
        yield tick
        tick = max(tick + 1, -(-(time.time_ns() - case.origin_ns) // case.period_ns))


@way("grid-main", "grid, main thread", "grid", "sleeps until the next tick of a fixed grid, runs the body itself")
def grid_main(case: Case) -> None:
    """Run each body between two sleeps."""
    case.go()
    for _ in ticks_of(case):
        case.run_body()


@way("grid-thread", "grid, a thread each", "grid", "sleeps until the next tick, runs the body in a new thread")
def grid_thread(case: Case) -> None:
    """Start a thread per tick."""
    case.go()
    for _ in ticks_of(case):
        threading.Thread(target=case.run_body).start()
