"""One attempt on Dask, when the cluster keeps silent about it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("distributed")

from distributed import KilledWorker

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.executors import AppRef, _dask_message
from quarterjack.executors._away import Desk
from quarterjack.executors._dask_errand import Errand
from quarterjack.executors._dask_message import Message
from quarterjack.executors._remote import Answer
from quarterjack.model import OutcomeKind
from quarterjack.testing._executor_bench import TestCall, Track

A_WORKER: Any = SimpleNamespace(address="tcp://a")


class Hands:
    """An executor whose cluster never answers."""

    def __init__(self) -> None:
        self.parted = 0
        self.withdraws: list[bool | Exception] = []
        """What its scheduler says of a body that is not to begin, in turn."""
        self._chores: list[asyncio.Task[None]] = []

    def chore(self, work: Coroutine[Any, Any, None]) -> None:
        self._chores.append(asyncio.get_running_loop().create_task(work))

    async def withdraw(self, message: Message) -> bool:
        answer = self.withdraws.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def interrupt(self, message: Message, reason: str) -> bool:
        raise OSError("the scheduler is away")

    def part(self, message: Message) -> None:
        self.parted += 1


class Case:
    """A body that runs on a Dask worker."""

    def __init__(self, *, begins: bool = True, is_sent: bool = True, is_late: bool = False) -> None:
        self.track = Track()
        self.hands = Hands()
        self.desk = Desk(asyncio.get_running_loop(), SYSTEM_CLOCK)
        call = TestCall("double", (1,), {"cancel_grace_s": 0.01}, self.track)
        if is_late:
            call.deadline_ns = SYSTEM_CLOCK.now_ns()
        self.message = Message(self.desk, call, self.track, self.hands)
        if is_sent:
            self.message.may_begin()
            self.message.on_accepted()
        if is_sent and begins:
            self.message.on_news("began", None)


@pytest.fixture
async def case(monkeypatch: pytest.MonkeyPatch) -> Case:
    """Return one, with short patience."""
    monkeypatch.setattr(_dask_message, "GONE_S", 0.01)
    monkeypatch.setattr(_dask_message, "UNKILLABLE_S", 0.01)
    return Case()


async def test_body_whose_worker_left_is_lost_if_nobody_tells_more(case: Case) -> None:
    """It may run on: only its lease may decide."""
    case.message.on_removed()
    assert (await case.track.end()).kind is OutcomeKind.LOST
    case.track.check()
    assert (case.hands.parted, case.desk.out) == (1, set())


async def test_body_whose_worker_left_may_still_be_told_as_dead(case: Case) -> None:
    """Dask's next run of the task looks whether anything is left of it."""
    case.message.on_removed()
    case.message.on_news("answer", Answer.died(None, "it is gone"))
    assert (await case.track.end()).kind is OutcomeKind.DIED
    case.message.on_news("answer", Answer.lost("too late"))
    case.track.check()
    assert case.track.log == ["accepted", "began", "finished"]


async def test_cancelled_body_whose_worker_left_is_cancelled(case: Case) -> None:
    """Nobody wants it again: there is nothing left for a lease to decide."""
    case.message.cancel("not wanted")
    case.message.on_removed()
    assert (await case.track.end()).kind is OutcomeKind.CANCELLED
    case.track.check()


async def test_body_that_nobody_can_stop_keeps_its_slot_until_it_has_ended(case: Case) -> None:
    """The scheduler is away: the cancel is answered, and the slot is not given to another body."""
    case.message.cancel("not wanted")
    outcome = await case.track.end()
    assert (outcome.kind, outcome.stopped) == (OutcomeKind.CANCELLED, False)
    assert case.desk.out == {case.message}
    assert not case.message.is_over
    case.message.on_news("answer", Answer.cancelled("interrupted"))
    assert case.track.log[-1] == "ended"
    assert (case.message.is_over, case.desk.out) == (True, set())
    case.track.check()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError("the scheduler is away"), OutcomeKind.LOST),
        (concurrent.futures.CancelledError(), OutcomeKind.LOST),
        (KilledWorker("double", A_WORKER, 3), OutcomeKind.DIED),
        (TypeError("run_body() takes other arguments there"), OutcomeKind.REJECTED),
    ],
)
async def test_failure_of_dask_itself_is_told_as_what_it_means(error: Exception, kind: OutcomeKind) -> None:
    """A job that another try may save must not end for good, nor begin beside itself."""
    case = Case(begins=False)
    errand = Errand(case.message.call, AppRef("app", None, "app"), b"")
    errand.messages.append(case.message)
    errand.tell_failure(error)
    assert (await case.track.end()).kind is kind


async def test_attempt_that_was_never_handed_over_is_missed_at_its_deadline() -> None:
    """The bug: while the scheduler was away nothing happened at that moment: the job held its slot for the outage."""
    case = Case(is_sent=False, is_late=True)
    assert (await case.track.end()).kind is OutcomeKind.MISSED
    assert not case.message.may_begin()
    assert (case.hands.parted, case.desk.out) == (1, set())
    case.track.check()


async def test_attempt_that_waits_on_dask_is_missed_at_its_deadline() -> None:
    """As in a queue of ours: at that moment, and not when there is room for it."""
    case = Case(begins=False, is_late=True)
    case.hands.withdraws = [True]
    assert (await case.track.end()).kind is OutcomeKind.MISSED
    case.message.on_news("answer", Answer.cancelled("it was withdrawn"))
    case.track.check()


async def test_who_meets_a_withdrawn_attempt_may_be_quicker_than_the_scheduler() -> None:
    """Nobody has cancelled it."""
    case = Case(begins=False, is_late=True)
    case.message._pass_deadline()
    case.message.on_news("answer", Answer.cancelled("it was withdrawn"))
    assert (await case.track.end()).kind is OutcomeKind.MISSED


@pytest.mark.parametrize("answer", [False, OSError("the scheduler is away")])
async def test_attempt_that_dask_does_not_withdraw_goes_on(
    answer: bool | Exception, caplog: pytest.LogCaptureFixture
) -> None:
    """It has begun, or nobody knows; its word may be on its way."""
    case = Case(begins=False, is_late=True)
    case.hands.withdraws = [answer]
    case.message._pass_deadline()
    await asyncio.gather(*case.hands._chores)
    case.message.on_news("began", None)
    case.message._pass_deadline()
    assert case.track.log == ["accepted", "began"]
    assert not caplog.records
