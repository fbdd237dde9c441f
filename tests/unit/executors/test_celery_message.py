"""One attempt on Celery, when the broker or the results are away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, ClassVar

import pytest

pytest.importorskip("celery")
pytest.importorskip("redis")

from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.executors import _celery_message
from quarterjack.executors._away import Desk
from quarterjack.executors._celery_message import Message
from quarterjack.executors.base import Call, Capabilities
from quarterjack.executors.celery import CeleryExecutor, CeleryTask
from quarterjack.model import Outcome, OutcomeKind
from quarterjack.testing._executor_bench import TestCall, Track


class Hands:
    """An executor whose servers answer the fifth question."""

    capabilities: ClassVar[Capabilities] = CeleryExecutor.capabilities

    def __init__(self) -> None:
        self.asked = 0
        self.parted: list[OutcomeKind] = []
        self._chores: list[asyncio.Task[None]] = []

    def chore(self, work: Coroutine[Any, Any, None]) -> None:
        self._chores.append(asyncio.get_running_loop().create_task(work))

    async def withdraw(self, message: Message) -> bool:
        self.asked += 1
        if self.asked < 5:
            raise OSError(f"nobody listens for {message.ref}")
        return True

    async def interrupt(self, message: Message) -> bool:
        return await self.withdraw(message)

    async def kill(self, message: Message) -> None:
        raise AssertionError(message)

    def part(self, message: Message, end: OutcomeKind) -> None:
        self.parted.append(end)

    def outcome_of(self, call: Call, result: Any) -> Outcome:
        raise AssertionError((call, result))


class Theirs(Hands):
    """One whose tasks say neither whether they were taken nor when they begin; its revokes arrive."""

    capabilities: ClassVar[Capabilities] = CeleryTask.capabilities

    async def interrupt(self, message: Message) -> bool:
        self.asked += 1
        return False

    async def kill(self, message: Message) -> None:
        """Nobody has it."""


BOTH = pytest.mark.parametrize("hands_of", [Hands, Theirs])


@BOTH
async def test_message_that_was_never_sent_is_missed_at_its_deadline_without_a_question(
    hands_of: type[Hands], caplog: pytest.LogCaptureFixture
) -> None:
    """The bug: while Celery was away it was asked to withdraw what it had never had, and the job waited on."""
    track, hands = Track(), hands_of()
    call = TestCall("double", (1,), {}, track)
    call.deadline_ns = SYSTEM_CLOCK.now_ns()
    message = Message(Desk(asyncio.get_running_loop(), SYSTEM_CLOCK), call, track, hands, is_sent=False)
    assert (await track.end()).kind is OutcomeKind.MISSED
    assert not message.may_send()
    assert (hands.asked, hands.parted, message.desk.out) == (0, [OutcomeKind.MISSED], set())
    assert not caplog.records
    track.check()


@BOTH
async def test_message_that_was_never_sent_is_withdrawn_without_a_question(hands_of: type[Hands]) -> None:
    """It may stand in line for its connection for a minute."""
    track, hands = Track(), hands_of()
    call = TestCall("double", (1,), {}, track)
    message = Message(Desk(asyncio.get_running_loop(), SYSTEM_CLOCK), call, track, hands, is_sent=False)
    message.cancel("not wanted")
    assert (await track.end()) == Outcome(OutcomeKind.CANCELLED, reason="not wanted")
    assert not message.may_send()
    assert (hands.asked, message.desk.out) == (0, set())
    track.check()


async def test_message_that_perhaps_was_sent_is_revoked_and_gives_its_slot_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The bug: its task was never revoked and ran, though its job said that it had stopped; a slot must not be lost."""
    monkeypatch.setattr(_celery_message, "KILL_S", 0.01)
    track, hands = Track(), Theirs()
    call = TestCall("double", (1,), {"cancel_grace_s": 0.01}, track)
    message = Message(Desk(asyncio.get_running_loop(), SYSTEM_CLOCK), call, track, hands, is_sent=False)
    assert message.may_send()
    assert message.may_send(), "it is sent until the broker says that it has it"
    message.cancel("not wanted")
    outcome = await track.end()
    assert (outcome.kind, outcome.stopped, hands.asked) == (OutcomeKind.CANCELLED, False, 1)
    await track.heard("ended")
    assert message.desk.out == set()
    track.check()


async def test_message_of_theirs_that_the_broker_has_is_left_to_expire() -> None:
    """Nobody here knows whether it has begun."""
    track = Track()
    call = TestCall("double", (1,), {}, track)
    call.deadline_ns = SYSTEM_CLOCK.now_ns()
    message = Message(Desk(asyncio.get_running_loop(), SYSTEM_CLOCK), call, track, Theirs(), is_sent=False)
    assert message.may_send()
    message.on_accepted()
    message._pass_deadline()  # its alarm may ring in that very moment
    assert (message._timer, track.log) == (None, ["accepted"])
    message.on_state("REVOKED", None, "")
    assert (await track.end()).kind is OutcomeKind.MISSED


@pytest.mark.parametrize("kind", [OutcomeKind.CANCELLED, OutcomeKind.MISSED])
async def test_servers_that_are_away_are_asked_until_they_answer_and_told_of_once(
    kind: OutcomeKind, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The bug: each job told it anew every second."""
    monkeypatch.setattr(_celery_message, "AGAIN_S", 0.001)
    track, hands = Track(), Hands()
    call = TestCall("double", (1,), {}, track)
    if kind is OutcomeKind.MISSED:
        call.deadline_ns = SYSTEM_CLOCK.now_ns()
    message = Message(Desk(asyncio.get_running_loop(), SYSTEM_CLOCK), call, track, hands, is_sent=True)
    message.on_accepted()
    if kind is OutcomeKind.CANCELLED:
        message.cancel("not wanted")
    assert (await track.end()).kind is kind
    assert hands.asked == 5
    assert [one.levelname for one in caplog.records if "nobody listens" in one.getMessage()].count("WARNING") == 1
