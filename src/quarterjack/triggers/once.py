"""Triggers that follow a schedule's own life: `Once`, and `Forever`, which runs again after each end."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from . import _words
from .base import NativeTrigger, Trigger, UnlistedTrigger, from_ns, instant_ns

__all__ = ["Forever", "Once"]


class Once(NativeTrigger):
    """One shot: when the schedule is created, or at an instant.

    On a durable store it runs once per row and fleet, not once per restart; for
    once per process there is `OnStartup`.

    Args:
        at: When, as an aware datetime; None is at creation.

    Raises:
        InvalidTrigger: If *at* has no zone.
    """

    at: datetime | None = None

    def __init__(self, at: datetime | None = None, **unknown: Any) -> None:
        fields: dict[str, Any] = {"at": at}
        super().__init__(**fields, **unknown)

    @model_validator(mode="after")
    def _aware(self) -> Self:
        if self.at is not None:
            instant_ns(self.at, "at")
        return self

    @cached_property
    def _instant(self) -> int | None:
        return None if self.at is None else instant_ns(self.at, "at")

    @property
    def fires_at_creation(self) -> bool:
        """True without *at*."""
        return self.at is None

    @property
    def is_elapsed_like(self) -> bool:
        """False: it names an instant."""
        return False

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the rule with its instant: the schedule's creation, to the microsecond."""
        del schedule_id
        return self if self.at is not None else Once(from_ns(created_ns))

    def next_ns(self, after: int, /) -> int | None:
        """Return its instant if that is after *after*."""
        return self._instant if self._instant is not None and self._instant > after else None

    def prev_ns(self, before: int, /) -> int | None:
        """Return its instant if that is not after *before*."""
        return self._instant if self._instant is not None and self._instant <= before else None

    def explain(self) -> str:
        """Return the rule in words."""
        return "once, at its creation" if self.at is None else f"once, at {self.at.isoformat(' ', 'seconds')}"


class Forever(UnlistedTrigger):
    """Again as soon as the last run ended, after *pause* seconds; the first run when the schedule is created.

    The chain survives a dying worker: the next run is written with the outcome
    of the last. There is no list of fire times: ``next``, ``prev`` and ``count``
    raise `NotPeriodic`.
    """

    pause: Annotated[float, Field(ge=0, le=10**9, allow_inf_nan=False)] = 0

    def __init__(self, pause: float = 0, **unknown: Any) -> None:
        fields: dict[str, Any] = {"pause": pause}
        super().__init__(**fields, **unknown)

    @property
    def fires_at_creation(self) -> bool:
        """True: the first run does not wait for one before it."""
        return True

    @cached_property
    def _pause_ns(self) -> int:
        return round(self.pause * 10**9)

    @property
    def after_finish_ns(self) -> int:
        """How long after a run's end the next is due."""
        return self._pause_ns

    def explain(self) -> str:
        """Return the rule in words."""
        if not self._pause_ns:
            return "forever, again as soon as the last run ended"
        return f"forever, {_words.period(self._pause_ns, every=False)} after the last run ended"
