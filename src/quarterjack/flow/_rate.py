"""What gates that count starts have in common.

A start counts when the body begins (`Gate.started`), for only then is it known
when that was. From its admission until then a job is *reserved*: it counts in
whatever window it will begin in, so in every one. A job that was admitted and
never began gives its reservation back."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod
from asyncio import current_task
from collections.abc import Hashable
from datetime import datetime
from threading import get_ident
from types import TracebackType
from typing import Final, cast

from quarterjack._durations import NS_PER_S, Seconds, to_seconds
from quarterjack._fast import EAGER_TASKS
from quarterjack._numbers import shown
from quarterjack._signatures import explained
from quarterjack.clock import SYSTEM_CLOCK, Clock, clock_of
from quarterjack.errors import InvalidOption
from quarterjack.triggers.base import instant_ns

from ._keys import By
from .base import Gate
from .outcome import RETURNED, Ended, EndKind
from .permit import BarePass, Pass
from .waiting import Waiting

__all__ = ["LONG_AGO", "Pace", "RateGate"]

LONG_AGO: Final = -math.inf


class RateGate(Gate):
    """A gate that counts starts. What counts is a subclass's `_count`, how many fit its `_capacity`."""

    def __init__(self, *, by: By | None = None, name: str | None = None) -> None:
        super().__init__(by=by, name=name)
        self._jobs_reserved = 0
        self._reserved = 0.0
        """What the jobs cost that were admitted and have not begun."""
        self._held_until = LONG_AGO
        """Nobody starts before: monotonic seconds."""
        self._counted_by: Clock | None = None
        """The clock that what was counted goes by."""

    # -- what a subclass says ----------------------------------------------------------

    @property
    @abstractmethod
    def _capacity(self) -> float:
        """How much a job may cost."""

    @property
    @abstractmethod
    def _capacity_name(self) -> str:
        """The setting that says so."""

    @abstractmethod
    def _count(self, job: Waiting, now: float) -> None:
        """*job* begins now."""

    @abstractmethod
    def _forget_starts(self) -> None:
        """Forget what was counted."""

    # -- the contract ------------------------------------------------------------------

    def take(self, job: Waiting, now: float) -> None:
        self._jobs_reserved += 1
        self._reserved += job.cost

    def started(self, job: Waiting, now: float) -> None:
        self._release(job)
        self._counted_by = self.clock
        self._count(job, now)

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        if ended.kind is EndKind.NOT_STARTED:
            self._release(job)

    # -- alone: the start is all that counts of a pass, which is over with it ------------

    async def __aenter__(self) -> None:
        turnstile = self._turnstile
        if (
            turnstile is None
            or not turnstile.is_fast
            or current_task(turnstile.loop) is None
            or turnstile.thread != get_ident()
            or turnstile.posts[0].entries  # somebody waits
            or (dispatcher := turnstile.dispatcher)._ready  # or is about to be asked for
            or (EAGER_TASKS and dispatcher._advancing)
            or not self._take_one(dispatcher.monotonic())
        ):
            await self._enter_slowly()

    async def _enter_slowly(self) -> None:
        if not self._has_fast_path:
            await super().__aenter__()
            return
        turnstile, one = self._turnstile_here(), BarePass()
        one.resource = None
        if not turnstile.room.pass_at_once(one):
            await turnstile.wait(one)
        turnstile.dispatcher.give(one, RETURNED)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if not self._has_fast_path:
            await super().__aexit__(kind, error, tb)

    def check(self, job: Waiting) -> None:
        if job.cost > self._capacity:
            raise InvalidOption(
                f"cost={job.cost:g} is above {self._capacity_name}={self._capacity:g} of {self!r}: it could never "
                f"start; lower the cost or raise the limit with update({self._capacity_name}=…)"
            )

    def forget(self) -> None:
        self._jobs_reserved, self._reserved = 0, 0.0
        if self._counted_by is not self.clock:  # on the same clock what has started counts for the next loop, too
            self._held_until = LONG_AGO
            self._forget_starts()

    @explained
    def penalise(self, *, for_: Seconds | None = None, until: datetime | None = None, **key: Hashable) -> None:
        """Let nobody start for a while: the other side has said so (HTTP 429, 503). Of two penalties the later counts.

        Args:
            for_: How long from now, in seconds, such as the number in ``Retry-After``.
            until: Or the instant, aware, such as the date in ``Retry-After``.
            key: What ``by=`` looks for, as for `permit`; without it the penalty is for all keys.

        Raises:
            InvalidOption: Unless one of the two is given; or a key, and the gate has none.
            NaiveDatetime: If *until* has no zone.
        """
        if (for_ is None) == (until is None):
            raise InvalidOption("penalise takes one of for_=seconds and until=datetime")
        if key and self.by is None:
            raise InvalidOption(f"{self!r} has no by=, so no key either, got {shown(key)}")
        clock = _clock_here()
        if until is not None:
            if not isinstance(until, datetime):
                raise InvalidOption(f"until must be a datetime with a zone, got {shown(until)}; for_= takes seconds")
            delay_s = (instant_ns(until, "until") - clock.now_ns()) / NS_PER_S
        else:
            delay_s = to_seconds(cast("Seconds", for_), "for_")
        at = clock.monotonic() + delay_s
        for gate in [self.at(self.key_of(Pass(key)))] if key else self._all():
            if isinstance(gate, RateGate):  # it is; and so are those of its keys
                gate._counted_by = clock
                gate._held_until = max(gate._held_until, at)

    def _release(self, job: Waiting) -> None:
        self._jobs_reserved -= 1
        self._reserved = self._reserved - job.cost if self._jobs_reserved else 0.0


def _clock_here() -> Clock:
    try:
        return clock_of(asyncio.get_running_loop())
    except RuntimeError:  # before there is a loop
        return SYSTEM_CLOCK


class Pace:
    """Instants that starts keep a distance from: a grid that moves on with each of them.

    A start is late when the loop was busy, and the rate would fall each time if the
    next distance were counted from there. So the grid is: a start that is late by no
    more than *slack* moves the next instant not at all. Hence any k + 1 starts take
    at least k distances less the slack.
    """

    __slots__ = ("at", "weight")

    def __init__(self) -> None:
        self.at = LONG_AGO
        """Where on the grid the last start belongs."""
        self.weight = 1.0
        """How many distances the next one keeps from it."""

    def due(self, distance: float) -> float:
        """Return when the next one may start."""
        return self.at + self.weight * distance

    def begin(self, waits_since: float, now: float, distance: float, slack: float, weight: float = 1.0) -> None:
        """One starts now that waited since then: who came after its instant is not late, the grid begins anew."""
        due = self.due(distance)
        self.at = max(due, now - slack) if waits_since <= due else now
        self.weight = weight
