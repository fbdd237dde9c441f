"""`Timestamps`: when a job made its moves, for people."""

from __future__ import annotations

from datetime import datetime

from .model import JobRecord, JobState, as_datetime

__all__ = ["Timestamps"]


class Timestamps:
    """When a job made its moves: aware datetimes in UTC, None where it has not (yet)."""

    __slots__ = ("_record",)

    def __init__(self, record: JobRecord) -> None:
        self._record = record

    def _final(self, state: JobState) -> datetime | None:
        return as_datetime(self._record.finished_at_ns) if self._record.state is state else None

    @property
    def submitted_at(self) -> datetime | None:
        """Stored."""
        return as_datetime(self._record.submitted_at_ns)

    @property
    def run_at(self) -> datetime | None:
        """Due: not started before."""
        return as_datetime(self._record.run_at_ns or None)

    @property
    def scheduled_at(self) -> datetime | None:
        """Leased by a worker (the latest attempt)."""
        return as_datetime(self._record.scheduled_at_ns)

    @property
    def started_at(self) -> datetime | None:
        """Handed to its executor (the latest attempt)."""
        return as_datetime(self._record.started_at_ns)

    @property
    def running_at(self) -> datetime | None:
        """Its body began (the latest attempt)."""
        return as_datetime(self._record.running_at_ns)

    @property
    def finished_at(self) -> datetime | None:
        """Reached its final state, whichever it is."""
        return as_datetime(self._record.finished_at_ns)

    @property
    def done_at(self) -> datetime | None:
        """Finished as DONE."""
        return self._final(JobState.DONE)

    @property
    def failed_at(self) -> datetime | None:
        """Finished as FAILED."""
        return self._final(JobState.FAILED)

    @property
    def timed_out_at(self) -> datetime | None:
        """Finished as TIMED_OUT."""
        return self._final(JobState.TIMED_OUT)

    @property
    def cancelled_at(self) -> datetime | None:
        """Finished as CANCELLED."""
        return self._final(JobState.CANCELLED)

    @property
    def skipped_at(self) -> datetime | None:
        """Recorded as SKIPPED."""
        return self._final(JobState.SKIPPED)

    @property
    def missed_at(self) -> datetime | None:
        """Recorded as MISSED."""
        return self._final(JobState.MISSED)

    @property
    def lost_at(self) -> datetime | None:
        """Finished as LOST."""
        return self._final(JobState.LOST)

    def __repr__(self) -> str:
        names = [n for n in dir(type(self)) if n.endswith("_at") and getattr(self, n) is not None]
        return "Timestamps(" + ", ".join(f"{name}={getattr(self, name).isoformat()}" for name in names) + ")"
