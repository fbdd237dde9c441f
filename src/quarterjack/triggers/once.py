"""`Once`: a single run, at an instant or as soon as its schedule exists."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from pydantic import field_validator

from . import _words
from .base import NativeTrigger, in_utc, instant_ns

__all__ = ["Once"]


class Once(NativeTrigger):
    """One run: at the instant *at*, or without it when the schedule is created.

    On a durable store it is once per schedule, not once per restart; for the
    latter see `OnStartup`. An instant more than two seconds past when the schedule is
    put, or moved to it, does not run: it is recorded as missed, with a warning in the
    log. One that the schedule has just served does not come again by a change.

    Args:
        at: An aware datetime. In a repeated hour its ``fold`` chooses the pass; a
            local time that the clocks skip is refused.

    Raises:
        InvalidTrigger: If *at* is no datetime, has no zone, lies outside the years 1 to 9999
            in UTC, or is a local time that does not exist.
    """

    positional: ClassVar[tuple[str, ...]] = ("at",)
    example: ClassVar[str] = "Once(datetime(2030, 1, 1, tzinfo=UTC))"

    at: datetime | None = None

    if TYPE_CHECKING:

        def __init__(self, at: datetime | None = None) -> None: ...

    @field_validator("at", mode="before")
    @classmethod
    def _exists(cls, value: object) -> object:
        if value is None:
            return None
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                raise ValueError(f"at must be an aware datetime, got {value!r}") from None
        if not isinstance(value, datetime):
            raise ValueError(f"at must be an aware datetime, got {value!r}")  # noqa: TRY004  # pydantic takes ValueError
        there = in_utc(value, "at")
        if there.astimezone(value.tzinfo).replace(tzinfo=None) != value.replace(tzinfo=None):
            raise ValueError(
                f"at={value.isoformat()} does not exist in {value.tzinfo}: the clocks go forward over it; "
                f"the same instant is {there.astimezone(value.tzinfo).isoformat()}"
            )
        return there

    @cached_property
    def _at_ns(self) -> int | None:
        return None if self.at is None else instant_ns(self.at, "at")

    @property
    def fires_at_creation(self) -> bool:
        """True without an instant: the run at creation is then the only one."""
        return self.at is None

    @property
    def is_elapsed_like(self) -> bool:
        """False: it names an instant, and a clock set back must not bring it again."""
        return False

    def next_ns(self, after: int, /) -> int | None:
        """Return the instant if it lies after *after*; None for the run at creation, which is past by then."""
        at = self._at_ns
        return at if at is not None and at > after else None

    def prev_ns(self, before: int, /) -> int | None:
        """Return the instant if it lies at or before *before*."""
        at = self._at_ns
        return at if at is not None and at <= before else None

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Return 1 if the instant lies in ``(after, until]``."""
        at = self._at_ns
        return min(cap, 1) if at is not None and after < at <= until else 0

    def explain(self) -> str:
        """Return the rule in words."""
        return "once, when its schedule is created" if self.at is None else f"once, on {_words.instant(self.at)}"
