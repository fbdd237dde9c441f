"""The flows of an app, copied for a simulation: the same gates for the same jobs, which have seen none yet.

Orders and gates are asked as they are in the app, those of the user's own too.
What surrounds a body is left out, for there is none: a wrap, and a fallback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from quarterjack.clock import Clock
from quarterjack.flow.base import Gate, Order
from quarterjack.flow.flow import Flow
from quarterjack.flow.hedge import Hedge

__all__ = ["StandinFlows"]


class StandinFlows:
    """Copies of flows. Those that share a gate share its copy.

    Args:
        clock: That of the simulation.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._flows: dict[Flow, Flow] = {}
        self._parts: dict[Gate | Order, Any] = {}
        self.unplayed: dict[str, str] = {}
        """Which strategies take no part, by name, and why."""

    def by_queue(self, flows: Mapping[str, Flow]) -> dict[str, Flow]:
        """Return the copies of the flows of queues."""
        return {queue: self.copy(flow) for queue, flow in flows.items()}

    def copy(self, flow: Flow) -> Flow:
        """Return the copy of *flow*, the same one each time."""
        found = self._flows.get(flow)
        if found is None:
            found = self._flows[flow] = self._copied(flow)
        return found

    def _copied(self, flow: Flow) -> Flow:
        for wrap in flow.wraps:
            if not isinstance(wrap, Hedge):  # whose second body would take as long as the first one
                self.unplayed[type(wrap).__name__] = "it surrounds bodies, and none is run"
        lively: list[Any] = [*flow.gates, flow.order]
        parts = [*map(self._part, lively), flow.retry, flow.timeout, flow.deadline]
        return Flow(
            *(part for part in parts if part is not None),
            max_queue=flow.max_queue,
            overflow=flow.overflow,
            max_wait=flow.max_wait_s,
        )

    def _part(self, part: Gate | Order | None) -> Any:
        """Return the copy of a gate or an order; None if there is none to be had."""
        if part is not None and part not in self._parts:
            self._parts[part] = None
            try:
                self._parts[part] = part._anew(self._clock)
            except Exception as error:  # what holds a user's lock or socket, say; its own is not to be used up here
                name = part.label if isinstance(part, Gate) else type(part).__name__
                self.unplayed[name] = f"it cannot be copied, {type(error).__name__}: {error}"
        return None if part is None else self._parts[part]
