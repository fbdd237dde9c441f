"""One attempt that was handed to Dask: what is asked of it, and what is heard of it."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any, ClassVar, Final, Protocol

from pydantic_core import from_json

from quarterjack.model import Outcome, OutcomeKind

from ._away import UNKILLABLE_S, Desk
from ._handed import Handed
from ._remote import outcome_of
from .base import Call, Report

__all__ = ["Hands", "Message"]

log = logging.getLogger("quarterjack.dask")

GONE_S: Final = 10.0
"""So long after a Dask worker was removed another one may still tell what became of its bodies."""
_LATE: Final = "it still waited in Dask's queue at its start deadline"


class Hands(Protocol):
    """What a message asks of its executor."""

    def chore(self, work: Coroutine[Any, Any, None]) -> None: ...
    async def withdraw(self, message: Message) -> bool: ...
    async def interrupt(self, message: Message, reason: str) -> bool: ...
    def part(self, message: Message) -> None: ...


class Message(Handed):
    """One attempt that was handed to Dask; the handle the runtime holds."""

    __slots__ = ("_hands", "_is_late", "worker")
    to: ClassVar[str] = "Dask"

    def __init__(self, desk: Desk, call: Call, report: Report, hands: Hands) -> None:
        super().__init__(desk, call, report)
        self._hands = hands
        self._is_late = False
        """Dask was asked not to begin it any more."""
        self.worker = ""
        """The address of the Dask worker that has begun it."""
        self.mind_deadline()

    @property
    def is_over(self) -> bool:
        """True once nobody waits for it."""
        return (self._is_reported or self._is_abandoned) and not self.is_zombie

    # -- ending it ---------------------------------------------------------------------

    def withdraw(self, reason: str) -> None:
        """It was not handed over yet."""
        super().withdraw(reason)
        self._hands.part(self)

    def miss(self, why: str) -> None:
        super().miss(why)
        self._hands.part(self)

    def on_late(self) -> None:
        self._is_late = True
        self._hands.chore(self._withdraw_late())

    async def _withdraw_late(self) -> None:
        try:
            is_withdrawn = await self._hands.withdraw(self)
        except Exception as error:  # likewise; a scheduler that is away has lost it, and a worker looks, too
            log.debug("job %s could not be withdrawn from Dask: %s", self.call.ref, error)
            return
        if is_withdrawn and not self.is_asked:
            self.on_over(Outcome(OutcomeKind.MISSED, reason=_LATE))

    def interrupt(self, reason: str) -> None:
        """Have it withdrawn on Dask, or interrupted and then killed there."""
        self.arm(self.call.cancel_grace_s + UNKILLABLE_S, self.give_up)
        self._hands.chore(self._interrupt(reason))

    async def _interrupt(self, reason: str) -> None:
        try:
            is_withdrawn = await self._hands.interrupt(self, reason)
        except Exception as error:  # whatever Dask raises when its scheduler or a worker is away
            log.warning("job %s could not be interrupted on Dask: %s", self.call.ref, error)
            return  # its end may be heard all the same, or it is given up
        if is_withdrawn:
            self.on_over(Outcome(OutcomeKind.CANCELLED, reason=reason))

    def abandon(self) -> None:
        super().abandon()
        self._hands.part(self)

    # -- what is heard -----------------------------------------------------------------

    def on_news(self, kind: str, value: Any) -> None:
        """Its Dask worker says something."""
        if kind == "answer":
            self.on_over(outcome_of(self.call, value))
        elif self._is_reported or self._is_abandoned:
            return
        elif kind == "began":
            self.on_begun()
        elif kind == "keep":
            self._report.keep(from_json(value))
        else:
            self._report.progress(*from_json(value))

    def on_removed(self) -> None:
        """The Dask worker that runs it has left: wait for what others tell of it, but not for long."""
        self.arm(GONE_S, self._on_silence)

    def _on_silence(self) -> None:
        kind = OutcomeKind.CANCELLED if self.is_asked else OutcomeKind.LOST
        self.on_over(Outcome(kind, reason=f"its Dask worker {self.worker} has left, and nobody tells how it ended"))

    def on_over(self, outcome: Outcome) -> None:
        """It is over, as far as anybody will know; the first to say so counts."""
        if self.is_over:
            return
        if self._is_late and not (self.is_asked or self._is_begun) and outcome.kind is OutcomeKind.CANCELLED:
            outcome = Outcome(OutcomeKind.MISSED, reason=_LATE)  # the word of who met it came before the scheduler's
        self.outcome = outcome
        self._on_finished(outcome)
        self._hands.part(self)
