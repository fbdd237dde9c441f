"""What the process of a way does: hold on to the one that started it, then run the way.

The process is at the other end of a pipe, its standard input. When the pipe ends,
whoever measures is gone, however it went: the whole group ends, and no way runs on
in the background of a machine where somebody pressed Ctrl-C."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from queue import SimpleQueue

from ._case import Case
from ._catalog import find

__all__ = ["main"]


def main() -> None:
    """Run the way that the environment names."""
    case = Case.from_environment()
    if case.gc == "off":
        gc.disable()
    # What a way prints, and what it starts inherits, must not get between us and whoever measures.
    answers, orders = os.dup(1), os.dup(0)
    os.dup2(2, 1)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  # its descriptor is what is wanted
        os.dup2(nothing.fileno(), 0)
    origins = SimpleQueue[int]()
    threading.Thread(target=_listen, args=(orders, origins.put), name="leash", daemon=True).start()
    case.answers, case.next_order = answers, origins.get
    find(case.way).run(case)


def _listen(orders: int, take: Callable[[int], None]) -> None:
    """Pass on what whoever measures says, and end all that this process has started when nobody is there any more."""
    while order := os.read(orders, 4096):
        take(int(order))
    os.killpg(0, signal.SIGKILL)
