"""`ScheduleView`: a schedule as people look at it."""

from __future__ import annotations

from datetime import datetime, tzinfo
from typing import Any

from .model import JobState, Schedule, as_datetime
from .triggers import Trigger

__all__ = ["ScheduleView"]


class ScheduleView:
    """A snapshot of a schedule: what it is, when it fires next, how its last run ended."""

    __slots__ = ("_row", "not_fired_reason")

    def __init__(self, row: Schedule, not_fired_reason: str | None = None) -> None:
        self._row = row
        self.not_fired_reason = not_fired_reason
        """Why the process that was asked does not fire it: it was declared by code that is gone or is another one here,
        or its task is unknown. None if it does, unless it is paused or parked."""

    @property
    def id(self) -> str:
        """The schedule's id: the task's name unless one was given."""
        return self._row.id

    @property
    def task(self) -> str:
        """The task it runs."""
        return self._row.payload.task

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments of its jobs."""
        return self._row.payload.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments of its jobs."""
        return dict(self._row.payload.kwargs)

    @property
    def trigger(self) -> Trigger:
        """The rule, as declared."""
        return self._row.timing.trigger

    @property
    def next(self) -> datetime | None:
        """The next fire time in the trigger's zone; None while paused, parked, running (`Forever`) or at its end."""
        row = self._row
        if row.paused_at_ns is not None or row.is_passed:
            return None
        return self._local(as_datetime(row.next_nominal_ns))

    @property
    def next_due(self) -> datetime | None:
        """As `next`, with the schedule's jitter."""
        return None if self.next is None else self._local(as_datetime(self._row.next_due_ns))

    @property
    def last(self) -> datetime | None:
        """The newest fire time that became a run or was skipped."""
        return self._local(as_datetime(self._row.last_nominal_ns))

    @property
    def last_job(self) -> str | None:
        """The id of the run that ended last."""
        return self._row.last_job_id

    @property
    def last_state(self) -> JobState | None:
        """How that run ended."""
        return self._row.last_state

    @property
    def runs(self) -> int:
        """Runs admitted so far."""
        return self._row.runs

    @property
    def generation(self) -> int:
        """Grows when its timing changes."""
        return self._row.generation

    @property
    def revision(self) -> int:
        """Grows when its arguments or policies change."""
        return self._row.revision

    @property
    def version(self) -> str | None:
        """The version of the application that declared it, if it has one."""
        return self._row.version

    @property
    def is_paused(self) -> bool:
        """True between `pause` and `resume`."""
        return self._row.paused_at_ns is not None

    @property
    def pause_note(self) -> str | None:
        """Why it is paused."""
        return self._row.pause_note

    @property
    def paused_until(self) -> datetime | None:
        """When its pause ends by itself."""
        return self._local(as_datetime(self._row.paused_until_ns))

    @property
    def parked_reason(self) -> str | None:
        """Why it fires no more: its trigger raised."""
        return self._row.parked_reason

    def _local(self, at: datetime | None) -> datetime | None:
        zone = getattr(self._row.trigger, "zone", None)
        return at.astimezone(zone) if at is not None and isinstance(zone, tzinfo) else at

    def explain(self) -> str:
        """Return its rule and its state in words."""
        row, words = self._row, self._row.trigger.explain()
        if self.not_fired_reason is not None:
            words += f"; not fired here: {self.not_fired_reason}"
        if row.parked_reason is not None:
            return f"{words}; parked: {row.parked_reason}"
        if row.paused_at_ns is not None:
            return f"{words}; paused" + (f": {row.pause_note}" if row.pause_note else "")
        overlap = row.payload.overlap
        if overlap.mode != "skip":
            words += f"; overlap: {overlap.mode}" + ("" if overlap.maximum is None else f", {overlap.maximum} at most")
        is_over = self.next is None and row.trigger.after_finish_ns is None
        return f"{words}; never fires again" if is_over else words

    def __repr__(self) -> str:
        return f"<Schedule {self.id}: {self.explain()}>"
