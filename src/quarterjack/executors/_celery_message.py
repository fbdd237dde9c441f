"""One attempt that was handed to Celery: what is asked of it, and what its states mean."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any, ClassVar, Final, Protocol

from quarterjack.errors import RaisedElsewhere
from quarterjack.model import ErrorInfo, Outcome, OutcomeKind

from ._away import Away, Desk
from .base import Call, Capabilities, Report

__all__ = ["Hands", "Message"]

log = logging.getLogger("quarterjack.celery")

KILL_S: Final = 10.0
"""A killed process is announced within that, or nobody knows what became of it."""
PULSES: Final = 2
"""So many looks without a sign of life, and a body that has begun is lost."""
_ENDS: Final = {"SUCCESS", "FAILURE", "REVOKED"}


class Hands(Protocol):
    """What a message asks of its executor."""

    capabilities: ClassVar[Capabilities]

    def chore(self, work: Coroutine[Any, Any, None]) -> None: ...
    async def interrupt(self, message: Message) -> bool: ...
    async def kill(self, message: Message) -> None: ...
    def forget(self, message: Message, *, is_over: bool) -> None: ...
    def outcome_of(self, call: Call, result: Any) -> Outcome: ...


class Message(Away):
    """One attempt that was handed to Celery."""

    __slots__ = ("_executor", "_is_accepted", "_said", "_silent", "ref")

    def __init__(self, desk: Desk, call: Call, report: Report, executor: Hands) -> None:
        super().__init__(desk, call, report)
        self.may_begin()  # whose turn it is, the fence knows: nothing is withdrawn by this side alone
        self._executor = executor
        self._is_accepted = False
        self._silent = 0
        self._said: list[Any] = [None, None]
        self.ref = call.ref

    @property
    def is_over(self) -> bool:
        """True once nobody waits for it."""
        return self._is_reported or self._is_abandoned

    def on_accepted(self) -> None:
        """The broker has it."""
        if not (self._is_accepted or self._is_begun or self.is_over):
            self._is_accepted = True
            self._report.accepted()
            if not self._executor.capabilities.can_report_start and self.call.timeout_s is not None:
                self.arm(self.call.timeout_s, self._time_out)

    # -- ending it ---------------------------------------------------------------------

    def interrupt(self, reason: str) -> None:
        self._executor.chore(self._interrupt(reason))

    async def _interrupt(self, reason: str) -> None:
        try:
            is_withdrawn = await self._executor.interrupt(self)
        except Exception as error:  # the broker or the results are away
            log.warning("job %s could not be interrupted on Celery: %s", self.ref, error)
            is_withdrawn = False
        if self.is_over:
            return
        if is_withdrawn:
            self._over(Outcome(OutcomeKind.CANCELLED, reason=reason))
        else:
            self.arm(self.call.cancel_grace_s, self._kill)

    def _kill(self) -> None:
        self._executor.chore(self._kill_there())

    async def _kill_there(self) -> None:
        self.arm(KILL_S, self.give_up)
        try:
            await self._executor.kill(self)
        except Exception as error:  # the broker is away
            log.warning("job %s could not be killed on Celery: %s", self.ref, error)

    def leave(self) -> None:
        """The worker ends, the body goes on: report nothing more of it."""
        self._disarm()
        self._is_abandoned = True
        self._hold.release()
        self.desk.forget(self)
        self._part(is_over=False)

    def abandon(self) -> None:
        super().abandon()
        self._part(is_over=False)

    def _part(self, *, is_over: bool) -> None:
        self._executor.forget(self, is_over=is_over)

    def _over(self, outcome: Outcome) -> None:
        self._on_finished(outcome)
        self._part(is_over=outcome.kind is not OutcomeKind.LOST)

    # -- what is heard -----------------------------------------------------------------

    def on_state(self, state: str, result: Any, trace: str) -> None:
        """The result key holds this now."""
        if self.is_zombie and state in _ENDS:
            self._on_ended(None)
            self._part(is_over=True)
        if self.is_over:
            return
        if state in {"STARTED", "PROGRESS"}:
            self._on_said(result)
        elif state == "SUCCESS":
            self._over(self._read(result))
        elif state == "FAILURE":
            self._over(self._failure(result, trace))
        elif state == "REVOKED":  # its process was ended, or its message dropped
            self._over(Outcome(OutcomeKind.CANCELLED, reason="revoked in Celery"))

    def on_begun(self) -> None:
        """Its body has begun."""
        if not self._is_begun:
            self._on_began(self.desk.clock.monotonic_ns())

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
            outcome = self._executor.outcome_of(self.call, result)
        except Exception as error:  # what their task returned is not what the function says
            return Outcome(OutcomeKind.RAISED, error=error)
        is_soft = outcome.info is not None and outcome.info.type_name == "SoftTimeLimitExceeded"
        return outcome._replace(kind=OutcomeKind.CANCELLED) if is_soft and self.is_asked else outcome

    def _failure(self, result: Any, trace: str) -> Outcome:
        """Return what Celery says of a task that it could not run to its end, or that raised."""
        told = _fields(result)
        name, said = str(told.get("exc_type", "")), told.get("exc_message", "")
        text = said if isinstance(said, str) else ", ".join(map(str, said))
        info = ErrorInfo(name, text, trace)
        if name == "WorkerLostError":
            return Outcome(OutcomeKind.DIED, reason=text or "its Celery worker process died", info=info)
        if name == "TimeLimitExceeded":
            return Outcome(OutcomeKind.TIMED_OUT, reason="it ran longer than Celery's time limit")
        if name == "NotRegistered":
            return Outcome(OutcomeKind.ORPHANED, reason=f"the Celery worker that got it does not know the task {text}")
        if self.is_asked and name == "SoftTimeLimitExceeded":
            return Outcome(OutcomeKind.CANCELLED)
        kinds = (f"{told.get('exc_module', 'builtins')}.{name}",)
        return Outcome(OutcomeKind.RAISED, error=RaisedElsewhere(name, text, trace, kinds), info=info)

    def on_pulse(self, is_alive: bool, is_wanted: bool) -> None:
        """The process of its body has, or has not, said lately that it is there; the fence knows it, or not."""
        is_there = is_alive if self._is_begun else is_wanted or not self._is_accepted
        self._silent = 0 if is_there else self._silent + 1
        if self._silent < PULSES:
            return
        if self.is_zombie:
            self._on_ended(None)
            self._part(is_over=False)
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
