"""Health: whether a process gets on, not whether it lives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from .outage import Outage
    from .store_time import StoreTime
    from .worker import Worker

__all__ = ["Health", "health_of"]

UNREADY_AFTER_S: Final = 5.0
"""A shorter outage is no reason to send work elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How a running app gets on with its store, as a readiness probe asks.

    Attributes:
        is_ready: True if it takes and finishes work.
        why: What is wrong, in words; empty if it is ready.
        outage_s: For how many seconds the store has not answered; 0.0 if it does.
        unrecorded: Outcomes that wait to be recorded.
        skew_s: By how many seconds this machine's clock is ahead of the store's.
    """

    is_ready: bool
    why: str
    outage_s: float
    unrecorded: int
    skew_s: float


def health_of(worker: Worker | None, outage: Outage, unrenewed_s: float, time: StoreTime) -> Health:
    """Return how a process gets on; *unrenewed_s* is for how long no lease could be renewed."""
    why: list[str] = []
    outage_s = max(outage.lasts_s, 0.0 if worker is None else worker.claimer.unanswered_s)
    if outage_s > UNREADY_AFTER_S:
        why.append(f"the store has not answered for {outage_s:.0f} s")
    if unrenewed_s > UNREADY_AFTER_S:
        why.append(f"no lease has been renewed for {unrenewed_s:.0f} s")
    if worker is not None and worker.recorder.is_full:
        why.append("no more outcomes can wait to be recorded")
    if worker is not None and not worker.is_claiming:
        why.append("it takes no more work")
    return Health(
        is_ready=not why,
        why="; ".join(why),
        outage_s=outage_s,
        unrecorded=0 if worker is None else worker.recorder.waiting,
        skew_s=time.skew_s,
    )
