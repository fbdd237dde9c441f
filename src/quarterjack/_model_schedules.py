"""Schedules, as plain values. A part of `model`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict, get_args

from ._durations import Seconds
from ._model_options import NO_KWARGS, NO_OPTIONS, RunOptions, Unique
from ._numbers import whole_number
from .errors import InvalidOption
from .policies.backoff import Retry
from .policies.missed import MissedMode
from .policies.overlap import OverlapMode

if TYPE_CHECKING:
    from ._model_states import JobState
    from .triggers import Trigger

__all__ = ["Overlap", "OverlapMode", "Payload", "Schedule", "SchedulePolicies", "Timing"]


@dataclass(frozen=True, slots=True)
class Overlap:
    """What becomes of a fire time while earlier jobs of the schedule are open.

    *maximum* bounds ``queue_all`` (waiting jobs) and ``allow`` (open jobs); None is no bound.
    """

    mode: OverlapMode = "skip"
    maximum: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(OverlapMode):
            raise InvalidOption(
                f"overlap must be one of {', '.join(map(repr, get_args(OverlapMode)))}, got {self.mode!r}"
            )
        if self.maximum is not None:
            whole_number(self.maximum, f"maximum of overlap={self.mode!r}", 1)


class SchedulePolicies(TypedDict, total=False):
    """Policies of a schedule, as ``app.schedule(…)`` takes them."""

    id: str
    overlap: OverlapMode | Overlap
    overlap_key: str | None
    missed: MissedMode
    max_lateness: Seconds | None
    max_catchup: int
    jitter: Seconds
    start: datetime | None
    end: datetime | None
    max_runs: int | None
    start_deadline: Seconds | None
    pause_on_failure: int | None
    # the options of its jobs
    timeout: Seconds | None
    cancel_grace: Seconds
    retry: int | Retry
    priority: int
    queue: str
    executor: Any
    unique: str | Unique | None
    max_rescues: int
    store_result: bool
    cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """The half of a schedule that decides *when*: a change starts a new generation."""

    trigger: Trigger
    """As declared; the resolved form stands in `Schedule.trigger`."""
    jitter_ns: int = 0
    start_ns: int | None = None
    end_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The half of a schedule that decides *what and how*: a change is a new revision only."""

    task: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=lambda: NO_KWARGS)
    options: RunOptions = NO_OPTIONS
    overlap: Overlap = Overlap()
    overlap_key: str | None = None
    missed: MissedMode = "latest"
    max_lateness_ns: int | None = None
    max_catchup: int = 100
    max_runs: int | None = None
    pause_on_failure: int | None = None


class Schedule:
    """A standing order for jobs, as the store keeps it.

    The declared form (`timing`, `payload`) is what an upsert compares; the
    resolved `trigger` is what the planner asks. The *cursor* is the newest fire
    time accounted for: it moves only in ``schedules_fire``.
    """

    __slots__ = (
        "code_before",
        "code_hash",
        "created_at_ns",
        "cursor_ns",
        "failures_in_a_row",
        "generation",
        "held_up_ns",
        "id",
        "immediate_ns",
        "in_code",
        "is_plain",
        "last_finished_ns",
        "last_job_id",
        "last_nominal_ns",
        "last_state",
        "newest_job_id",
        "next_due_ns",
        "next_nominal_ns",
        "parked_reason",
        "pause_note",
        "paused_at_ns",
        "paused_until_ns",
        "payload",
        "revision",
        "runs",
        "timing",
        "trigger",
        "version",
    )

    def __init__(
        self,
        id: str,  # noqa: A002  # the field's name
        timing: Timing,
        payload: Payload,
        *,
        in_code: bool = False,
        version: str | None = None,
    ) -> None:
        self.id = id
        self.timing = timing
        self.payload = payload
        self.trigger = timing.trigger
        self.in_code = in_code
        self.version = version
        """Whose declaration it is: the version of the application."""
        self.code_hash: str | None = None
        """What code last declared, as `declared.code_hash_of` has it; None for what is put at run time."""
        self.code_before: str | None = None
        """What code had declared before that."""
        self.generation = 1
        self.revision = 1
        self.created_at_ns = 0
        self.cursor_ns = 0
        self.immediate_ns: int | None = None
        """The run at creation that this generation begins with, if its trigger asks for one."""
        self.is_plain = False
        """Its next run depends on its rule alone: no bounds, no jitter. Kept by `planner`."""
        self.next_nominal_ns: int | None = None
        self.next_due_ns: int | None = None
        self.runs = 0
        self.paused_at_ns: int | None = None
        self.paused_until_ns: int | None = None
        self.pause_note: str | None = None
        self.parked_reason: str | None = None
        self.last_nominal_ns: int | None = None
        self.newest_job_id: str | None = None
        """The job of that fire time."""
        self.held_up_ns: int | None = None
        """That fire time again, while it runs after its job's end and waits for room: others have a key of its."""
        self.last_job_id: str | None = None
        self.last_state: JobState | None = None
        self.last_finished_ns: int | None = None
        self.failures_in_a_row = 0

    @property
    def overlap_key(self) -> str:
        """What its jobs share for the overlap policy: its own id unless a key is set."""
        return self.payload.overlap_key or self.id

    @property
    def wake_ns(self) -> int | None:
        """When the scheduler has to look at it again: its next run, or the end of its pause."""
        return self.next_due_ns if self.paused_at_ns is None else self.paused_until_ns

    @property
    def is_passed(self) -> bool:
        """True while its one fire time, past before it was put, waits to be recorded as missed."""
        if self.next_nominal_ns is None or self.trigger.after_finish_ns is not None:
            return False  # a chain's next run may well come before its last, where the clock was set back meanwhile
        return self.next_nominal_ns <= self.cursor_ns

    def copy(self) -> Schedule:
        """Return a snapshot that later moves do not touch."""
        return copy.copy(self)

    def __repr__(self) -> str:
        return f"<Schedule {self.id} {self.payload.task} generation={self.generation}>"
