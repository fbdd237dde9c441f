"""The public contract suite, held against processes."""

from __future__ import annotations

import pytest

from quarterjack.executors import Executor, ProcessExecutor
from quarterjack.testing.executor_contract import ExecutorContract

pytestmark = pytest.mark.slow  # each case starts processes


class TestProcess(ExecutorContract):
    """Bodies in processes that are forked from a small one."""

    def make(self, slots: int) -> Executor:
        return ProcessExecutor(slots)
