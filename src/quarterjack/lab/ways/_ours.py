"""quarterjack's own ways, which stand in `quarterjack.lab.own`: there they may import it."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from ._case import Case
from ._catalog import way

__all__ = ["on_loop", "on_process", "on_thread"]

OWN: Final = "quarterjack.lab.own"


@way("ours-loop", "quarterjack, loop", "grid", "a coroutine with Every(seconds=T), memory store", is_ours=True)
def on_loop(case: Case) -> None:
    """Run a coroutine on the loop."""
    import_module(OWN).on_loop(case)


@way("ours-thread", "quarterjack, thread", "grid", "a plain function with Every(seconds=T), in a thread", is_ours=True)
def on_thread(case: Case) -> None:
    """Run a plain function, which goes to a thread."""
    import_module(OWN).on_thread(case)


@way("ours-process", "quarterjack, process", "grid", "a plain function with executor='process'", is_ours=True)
def on_process(case: Case) -> None:
    """Run a plain function in a process of the app's pool."""
    import_module(OWN).on_process(case)
