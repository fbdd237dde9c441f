"""`Cron`: calendar rules in cron's own words.

Five fields (minute, hour, day of month, month, day of week), six (seconds
first) or seven (year last), names, ranges that wrap (``fri-mon``), steps,
lists, ``0`` and ``7`` for Sunday, ``L``, ``L-3``, ``LW``, ``15W``, ``5L``,
``mon#2``, ``@daily`` and friends, and ``H``: a value drawn from the schedule's
id, so that a hundred nightly jobs do not start in one second.

Day of month and day of week follow Debian's cron: if neither begins with
``*``, a day matches when *either* does; a ``+`` before the weekdays asks for
both. A rule whose second, minute or hour begins with ``*`` counts elapsed time
and fires at every real instant; all others name times of day, which run once
on the nights when the clocks change (`_zone`)."""

from __future__ import annotations

import difflib
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Final

from pydantic import field_validator

from quarterjack.errors import InvalidTrigger, NeverFires

from . import _words, _zone
from ._cron_fields import FIELDS, CronFields, parse_field
from ._cron_grid import CronGrid
from ._cron_words import cron_sentence
from ._wall import FoldPolicy, GapPolicy, WallTrigger
from ._words import Sentence
from .base import Trigger

__all__ = ["Cron"]

_SHORTHANDS: Final = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


def _parse(expression: str, seed: str | None) -> CronFields:
    """Return an expression in its seven fields; *seed* decides every ``H``."""
    fields = [parse_field(name, text, column, expression, seed) for name, text, column in _split(expression)]
    return CronFields(*fields)


def _split(expression: str) -> list[tuple[str, str, int]]:
    """Return name, text and column of the seven fields, those left out filled in."""
    if not expression.isascii():
        raise InvalidTrigger(f"Cron {expression!r}: only ASCII characters have a meaning here")
    text = expression.strip()
    if text.startswith("@"):
        known = _SHORTHANDS.get(text.lower())
        if known is None:
            near = difflib.get_close_matches(text.lower(), _SHORTHANDS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(_SHORTHANDS)}"
            raise InvalidTrigger(f"Cron {expression!r}: no such shorthand; {hint}")
        text = known
    words: list[tuple[str, int]] = []
    position = 0
    for word in text.split():
        position = text.index(word, position)
        words.append((word, position + 1))
        position += len(word)
    if not 5 <= len(words) <= 7:
        raise InvalidTrigger(
            f"Cron {expression!r} has {len(words)} fields; write 5 (minute hour day month weekday), "
            "6 (second first) or 7 (year last)"
        )
    if len(words) == 5:
        words.insert(0, ("0", 1))
    if len(words) == 6:
        words.append(("*", len(text)))
    return [(name, word, column) for name, (word, column) in zip(FIELDS, words, strict=True)]


class Cron(WallTrigger):
    """A cron expression in a time zone.

    Args:
        expression: Five fields (minute, hour, day of month, month, weekday), six with seconds first, or
            seven with the year last.
        tz: The zone whose clock it reads, such as ``"Europe/Rome"``; UTC unless it is given.
        gap: What becomes of a time that does not exist: ``"run_after"``,
            ``"shift"``, ``"skip"``, ``"error"``; ``"auto"`` is as Debian's cron.
        fold: What becomes of a time that exists twice: ``"first"``, ``"last"``,
            ``"both"``; ``"auto"`` is as Debian's cron.

    Raises:
        InvalidTrigger: Naming the field, its column, what is allowed.
        NeverFires: If no date ever matches, such as 30 February.
    """

    positional: ClassVar[tuple[str, ...]] = ("expression",)
    example: ClassVar[str] = "Cron('*/5 9-17 * * mon-fri', tz='Europe/Rome')"

    expression: str
    bound_id: str | None = None
    """The schedule whose id decides every ``H``; filled in by `bound_to`."""

    if TYPE_CHECKING:

        def __init__(
            self,
            expression: str,
            *,
            tz: str = "UTC",
            gap: GapPolicy = "auto",
            fold: FoldPolicy = "auto",
            bound_id: str | None = None,
        ) -> None: ...

    def model_post_init(self, context: Any, /) -> None:
        """Refuse what can be read but never fires; not a validator, so that the error keeps its class."""
        del context
        if not self.needs_resolution and not self._cron_grid.ever():
            raise NeverFires(f"Cron {self.expression!r} never fires: no date matches its day, month, weekday and year")

    @field_validator("expression")
    @classmethod
    def _is_cron(cls, expression: str) -> str:
        _parse(expression, None)
        return " ".join(expression.split())

    @cached_property
    def _parsed(self) -> CronFields:
        return _parse(self.expression, self.bound_id)

    @cached_property
    def _has_open_hash(self) -> bool:
        return self.bound_id is None and any(field.has_hash for field in self._parsed)

    @property
    def needs_resolution(self) -> bool:
        """True if it holds an ``H`` that no schedule has decided yet."""
        return self._has_open_hash

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the rule with ``H`` drawn from the schedule's id."""
        del created_ns
        return self.bound_to(schedule_id) if self._has_open_hash else self

    def bound_to(self, schedule_id: str) -> Cron:
        """Return the rule with ``H`` drawn from *schedule_id*."""
        return Cron(self.expression, tz=self.tz, gap=self.gap, fold=self.fold, bound_id=schedule_id)

    @cached_property
    def grid(self) -> _zone.Grid:
        """The rule over wall-clock time; see `_cron_grid`."""
        return self._cron_grid

    @cached_property
    def _cron_grid(self) -> CronGrid:
        """The rule over wall-clock time.

        Raises:
            InvalidTrigger: If it holds an ``H`` that is bound to no schedule.
        """
        if self._has_open_hash:
            raise InvalidTrigger(
                f"Cron {self.expression!r} holds H, which a schedule's id decides; "
                'call .bound_to("schedule id") to look at its fire times'
            )
        p = self._parsed
        years = None if p.year.text == "*" else p.year.mask
        return CronGrid(p.second.mask, p.minute.mask, p.hour.mask, p.day, p.month.mask, p.weekday, years, both=p.both)

    @property
    def is_elapsed_like(self) -> bool:
        """True if its second, minute or hour begins with ``*``."""
        p = self._parsed
        return p.second.starts_with_star or p.minute.starts_with_star or p.hour.starts_with_star

    def _sentence(self) -> Sentence:
        words = cron_sentence(self.expression, self._parsed, _words.zone(self.tz), is_bound=not self._has_open_hash)
        return words._replace(notes=(*words.notes, *self._policy_notes()))
