"""`Priority`: the urgent first, nobody for ever last, and fair among those who share."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Mapping
from typing import Any, Final

from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import number, shown, whole_number
from quarterjack.clock import Clock
from quarterjack.errors import InvalidOption

from ._fair import FairShares
from ._keys import By, check_by, key_of
from ._options import changed
from .base import Order
from .inheritance import DEFAULT_PRIORITY
from .waiting import Waiting

__all__ = ["Priority"]

_SETTINGS: Final = ("weights",)


class Priority(Order):
    """The job with the lowest ``priority=`` goes next, and one that waits grows more urgent.

    Use it where some jobs matter more than others *and all are to be done*: each level
    is worth *aging* seconds of waiting, so a job is overtaken only by those of a more
    urgent level that came less than ``(its level - theirs) * aging`` seconds after it.
    Within a level it is first come, first served. Not to keep work out altogether
    (give that a flow, or a queue, of its own), and not for what is running: nothing
    is interrupted. In a flow without a gate nobody waits, and it merely orders those who
    come at the same moment; in an app also those who wait for an executor's slot.

    Inheritance: a job that a body submits without a priority is as urgent as that
    body's job, and one that a more urgent job's body awaits is lifted to it, with all
    that it awaits itself. Nothing is ever lowered.

    With ``fair_by="tenant"`` tenants take turns (start-time fair queueing): over any
    stretch in which two of them wait, what they were given, divided by their weights,
    differs by at most a job of each. Priorities then sort the jobs *within* a tenant:
    nobody gets more than a share by calling all he has urgent. A flow that shares gates
    with another one should share its `Priority` with it, too. In an app turns are
    taken among what the worker has claimed, 32 jobs of a flow or, but for memory, 8: the store
    knows none, see ``docs/flow/priority.md``.

    The rank of a job is a constant, ``enqueued_at + level * aging``: nothing is sorted
    anew as time passes. O(log n) time per job, O(n) space; with *fair_by* O(log n + l)
    for a key whose jobs stand before l different sets of gates.

    Args:
        levels: How many there are, 1 or more: ``priority=0``, the most urgent, up to
            ``levels - 1``. Jobs that name none have 2, or the last of fewer levels.
        aging: What a level is worth, in seconds of waiting, above 0.
        fair_by: Whose turn it is: a name that is looked up in the job's ``key=`` and
            then among its arguments, or a function of the job.
        weights: The weight of a key, above 0; those not named have 1.

    Raises:
        InvalidOption: Naming the option, the value and the range.

    Source:
        P. Goyal, H. M. Vin, H. Cheng, "Start-time Fair Queueing", SIGCOMM 1996.
    """

    def __init__(
        self,
        levels: int = 5,
        aging: Seconds = 10.0,
        fair_by: By | None = None,
        weights: Mapping[Any, float] | None = None,
    ) -> None:
        self.levels: Final[int] = whole_number(levels, "levels", 1)
        self.aging_s: Final = to_seconds(aging, "aging", exclusive=True)
        check_by(fair_by, "fair_by")
        if weights is not None and fair_by is None:
            raise InvalidOption('weights need fair_by=, which says whose they are, such as fair_by="tenant"')
        self.fair_by: Final = fair_by
        self.weights: Mapping[Any, float] = _checked(weights)
        self._fair = FairShares(self._weight_of)

    def level_of(self, job: Waiting) -> int:
        """Return the level of *job*, inheritance included."""
        return min(job.urgency, self.levels - 1)

    def rank(self, job: Waiting, now: float) -> float:
        instant = self._instant(job)
        return instant if self.fair_by is None else self._fair.rank(job, instant)

    def check(self, job: Waiting) -> None:
        priority = job.priority
        if priority >= self.levels and priority != DEFAULT_PRIORITY:
            raise InvalidOption(
                f"priority={priority} is not among the {self.levels} levels of {self!r}: "
                f"0 is the most urgent, {self.levels - 1} the least; lower it, or give the order more levels="
            )
        if self.fair_by is not None:
            key_of(self.fair_by, job, self)

    def came(self, job: Waiting, now: float) -> None:
        if self.fair_by is not None:
            self._fair.came(job, self._instant(job), key_of(self.fair_by, job, self), now)

    def chosen(self, job: Waiting, now: float) -> None:
        self._fair.chosen(job)

    def left(self, job: Waiting, now: float) -> None:
        self._fair.left(job)

    def _anew(self, clock: Clock) -> Priority:
        order = copy.copy(self)
        order._fair = FairShares(order._weight_of)
        return order

    def update(self, **changes: Any) -> None:
        """Change ``weights`` at run time; what they were given before counts as it did.

        Raises:
            InvalidOption: If it has no such setting, or the value is out of range; nothing is changed.
        """
        changed(self, changes, _SETTINGS)
        if "weights" in changes:
            if self.fair_by is None:
                raise InvalidOption("weights need fair_by=, and this Priority was made without")
            self.weights = _checked(changes["weights"])

    def stats(self) -> dict[str, Any]:
        """Return how many wait, by key, with ``fair_by=``."""
        return {"waiting_by_key": self._fair.waiting} if self.fair_by is not None else {}

    def _instant(self, job: Waiting) -> float:
        return job.enqueued_at + self.level_of(job) * self.aging_s

    def _weight_of(self, key: Hashable) -> float:
        return self.weights.get(key, 1.0)

    def __repr__(self) -> str:
        fair = "" if self.fair_by is None else f", fair_by={self.fair_by!r}"
        return f"Priority(levels={self.levels}, aging={self.aging_s:g}{fair})"


def _checked(weights: Mapping[Any, float] | None) -> Mapping[Any, float]:
    if weights is not None and not isinstance(weights, Mapping):
        raise InvalidOption(f'weights must be a mapping such as {{"acme": 2.0}}, got {shown(weights)}')
    for key, weight in (weights or {}).items():
        number(weight, f"the weight of {shown(key)}", 1e-6, 1e6)
    return dict(weights or {})
