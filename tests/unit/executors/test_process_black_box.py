"""The public contract suite, held against processes."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from quarterjack._timerfd import PORTABLE
from quarterjack.executors import Executor, ProcessExecutor
from quarterjack.model import OutcomeKind
from quarterjack.testing.executor_contract import ExecutorBench, ExecutorContract
from tests.real_time import until

pytestmark = pytest.mark.slow  # each case starts processes
RACES = 10_000


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


async def test_ten_thousand_cancels_that_race_the_end_in_a_child(tmp_path: Path) -> None:
    """One answer each, whole or cancelled, no child lost: a cancel is on its way while the end is, both ways."""
    rng = Random(17)
    bench = ExecutorBench(ProcessExecutor, "plain", tmp_path)
    found: Counter[str] = Counter()
    turns = 0  # of the loop between hand-over and cancel, led to where as many are done as are cancelled

    async def race(executor: Executor, n: int) -> None:
        nonlocal turns
        handle, track = bench.begin(executor, "double", n)
        for _ in range(rng.randrange(2 * turns + 1)):
            await asyncio.sleep(0)
        is_open = track.outcome is None
        handle.cancel("race")
        outcome = await track.end()
        handle.cancel("too late")
        track.check()
        assert outcome.stopped
        assert outcome.kind is OutcomeKind.CANCELLED or (outcome.kind, outcome.result) == (OutcomeKind.DONE, 2 * n)
        is_done = outcome.kind is OutcomeKind.DONE
        found["hit" if not is_done else "raced" if is_open else "over"] += 1
        turns = max(0, turns + (-1 if is_done else 1))

    async with bench.started(2) as executor:
        assert isinstance(executor, ProcessExecutor)

        async def races(first: int) -> None:
            for n in range(first, RACES, executor.slots):
                await race(executor, n)
                if n % 4 < executor.slots:  # a cancel that was late is not to hit the next one there
                    assert (await bench.run(executor, "double", n)).result == 2 * n

        await bench.run(executor, "double", 1)
        before = executor.pids
        await asyncio.gather(*map(races, range(executor.slots)))
        assert before <= executor.pids
        await until(lambda: executor.free == executor.slots)
    assert found.total() == RACES
    assert min(found["hit"], found["raced"], found["over"]) > RACES // 100
