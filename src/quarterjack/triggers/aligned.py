"""The clock face: `Aligned` stands on :00, :15, :30, :45 of a zone's clock."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar, Self

from pydantic import model_validator

from . import _words, _zone
from ._periods import SHORTEST_NS, Amount, given, total_ns
from ._wall import WallTrigger
from ._words import Sentence

__all__ = ["Aligned"]


class _DayGrid:
    """The wall-clock grid that starts anew at each midnight."""

    __slots__ = ("_per_day", "_period")

    def __init__(self, period: int) -> None:
        self._period = period
        self._per_day = -(-_zone.DAY_NS // period)

    def next_wall(self, after: int, /) -> int:
        """Return the first clock top after *after*."""
        day, within = divmod(after, _zone.DAY_NS)
        following = (within // self._period + 1) * self._period
        return day * _zone.DAY_NS + min(following, _zone.DAY_NS)

    def prev_wall(self, before: int, /) -> int:
        """Return the last clock top at or before *before*."""
        return before - before % _zone.DAY_NS % self._period

    def count_wall(self, after: int, until: int, /) -> int:
        """Return how many clock tops lie in ``(after, until]``."""
        return self._number(until) - self._number(after)

    def _number(self, at: int) -> int:
        """Return how many clock tops passed since the epoch, its own midnight left out."""
        day, within = divmod(at, _zone.DAY_NS)
        return day * self._per_day + within // self._period


class Aligned(WallTrigger):
    """The clock tops of a zone: a grid that starts anew at each local midnight.

    ``Aligned(minutes=15)`` is :00, :15, :30 and :45 on the clock face. Where the
    period does not divide the day, the day's last step is shorter (7 hours:
    00:00, 07:00, 14:00, 21:00, 00:00); the grid that goes on across hours and days
    is `Every`. Daylight saving goes as for `Cron` with a ``*``: both passes of a
    repeated hour, nothing in a skipped one. A period of a whole day names a time of
    day, midnight: where the clocks skip it, it runs right after.

    Args:
        days, hours, minutes, seconds, milliseconds: Add up to the period, from
            1 millisecond to 24 hours; fractions are allowed.
        tz: The zone, such as ``"Europe/Rome"``.
        gap: What becomes of clock tops that do not exist: ``"auto"``, ``"run_after"``,
            ``"shift"``, ``"skip"``, ``"error"``.
        fold: What becomes of clock tops that exist twice: ``"auto"``, ``"first"``,
            ``"last"``, ``"both"``.

    Raises:
        InvalidTrigger: Naming the field, its value and what is allowed.
    """

    example: ClassVar[str] = "Aligned(minutes=15)"

    days: Amount = 0
    hours: Amount = 0
    minutes: Amount = 0
    seconds: Amount = 0
    milliseconds: Amount = 0

    @model_validator(mode="after")
    def _in_range(self) -> Self:
        if not SHORTEST_NS <= total_ns(self) <= _zone.DAY_NS:
            raise ValueError(
                f"the period must be from 1 millisecond to 24 hours, got {given(self)}; "
                "longer ones are Every(…) or Cron(…)"
            )
        return self

    @cached_property
    def period_ns(self) -> int:
        """The period in nanoseconds."""
        return total_ns(self)

    @cached_property
    def grid(self) -> _zone.Grid:
        """The rule over wall-clock time."""
        return _DayGrid(self.period_ns)

    @property
    def is_elapsed_like(self) -> bool:
        """True, but for once a day: midnight is a time of day."""
        return self.period_ns < _zone.DAY_NS

    def _sentence(self) -> Sentence:
        zone, notes = _words.zone(self.tz), self._policy_notes()
        if self.period_ns == _zone.DAY_NS:
            return Sentence(times=("00:00",), days=" every day", zone=zone, notes=notes)
        if _zone.DAY_NS % self.period_ns:
            notes = (f"the grid begins anew each midnight, Every({given(self)}) is even", *notes)
        return Sentence(when=f"{_words.period(self.period_ns)} on the clock", zone=zone, notes=notes)
