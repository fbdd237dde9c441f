"""Calls whose bodies run in another thread: the half that stays on the app's loop.

What every such executor needs, once: letters from other threads that reach the
loop in order, many by one wake-up (`Desk`), and a handle that reports exactly
once whatever races with what (`Away`). `_desk_executor` has the executor's side.

Two sides touch an `Away`. Who takes its turn first decides: the other side's
thread by `Away.may_begin`, and the body runs; or the app's loop by a cancel,
and the call is withdrawn. After that the other side only posts letters, and
everything else happens on the app's loop."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection
from contextvars import copy_context
from threading import Lock
from typing import Any, Final

from quarterjack._durations import NS_PER_S
from quarterjack.clock import Clock
from quarterjack.model import Outcome, OutcomeKind

from .base import Call, Report

__all__ = ["UNKILLABLE_S", "Away", "Desk", "Killable"]

UNKILLABLE_S: Final = 10.0
"""A process that SIGKILL has not ended after so long hangs in the kernel."""

_CANCELLED, _RAISED, _TIMED_OUT = OutcomeKind.CANCELLED, OutcomeKind.RAISED, OutcomeKind.TIMED_OUT


class Desk:
    """One app's loop, as an executor with threads sees it: where letters go, and which calls are out."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, clock: Clock, on_over: Callable[[], None] | None = None
    ) -> None:
        self.loop = loop
        self.clock = clock
        self._on_over = on_over
        self.out: set[Away] = set()
        """Calls whose bodies have not ended."""
        self._letters: deque[tuple[Callable[[Any], object], Any]] = deque()
        self._is_posted = False
        # Neither the job that happens to post nor the one before it may leak its variables into reports.
        self._context = copy_context()
        self._changed = asyncio.Event()

    def post(self, function: Callable[[Any], object], argument: Any) -> None:
        """Have *function* called with *argument* on the loop, in the order of posting; from any thread."""
        self._letters.append((function, argument))
        # Append, then look; `_deliver` clears, then reads: no letter is left lying, at worst one wake-up too many.
        if not self._is_posted:
            self._is_posted = True
            try:
                self.loop.call_soon_threadsafe(self._deliver, context=self._context)
            except RuntimeError:  # the loop is closed: nobody is there to hear it
                self._letters.clear()

    def _deliver(self) -> None:
        self._is_posted = False
        letters = self._letters
        try:
            while letters:  # it ends: a body posts a handful of letters, and new bodies need this loop
                function, argument = letters.popleft()
                function(argument)
        finally:
            if letters:
                self.loop.call_soon(self._deliver, context=self._context)

    def forget(self, away: Away) -> None:
        """The body of *away* is over, or nobody waits for it any more."""
        self.out.discard(away)
        self._changed.set()
        if self._on_over is not None:
            self._on_over()

    async def wait_for(self, calls: Collection[Away], grace_s: float) -> None:
        """Wait up to *grace_s* seconds until none of *calls* is out."""
        try:
            async with asyncio.timeout(grace_s):
                while not self.out.isdisjoint(calls):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass  # the caller looks at what is left


class Away:
    """A submitted call whose body runs elsewhere; the handle the runtime holds."""

    __slots__ = (
        "_asked",
        "_ended_mono_ns",
        "_hold",
        "_is_abandoned",
        "_is_accepted",
        "_is_begun",
        "_is_reported",
        "_reason",
        "_report",
        "_timer",
        "_turn",
        "call",
        "desk",
        "outcome",
    )

    def __init__(self, desk: Desk, call: Call, report: Report) -> None:
        self.desk = desk
        self.call = call
        self.outcome: Outcome | None = None
        self._ended_mono_ns: int | None = None
        """How the body ended; the other side writes it, once."""
        self._report = report
        self._turn = Lock()
        self._asked: OutcomeKind | None = None
        self._reason = ""
        self._is_accepted = self._is_begun = self._is_reported = self._is_abandoned = False
        self._timer: asyncio.TimerHandle | None = None
        self._hold = desk.clock.hold()
        desk.out.add(self)

    # -- the other side's thread -------------------------------------------------------

    def may_begin(self) -> bool:
        """Take the turn: True once, unless the call was withdrawn."""
        return self._turn.acquire(blocking=False)

    def began(self, at_mono_ns: int | None = None) -> None:
        """The body begins."""
        self.desk.post(self._on_began, self.desk.clock.monotonic_ns() if at_mono_ns is None else at_mono_ns)

    def done(self, result: Any) -> None:
        """The body returned."""
        self.finished(Outcome(OutcomeKind.DONE, result))

    def finished(self, outcome: Outcome, at_mono_ns: int | None = None) -> None:
        """The body ended with *outcome*, or does not stop."""
        if outcome.stopped:
            self.outcome = outcome
        self._ended_mono_ns = self.desk.clock.monotonic_ns() if at_mono_ns is None else at_mono_ns
        self.desk.post(self._on_finished, outcome)

    def ended(self) -> None:
        """The body that did not stop is over too."""
        self.desk.post(self._on_ended, None)

    # -- the app's loop ----------------------------------------------------------------

    @property
    def is_asked(self) -> bool:
        """True once the body was told to stop."""
        return self._asked is not None

    @property
    def is_begun(self) -> bool:
        """True once its body has begun."""
        return self._is_begun

    @property
    def is_zombie(self) -> bool:
        """True while the body outlives its outcome."""
        return self._is_reported and not self._is_abandoned and self in self.desk.out

    def cancel(self, reason: str) -> None:
        """Withdraw the call if it has not begun, else ask its body to stop."""
        self.ask(_CANCELLED, reason)

    def ask(self, kind: OutcomeKind, reason: str) -> None:
        """Have the call end as *kind*, unless it is over already or was asked before."""
        if self._asked is not None or self._is_reported or self.outcome is not None:
            return
        self._asked, self._reason = kind, reason
        self._disarm()
        if self.may_begin():
            self.withdraw(reason)
        else:
            self.interrupt(reason)

    def withdraw(self, reason: str) -> None:
        """End a call whose turn was taken here: its body never begins."""
        self._settle(Outcome(_CANCELLED, reason=reason))

    def interrupt(self, reason: str) -> None:
        """Make the running body stop; whoever cannot, gives up at once."""
        del reason
        self.give_up()

    def arm(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call *callback* after *delay_s*, unless the call is settled by then."""
        self._disarm()
        self._timer = self.desk.loop.call_later(delay_s, callback)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def time_left_s(self, since_mono_ns: int) -> float | None:
        """Return how long a body that began at this instant may go on; None: for ever."""
        if self.call.timeout_s is None:
            return None
        return max(0.0, self.call.timeout_s - (self.desk.clock.monotonic_ns() - since_mono_ns) / NS_PER_S)

    def _time_out(self) -> None:
        self._timer = None
        self.ask(_TIMED_OUT, self._timeout_words())

    def _timeout_words(self) -> str:
        return f"ran longer than its timeout of {self.call.timeout_s:g} s"

    def on_accepted(self) -> None:
        """It waits in a queue elsewhere."""
        if not (self._is_accepted or self._is_begun or self._is_reported or self._is_abandoned):
            self._is_accepted = True
            self._report.accepted()

    def on_begun(self) -> None:
        """Its body has begun elsewhere, as was heard just now."""
        self._on_began(self.desk.clock.monotonic_ns())

    def _on_began(self, at_mono_ns: int) -> None:
        if self._is_begun or self._is_abandoned:
            return
        self._is_begun = True
        self._report.began(at_mono_ns)
        if self._asked is None and (left_s := self.time_left_s(at_mono_ns)) is not None:
            self.arm(left_s, self._time_out)

    def _on_finished(self, outcome: Outcome) -> None:
        if self._is_abandoned:
            return
        if self._is_reported:
            if outcome.stopped:
                self._on_ended(None)
            return
        self._settle(self._as_asked(outcome))

    def _on_ended(self, _: object) -> None:
        if not self._is_abandoned:
            self.desk.forget(self)
            self._report.ended()

    def _as_asked(self, outcome: Outcome) -> Outcome:
        # A body that turns its interruption into an exception of its own was stopped by the timeout all the same.
        if outcome.kind is _CANCELLED or (outcome.kind is _RAISED and self._asked is _TIMED_OUT):
            return outcome._replace(kind=self._asked or _CANCELLED, reason=self._reason or outcome.reason)
        return outcome

    def _settle(self, outcome: Outcome) -> None:
        self._disarm()
        self._is_reported = True
        if outcome.stopped:
            self.desk.forget(self)
        self._report.finished(outcome, self._ended_mono_ns)
        self._hold.release()

    def give_up(self) -> None:
        """Report a body that does not stop; it keeps its slot until it really ends."""
        self._timer = None
        if self._is_reported or self.outcome is not None:  # the letter that says so is on its way
            return
        self._say_begun()
        self._settle(Outcome(self._asked or _CANCELLED, reason=self._reason, stopped=False))

    def _say_begun(self) -> None:
        if not self._is_begun:  # the letter has not arrived, and will come too late
            self._is_begun = True
            self._report.began()

    def abandon(self) -> None:
        """Wait no longer for the body; nothing is reported of it after this."""
        if not self._is_reported and self.outcome is not None:
            self._say_begun()
            self._settle(self._as_asked(self.outcome))
        elif not self._is_reported:
            self._disarm()
            self._reason = self._reason or "shutdown"
            self.give_up()
        self._is_abandoned = True
        self.desk.forget(self)


class Killable(Away, ABC):
    """A call whose body can be ended whatever it makes of that."""

    __slots__ = ()

    @abstractmethod
    def kill(self) -> None:
        """End the body, now."""
