"""The memory store: everything in this process, gone with it.

Rows are live objects: the record a client submitted is the row, so a state is
visible the moment it changes and arguments need no encoding. It promises what
every store promises except to outlive its process.

Nothing here awaits: each call runs from its first to its last line within one
turn of the event loop, which is what makes it atomic. The clock is the app's.

By default leases do not run out (`Claim.lease_s` None): a worker in this
process cannot die apart from the store. Delays count elapsed time: when the
wall clock is set, waiting delays shift with it (`clock_stepped`)."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from itertools import count
from typing import Any, ClassVar, Final, Literal

from quarterjack import planner
from quarterjack.clock import SYSTEM_CLOCK, Clock
from quarterjack.errors import UniqueConflict
from quarterjack.lifecycle import Move, move
from quarterjack.model import (
    FINISHED,
    Fenced,
    Finish,
    FinishKind,
    JobFilter,
    JobIds,
    JobRecord,
    JobState,
    Origin,
    Schedule,
    SubmittedBy,
    WorkerInfo,
)
from quarterjack.planner import Plan
from quarterjack.policies.overlap import SERIAL_MODES, Action, OverlapMode, admit

from ._limits import Limits
from ._ready import ReadyQueue
from .base import (
    AGING_NS,
    AuditRow,
    CancelAnswer,
    Claim,
    Claimed,
    Fired,
    Hint,
    JobPage,
    Renewal,
    Renewed,
    Store,
    StoreStats,
)

__all__ = ["MemoryStore"]

_SUBMITTED, _SCHEDULED, _RUNNING = JobState.SUBMITTED, JobState.SCHEDULED, JobState.RUNNING
_MINUTE_NS: Final = 60 * 1_000_000_000
_OUTCOME_MINUTES: Final = 24 * 60
_FINAL_MOVES: Final = {
    FinishKind.DONE: Move.RETURNED,
    FinishKind.FAILED: Move.RAISED,
    FinishKind.TIMED_OUT: Move.TIMED_OUT,
    FinishKind.CANCELLED: Move.CANCELLED,
    FinishKind.MISSED: Move.MISSED,
}
_BACK_MOVES: Final = {FinishKind.RETRY: Move.RETRIED, FinishKind.SNOOZE: Move.SNOOZED}
_BAD_ENDS: Final = frozenset({JobState.FAILED, JobState.TIMED_OUT, JobState.LOST})
