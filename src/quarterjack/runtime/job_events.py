"""What the event stream is told of a job's moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from quarterjack.events import JobEvent, JobEventKind
from quarterjack.model import FinishKind, JobRecord, JobState

__all__ = ["FINAL_KINDS", "FINISH_KINDS", "job_event"]

FINISH_KINDS: Final[Mapping[FinishKind, JobEventKind]] = {
    FinishKind.DONE: "done",
    FinishKind.FAILED: "failed",
    FinishKind.TIMED_OUT: "timed_out",
    FinishKind.CANCELLED: "cancelled",
    FinishKind.MISSED: "missed",
    FinishKind.RETRY: "retry",
    FinishKind.SNOOZE: "snooze",
}
FINAL_KINDS: Final[Mapping[JobState, JobEventKind]] = {
    JobState.DONE: "done",
    JobState.FAILED: "failed",
    JobState.TIMED_OUT: "timed_out",
    JobState.CANCELLED: "cancelled",
    JobState.SKIPPED: "skipped",
    JobState.MISSED: "missed",
    JobState.LOST: "lost",
}


def job_event(kind: JobEventKind, record: JobRecord, at_ns: int | None = None) -> JobEvent:
    """Return the event that tells of a job's newest move, made at *at_ns* (default: its newest stamp)."""
    running = record.running_at_ns
    return JobEvent(
        at_ns=at_ns or record.finished_at_ns or running or record.scheduled_at_ns or record.submitted_at_ns or 0,
        kind=kind,
        job_id=record.id,
        task=record.task,
        state=record.state.value,
        attempt=record.attempt,
        schedule_id=record.origin.schedule_id if record.origin is not None else None,
        nominal_ns=record.origin.nominal_ns if record.origin is not None else None,
        reason=record.reason,
        lag_s=max(0, running - record.run_at_ns) / 1e9 if running is not None else None,
        duration_s=(record.finished_at_ns - running) / 1e9 if record.finished_at_ns and running else None,
    )
