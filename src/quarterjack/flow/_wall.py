"""Alarms for gates that go by the wall clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from quarterjack._durations import NS_PER_S
from quarterjack.timer import Timer

if TYPE_CHECKING:
    from quarterjack.clock import Clock, ClockJump

__all__ = ["WallAlarm"]

SHORTEST_NS: Final = 1_000
"""An instant that comes within a nanosecond would ring now, still be ahead for a gate that reckons in floats, and be
set anew without end where time stands still meanwhile (a virtual clock)."""


class WallAlarm:
    """Calls back once in *delay_s* seconds of the wall clock, and whenever that clock is set or the machine slept.

    On the running loop's precise timer, which is kept open as long as this is.
    """

    __slots__ = ("_callback", "_handle", "_timer", "_unlisten")

    def __init__(self, clock: Clock, delay_s: float, callback: Callable[[], None]) -> None:
        self._callback = callback
        self._timer = Timer.shared(clock)
        self._unlisten = self._timer.on_jump(self._on_jump)
        self._handle = self._timer.call_at(clock.now_ns() + max(round(delay_s * NS_PER_S), SHORTEST_NS), callback)

    def close(self) -> None:
        """Never call back. Once, as the timer is given back."""
        self._handle.cancel()
        self._unlisten()
        self._timer.release()

    def _on_jump(self, jump: ClockJump) -> None:
        self._callback()
