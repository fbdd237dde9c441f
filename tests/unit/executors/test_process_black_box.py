"""The public contract suite, held against processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterjack._timerfd import PORTABLE
from quarterjack.executors import Executor, ProcessExecutor
from quarterjack.testing.executor_contract import ExecutorBench, ExecutorContract

pytestmark = pytest.mark.slow  # each case starts processes


class TestProcess(ExecutorContract):
    """Bodies in processes that are forked from a small one."""

    def make(self, slots: int) -> Executor:
        return ProcessExecutor(slots)


class Spawned(ExecutorContract):
    """Bodies in processes each of which is a new interpreter."""

    def make(self, slots: int) -> Executor:
        return ProcessExecutor(slots, start_method="spawn")


@pytest.mark.parametrize(
    "case", ["test_a_body_returns", "test_can_interrupt", "test_can_kill", "test_a_stop_answers_every_call"]
)
async def test_bodies_end_also_without_what_only_linux_has(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where neither the kernel ends children with their app nor forking is any good, as on macOS."""
    monkeypatch.setenv(PORTABLE, "1")
    contract = Spawned()
    await getattr(contract, case)(ExecutorBench(contract.make, "plain", tmp_path))
