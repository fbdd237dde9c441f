"""`Pressure`: when this process or its machine is the one that is overloaded."""

from __future__ import annotations

from typing import Final

from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import number
from quarterjack._signatures import Explained

from ._load import Share, cpu_source, memory_source, stall_source

__all__ = ["Pressure"]


class Pressure(Explained):
    """How much this process and its machine may be strained before an `AdaptiveLimit` lowers itself.

    Remote services are not all that gets slower when too much is begun at once. It is
    read once per window, in some 50 µs; the lag of the event loop is measured by one timer
    per window, while jobs run.

    Args:
        max_lag: Seconds by which a timer of the event loop may ring late; None does not look.
        max_cpu: Share of the CPU time, above 0 to 1: of the container's quota (Linux,
            control groups version 2), else of the machine, by psutil (extra ``system``).
        max_memory: Share of the memory: of the container's limit, else of the machine.
        max_stall: Share of the last 10 s in which something waited for a CPU or for
            memory (Linux, PSI). Says "too much" where *max_cpu* only says "much".

    Raises:
        InvalidOption: Naming the option, the value and the range; or that this machine does not tell.
        MissingExtra: If it takes psutil to tell.
    """

    def __init__(
        self,
        *,
        max_lag: Seconds | None = 0.1,
        max_cpu: float | None = None,
        max_memory: float | None = None,
        max_stall: float | None = None,
    ) -> None:
        self.max_lag_s: Final = None if max_lag is None else to_seconds(max_lag, "max_lag", exclusive=True)
        sources = {
            "cpu": (max_cpu, "max_cpu", cpu_source),
            "memory": (max_memory, "max_memory", memory_source),
            "stall": (max_stall, "max_stall", stall_source),
        }
        self._limits: dict[str, tuple[float, Share]] = {
            what: (float(number(limit, field, 0.0, 1.0, exclusive=True)), source())
            for what, (limit, field, source) in sources.items()
            if limit is not None
        }

    def reason(self, lag_s: float) -> str | None:
        """Return in words what is strained; None if nothing is.

        Args:
            lag_s: By how many seconds the event loop was late at most since it was asked last.
        """
        if self.max_lag_s is not None and lag_s > self.max_lag_s:
            return f"the event loop is {lag_s:.3g} s late"
        for what, (limit, source) in self._limits.items():
            share = source()
            if share > limit:
                return f"{what} at {share:.0%}"
        return None
