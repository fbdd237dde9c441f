"""The states of a job. A part of `model`."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

__all__ = ["FINISHED", "JobState"]


class JobState(StrEnum):
    """Where a job stands; `lifecycle.MOVES` says how it gets from one to the next."""

    NEW = "new"
    """Made, not stored."""
    SUBMITTED = "submitted"
    """Stored; waits for its time or for a worker. A waiting retry is here too."""
    SCHEDULED = "scheduled"
    """Leased by a worker; waits in its flow or for a slot."""
    STARTED = "started"
    """Handed to an executor that queues: a pool, a cluster."""
    RUNNING = "running"
    """Its body has begun."""
    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    """Left out by the schedule's overlap policy."""
    MISSED = "missed"
    """Too late to run."""
    LOST = "lost"
    """Workers died under it more than ``max_rescues`` times."""

    is_finished: bool
    is_held: bool

    def __init__(self, value: str) -> None:
        self.is_finished = value in {"done", "failed", "timed_out", "cancelled", "skipped", "missed", "lost"}
        """True for the final states, which are `FINISHED`."""
        self.is_held = value in {"scheduled", "started", "running"}
        """True while a worker holds the job's lease."""


FINISHED: Final[frozenset[JobState]] = frozenset(state for state in JobState if state.is_finished)
