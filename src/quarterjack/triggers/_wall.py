"""Triggers that name wall-clock times of a zone: what `Cron`, `At` and `Aligned` share."""

from __future__ import annotations

from abc import abstractmethod
from datetime import UTC, tzinfo
from functools import cached_property
from typing import Final, Literal

from pydantic import field_validator

from . import _zone
from ._words import Sentence
from .base import NativeTrigger

__all__ = ["FoldPolicy", "GapPolicy", "WallTrigger"]

GapPolicy = Literal["auto", "run_after", "shift", "skip", "error"]
FoldPolicy = Literal["auto", "first", "last", "both"]

_GAP_WORDS: Final = {
    "run_after": "runs right after",
    "shift": "runs later by as much",
    "skip": "is left out",
    "error": "is an error",
}
_FOLD_WORDS: Final = {"first": "the first time", "last": "the second time", "both": "both times"}


class WallTrigger(NativeTrigger):
    """A grid over wall-clock time in a zone, with policies for the two special nights."""

    tz: str = "UTC"
    gap: GapPolicy = "auto"
    fold: FoldPolicy = "auto"

    @field_validator("tz")
    @classmethod
    def _known_zone(cls, name: str) -> str:
        _zone.zone(name)
        return name

    @cached_property
    def grid(self) -> _zone.Grid:
        """The rule over wall-clock time."""
        raise NotImplementedError

    @cached_property
    def _tz(self) -> tzinfo:
        return _zone.zone(self.tz)

    @property
    def zone(self) -> tzinfo:
        """The zone its fire times are named in."""
        return self._tz

    @cached_property
    def _policies(self) -> tuple[_zone.Gap, _zone.Fold]:
        """The policies in force: Debian's cron decides what is left to ``auto``."""
        elapsed = self.is_elapsed_like
        gap: _zone.Gap = ("skip" if elapsed else "run_after") if self.gap == "auto" else self.gap
        fold: _zone.Fold = ("both" if elapsed else "first") if self.fold == "auto" else self.fold
        return gap, fold

    def next_ns(self, after: int, /) -> int | None:
        """Return the first fire time after *after*."""
        gap, fold = self._policies
        return _zone.next_instant(self._tz, self.grid, after, gap, fold)

    def prev_ns(self, before: int, /) -> int | None:
        """Return the last fire time at or before *before*."""
        gap, fold = self._policies
        return _zone.prev_instant(self._tz, self.grid, before, gap, fold)

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Return how many fire times lie in ``(after, until]``, at most *cap*; long ranges are not walked."""
        gap, fold = self._policies
        return _zone.count_instants(self._tz, self.grid, after, until, cap, gap, fold)

    def explain(self) -> str:
        """Return the rule in words: ``at 09:00 and 17:00, Monday to Friday, Rome time``."""
        return self._sentence().text

    @abstractmethod
    def _sentence(self) -> Sentence:
        """Return the rule in words, in parts."""

    def _policy_notes(self) -> tuple[str, ...]:
        """Return what was asked for beyond Debian's ways, as a note; in UTC no clock is ever set."""
        gap, fold = _GAP_WORDS.get(self.gap), _FOLD_WORDS.get(self.fold)
        if self._tz is UTC or not (gap or fold):
            return ()
        said = [f"a time that the clocks skip {gap}"] if gap else []
        said += [f"{'one' if gap else 'a time'} that comes twice runs {fold}"] if fold else []
        return (", ".join(said),)
