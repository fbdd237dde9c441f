"""quarterjack: things that run later, again, or not all at once.

The names below are the public API; the modules they come from are private in
structure and public in their docstrings. Start with `Quarterjack` and `Every`."""

from __future__ import annotations

from .app import Quarterjack
from .context import CurrentJob, current_job
from .errors import (
    Conflict,
    Discard,
    DuplicateName,
    ExecutorError,
    InvalidArguments,
    InvalidOption,
    InvalidTrigger,
    JobCancelled,
    JobError,
    JobFailed,
    JobGone,
    JobLost,
    JobMissed,
    JobSkipped,
    JobTimedOut,
    MissingExtra,
    NaiveDatetime,
    NeverFires,
    NoCurrentJob,
    NotPeriodic,
    NotRunning,
    QuarterjackError,
    ResultUnavailable,
    RetryLater,
    Snooze,
    StartupFailed,
    StoreError,
    UniqueConflict,
    UnknownSchedule,
    UnknownTask,
    UsageError,
    WrongLoop,
)
from .executors import Executor, LoopThread, ThreadExecutor
from .group import Group
from .injection import Depends
from .job import Job, Timestamps, gather
from .model import FINISHED, JobState, Overlap, Progress, SubmittedBy, Unique
from .policies.backoff import RetryPolicy
from .schedule import ScheduleView
from .stores import MemoryStore, Store
from .task import AsyncTask, Call, SyncTask, Task
from .ticks import Tick, Ticks, ticks
from .triggers import (
    Aligned,
    At,
    Cron,
    Every,
    Filter,
    Forever,
    Once,
    OnShutDown,
    OnShutdown,
    OnStartUp,
    OnStartup,
    Trigger,
    Weekdays,
)
