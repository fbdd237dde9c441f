"""The places of one process: its executors, its tasks made ready to run on them, and the lanes that lead there."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator

from quarterjack.executors import CommandExecutor, Executor, Home, LoopExecutor, ProcessExecutor, ThreadExecutor
from quarterjack.flow.batch import Batch
from quarterjack.flow.flow import Flow
from quarterjack.model import TICK_LANE, JobRecord, lane_suffix
from quarterjack.task import TaskDefinition

from .batch_executor import BatchExecutor
from .prepare import PreparedTask, Preparer
from .worker_host import Lanes, Prepared

__all__ = ["Places"]

log = logging.getLogger("quarterjack")


class Places:
    """Where the bodies of one app run.

    Args:
        preparer: Makes tasks ready to run.
        concurrency: Slots on the app's loop.
        on_new: Told when there is one more executor.
        runs_bodies: False in a process that only asks, or only fires: it connects to no cluster.
    """

    def __init__(
        self, preparer: Preparer, concurrency: int, on_new: Callable[[], None], *, runs_bodies: bool = True
    ) -> None:
        self._preparer = preparer
        self._on_new = on_new
        self._runs_bodies = runs_bodies
        self.loop = LoopExecutor(concurrency)
        self.own: dict[str, Executor] = {"loop": self.loop, "thread": ThreadExecutor()}
        self.executors: set[Executor] = set(self.own.values())
        self.prepared: dict[str, PreparedTask] = {}
        self._stopped: set[Executor] = set()
        self._batches: dict[str, BatchExecutor] = {}
        self._starting = asyncio.Lock()

    def prepare(self, definition: TaskDefinition) -> PreparedTask:
        """Make a task ready to run."""
        prepared = self._preparer.prepare(definition, self.named(definition.options.executor, definition))
        self.prepared[definition.name] = prepared
        return prepared

    async def start(self, home: Home) -> None:
        """Get the executors ready, those of prepared tasks too."""
        named = {task.executor for task in self.prepared.values() if self._is_ours(task.executor)}
        for executor in {*self.executors, *named}:
            await executor.start(home)
            self.executors.add(executor)
        for executor in named:
            await executor.warm()

    def _is_ours(self, executor: Executor) -> bool:
        return self._runs_bodies or not executor.is_remote

    async def ensure(self, executor: Executor | str | None, home: Home) -> None:
        """Start an executor that only single jobs or schedules name."""
        if isinstance(executor, str):
            executor = self._own(executor)
        if executor is None or executor in self.executors or not self._is_ours(executor):
            return
        async with self._starting:
            if executor not in self.executors:
                await executor.start(home)
                self.executors.add(executor)
                await executor.warm()
                self._on_new()

    async def stop(self, grace_s: float) -> None:
        """Stop each executor once, side by side, so that all share one grace; a shared one counts its apps."""
        executors = tuple(self.executors)
        self._stopped.update(executors)
        self.executors.clear()
        await asyncio.gather(*(_stop(executor, grace_s) for executor in executors))

    async def all_settled(self) -> None:
        """Tell executors that were stopped that all outcomes are recorded that will be."""
        executors = tuple(self._stopped)
        self._stopped.clear()
        for executor in executors:
            try:
                await executor.all_settled()
            except Exception:  # a third party's, as in `_stop`
                log.exception("executor %s raised when all was settled", executor.name)

    def flush_batches(self) -> None:
        """Let batches begin that wait for more items."""
        for executor in self._batches.values():
            executor.flush()

    # -- which ---------------------------------------------------------------------------

    def lanes(self, parked: Collection[str] = ()) -> list[Lanes]:
        """Return each executor with the lanes of jobs that go to it, less *parked* tasks; see `stores.base.Want`."""
        own = {executor: name for name, executor in self.own.items()}
        found: list[Lanes] = []
        for executor in self.executors:
            submitted = frozenset(self._lanes_of(executor, lane_suffix(own.get(executor, executor)), parked))
            ticks = frozenset(TICK_LANE + lane for lane in submitted)
            found.append(Lanes(executor, submitted | ticks, ticks))
        return found

    def _lanes_of(self, executor: Executor, suffix: str, parked: Collection[str]) -> Iterator[str]:
        for name, prepared in self.prepared.items():
            if name in parked:
                continue
            yield name + suffix
            if prepared.executor is executor:
                yield name

    def named(self, executor: Executor | str | None, definition: TaskDefinition) -> Executor:
        """Return the executor an option names; None is the loop for coroutines, else a thread."""
        if executor is None and definition.batch is not None:
            return self._of_batches(definition.name, definition.batch, definition.batch_flow)
        if executor is None:
            executor = "loop" if definition.is_coroutine else "thread"
        return self._own(executor) if isinstance(executor, str) else executor

    def _own(self, name: str) -> Executor:
        """Return one of the app's own executors; those of processes and commands are made when they are first named."""
        found = self.own.get(name)
        if found is None:
            found = self.own[name] = ProcessExecutor() if name == "process" else CommandExecutor()
        return found

    def _of_batches(self, task: str, batch: Batch, flow: Flow | None) -> Executor:
        executor = self._batches.get(task)
        if executor is None:
            executor = self._batches[task] = BatchExecutor(task, batch, flow)
        return executor

    def of(self, record: JobRecord, prepared: Prepared) -> Executor:
        """Return where this job runs, if its options name a place of their own."""
        return self.named(record.options.executor, prepared.definition)


async def _stop(executor: Executor, grace_s: float) -> None:
    try:
        await executor.stop(grace_s)
    except Exception:  # a third party's executor runs here; the others, the store and the timer are still ended
        log.exception("executor %s raised while it was stopped", executor.name)
