"""`Forever`: again and again, each run after the last one's end."""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from quarterjack._durations import Seconds, to_ns

from . import _words
from .base import UnlistedTrigger

__all__ = ["Forever"]


class Forever(UnlistedTrigger):
    """Runs when its schedule is created, and again as soon as each run has ended.

    One chain per schedule in the whole fleet: the next run is made when the last
    one reaches its final state, whatever that is, so it survives the death of any
    process. It has no fire times to list: ``next``, ``prev`` and ``count`` raise
    `NotPeriodic`.

    Args:
        pause: Seconds or a timedelta between a run's end and the next start, 0 or more.

    Raises:
        InvalidTrigger: Naming the value and what is allowed.
    """

    positional: ClassVar[tuple[str, ...]] = ("pause",)
    example: ClassVar[str] = "Forever(pause=1.5)"

    pause: float = Field(default=0, strict=True)

    if TYPE_CHECKING:

        def __init__(self, pause: Seconds = 0) -> None: ...

    @field_validator("pause", mode="before")
    @classmethod
    def _in_range(cls, value: Any) -> float:
        ns = to_ns(value, "pause")
        return value.total_seconds() if isinstance(value, timedelta) else ns / 1e9

    @cached_property
    def _pause_ns(self) -> int:
        return to_ns(self.pause, "pause")

    @property
    def fires_at_creation(self) -> bool:
        """True: the first run starts the chain."""
        return True

    @property
    def after_finish_ns(self) -> int:
        """The pause."""
        return self._pause_ns

    def explain(self) -> str:
        """Return the rule in words."""
        if not self._pause_ns:
            return "again as soon as the last run has ended"
        return f"again {_words.period(self._pause_ns, every=False)} after the last run has ended"
