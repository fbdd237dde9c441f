"""`ConcurrencyLimit`: at most so many at once."""

from __future__ import annotations

import math
from asyncio import current_task
from collections.abc import Mapping
from threading import get_ident
from typing import Any, Final, Literal

from quarterjack._choices import one_of
from quarterjack._fast import EAGER_TASKS
from quarterjack._numbers import whole_number
from quarterjack.errors import InvalidOption

from ._fleet import FleetForm, OnStoreError, Scope, settle_scope
from ._keys import By
from ._options import CRUMBS, changed
from ._purse import SlotPurse
from .base import Gate
from .outcome import Ended
from .permit import ANY_ONE, Turnstile
from .waiting import Waiting

__all__ = ["ConcurrencyLimit", "FleetConcurrencyLimit"]

Reentrant = Literal["raise", "donate"]
_SETTINGS: Final = ("max_concurrent",)


class ConcurrencyLimit(Gate):
    """Lets at most *max_concurrent* jobs run at once; who waits longest goes next.

    Use it to spare what is scarce while it is in use: connections, memory, file
    handles. Not for a quota per second: short jobs pass it in any number, see
    `SlidingWindow`.

    A job of ``cost=3`` takes three slots. Slots come back when the body is over,
    however it ends. `update` may change the limit at any time; one that shrinks
    withholds slots and cancels nobody; a job that waits and costs more than the new
    limit ends with `InvalidOption`. O(1) time and space.

    A job that awaits another one (or ``async with`` this gate) keeps its slots.
    Where that can never end, because all slots are held by jobs that wait for
    more of them, it raises `WouldDeadlock`. With ``reentrant="donate"`` a job's
    slots serve others while it awaits jobs; before it goes on it waits for them to be
    free again, first in line. A body that was interrupted (cancelled, timed out)
    has them back at once, and nobody else comes in until there are few enough.
    An ``async with`` of what the task or its job holds already needs no slot then.

    With ``scope="fleet"`` the slots are those of all processes together: rows in the store,
    renewed while they are held, so that a process that dies frees its own, see ``docs/flow/fleet.md``.

    Args:
        max_concurrent: Slots, 1 or more.
        by: A limit for each key, such as ``by="tenant"``.
        reentrant: ``"raise"`` or ``"donate"``, see above.
        name: What it is called in `why_waiting` and `stats`.
        scope: ``"process"``, or ``"fleet"``: the limit holds for all processes on one store, by its *name*.
        batch: Of a fleet: how many slots are asked for at once, 10 by default; 1 is strict.
        on_store_error: Of a fleet: ``"closed"`` (default), ``"open"`` or ``"local"``, while the store does not answer.

    Raises:
        InvalidOption: Naming the option, the value and the range.
    """

    def __init__(
        self,
        max_concurrent: int,
        *,
        by: By | None = None,
        reentrant: Reentrant = "raise",
        name: str | None = None,
        scope: Scope = "process",
        batch: int | None = None,
        on_store_error: OnStoreError | None = None,
    ) -> None:
        super().__init__(by=by, name=name)
        self.lends = one_of(reentrant, "reentrant", Reentrant) == "donate"
        self._lent: set[Waiting] = set()
        self.max_concurrent = whole_number(max_concurrent, "max_concurrent", 1)
        self.used = 0.0
        """Slots in use."""
        self._users = 0
        """Jobs that use some."""
        settle_scope(self, ConcurrencyLimit, FleetConcurrencyLimit, scope, batch, on_store_error)

    # -- alone: with a slot free and nobody waiting a pass is a count and an entry in a dict ----------

    async def __aenter__(self) -> None:
        turnstile = self._turnstile
        task = None if turnstile is None else current_task(turnstile.loop)
        if (
            turnstile is None
            or task is None
            or task in turnstile.inside
            or not turnstile.is_fast
            or turnstile.posts[0].entries  # somebody waits
            or turnstile.dispatcher._ready  # or is about to be asked for
            or (EAGER_TASKS and turnstile.dispatcher._advancing)
            or self.used + 1.0 > self.max_concurrent + CRUMBS
            or turnstile.thread != get_ident()
        ):
            return await super().__aenter__()  # type: ignore[no-any-return]  # it routes nothing
        self._users += 1
        self.used += 1.0
        turnstile.inside[task] = ANY_ONE
        return None

    def _leave_fast(self, turnstile: Turnstile) -> None:
        self._give_one()
        if turnstile.posts[0].entries:
            turnstile.dispatcher.open(turnstile.posts[0])

    _has_fast_path = True

    def _take_one(self, now: float) -> bool:
        used = self.used + 1.0
        if used > self.max_concurrent + CRUMBS:
            return False
        self.used = used
        self._users += 1
        return True

    def _give_one(self) -> None:
        self._users = users = self._users - 1
        self.used = self.used - 1.0 if users else 0.0

    _untake_one = _give_one

    # -- as a gate ---------------------------------------------------------------------

    def eta(self, job: Waiting, now: float) -> float:
        if self.used + job.cost <= self.max_concurrent + CRUMBS:
            return now
        self.check(job)  # the limit may have shrunk since it came
        return math.inf

    def take(self, job: Waiting, now: float) -> None:
        self._users += 1
        self.used += job.cost

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        if self._lent and job in self._lent:  # its body is over, and somebody in it waits still
            self._lent.discard(job)
        else:
            self._free(job)

    def stays_closed(self, job: Waiting, held: float) -> bool:
        return bool(held + job.cost > self.max_concurrent + CRUMBS)

    def lend(self, job: Waiting) -> None:
        self._free(job)
        self._lent.add(job)

    def take_back(self, job: Waiting) -> None:
        if job in self._lent:  # else the attempt that lent it is over, and another one runs
            self._lent.remove(job)
            self.take(job, 0.0)

    def _free(self, job: Waiting) -> None:
        self._users -= 1
        self.used = self.used - job.cost if self._users else 0.0

    _spares_light = True

    def check(self, job: Waiting) -> None:
        if job.cost > self.max_concurrent:
            raise InvalidOption(
                f"cost={job.cost:g} is above max_concurrent={self.max_concurrent:g} of {self!r}: "
                "it could never start; lower the cost or raise the limit with update(max_concurrent=…)"
            )

    def is_idle(self, now: float) -> bool:
        return not self._users and not self._lent

    def forget(self) -> None:
        self.used, self._users = 0.0, 0
        self._lent.clear()

    def stats(self) -> dict[str, Any]:
        return {"max_concurrent": self.max_concurrent, "used": self.used}

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        changed(self, changes, _SETTINGS)
        whole_number(changes.get("max_concurrent", self.max_concurrent), "max_concurrent", 1)

    def _change(self, changes: Mapping[str, Any]) -> None:
        self.max_concurrent = changes.get("max_concurrent", self.max_concurrent)


class FleetConcurrencyLimit(FleetForm[SlotPurse], ConcurrencyLimit):
    """The same for all processes on one store."""

    _kind = "slots"

    def _make_purse(self, limit: str) -> SlotPurse:
        return SlotPurse(self, self._tie, limit, self._terms)

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        super().give(job, now, ended)
        self._purse.left()

    def lend(self, job: Waiting) -> None:
        super().lend(job)
        self._purse.left()

    def stats(self) -> dict[str, Any]:
        return {**super().stats(), "held": len(self._purse.held)}
