"""The public contract suite, held against every executor of this process."""

from __future__ import annotations

from quarterjack.executors import Executor, LoopExecutor, LoopThread, ThreadExecutor
from quarterjack.testing.executor_contract import ExecutorContract


class TestLoop(ExecutorContract):
    """Bodies on the app's own loop."""

    kind = "coroutine"

    def make(self, slots: int) -> Executor:
        return LoopExecutor(slots)


class TestThread(ExecutorContract):
    """Plain functions in threads."""

    def make(self, slots: int) -> Executor:
        return ThreadExecutor(slots)


class TestLoopThread(ExecutorContract):
    """Bodies on a loop of its own, in a thread of its own."""

    kind = "coroutine"

    def make(self, slots: int) -> Executor:
        return LoopThread("contract", slots=slots)
