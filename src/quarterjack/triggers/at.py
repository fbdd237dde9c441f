"""`At`: a named time of day, on every day or on some weekdays."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import time as Time  # noqa: N812  # `time` is the name of the first argument
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import Field, field_validator

from quarterjack.errors import InvalidTrigger

from . import _words, _zone
from ._cron_fields import parse_field
from ._cron_grid import CronGrid
from ._wall import FoldPolicy, GapPolicy, WallTrigger
from ._weekdays import EVERY_DAY, parse_weekdays, weekday_text
from ._words import Sentence

__all__ = ["At"]

_EVERY_MONTH: Final = 0b1111111111110


class At(WallTrigger):
    """A time of day: ``At("14:30")``, ``At(hour=14, minute=30)``, ``At("14:00", on="sunday")``.

    Args:
        time: ``"14:30"`` or ``"14:30:15"``, or a ``datetime.time``; or else *hour*,
            *minute* and *second*.
        on: ``"every day"``, a weekday, a range such as ``"mon-fri"``, ``"weekend"``, or
            several as a list or with commas.
        at: Another name of *on*.
        tz: The zone whose clock it reads.
        gap: What becomes of a time that does not exist on the night when the clocks
            go forward; by default it runs at the first instant after the gap.
        fold: What becomes of a time that exists twice; by default it runs the first time.

    Raises:
        InvalidTrigger: Naming the field, its value and what is allowed.
    """

    positional: ClassVar[tuple[str, ...]] = ("time",)
    example: ClassVar[str] = "At('14:30', on='mon-fri', tz='Europe/Rome')"

    hour: Annotated[int, Field(strict=True, ge=0, le=23)]
    minute: Annotated[int, Field(strict=True, ge=0, le=59)] = 0
    second: Annotated[int, Field(strict=True, ge=0, le=59)] = 0
    on: str = "every day"

    if TYPE_CHECKING:

        def __init__(
            self,
            time: str | Time | None = None,
            *,
            hour: int | None = None,
            minute: int = 0,
            second: int = 0,
            on: str | Sequence[str] = "every day",
            at: str | Sequence[str] | None = None,
            tz: str = "UTC",
            gap: GapPolicy = "auto",
            fold: FoldPolicy = "auto",
        ) -> None: ...

    @classmethod
    def arranged(cls, args: tuple[Any, ...], data: dict[str, Any]) -> dict[str, Any]:
        """Take the time apart, and ``at=`` for ``on=``."""
        found = super().arranged(args, dict(data))
        time, at = found.pop("time", None), found.pop("at", None)
        if time is not None:
            _check_one_time(time, found)
            found |= cls._clock(time)
        if found.get("hour", None) is None:
            raise InvalidTrigger(f"At needs a time{cls.hint()}")
        if at is not None:
            if "on" in found:
                raise InvalidTrigger(f"At: on={found['on']!r} and at={at!r} are the same thing; give one of them")
            found["on"] = at
        return found

    @classmethod
    def _clock(cls, time: object) -> dict[str, int]:
        try:
            at = _words.time_of_day(time)
        except ValueError as error:
            raise InvalidTrigger(f"At: {error}") from None
        if at.microsecond:
            raise InvalidTrigger(f"At takes whole seconds, got {at.isoformat()}")
        return {"hour": at.hour, "minute": at.minute, "second": at.second}

    @field_validator("on", mode="before")
    @classmethod
    def _one_spelling(cls, value: object) -> str:
        return weekday_text(parse_weekdays(value, "on"))

    @cached_property
    def _mask(self) -> int:
        return parse_weekdays(self.on, "on")

    @cached_property
    def grid(self) -> _zone.Grid:
        """The rule over wall-clock time."""
        text = "*" if self._mask == EVERY_DAY else ",".join(map(str, _words.bits(self._mask)))
        days = parse_field("day of month", "*", 1, "*", None)
        weekdays = parse_field("day of week", text, 1, text, None)
        return CronGrid(
            1 << self.second, 1 << self.minute, 1 << self.hour, days, _EVERY_MONTH, weekdays, None, both=True
        )

    @property
    def is_elapsed_like(self) -> bool:
        """False: it names a time of day."""
        return False

    def _sentence(self) -> Sentence:
        return Sentence(
            times=(_words.clock(Time(self.hour, self.minute, self.second)),),
            days=_words.apart(_words.weekdays(self._mask)),
            zone=_words.zone(self.tz),
            notes=self._policy_notes(),
        )


def _check_one_time(time: object, found: dict[str, Any]) -> None:
    twice = [name for name in ("hour", "minute", "second") if found.get(name) is not None]
    if twice:
        raise InvalidTrigger(f"At: the time is given twice, as {time!r} and by {', '.join(twice)}")
