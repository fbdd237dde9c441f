"""What the exit code of a process says, in one set of words; as Python has it, a negative one is a signal."""

from __future__ import annotations

import signal

__all__ = ["how_ended", "name_of"]


def name_of(code: int) -> str:
    """Return *code* in words: "exit code 3", or the name of the signal that ended the process, "SIGKILL"."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def how_ended(code: int) -> str:
    """Return how a process ended, as the words behind "has ended": "with exit code 3", "by SIGKILL"."""
    return f"{'by' if code < 0 else 'with'} {name_of(code)}"
