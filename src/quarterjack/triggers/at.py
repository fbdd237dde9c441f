"""`At`: named times of day, on every day or on some weekdays."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Annotated, Any, Final

from pydantic import Field

from quarterjack.errors import InvalidTrigger

from . import _words, _zone
from ._cron_fields import parse_field
from ._cron_grid import CronGrid
from ._wall import FoldPolicy, GapPolicy, WallTrigger

__all__ = ["At", "weekday_mask"]

_CLOCK: Final = re.compile(r"([0-9]{1,2}):([0-9]{2})(?::([0-9]{2}))?")
_EVERY_DAY: Final = 0b1111111


def weekday_mask(days: str | Iterable[str], where: str) -> int:
    """Return weekdays as a mask, Sunday is bit 0.

    Takes ``"every day"``, ``"weekdays"``, ``"weekend"``, ``"sunday"``, ``"every
    sunday"``, ``"mon-fri"``, ``"mon,thu"`` or a list of such.

    Raises:
        InvalidTrigger: If one is no weekday.
    """
    mask = 0
    for item in [days] if isinstance(days, str) else list(days):
        if not isinstance(item, str):
            raise InvalidTrigger(f'{where} must be weekdays such as "mon-fri" or ["mon", "thu"], got {item!r}')
        text = item.strip().lower().removeprefix("every ").strip()
        named = {"day": _EVERY_DAY, "weekday": 0b0111110, "weekdays": 0b0111110, "weekend": 0b1000001}.get(text)
        mask |= named if named is not None else _named_days(text, where)
    if not mask:
        raise InvalidTrigger(f'{where} names no day; write "every day", "sunday" or "mon-fri"')
    return mask


def _named_days(text: str, where: str) -> int:
    short = re.sub(r"[a-z]+", _shortened, text).replace(" ", "")
    try:
        return parse_field("day of week", short, 1, short, None).mask
    except InvalidTrigger:
        raise InvalidTrigger(
            f'{where}: {text!r} is no weekday; write "every day", "sunday", "mon-fri" or "mon,thu"'
        ) from None


def _shortened(match: re.Match[str]) -> str:
    """Return ``mon`` for ``monday`` and ``mondays``; anything else stays, to be refused."""
    word = match[0].removesuffix("s") if len(match[0]) > 5 else match[0]
    full = {name.lower(): name.lower()[:3] for name in _words.WEEKDAY_NAMES}
    return full.get(word, word)


class At(WallTrigger):
    """A time of day: ``At("14:30")``, ``At(hour=14, minute=30)``, ``At("14:00", on="sunday")``.

    Args:
        time: ``"HH:MM"`` or ``"HH:MM:SS"``; or *hour*, *minute*, *second*.
        on: ``"every day"``, a weekday, a range such as ``"mon-fri"``, or a list.
        at: Another name of *on*.
        tz: The zone whose clock it reads.
        gap, fold: What happens on the nights when the clocks change: by default
            a time that does not exist runs at the first instant after the gap,
            and one that exists twice runs the first time.

    Raises:
        InvalidTrigger: Naming the field, its value and what is allowed.
    """

    hour: Annotated[int, Field(ge=0, le=23)]
    minute: Annotated[int, Field(ge=0, le=59)] = 0
    second: Annotated[int, Field(ge=0, le=59)] = 0
    days: Annotated[int, Field(ge=1, le=_EVERY_DAY)] = _EVERY_DAY

    def __init__(
        self,
        time: str | None = None,
        *,
        hour: int | None = None,
        minute: int = 0,
        second: int = 0,
        on: str | Iterable[str] | None = None,
        at: str | Iterable[str] | None = None,
        tz: str = "UTC",
        gap: GapPolicy = "auto",
        fold: FoldPolicy = "auto",
        days: int | None = None,
        **unknown: Any,
    ) -> None:
        if on is not None and at is not None:
            raise InvalidTrigger("At: on= and at= are the same thing; give one of them")
        if time is not None:
            if hour is not None or minute or second:
                raise InvalidTrigger(f"At({time!r}): give the time as text or as hour=, minute=, second=, not both")
            hour, minute, second = _clock(time)
        if hour is None:
            raise InvalidTrigger('At needs a time: At("14:30") or At(hour=14, minute=30)')
        chosen = on if on is not None else at
        if days is None:
            days = _EVERY_DAY if chosen is None else weekday_mask(chosen, "At: on")
        fields: dict[str, Any] = {
            "hour": hour,
            "minute": minute,
            "second": second,
            "days": days,
            "tz": tz,
            "gap": gap,
            "fold": fold,
        }
        super().__init__(**fields, **unknown)

    @cached_property
    def grid(self) -> _zone.Grid:
        """The rule over wall-clock time."""
        text = "*" if self.days == _EVERY_DAY else ",".join(map(str, _words.bits(self.days)))
        days = parse_field("day of month", "*", 1, "*", None)
        weekdays = parse_field("day of week", text, 1, text, None)
        return CronGrid(
            1 << self.second, 1 << self.minute, 1 << self.hour, days, 0b1111111111110, weekdays, None, both=True
        )

    @property
    def is_elapsed_like(self) -> bool:
        """False: it names a time of day."""
        return False

    def explain(self) -> str:
        """Return the rule in words."""
        time = f"at {self.hour:02}:{self.minute:02}" + (f":{self.second:02}" if self.second else "")
        days = " every day" if self.days == _EVERY_DAY else _on(_words.weekdays(self.days))
        return f"{time}{days}{self.zone_words()}"


def _on(words: str) -> str:
    return f" {words}" if words.startswith("on ") else f", {words}"


def _clock(time: str) -> tuple[int, int, int]:
    match = _CLOCK.fullmatch(time.strip()) if isinstance(time, str) else None
    if match is None or int(match[1]) > 23 or int(match[2]) > 59 or int(match[3] or 0) > 59:
        raise InvalidTrigger(f'At: a time of day is "HH:MM" or "HH:MM:SS" from 00:00 to 23:59:59, got {time!r}')
    return int(match[1]), int(match[2]), int(match[3] or 0)
