"""Which ways there are: their names, what they promise, and what they need."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module, util
from typing import Final, Literal

from ._case import Case

__all__ = ["MODULES", "Promise", "Way", "all_ways", "find", "way"]

Promise = Literal["grid", "interval"]
MODULES: Final = {
    "_machine": ("machine",),
    "_sleeping": ("sleep-loop", "sleep-rest", "event-wait", "timer-chain"),
    "_sched": ("sched-one", "sched-advance"),
    "_grid": ("grid-main", "grid-thread"),
    "_grid_process": ("grid-process",),
    "_asyncio": ("asyncio-sleep", "asyncio-deadline"),
    "_schedule": ("schedule",),
    "_apscheduler": ("apscheduler",),
    "_celery": ("celery-beat", "ours-celery"),
    "_ours": ("ours-loop", "ours-thread", "ours-process"),
}
"""The modules and the ways in them, in the order of the tables. A process imports the one that it needs."""


@dataclass(frozen=True, slots=True)
class Way:
    """One way.

    Attributes:
        name: As ``--way`` takes it.
        title: As tables show it.
        promise: ``grid``: a start for each tick of a fixed grid. ``interval``: each start a
            period after the one before, so that the n-th is promised at first + n periods.
        about: How it is done, in a sentence.
        run: The function, run in a process of its own.
        needs: The packages beyond the standard library: as they are imported, and as they are installed.
        system: The ``sys.platform`` it is bound to; empty for any.
        is_ours: Whether it is quarterjack's.
        is_peer: False for what is no way to run anything, but the measure of the machine itself.
    """

    name: str
    title: str
    promise: Promise
    about: str
    run: Callable[[Case], None]
    needs: tuple[tuple[str, str], ...] = ()
    system: str = ""
    is_ours: bool = False
    is_peer: bool = True

    @property
    def why_not(self) -> str:
        """Why it cannot run here, with the line that helps; empty where it can."""
        if self.system and not sys.platform.startswith(self.system):
            return f"needs {self.system.capitalize()}"
        missing = dict.fromkeys(line for module, line in self.needs if util.find_spec(module) is None)
        return f"not installed: pip install {' '.join(missing)}" if missing else ""


_FOUND: Final[dict[str, Way]] = {}


def way(
    name: str,
    title: str,
    promise: Promise,
    about: str,
    *,
    needs: tuple[tuple[str, str], ...] = (),
    system: str = "",
    is_ours: bool = False,
    is_peer: bool = True,
) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Register a function of a `Case` as a way; the arguments are the attributes of `Way`."""

    def register(run: Callable[[Case], None]) -> Callable[[Case], None]:
        _FOUND[name] = Way(name, title, promise, about, run, needs, system, is_ours, is_peer)
        return run

    return register


def find(name: str) -> Way:
    """Return the way of this name.

    Raises:
        KeyError: If there is none.
    """
    if name not in _FOUND:
        for module, names in MODULES.items():
            if name in names:
                import_module(f"{__package__}.{module}")
    return _FOUND[name]


def all_ways() -> Iterator[Way]:
    """Yield every way, in the order of the tables."""
    for names in MODULES.values():
        yield from map(find, names)
