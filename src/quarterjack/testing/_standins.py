"""Stand-ins for a simulation: bodies that are nothing but a duration, and executors that only count them.

No code of the app's is run: no body, dependency, wrapper, callback or hook."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from quarterjack.clock import Clock
from quarterjack.errors import ExecutorFull
from quarterjack.executors import Executor
from quarterjack.executors.base import Call, Capabilities, Home, Report
from quarterjack.injection import DependencyOverrides
from quarterjack.model import Outcome, OutcomeKind, RunOptions, Schedule
from quarterjack.runtime.prepare import Preparer
from quarterjack.task import TaskDefinition

from ._standin_flows import StandinFlows

__all__ = ["Assumed", "StandinExecutor", "Standins"]

_CAPABILITIES: Final = Capabilities(
    can_cancel_queued=True,
    can_interrupt=True,
    can_kill=True,
    can_report_start=True,
    can_report_progress=False,
    survives_worker_restart=False,
    submit_is_idempotent=False,
    runs_coroutines=True,
)


class Assumed:
    """A body: it takes so long, and does nothing."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing; an executor of this module never calls it."""


class StandinExecutor(Executor):
    """Holds a slot for as long as each body is assumed to take, and notes how many it held at most."""

    capabilities = _CAPABILITIES

    def __init__(self, name: str, slots: int) -> None:
        self.name = name
        self.slots = slots
        self.running: set[_Held] = set()
        self.peak = 0
        self.peak_at_ns = 0
        self.clock: Clock | None = None

    async def start(self, home: Home) -> None:
        self.clock = home.clock

    @property
    def free(self) -> int:
        return self.slots - len(self.running)

    def submit(self, call: Call, report: Report) -> _Held:
        if self.free <= 0:
            raise ExecutorFull(f"all {self.slots} slots of executor {self.name} are taken")
        held = _Held(self, call, report)
        self.running.add(held)
        if len(self.running) > self.peak and self.clock is not None:
            self.peak, self.peak_at_ns = len(self.running), self.clock.now_ns()
        report.began()
        return held

    async def stop(self, grace_s: float) -> None:
        del grace_s
        for held in tuple(self.running):
            held.cancel("the simulation is over")
        await asyncio.sleep(0)


class _Held:
    """A slot that is held; the handle the runtime has."""

    __slots__ = ("_executor", "_report", "_timer")

    def __init__(self, executor: StandinExecutor, call: Call, report: Report) -> None:
        self._executor, self._report = executor, report
        seconds = call.fn.seconds if isinstance(call.fn, Assumed) else 0.0
        if call.timeout_s is not None:
            seconds = min(seconds, call.timeout_s)
        self._timer = asyncio.get_running_loop().call_later(seconds, self._end, None)

    def _end(self, reason: str | None) -> None:
        self._executor.running.discard(self)
        self._report.finished(Outcome(OutcomeKind.DONE if reason is None else OutcomeKind.CANCELLED, reason=reason))

    def cancel(self, reason: str) -> None:
        """End it in the next turn, once."""
        if self in self._executor.running and not self._timer.cancelled():
            self._timer.cancel()
            asyncio.get_running_loop().call_soon(self._end, reason)


class Standins(Preparer):
    """An app's tasks, schedules and executors, copied for a simulation."""

    __slots__ = ("_seconds_of", "executors", "flows", "tasks")

    def __init__(
        self, tasks: Mapping[str, TaskDefinition], seconds_of: Callable[[str], float], flows: StandinFlows
    ) -> None:
        super().__init__(DependencyOverrides(), (), strict=False)
        self._seconds_of = seconds_of
        self.flows = flows
        self.executors: dict[object, StandinExecutor] = {}
        self.tasks = {name: self._task(definition) for name, definition in tasks.items()}

    def own(self, name: str, slots: int) -> StandinExecutor:
        """Return the stand-in of one of the app's own executors."""
        return self.executors.setdefault(name, StandinExecutor(name, slots))

    def row(self, row: Schedule) -> Schedule:
        """Return a schedule whose jobs run on stand-ins."""
        found = row.copy()
        found.payload = replace(row.payload, options=self._options(row.payload.options))
        return found

    def _task(self, definition: TaskDefinition) -> TaskDefinition:
        found = copy.copy(definition)
        found.callbacks, found.options = {}, self._options(definition.options)
        flow = definition.flow or definition.batch_flow
        found.flow = None if flow is None else self.flows.copy(flow)
        found.batch = found.batch_flow = None  # there are no bodies to share
        return found

    def _options(self, options: RunOptions) -> RunOptions:
        executor = options.executor
        if not isinstance(executor, Executor):
            return options
        known = self.executors.setdefault(executor, StandinExecutor(executor.name, executor.slots))
        return replace(options, executor=known)

    def wrapped(self, definition: TaskDefinition) -> tuple[Callable[..., Any], bool]:
        """Return the stand-in of a body."""
        return Assumed(self._seconds_of(definition.name)), definition.is_coroutine
