"""``current_job()``: what a body may know and say about its own job.

A context variable names the attempt that runs here. It is set in the job's own
context, so it follows ``await``, ``asyncio.to_thread`` and tasks the body
starts, and never leaks into another job."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any, Final, Protocol

from ._numbers import shown
from .errors import InvalidOption, NoCurrentJob
from .model import JobRecord, SubmittedBy, as_datetime

__all__ = ["CURRENT", "CurrentJob", "RunningAttempt", "current_job", "submitter_of"]


class RunningAttempt(Protocol):
    """What the runtime puts into the context."""

    @property
    def record(self) -> JobRecord: ...
    @property
    def number(self) -> int: ...
    @property
    def is_unwanted(self) -> bool: ...
    @property
    def resource(self) -> Any: ...
    def tell(self, done: float, total: float | None, text: str) -> None: ...
    def keep(self, value: Any) -> None: ...
    def wait_begins(self, awaited: Sequence[Any]) -> None: ...
    def wait_ends(self, awaited: Sequence[Any]) -> None: ...
    @property
    def passing(self) -> Any:
        """What the gates of its flow see of it; None if it has none."""
        ...

    def lend_slot(self, records: Sequence[JobRecord], waiter: asyncio.Future[None]) -> Any:
        """The body awaits other jobs, by *waiter*; what comes back is for `reclaim_slot`."""
        ...

    async def reclaim_slot(self, loan: Any, *, at_once: bool) -> None:
        """The body goes on: *at_once* if it was interrupted, else as soon as there is a slot for it."""
        ...


CURRENT: Final[ContextVar[RunningAttempt | None]] = ContextVar("quarterjack_job", default=None)


def submitter_of(record: JobRecord) -> SubmittedBy:
    """Return who asked for the job; the process is the part of a job id before the dash."""
    if record.submitted_by is not None:
        return record.submitted_by
    schedule = record.origin.schedule_id if record.origin is not None else None
    return SubmittedBy(record.id.partition("-")[0], schedule=schedule, text=record.options.submitted_by)


class CurrentJob:
    """The job whose body runs here, as the body sees it. Usable from its threads too."""

    __slots__ = ("_attempt",)

    def __init__(self, attempt: RunningAttempt) -> None:
        self._attempt = attempt

    @property
    def id(self) -> str:
        """The job's id, the same in every attempt."""
        return self._attempt.record.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self._attempt.record.task

    @property
    def attempt(self) -> int:
        """Which try this is, from 1.

        Each time a worker takes the job counts, also if it gave it back before the body began: as it stopped, or as a
        gate of the job's flow stayed closed. How often the body went wrong is `failures`.
        """
        return self._attempt.number

    @property
    def failures(self) -> int:
        """How many attempts failed before this one."""
        return self._attempt.record.failures

    @property
    def nominal(self) -> datetime | None:
        """The fire time this job serves (aware, UTC); None for a submitted job."""
        origin = self._attempt.record.origin
        return as_datetime(origin.nominal_ns) if origin is not None else None

    @property
    def missed_count(self) -> int:
        """Fire times before this one that nobody served, at most 1000."""
        origin = self._attempt.record.origin
        return origin.missed_count if origin is not None else 0

    @property
    def cancel_requested(self) -> bool:
        """True once this body should end: cancelled, or past its timeout. A thread's body looks now and then."""
        return self._attempt.is_unwanted

    @property
    def submitted_by(self) -> SubmittedBy:
        """Who asked for the job: process, schedule, parent job, free text."""
        return submitter_of(self._attempt.record)

    @property
    def metadata(self) -> Any:
        """The ``metadata=`` the job was submitted with."""
        return self._attempt.record.options.metadata

    @property
    def resource(self) -> Any:
        """The `Resource` that a `WeightedRoundRobin` of its flow chose for this attempt; None without one."""
        return self._attempt.resource

    @property
    def last_checkpoint(self) -> Any:
        """What this job kept last with `checkpoint`, in this attempt or an earlier one; None at first."""
        return self._attempt.record.checkpoint

    def checkpoint(self, value: Any) -> None:
        """Keep a small value for the next attempt of this job, should this one fail or die.

        A store that outlives the process keeps it as JSON, and gives it back plain: a tuple as a list.
        None takes back what was kept before.

        Raises:
            InvalidArguments: If it is no JSON, or takes more than 1 MiB, on such a store or in a strict app.
        """
        self._attempt.keep(value)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far the body is: *done* of *total*, in any unit, and a few words.

        Raises:
            InvalidOption: If *done* or *total* is no finite number; no store and no page could show it.
        """
        _check_finite(done, "done")
        if total is not None:
            _check_finite(total, "total")
        self._attempt.tell(done, total, text)

    def __repr__(self) -> str:
        return f"<current job {self.id} {self.task} attempt {self.attempt}>"


def _check_finite(value: float, field: str) -> None:
    try:
        is_finite = math.isfinite(value)
    except (TypeError, ValueError, OverflowError):  # a text, a giant number
        is_finite = False
    if not is_finite:
        raise InvalidOption(f"{field} of a job's progress must be a finite number, got {shown(value)}")


def current_job() -> CurrentJob:
    """Return the job whose body is running.

    Raises:
        NoCurrentJob: Outside a body.
    """
    attempt = CURRENT.get()
    if attempt is None:
        raise NoCurrentJob
    return CurrentJob(attempt)
