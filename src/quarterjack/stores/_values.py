"""What the calls of the store contract take, and what they answer with. `base` has the contract, and all of these."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Any, Final, NamedTuple

from quarterjack.model import JobRecord, JobState, Progress, Schedule

__all__ = [
    "AGING_NS",
    "Acquired",
    "AuditRow",
    "Backfilled",
    "CancelAnswer",
    "Claim",
    "Claimed",
    "Fired",
    "Hint",
    "HintListener",
    "JobPage",
    "LOOK_AHEAD",
    "NO_CHECKPOINT",
    "NoCheckpoint",
    "Renewal",
    "Renewed",
    "StoreStats",
    "WAITER_S",
    "Want",
]

LOOK_AHEAD: Final = 64
"""How many of the delayed jobs a claim looks at for the first that it wants, where it tells when that falls due."""
AGING_NS = 10 * 1_000_000_000
"""How much earlier a job ranks for each level of priority: waiting ten seconds outweighs one level."""


WAITER_S: Final = 5.0
"""So long somebody who was refused a slot is known to wait; who still does asks again before."""


class Want(NamedTuple):
    """What a worker has room for: up to *slots* jobs of *lanes* in *queues*, earlier queues first.

    A job's lane (`JobRecord.lane`) is its task, its executor if it names one, and
    whether a schedule made it. Naming the lanes keeps jobs nobody here knows, and
    those whose executor is full, from being claimed at all, and lets a worker keep
    slots for ticks.
    """

    queues: tuple[str, ...]
    lanes: frozenset[str]
    slots: int


class Claim(NamedTuple):
    """Who claims, what, and for how long. *lease_s* None never runs out (the store dies with its owner)."""

    owner: str
    wants: Sequence[Want]
    lease_s: float | None


class Claimed(NamedTuple):
    """Jobs now held by the caller, most urgent first, and when to ask again.

    Attributes:
        jobs: Most urgent first.
        next_run_at_ns: When the next job falls due that the claim wants, or some moment before; None if none waits
            for its time. A shared store looks past those that others want: a worker is not to claim at the rate of
            another one's jobs.
    """

    jobs: list[JobRecord]
    next_run_at_ns: int | None


class Fired(NamedTuple):
    """What ``schedules_fire`` did.

    Attributes:
        schedules: For each plan its row afterwards, or None where it was not made true (somebody
            else moved the cursor first, or it was early).
        rows: Every row inserted: jobs, SKIPPED and MISSED ones.
        jobs: Those of *rows* that the caller now holds.
        cancelled: Held jobs that ``cancel_previous`` asked to end.
        wait_ns: How long until the earliest refused plan is due by the store's clock; 0 if none was early.
    """

    schedules: list[Schedule | None]
    rows: list[JobRecord]
    jobs: list[JobRecord]
    cancelled: list[JobRecord]
    wait_ns: int


class Backfilled(NamedTuple):
    """What ``schedules_backfill`` did.

    Attributes:
        rows: The rows that stand for the fire times, in their order.
        new: The ids of those inserted by this call.
        gone: The fire times whose job was made before, and whose row was purged.
    """

    rows: list[JobRecord]
    new: frozenset[str]
    gone: tuple[int, ...] = ()


class NoCheckpoint(Enum):
    """The type of `NO_CHECKPOINT`, which is ``null`` as JSON."""

    NONE = None


NO_CHECKPOINT: Final = NoCheckpoint.NONE
"""In a `Renewal`: its body keeps nothing any more, and the next attempt gets None."""


class Renewal(NamedTuple):
    """A holder's sign of life for one job, with what its body wants kept (None: nothing new)."""

    job_id: str
    attempt: int
    progress: Progress | None = None
    checkpoint: Any = None
    running_at_ns: int | None = None
    """When its body began: from now on others see it as RUNNING."""
    started_at_ns: int | None = None
    """When a queue that is not ours took it: until its body begins others see it as STARTED."""


class Renewed(NamedTuple):
    """Jobs the caller no longer holds, and jobs somebody wants cancelled."""

    lost: list[str]
    cancelled: list[str]


class CancelAnswer(StrEnum):
    """What ``jobs_request_cancel`` found."""

    CANCELLED = "cancelled"
    """It waited, and is CANCELLED now."""
    REQUESTED = "requested"
    """It is held: its worker is asked."""
    FINISHED = "finished"
    GONE = "gone"


class Hint(StrEnum):
    """Why to look again."""

    JOBS = "jobs"
    SCHEDULES = "schedules"
    CANCELS = "cancels"
    """Somebody wants these held jobs to end."""
    FINISHED = "finished"
    """The store itself ended these jobs in a call of this process: cancelled while waiting, replaced, lost.

    Told in this process alone, which runs their callbacks; the others get ENDED."""
    ENDED = "ended"
    """These jobs ended, by whichever process: whoever waits for one may look."""
    PAUSED = "paused"
    """The store itself paused these schedules, by their ``pause_on_failure``."""
    LIMITS = "limits"
    """Slots of these limits were given back while somebody waited for one."""


HintListener = Callable[[Hint, Sequence[str]], None]


class JobPage(NamedTuple):
    """A page of snapshots and the cursor of the next (None at the end)."""

    jobs: list[JobRecord]
    cursor: str | None


class StoreStats(NamedTuple):
    """Counts for views: jobs per state, waiting per queue, and the oldest run time already due."""

    states: Mapping[JobState, int]
    waiting: Mapping[str, int]
    oldest_due_ns: int | None


class Acquired(NamedTuple):
    """What ``limit_acquire`` found.

    Attributes:
        taken: Which of the holders have a slot now.
        waiting: How many other waiters were refused lately and still wait.
        wait_s: Seconds until the next slot runs out unless it is renewed; 0 if all were taken.
    """

    taken: tuple[str, ...]
    waiting: int = 0
    wait_s: float = 0.0


class AuditRow(NamedTuple):
    """Who did what to which thing, for the record."""

    at_ns: int
    who: str
    action: str
    subject: str
    note: str = ""
