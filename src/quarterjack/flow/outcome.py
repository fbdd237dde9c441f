"""How a pass through the gates ended, as `Gate.give` is told."""

from __future__ import annotations

from asyncio import CancelledError
from enum import StrEnum
from typing import Any, Final, NamedTuple

__all__ = ["CANCELLED", "NOT_STARTED", "RETURNED", "TIMED_OUT", "EndKind", "Ended", "ended_by"]


class EndKind(StrEnum):
    """The ways a pass ends."""

    RETURNED = "returned"
    RAISED = "raised"
    TIMED_OUT = "timed_out"
    """The attempt ran longer than its timeout."""
    CANCELLED = "cancelled"
    NOT_STARTED = "not_started"
    """It was admitted and its body never began: rate gates take their entry back."""


class Ended(NamedTuple):
    """How a pass ended; *error* is what the body raised, *result* what it returned where that is at hand."""

    kind: EndKind
    error: BaseException | None = None
    result: Any = None

    @property
    def has_failed(self) -> bool:
        """True if the body raised or ran too long."""
        return self.kind is EndKind.RAISED or self.kind is EndKind.TIMED_OUT


RETURNED: Final = Ended(EndKind.RETURNED)
CANCELLED: Final = Ended(EndKind.CANCELLED)
TIMED_OUT: Final = Ended(EndKind.TIMED_OUT)
NOT_STARTED: Final = Ended(EndKind.NOT_STARTED)


def ended_by(error: BaseException) -> Ended:
    """Return how a block ended that *error* left."""
    return CANCELLED if isinstance(error, CancelledError) else Ended(EndKind.RAISED, error)
