"""One attempt that was handed to Celery: what is asked of it, and what its states mean."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Coroutine
from datetime import datetime
from typing import Any, ClassVar, Final, Protocol

from quarterjack._durations import NS_PER_S
from quarterjack.errors import BodyDied, RaisedElsewhere
from quarterjack.model import ErrorInfo, Outcome, OutcomeKind

from ._away import Desk
from ._celery_results import ENDS
from ._handed import Handed
from .base import Call, Capabilities, Report

__all__ = ["Hands", "Message"]

log = logging.getLogger("quarterjack.celery")

KILL_S: Final = 10.0
"""A killed process is announced within that, or nobody knows what became of it."""
SILENT_S: Final = 4.0
"""So long after a first look without a sign of life another one without any means that a body is lost.

A server that was restarted has none, until the processes have connected anew.
"""
AGAIN_S: Final = 1.0
"""A broker, or results, that are away are asked again so soon."""
_CODE: Final = re.compile(r"(signal|exitcode) (\d+)")


class Hands(Protocol):
    """What a message asks of its executor."""

    capabilities: ClassVar[Capabilities]

    def chore(self, work: Coroutine[Any, Any, None]) -> object: ...
    async def withdraw(self, message: Message) -> bool: ...
    async def interrupt(self, message: Message) -> bool: ...
    async def kill(self, message: Message) -> None: ...
    def part(self, message: Message, end: OutcomeKind) -> None: ...
    def outcome_of(self, call: Call, result: Any) -> Outcome: ...


class Message(Handed):
    """One attempt that was handed to Celery.

    Args:
        desk: Where letters go.
        call: What is to run.
        report: Who hears of it.
        executor: Who sends it.
        is_sent: It may be in Celery's hands already, from another process.
    """

    __slots__ = ("_executor", "_said", "_silent_since_ns", "expires", "is_sent", "looking", "ref")
    to: ClassVar[str] = "Celery"

    def __init__(self, desk: Desk, call: Call, report: Report, executor: Hands, *, is_sent: bool) -> None:
        super().__init__(desk, call, report)
        self._executor = executor
        self._silent_since_ns: int | None = None
        self._said: list[Any] = [None, None]
        self.is_sent = is_sent and self.may_begin()
        """The broker may have it: this side alone withdraws nothing any more."""
        self.looking: asyncio.Task[None] | None = None
        self.ref = call.ref
        self.expires: datetime | None = None
        """When Celery drops it, if no worker has begun it by then: at its start deadline or its timeout."""
        self.mind_deadline()

    def may_send(self) -> bool:
        """Take the turn, now or before: False if it was withdrawn. Asked at the last moment, from another thread."""
        self.is_sent = self.is_sent or self.may_begin()
        return self.is_sent

    @property
    def is_over(self) -> bool:
        """True once nobody waits for it."""
        return self._is_reported or self._is_abandoned

    @property
    def is_waiting(self) -> bool:
        """True while the broker has it, and its body may yet begin."""
        return self._is_accepted and not (self._is_begun or self.is_asked or self.is_over)

    def on_accepted(self) -> None:
        """The broker has it; where nobody says when it begins, its time counts from there."""
        is_new = not self._is_accepted
        super().on_accepted()
        if is_new and self.is_waiting and not self._executor.capabilities.can_report_start:
            self._disarm()  # at its start deadline the message expires
            if self.call.timeout_s is not None:
                self.arm(self.call.timeout_s, self._time_out)

    # -- ending it ---------------------------------------------------------------------

    def withdraw(self, reason: str) -> None:
        """End one that the broker has not heard of."""
        del reason
        self.on_withdrawn()

    def interrupt(self, reason: str) -> None:
        del reason
        self.arm(self.call.cancel_grace_s, self._kill)
        self._executor.chore(self._interrupt())

    async def _interrupt(self) -> None:
        """Ask until somebody answers; also when the outcome was told, as long as the slot is taken."""
        await self._found()
        level = logging.WARNING
        while self in self.desk.out:
            try:
                is_withdrawn = await self._executor.interrupt(self)
            except Exception as error:  # the broker or the results are away
                log.log(level, "job %s could not be interrupted on Celery, tried again: %s", self.ref, error)
                level = logging.DEBUG
                await asyncio.sleep(AGAIN_S)
                continue
            if is_withdrawn:
                self.on_withdrawn()
            elif not (self._is_accepted or self._executor.capabilities.can_report_start):
                await self._let_go()
            return

    async def _let_go(self) -> None:
        """Give the slot back of one that was revoked and that the broker perhaps never had: nobody tells its end."""
        await asyncio.sleep(self.call.cancel_grace_s + 2 * KILL_S)
        if self.is_zombie:
            self._zombie_ended(OutcomeKind.LOST)

    async def _found(self) -> None:
        """Wait until it is known which body it is to be."""
        if self.looking is not None:
            await asyncio.wait({self.looking})

    def on_withdrawn(self) -> None:
        """It was asked to end, and its body will never begin."""
        if self.is_zombie:
            self._zombie_ended(OutcomeKind.CANCELLED)
        elif not self.is_over:
            self._over(Outcome(OutcomeKind.CANCELLED, reason=self._reason))

    def _kill(self) -> None:
        self._executor.chore(self._kill_there())

    async def _kill_there(self) -> None:
        self.arm(KILL_S, self.give_up)
        try:
            await self._executor.kill(self)
        except Exception as error:  # the broker is away
            log.warning("job %s could not be killed on Celery: %s", self.ref, error)

    def miss(self, why: str) -> None:
        self._over(Outcome(OutcomeKind.MISSED, reason=why))

    def on_late(self) -> None:
        if self._executor.capabilities.can_report_start:  # else its message expires
            self._executor.chore(self._withdraw_late())

    async def _withdraw_late(self) -> None:
        """It still waits when it is too late: it is to begin no more."""
        await self._found()
        level = logging.WARNING
        while True:
            try:
                is_withdrawn = await self._executor.withdraw(self)
            except Exception as error:  # the results are away; the worker looks at the deadline, too
                log.log(level, "job %s could not be withdrawn from Celery, tried again: %s", self.ref, error)
                level = logging.DEBUG
                await asyncio.sleep(AGAIN_S)
                if self.is_over or self.is_asked or self._is_begun:
                    return
                continue
            if is_withdrawn and not (self.is_over or self.is_asked):
                self.miss("it still waited in Celery's queue at its start deadline")
            return

    def on_refused(self, why: str) -> None:
        """Celery itself, here, does not send it: that is no outage, and no try will end otherwise."""
        self._over(Outcome(OutcomeKind.REJECTED, reason=why))

    def on_doubt(self) -> None:
        """It is too late to send it once more, and nobody knows whether the broker has it: its lease decides."""
        why = "its start deadline came before Celery had said that it has it, and nobody knows whether it has"
        self._over(Outcome(OutcomeKind.LOST, reason=why))

    def leave(self) -> None:
        """The worker ends, the body goes on: report nothing more of it."""
        self._disarm()
        self._is_abandoned = True
        self._hold.release()
        self.desk.forget(self)
        self._executor.part(self, OutcomeKind.LOST)

    def abandon(self) -> None:
        super().abandon()
        self._executor.part(self, OutcomeKind.LOST)

    def _over(self, outcome: Outcome) -> None:
        # First of all: who hears of the outcome may begin the next attempt, which is not to take this one up.
        self._executor.part(self, outcome.kind)
        self._on_finished(outcome)

    def _zombie_ended(self, how: OutcomeKind) -> None:
        self._executor.part(self, how)
        self._on_ended(None)

    # -- what is heard -----------------------------------------------------------------

    def on_state(self, state: str, result: Any, trace: str) -> None:
        """The result key holds this now."""
        if self.is_zombie and state in ENDS:
            self._zombie_ended(OutcomeKind.CANCELLED)
        if self.is_over:
            return
        if state in {"STARTED", "PROGRESS"}:
            self._on_said(result)
        elif state == "SUCCESS":
            self._over(self._read(result))
        elif state == "FAILURE":
            self._over(self._failure(result, trace))
        elif state == "REVOKED":
            self._over(self._revoked())

    def on_begun(self) -> None:
        """Its body has begun."""
        if not self._is_begun:
            if not self.is_asked:
                self._disarm()
            super().on_begun()

    def _on_said(self, result: Any) -> None:
        told = _fields(result)
        if not told or not self._executor.capabilities.can_report_start:
            return  # what a task of theirs says there is its own business
        self.on_begun()
        said: list[Any] = [told.get("progress"), told.get("kept")]
        if said[1] is not None and said[1] != self._said[1]:
            self._report.keep(said[1][0])
        if said[0] is not None and said[0] != self._said[0]:
            self._report.progress(*said[0])
        self._said = said

    def _read(self, result: Any) -> Outcome:
        try:
            return self._executor.outcome_of(self.call, result)
        except Exception as error:  # what their task returned is not what the function says
            return Outcome(OutcomeKind.RAISED, error=error)

    def _revoked(self) -> Outcome:
        """Return what it means that its process was ended, or its message dropped."""
        now_ns = self.desk.clock.now_ns()
        deadline_ns = self.call.deadline_ns
        if deadline_ns is not None and not self.is_asked and now_ns >= deadline_ns:
            return Outcome(OutcomeKind.MISSED, reason="its message came after its start deadline")
        if self.expires is not None and now_ns >= self.expires.timestamp() * NS_PER_S:  # its alarm has yet to ring
            return Outcome(OutcomeKind.TIMED_OUT, reason=self._timeout_words())
        return Outcome(OutcomeKind.CANCELLED, reason="revoked in Celery")

    @staticmethod
    def _failure(result: Any, trace: str) -> Outcome:
        """Return what Celery says of a task that it could not run to its end, or that raised."""
        told = _fields(result)
        name, said = str(told.get("exc_type", "")), told.get("exc_message", "")
        text = said if isinstance(said, str) else ", ".join(map(str, said))
        if name == "WorkerLostError":
            died = BodyDied(_code_in(text), text or "Celery says no more")
            return Outcome(OutcomeKind.DIED, error=died, reason=str(died))
        if name == "TimeLimitExceeded":
            return Outcome(OutcomeKind.TIMED_OUT, reason="it ran longer than Celery's time limit")
        if name == "NotRegistered":
            return Outcome(OutcomeKind.ORPHANED, reason=f"the Celery worker that got it does not know the task {text}")
        info = ErrorInfo(name, text, trace)
        kinds = (f"{told.get('exc_module', 'builtins')}.{name}",)
        return Outcome(OutcomeKind.RAISED, error=RaisedElsewhere(name, text, trace, kinds), info=info)

    def on_pulse(self, is_alive: bool, is_wanted: bool, has_begun: bool) -> None:
        """The process of its body has, or has not, said lately that it is there; the fence knows it, or not."""
        if has_begun and not self.is_over:  # its process may have died before it could say so
            self.on_begun()
        now_ns = self.desk.clock.monotonic_ns()
        if is_alive if self._is_begun else is_wanted or not self.is_sent:
            self._silent_since_ns = None
        elif self._silent_since_ns is None:
            self._silent_since_ns = now_ns
        elif now_ns - self._silent_since_ns >= SILENT_S * NS_PER_S:
            if self.is_zombie:
                self._zombie_ended(OutcomeKind.LOST)
            elif not self.is_over:
                self._over(Outcome(OutcomeKind.LOST, reason=self._lost_words()))

    def _lost_words(self) -> str:
        if self._is_begun:
            return "its Celery worker has not been heard of for a while"
        return "Celery's results no longer know that it is wanted: they were emptied, and no worker would begin it"


def _fields(result: Any) -> dict[str, Any]:
    """Return a state's fields; a task of theirs may have put anything there."""
    fields: Any = result
    return fields if isinstance(result, dict) else {}


def _code_in(text: str) -> int | None:
    """Return the exit code of which Celery tells, as the system has it."""
    found = _CODE.search(text)
    if found is None:
        return None
    return -int(found[2]) if found[1] == "signal" else int(found[2])
