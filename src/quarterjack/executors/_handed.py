"""Calls that are handed to a cluster: one that never was is missed at its start deadline, whoever is away.

The turn of such a call is taken by what hands it over (`Away.may_begin`), at the
last moment. Until then nobody else has heard of it, and nobody needs to be asked."""

from __future__ import annotations

from typing import ClassVar

from quarterjack._durations import NS_PER_S
from quarterjack.model import Outcome, OutcomeKind

from ._away import Away

__all__ = ["Handed"]


class Handed(Away):
    """A call that waits to be handed over, or was."""

    __slots__ = ()
    to: ClassVar[str]
    """Whose queue it is to wait in."""

    @property
    def is_too_late(self) -> bool:
        """True if its body must not begin any more."""
        deadline_ns = self.call.deadline_ns
        return deadline_ns is not None and self.desk.clock.now_ns() >= deadline_ns

    def mind_deadline(self) -> None:
        """Have it end MISSED at its start deadline, unless it has begun by then."""
        if self.call.deadline_ns is not None:
            self.arm((self.call.deadline_ns - self.desk.clock.now_ns()) / NS_PER_S, self._pass_deadline)

    def _pass_deadline(self) -> None:
        self._timer = None
        if self._is_begun or self._is_reported:
            return
        if self.may_begin():
            self.miss(f"it had not been handed to {self.to} by its start deadline")
        else:
            self.on_late()

    def miss(self, why: str) -> None:
        """It is too late, and its body will never begin."""
        self._settle(Outcome(OutcomeKind.MISSED, reason=why))

    def on_late(self) -> None:
        """It is too late, and others have it: who would begin its body looks at its start deadline as well."""
