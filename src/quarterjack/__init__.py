"""quarterjack: things that run later, again, or not all at once.

The names below are the public API; the modules they come from are private in
structure and public in their docstrings. Start with `Quarterjack` and `Every`."""

from __future__ import annotations

from ._payload import PayloadCodec
from .app import Quarterjack
from .command import Command
from .context import CurrentJob, current_job
from .errors import (
    BatchMismatch,
    CircuitOpen,
    Conflict,
    DeadlineExceeded,
    Discard,
    DuplicateName,
    ExecutorError,
    FlowRefused,
    InvalidArguments,
    InvalidOption,
    InvalidTrigger,
    JobCancelled,
    JobError,
    JobFailed,
    JobGone,
    JobLost,
    JobMissed,
    JobNotFinished,
    JobSkipped,
    JobTimedOut,
    MissingExtra,
    NaiveDatetime,
    NeverFires,
    NoCurrentJob,
    NoResource,
    NotPeriodic,
    NotRunning,
    QuarterjackError,
    QueueFull,
    ResultUnavailable,
    RetryLater,
    Snooze,
    StartupFailed,
    StoreError,
    UniqueConflict,
    UnknownSchedule,
    UnknownTask,
    UsageError,
    WaitedTooLong,
    WouldDeadlock,
    WrongLoop,
)
from .executors import Executor, LoopThread, ProcessExecutor, ThreadExecutor
from .fleet import fleet
from .flow.adapter import PullStrategy, StrategyAdapter
from .flow.adaptive import AdaptiveLimit
from .flow.base import Gate, Order, Wrap
from .flow.batch import Batch
from .flow.breaker import CircuitBreaker
from .flow.concurrency import ConcurrencyLimit
from .flow.delay import Delay
from .flow.fixed_window import FixedWindow
from .flow.flow import Flow
from .flow.hedge import Hedge
from .flow.outcome import Ended, EndKind
from .flow.pressure import Pressure
from .flow.priority import Priority
from .flow.round_robin import Resource, WeightedRoundRobin
from .flow.sliding_window import SlidingWindow
from .flow.stages import Deadline, Dedupe, Fallback, Timeout
from .flow.time_window import TimeWindow
from .flow.token_bucket import TokenBucket
from .flow.waiting import Waiting
from .group import Group
from .injection import Depends
from .job import Job, Timestamps, gather
from .manager import TaskManager
from .model import FINISHED, JobState, Overlap, Progress, SubmittedBy, Unique
from .policies.backoff import Retry
from .policies.budget import RetryBudget
from .runtime.health import Health
from .runtime.managed_items import Batched
from .runtime.streams import StreamView
from .schedule import ScheduleView
from .stores import MemoryStore, Store
from .task import AsyncTask, BatchTask, Call, SyncTask, Task
from .ticks import Tick, Ticks, ticks
from .triggers import (
    Aligned,
    At,
    Between,
    Calendar,
    ClockChange,
    Cron,
    Dates,
    Every,
    Filter,
    FixedDelay,
    Forever,
    Once,
    OnShutDown,
    OnShutdown,
    OnStartUp,
    OnStartup,
    Stream,
    Trigger,
    Weekdays,
)
from .why import Why

__all__ = [
    "FINISHED",
    "AdaptiveLimit",
    "Aligned",
    "AsyncTask",
    "At",
    "Batch",
    "BatchMismatch",
    "BatchTask",
    "Batched",
    "Between",
    "Calendar",
    "Call",
    "CircuitBreaker",
    "CircuitOpen",
    "ClockChange",
    "Command",
    "ConcurrencyLimit",
    "Conflict",
    "Cron",
    "CurrentJob",
    "Dates",
    "Deadline",
    "DeadlineExceeded",
    "Dedupe",
    "Delay",
    "Depends",
    "Discard",
    "DuplicateName",
    "EndKind",
    "Ended",
    "Every",
    "Executor",
    "ExecutorError",
    "Fallback",
    "Filter",
    "FixedDelay",
    "FixedWindow",
    "Flow",
    "FlowRefused",
    "Forever",
    "Gate",
    "Group",
    "Health",
    "Hedge",
    "InvalidArguments",
    "InvalidOption",
    "InvalidTrigger",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobGone",
    "JobLost",
    "JobMissed",
    "JobNotFinished",
    "JobSkipped",
    "JobState",
    "JobTimedOut",
    "LoopThread",
    "MemoryStore",
    "MissingExtra",
    "NaiveDatetime",
    "NeverFires",
    "NoCurrentJob",
    "NoResource",
    "NotPeriodic",
    "NotRunning",
    "OnShutDown",
    "OnShutdown",
    "OnStartUp",
    "OnStartup",
    "Once",
    "Order",
    "Overlap",
    "PayloadCodec",
    "Pressure",
    "Priority",
    "ProcessExecutor",
    "Progress",
    "PullStrategy",
    "Quarterjack",
    "QuarterjackError",
    "QueueFull",
    "Resource",
    "ResultUnavailable",
    "RetryLater",
    "Retry",
    "RetryBudget",
    "ScheduleView",
    "SlidingWindow",
    "Snooze",
    "StartupFailed",
    "Store",
    "StoreError",
    "StrategyAdapter",
    "Stream",
    "StreamView",
    "SubmittedBy",
    "SyncTask",
    "Task",
    "TaskManager",
    "ThreadExecutor",
    "Tick",
    "Ticks",
    "TimeWindow",
    "Timeout",
    "Timestamps",
    "TokenBucket",
    "Trigger",
    "Unique",
    "UniqueConflict",
    "UnknownSchedule",
    "UnknownTask",
    "UsageError",
    "WaitedTooLong",
    "Waiting",
    "Weekdays",
    "WeightedRoundRobin",
    "Why",
    "WouldDeadlock",
    "Wrap",
    "WrongLoop",
    "current_job",
    "fleet",
    "gather",
    "ticks",
]
