"""Filters: which fire times of another rule count. ``Every(minutes=1) & Weekdays("mon-fri")``.

A filter looks at instants, never at other triggers: two sets of points have no
useful intersection. One that can tell its next allowed instant makes the search
a jump instead of a walk."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from datetime import datetime, tzinfo
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field, field_validator

from . import _words, _zone
from .at import weekday_mask
from .base import Rule, from_ns

__all__ = ["Filter", "Weekdays"]


class Filter(Rule):
    """A predicate over instants. Subclass it with your fields and ``allows``."""

    @property
    def zone(self) -> tzinfo | None:
        """The zone ``allows`` is asked in; None for the trigger's."""
        return None

    @abstractmethod
    def allows(self, at: datetime) -> bool:
        """Say whether a fire time at *at* (aware) counts."""
        raise NotImplementedError(f"{type(self).__name__} must define allows(at)")

    def change_after_ns(self, at: int) -> int | None:
        """Return an instant up to which the answer at *at* stays the same, if that is known."""
        del at
        return None

    def allows_ns(self, at: int, zone: tzinfo | None) -> bool:
        """As `allows`, for an instant in nanoseconds."""
        return self.allows(from_ns(at, self.zone or zone))

    def explain(self) -> str:
        """Return the filter in words."""
        return repr(self)


class Weekdays(Filter):
    """Only on these weekdays of a zone.

    Args:
        days: ``"mon-fri"``, ``"sunday"``, ``["mon", "thu"]``, ``"weekend"``.
        tz: The zone whose calendar counts.

    Raises:
        InvalidTrigger: If one is no weekday, or the zone is unknown.
    """

    days: Annotated[int, Field(ge=1, le=0b1111111)]
    tz: str = "UTC"

    def __init__(self, days: str | Iterable[str] | int, *, tz: str = "UTC", **unknown: Any) -> None:
        mask = days if isinstance(days, int) else weekday_mask(days, "Weekdays")
        fields: dict[str, Any] = {"days": mask, "tz": tz}
        super().__init__(**fields, **unknown)

    @field_validator("tz")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        _zone.zone(name)
        return name

    @cached_property
    def _tz(self) -> tzinfo:
        return _zone.zone(self.tz)

    @property
    def zone(self) -> tzinfo:
        """The zone whose calendar counts."""
        return self._tz

    def allows(self, at: datetime) -> bool:
        """Say whether *at* falls on one of the days."""
        return bool(self.days >> (at.astimezone(self._tz).isoweekday() % 7) & 1)

    def change_after_ns(self, at: int) -> int:
        """Return the instant before the next local midnight."""
        midnights = _zone.next_instant(self._tz, _MIDNIGHTS, at, "run_after", "first")
        return (at + _zone.DAY_NS if midnights is None else midnights) - 1

    def explain(self) -> str:
        """Return the filter in words."""
        return _words.weekdays(self.days)


class _Midnights:
    def next_wall(self, after: int, /) -> int:
        return (after // _zone.DAY_NS + 1) * _zone.DAY_NS

    def prev_wall(self, before: int, /) -> int:
        return before // _zone.DAY_NS * _zone.DAY_NS


_MIDNIGHTS = _Midnights()
