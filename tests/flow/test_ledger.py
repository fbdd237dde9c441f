"""The account of the compositions accuses nobody who did as promised, and still sees who did not."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from quarterjack import JobState
from quarterjack.testing import VirtualClock

from .compositions import Plan, played
from .compositions_of_apps import AppPlay
from .compositions_of_batches import BatchPlay
from .ledger import Case, Ledger, Work
from .parts import part


class Account(Ledger):
    """Of jobs without gates, without a loop that would run them."""

    def __init__(self) -> None:
        super().__init__(VirtualClock("2026-03-02T09:00:00Z"), hedges=False)

    def submitted(self) -> Case:
        """Return a job that has just come."""
        case = self.come(Work(0), (), "manager")
        case.job = SimpleNamespace(state=JobState.SCHEDULED)
        return case

    def wait(self, seconds: float) -> None:
        self.clock.move_to(self.clock.monotonic_ns() + round(seconds * 1e9))

    @property
    def overtaken(self) -> list[str]:
        return [fault.partition(": ")[2] for fault in self.faults]


@pytest.mark.parametrize(("waited", "faults"), [(1.9, ["#1 overtook #0"]), (2.0, [])])
def test_a_job_may_be_overtaken_from_its_deadline_on(waited: float, faults: list[str]) -> None:
    """An app takes it out of its gates on time, and only then tells the store, which takes turns of the loop."""
    account = Account()
    account.deadline_s = 2.0
    account.submitted()
    account.wait(0.5)
    later = account.submitted()
    account.wait(waited - 0.5)
    account.begin(later, 1)
    assert account.overtaken == faults


@pytest.mark.parametrize(
    ("is_tried", "waited", "faults"),
    [(True, 0.2, ["#1 overtook #0"]), (True, 0.3, []), (False, 0.3, ["#1 overtook #0"])],
)
def test_a_job_may_be_overtaken_from_the_deadline_of_its_retry_on(
    is_tried: bool, waited: float, faults: list[str]
) -> None:
    """That one counts for those alone that were tried before, and from when they were due."""
    account = Account()
    account.retry_deadline_s = 0.3
    first = account.submitted()
    if is_tried:
        account.end(account.begin(first, 1), OSError(), failed=True)
        account.enter(first, first.due, first.due)
    account.wait(0.1)
    later = account.submitted()
    account.wait(waited - 0.1)
    account.begin(later, 1)
    assert account.overtaken == faults


@pytest.mark.parametrize("is_eager", [True, False])
def test_an_app_whose_gate_opens_at_a_deadline_overtakes_nobody(is_eager: bool) -> None:
    """With eager tasks the next body begins before the store has said that the first job timed out."""
    plan = Plan(
        parts=(part("times", window="nine to ten", margin=0), part("deadline", seconds=2)),
        works=(Work(0), Work(615)),
        is_eager=is_eager,
    )
    assert played(plan, AppPlay) == []


def test_an_item_that_ran_out_of_time_is_tried_again_beside_its_first_call() -> None:
    """That call goes on for the other items; the one that left it may be in another batch by then."""
    plan = Plan(
        parts=(part("retry", attempts=3, base=0.0, cap=0.1, jitter="none", deadline=None),),
        works=(Work(0, end="hangs", fails=1), Work(0, lasts=200)),
    )
    calls: list[list[int]] = []

    class Noted(BatchPlay):
        async def call(self, items: list[Any]) -> list[Any]:
            calls.append([item.number for item in items])
            return await super().call(items)

    assert played(plan, lambda plan: Noted(plan, 3, 0.04, "fail_all")) == []
    assert calls[:2] == [[1, 2], [1]]
