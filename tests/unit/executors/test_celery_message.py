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
from quarterjack.executors.celery import CeleryExecutor
from quarterjack.model import Outcome, OutcomeKind
from quarterjack.testing._executor_bench import TestCall, Track


class Hands:
    """An executor whose servers answer the fifth question."""

    capabilities: ClassVar[Capabilities] = CeleryExecutor.capabilities

    def __init__(self) -> None:
        self.asked = 0
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

    def part(self, message: Message, end: OutcomeKind) -> None: ...

    def outcome_of(self, call: Call, result: Any) -> Outcome:
        raise AssertionError((call, result))


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
