"""Options of jobs, as plain values. A part of `model`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict, get_args

from ._durations import Seconds, to_seconds
from ._payload import is_storable
from .errors import InvalidOption
from .policies.backoff import NO_RETRY, Retry

__all__ = [
    "NO_KWARGS",
    "NO_OPTIONS",
    "TICK_LANE",
    "JobOptions",
    "RunOptions",
    "Unique",
    "UniqueScope",
    "lane_suffix",
    "lanes_of",
]

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
