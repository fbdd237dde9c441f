"""What quarterjack talks about, as plain values: jobs, schedules, outcomes, options.

No behaviour beyond small derived facts, no clock, no I/O. Instants are integer
nanoseconds since the Unix epoch in UTC (``…_ns``); the public handles turn them
into aware datetimes. Seconds are floats (``…_s``).

A `JobRecord` is the row a store keeps, and with the memory store the very row:
the store and the worker that holds its lease are its only writers, everybody
else reads. It is a slotted class with an explicit constructor because a
hundred thousand of them may wait at once (280 bytes each, 0.6 µs to make; a
frozen dataclass of the same fields takes 5 µs)."""

from __future__ import annotations

import copy
import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from itertools import count
from typing import Any, Final, Literal, NamedTuple

from ._model_options import (
    NO_KWARGS,
    NO_OPTIONS,
    TICK_LANE,
    JobOptions,
    RunOptions,
    Unique,
    UniqueScope,
    lane_suffix,
    lanes_of,
)
from ._model_schedules import Overlap, OverlapMode, Payload, Schedule, SchedulePolicies, Timing
from ._model_states import FINISHED, JobState

__all__ = [
    "FINAL_STATES",
    "FINISHED",
    "NO_OPTIONS",
    "ErrorInfo",
    "Fenced",
    "Finish",
    "FinishKind",
    "JobFilter",
    "JobIds",
    "JobOptions",
    "JobRecord",
    "JobState",
    "Origin",
    "Outcome",
    "OutcomeKind",
    "NO_KWARGS",
    "Overlap",
    "OverlapMode",
    "Payload",
    "Progress",
    "RunOptions",
    "Schedule",
    "SchedulePolicies",
    "SubmittedBy",
    "Timing",
    "Unique",
    "UniqueScope",
    "WorkerInfo",
    "TICK_LANE",
    "as_datetime",
    "lane_suffix",
    "lanes_of",
]


def as_datetime(ns: int | None) -> datetime | None:
    """Return *ns* as an aware datetime in UTC, to the microsecond below; None stays None."""
    if ns is None:
        return None
    seconds, rest = divmod(ns, 1_000_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1_000)


# -- jobs -----------------------------------------------------------------------------


class JobIds:
    """Makes job ids: a random prefix per process start and a counter, ``"k3v9x2ab-1f"``.

    Unique without asking anybody, in order within a process, and cheap
    (``str(uuid4())`` alone costs 2.5 µs). They never hold a dot: a remote
    attempt is named ``<job>.<attempt>``.
    """

    __slots__ = ("_count", "_pid", "process")

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self.process = "".join(secrets.choice(_ID_ALPHABET) for _ in range(8))
        """The prefix: this process start, by name."""
        self._count = count(1)

    def __call__(self) -> str:
        """Return the next id."""
        return f"{self.process}-{next(self._count):x}"

    def after_fork(self) -> None:
        """Begin anew in a forked child, so that it does not repeat its parent's ids."""
        if self._pid != os.getpid():
            self._begin()


_ID_ALPHABET: Final = "0123456789abcdefghijkmnpqrstvwxyz"


class SubmittedBy(NamedTuple):
    """Who asked for a job: a process, perhaps a schedule or another job, and free text."""

    process: str
    schedule: str | None = None
    parent: str | None = None
    text: str | None = None


class Origin(NamedTuple):
    """The occurrence a scheduled job serves; for each *trigger* its first three fields are unique in the store.

    An operator's runs (``"manual"``) are no occurrences, and may share an instant.
    """

    schedule_id: str
    generation: int
    nominal_ns: int
    missed_count: int = 0
    """Fire times folded into this run or lost before it, at most 1000."""
    trigger: Literal["schedule", "manual", "backfill"] = "schedule"


class Progress(NamedTuple):
    """How far a body says it is."""

    done: float
    total: float | None
    text: str


class ErrorInfo(NamedTuple):
    """What a body raised, in words, and as itself where it was raised in this process."""

    type_name: str
    message: str
    traceback_text: str = ""
    exception: BaseException | None = None

    @property
    def words(self) -> str:
        """Its type and what it says: ``ValueError: no such address``."""
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class JobRecord:
    """One requested run of a task, as the store keeps it. See the module's head for who writes it."""

    __slots__ = (
        "args",
        "attempt",
        "cancel_requested",
        "checkpoint",
        "delay_born",
        "error",
        "failures",
        "finished_at_ns",
        "first_due_ns",
        "id",
        "kwargs",
        "lane",
        "lease_until_ns",
        "options",
        "order_at_ns",
        "origin",
        "overlap_key",
        "owner",
        "parent",
        "priority",
        "progress",
        "queue",
        "reason",
        "rescues",
        "result",
        "run_at_ns",
        "running_at_ns",
        "scheduled_at_ns",
        "serial",
        "started_at_ns",
        "state",
        "submitted_at_ns",
        "submitted_by",
        "task",
        "zombie",
    )

    def __init__(
        self,
        id: str,  # noqa: A002  # the field's name
        task: str,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        options: RunOptions,
        submitted_by: SubmittedBy | None = None,
        origin: Origin | None = None,
    ) -> None:
        self.id = id
        self.task = task
        self.args = args
        self.kwargs = kwargs
        self.options = options
        is_tick = origin is not None and origin.trigger != "backfill"
        self.lane = TICK_LANE + task + options.lane_suffix if is_tick else task + options.lane_suffix
        """What a worker claims by: the task, the executor if the job names one, and whether it is a schedule's
        run of now. See `stores.base.Want`."""
        self.queue = options.queue
        self.priority = options.priority
        self.submitted_by = submitted_by
        self.origin = origin
        self.state = _NEW
        self.reason: str | None = None
        self.attempt = 0
        self.failures = 0
        self.first_due_ns: int | None = None
        """When the attempt was due that failed first: from there a retry's deadline counts."""
        self.rescues = 0
        self.owner: str | None = None
        self.lease_until_ns: int | None = None
        self.run_at_ns = 0
        self.order_at_ns = 0
        self.delay_born = False
        self.submitted_at_ns: int | None = None
        self.scheduled_at_ns: int | None = None
        self.started_at_ns: int | None = None
        self.running_at_ns: int | None = None
        self.finished_at_ns: int | None = None
        self.result: Any = None
        self.error: ErrorInfo | None = None
        self.progress: Progress | None = None
        self.checkpoint: Any = None
        self.cancel_requested = False
        self.overlap_key: str | None = None
        self.serial = False
        self.parent: str | None = None
        self.zombie = False

    def copy(self) -> JobRecord:
        """Return a snapshot that later moves do not touch."""
        return copy.copy(self)

    @property
    def is_backfill(self) -> bool:
        """True if it was made for a fire time gone by: it may wait, and nothing of today stands in line behind it."""
        return self.origin is not None and self.origin.trigger == "backfill"

    @property
    def has_run(self) -> bool:
        """True if the body of the latest attempt runs, or ran to the job's end."""
        return self.running_at_ns is not None and (self.state is JobState.RUNNING or self.state.is_finished)

    @property
    def fence(self) -> Fenced:
        """What proves the right to write this row: id, attempt and owner."""
        return Fenced(self.id, self.attempt, self.owner or "")

    def __repr__(self) -> str:
        return f"<JobRecord {self.id} {self.task} {self.state.value} attempt={self.attempt}>"


_NEW: Final = JobState.NEW


class Fenced(NamedTuple):
    """A holder's claim on a job; a store refuses it once the lease has moved on."""

    job_id: str
    attempt: int
    owner: str


class JobFilter(NamedTuple):
    """Which jobs a view or a bulk action means; empty fields match everything."""

    states: frozenset[JobState] = frozenset()
    task: str | None = None
    queue: str | None = None
    schedule_id: str | None = None
    since_ns: int | None = None
    text: str | None = None
    is_open: bool = False
    """Only jobs that are unfinished, or whose bodies outlived their outcome."""

    def matches(self, job: JobRecord) -> bool:
        """Say whether *job* is meant."""
        return (
            (not self.states or job.state in self.states)
            and (not self.is_open or job.zombie or not job.state.is_finished)
            and (self.task is None or job.task == self.task)
            and (self.queue is None or job.queue == self.queue)
            and (self.schedule_id is None or (job.origin is not None and job.origin.schedule_id == self.schedule_id))
            and (self.since_ns is None or (job.submitted_at_ns or 0) >= self.since_ns)
            and (self.text is None or self.text in job.id or self.text in job.task or self.text in (job.reason or ""))
        )


# -- how an attempt ends -------------------------------------------------------------


class OutcomeKind(StrEnum):
    """How a body ended, as its executor saw it."""

    DONE = "done"
    RAISED = "raised"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    DIED = "died"
    """Its process ended under it: certainly not running any more."""
    REJECTED = "rejected"
    """It was never begun, and trying again would not help."""
    MISSED = "missed"
    """It came too late to begin, and never did."""
    ORPHANED = "orphaned"
    """It was never begun: what would run it there does not know its task, or what it takes. Another version may."""
    LOST = "lost"
    """Nobody knows whether it still runs."""


class Outcome(NamedTuple):
    """What an executor reports, exactly once per attempt.

    *stopped* is False when the body still runs although the job is over for its
    caller (a thread cannot be stopped); the executor then tells later that it ended.
    *info* is what is known of an error of another process, in its words: of what a body
    raised there, or of a result of it that could not be kept.
    """

    kind: OutcomeKind
    result: Any = None
    error: BaseException | None = None
    reason: str | None = None
    stopped: bool = True
    info: ErrorInfo | None = None


class FinishKind(StrEnum):
    """What the store is to make of an attempt."""

    DONE = "done"
    FAILED = "failed"
    TIMED_OUT = "timed_out"
    CANCELLED = "cancelled"
    MISSED = "missed"
    RETRY = "retry"
    """Back to the queue after *delay_ns*; the failure counts."""
    SNOOZE = "snooze"
    """Back to the queue after *delay_ns*; nothing counts."""


FINAL_STATES: Final[Mapping[FinishKind, JobState]] = {
    kind: JobState(kind.value) for kind in FinishKind if kind not in {FinishKind.RETRY, FinishKind.SNOOZE}
}
"""The state a job ends in; the other kinds put it back."""


class Finish(NamedTuple):
    """One entry of ``jobs_finish``: the outcome of the attempt that *job_id, attempt, owner* fence."""

    job_id: str
    attempt: int
    owner: str
    kind: FinishKind
    at_ns: int
    started_at_ns: int | None = None
    running_at_ns: int | None = None
    result: Any = None
    error: ErrorInfo | None = None
    reason: str | None = None
    delay_ns: int = 0
    zombie: bool = False
    """The body still runs: keep its overlap key until ``jobs_ended`` names it."""


# -- processes ------------------------------------------------------------------------


class WorkerInfo(NamedTuple):
    """A process at work, as the registry shows it. *id* is unique per process start."""

    id: str
    host: str
    pid: int
    role: str
    queues: tuple[str, ...]
    started_at_ns: int
    seen_at_ns: int
    version: str | None = None
    running: int = 0
    zombies: int = 0
    command: str | None = None
    """What an operator asked of it, such as ``drain``, and it has not heard yet."""
    halt: Literal["", "drained", "ending"] = ""
    """Why it takes and fires nothing more: an operator's order, or its own end; empty while it does."""
    parked: tuple[str, ...] = ()
    """Tasks that it begins no more, as their bodies kept killing their processes."""

    @property
    def runs_jobs(self) -> bool:
        """Say whether its role is to run jobs."""
        return self.role in {"both", "worker"}

    @property
    def fires(self) -> bool:
        """Say whether its role is to fire schedules."""
        return self.role in {"both", "scheduler"}
