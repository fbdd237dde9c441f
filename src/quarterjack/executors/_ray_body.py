"""One attempt that is on its way to Ray, or there: what is asked of it, and what is heard of it."""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from pydantic_core import from_json

from quarterjack.model import Outcome, OutcomeKind

from ._away import UNKILLABLE_S, Desk, Killable
from ._frames import Frame
from ._handed import Handed
from ._remote import outcome_of
from .base import Call, Report

__all__ = ["Hands", "Sent"]


class Hands(Protocol):
    """What an attempt asks of its executor."""

    def tell(self, kind: Frame, sent: Sent) -> None: ...
    def withdraw(self, sent: Sent) -> None: ...


class Sent(Handed, Killable):
    """One attempt; the handle that the runtime holds."""

    __slots__ = ("_executor", "_kept", "_said", "number", "request")
    to: ClassVar[str] = "Ray"

    def __init__(self, executor: Hands, desk: Desk, call: Call, report: Report, number: int, request: bytes) -> None:
        super().__init__(desk, call, report)
        self._executor = executor
        self._said = self._kept = b""
        self.number = number
        self.request = request
        self.mind_deadline()

    # -- ending it -------------------------------------------------------------------------

    def withdraw(self, reason: str) -> None:
        """End a call that Ray has not heard of."""
        self._executor.withdraw(self)
        super().withdraw(reason)

    def miss(self, why: str) -> None:
        self._executor.withdraw(self)
        super().miss(why)

    def interrupt(self, reason: str) -> None:
        """Have Ray drop it from its queue, or raise in the body; and kill the body's process after the grace."""
        del reason
        self._executor.tell(Frame.CANCEL, self)
        self.arm(self.call.cancel_grace_s, self.kill)

    def kill(self) -> None:
        """End the body by ending its process."""
        self._executor.tell(Frame.KILL, self)
        self.arm(UNKILLABLE_S, self.give_up)

    # -- what is heard ---------------------------------------------------------------------

    def hear(self, kind: Frame, data: bytes) -> None:
        """Take a frame about it."""
        if self.is_zombie and kind is Frame.ENDED:
            self._on_ended(None)
        if self._is_reported or self._is_abandoned:
            return
        if kind is Frame.ACCEPTED:
            self.on_accepted()
        elif kind is Frame.STARTED:
            self.on_begun()
        elif kind is Frame.ENDED:
            outcome = outcome_of(self.call, data)
            is_killed = outcome.kind is OutcomeKind.DIED and self.is_asked  # for it did not stop
            self.on_over(Outcome(OutcomeKind.CANCELLED) if is_killed else outcome)
        else:
            self._on_said(kind, data)

    def _on_said(self, kind: Frame, data: bytes) -> None:
        """Pass it on; the last words come twice."""
        words: Any = from_json(data)
        if kind is Frame.KEEP and data != self._kept:
            self._kept = data
            self._report.keep(words)
        elif kind is Frame.PROGRESS and data != self._said:
            self._said = data
            self._report.progress(*words)

    def on_over(self, outcome: Outcome) -> None:
        """It is over."""
        self.request = b""
        if outcome.kind is not OutcomeKind.LOST:
            self.outcome = outcome
        self._on_finished(outcome)
