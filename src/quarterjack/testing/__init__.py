"""The testing kit: virtual time, what happened in it, faults, and the suite that stores must pass.

- `virtual_time` runs apps on a clock that jumps; the `World` it yields drives and tells.
- `VirtualClock` and `virtual_loop` are what it is made of, for code without an app.
- `simulate` plays an app's schedules without its bodies: collisions, waits, peaks, the nights when the clocks change.
- `faults` makes a store's calls fail, be late, or do their work and fail then.
- `quarterjack.testing.plugin` explains differences under pytest;
  `quarterjack.testing.strategies` (needs hypothesis) draws triggers;
  `quarterjack.testing.store_contract` (needs pytest and hypothesis) holds a store to its contract,
  `quarterjack.testing.executor_contract` (needs pytest) an executor.

Importing this package changes nothing and needs nothing but quarterjack."""

from __future__ import annotations

from ._clock import DEFAULT_START, VirtualClock
from ._loop import virtual_loop
from ._runs import Runs
from ._simulated import Collision, ExecutorLoad, ScheduleLoad, Simulation, TooManyFires
from .faults import Faults, faults
from .simulation import simulate
from .world import World, virtual_time

__all__ = [
    "DEFAULT_START",
    "Collision",
    "ExecutorLoad",
    "Faults",
    "Runs",
    "ScheduleLoad",
    "Simulation",
    "TooManyFires",
    "VirtualClock",
    "World",
    "faults",
    "simulate",
    "virtual_loop",
    "virtual_time",
]
