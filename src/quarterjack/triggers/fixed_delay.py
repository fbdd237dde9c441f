"""`FixedDelay`: a pause of fixed length between the end of one run and the start of the next."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Self

from pydantic import model_validator

from . import _words
from ._periods import LONGEST_NS, SHORTEST_NS, Amount, given, total_ns
from .base import UnlistedTrigger

__all__ = ["FixedDelay"]


class FixedDelay(UnlistedTrigger):
    """Runs a fixed time after each run has ended: ``FixedDelay(minutes=5)``.

    The first run comes that long after its schedule is created. The next one is
    made when the last one reaches its final state, retries included, whatever that
    state is, so the chain survives the death of any process; there is one chain
    per schedule in the whole fleet. What starts on the clock instead, however long
    runs take, is `Every`; what starts again at once is `Forever`.

    It has no fire times to list or to combine: ``next``, ``prev`` and ``count``
    raise `NotPeriodic`, and none can be missed.

    Args:
        weeks, days, hours, minutes, seconds, milliseconds: Add up to the delay,
            from 1 millisecond to about 200 years; fractions are allowed.

    Raises:
        InvalidTrigger: Naming the field, its value and what is allowed.
    """

    example: ClassVar[str] = "FixedDelay(minutes=5)"

    weeks: Amount = 0
    days: Amount = 0
    hours: Amount = 0
    minutes: Amount = 0
    seconds: Amount = 0
    milliseconds: Amount = 0

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not SHORTEST_NS <= total_ns(self) <= LONGEST_NS:
            raise ValueError(f"the delay must be from 1 millisecond to 200 years, got {given(self)}")
        return self

    @cached_property
    def _delay_ns(self) -> int:
        return total_ns(self)

    @property
    def after_finish_ns(self) -> int:
        """The delay."""
        return self._delay_ns

    def explain(self) -> str:
        """Return the rule in words: ``5 minutes after the last run has ended``."""
        return f"{_words.period(self._delay_ns, every=False)} after the last run has ended"
