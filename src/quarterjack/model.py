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
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import count
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypedDict, get_args

from ._durations import Seconds, to_seconds
from ._payload import is_storable
from .errors import InvalidOption
from .policies.backoff import NO_RETRY, Retry
from .policies.missed import MissedMode
from .policies.overlap import OverlapMode

if TYPE_CHECKING:
    from .triggers import Trigger

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


UniqueScope = Literal["queued", "unfinished"]


@dataclass(frozen=True, slots=True)
class Unique:
    """A key that at most one job of the task may hold.

    Attributes:
        key: The key; unique per task.
        scope: ``"queued"`` counts waiting jobs, ``"unfinished"`` also running
            ones; a duration holds the key that long after the submit, beyond
            the job's end and its purging.
        on_conflict: ``"return"`` answers with the job that holds the key,
            ``"replace"`` cancels it if it still waits and takes its place,
            ``"raise"`` raises `UniqueConflict`.
    """

    key: str
    scope: UniqueScope | timedelta = "unfinished"
    on_conflict: Literal["return", "replace", "raise"] = "return"

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not self.key:
            raise InvalidOption(f"unique must be a key, a text that is not empty, got {self.key!r}")
        if not is_storable(self.key):
            raise InvalidOption(f"unique must hold no NUL and no half of a surrogate pair, got {self.key!r}")
        if isinstance(self.scope, timedelta):
            to_seconds(self.scope, "scope of unique", exclusive=True)
        elif self.scope not in get_args(UniqueScope):
            raise InvalidOption(f"scope of unique must be 'queued', 'unfinished' or a timedelta, got {self.scope!r}")
        if self.on_conflict not in {"return", "replace", "raise"}:
            raise InvalidOption(f"on_conflict must be 'return', 'replace' or 'raise', got {self.on_conflict!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a job is to be run, checked and resolved; shared by all jobs of one ``options()``."""

    queue: str = "default"
    priority: int = 2
    timeout_s: float | None = None
    cancel_grace_s: float = 5.0
    retry: Retry = NO_RETRY
    executor: Any = None
    """A name, or an Executor; None chooses by the kind of callable."""
    unique: Unique | None = None
    delay_ns: int = 0
    run_at_ns: int | None = None
    start_deadline_s: float | None = None
    max_rescues: int = 3
    store_result: bool = True
    max_result_bytes: int = 262_144
    metadata: Mapping[str, Any] | None = None
    submitted_by: str | None = None
    cost: float = 1.0
    """How much it weighs at gates that count by cost."""
    own_executor: Any = field(compare=False, repr=False, default=None)
    """The task's own executor: jobs that go there are in the task's lane, whatever it is in this version."""
    lane_suffix: str = field(init=False, compare=False, repr=False, default="")
    """What `JobRecord.lane` has behind the task's name."""

    def __post_init__(self) -> None:
        is_own = self.executor is self.own_executor or self.executor == self.own_executor
        object.__setattr__(self, "lane_suffix", "" if is_own else lane_suffix(self.executor))


TICK_LANE: Final = "\x1e"
"""What the lane of a schedule's job begins with: a worker keeps some slots for these."""


def lanes_of(tasks: Iterable[str]) -> frozenset[str]:
    """Return the lanes of all jobs of *tasks* that name no executor, submitted ones and ticks."""
    return frozenset(lane for task in tasks for lane in (task, TICK_LANE + task))


def lane_suffix(executor: Any) -> str:
    """Return what makes the lane of jobs that name this executor another one than their task's.

    Names make the same lane in every process. An object does not, and only a store
    that keeps objects takes a job that names one; see `RunOptions.own_executor`.
    """
    if executor is None:
        return ""
    return "\x1f" + (executor if isinstance(executor, str) else f"{executor.name}#{id(executor):x}")


NO_OPTIONS: Final = RunOptions()

NO_KWARGS: Final[Mapping[str, Any]] = {}
"""The keyword arguments of a job that has none: shared, so that each waiting job saves a dict.

A real dict, and typed as one that nobody changes: unpacking a proxy costs 0.3 µs more per call."""


class JobOptions(TypedDict, total=False):
    """Options of one job, as ``task.options(…)`` and ``call.options(…)`` take them."""

    timeout: Seconds | None
    cancel_grace: Seconds
    retry: int | Retry
    priority: int
    queue: str
    executor: Any
    unique: str | Unique | None
    delay: Seconds
    run_at: datetime | None
    start_deadline: Seconds | None
    max_rescues: int
    store_result: bool
    metadata: Mapping[str, Any] | None
    submitted_by: str | None
    cost: float


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


# -- schedules ------------------------------------------------------------------------


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
        most: object = self.maximum
        if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
            raise InvalidOption(
                f"maximum of overlap={self.mode!r} must be a whole number from 1, or None, got {most!r}"
            )


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
    """What an operator asked of it, such as ``drain``."""

    @property
    def runs_jobs(self) -> bool:
        """Say whether its role is to run jobs."""
        return self.role in {"both", "worker"}

    @property
    def fires(self) -> bool:
        """Say whether its role is to fire schedules."""
        return self.role in {"both", "scheduler"}
