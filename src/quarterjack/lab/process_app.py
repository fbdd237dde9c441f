"""The app of the way ``ours-process``: a global of a module, for the processes that run its bodies import it.

The case comes by the environment, as it does to the process of the way itself."""

from __future__ import annotations

from functools import cache

from quarterjack import Quarterjack

from .ways._case import Case

__all__ = ["app", "body", "warm_up"]

app = Quarterjack()
case = cache(Case.from_environment)


@app.task(executor="process")
def body() -> None:
    """Run one body."""
    case().run_body()


@app.task(executor="process")
def warm_up() -> None:
    """Have a process of the pool started: that is set-up, and no part of a tick."""
