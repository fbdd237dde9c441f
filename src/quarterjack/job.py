"""`Job`: the handle of one requested run, awaitable from any event loop.

A handle is thin: a record and the client that knows the store. On the memory
store the record is the row itself, so ``job.state`` is always true; on a
shared store it is what this process knows, and `Job.refresh` asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar, overload

from ._crossing import across_loops, from_thread
from ._durations import Seconds, to_seconds
from ._payload import Unreadable
from ._settling import JobClient, all_settled, has_failure, settled_everywhere
from ._signatures import misfit
from ._timestamps import Timestamps
from .context import submitter_of
from .errors import (
    InvalidOption,
    JobCancelled,
    JobError,
    JobFailed,
    JobLost,
    JobMissed,
    JobNotFinished,
    JobSkipped,
    JobTimedOut,
    ResultUnavailable,
    UsageError,
)
from .model import ErrorInfo, JobRecord, JobState, Progress, SubmittedBy, as_datetime

__all__ = [
    "CALLBACK_KINDS",
    "CallbackKind",
    "Hooks",
    "Job",
    "JobClient",
    "Timestamps",
    "check_callback",
    "error_of",
    "gather",
]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

CallbackKind = Literal["submit", "start", "done", "error", "timeout", "cancel", "retry", "lost"]
CALLBACK_KINDS: tuple[CallbackKind, ...] = ("submit", "start", "done", "error", "timeout", "cancel", "retry", "lost")


_DONE = JobState.DONE


def error_of(record: JobRecord) -> JobError | None:
    """Return what awaiting a finished job raises, or None if it is DONE with its result at hand."""
    reason = record.reason or ""
    state = record.state
    if state is JobState.DONE:
        if type(record.result) is Unreadable:
            return ResultUnavailable(record.id, f"it cannot be read: {record.result.reason}")
        return None if record.error is None else ResultUnavailable(record.id, record.error.message)
    if state is JobState.FAILED:
        info = record.error or ErrorInfo("Error", reason)
        failed = JobFailed(record.id, info.type_name, info.message, info.traceback_text)
        failed.__cause__ = info.exception
        return failed
    if state is JobState.TIMED_OUT:
        return JobTimedOut(record.id, reason)
    kinds: dict[JobState, type[JobError]] = {
        JobState.CANCELLED: JobCancelled,
        JobState.SKIPPED: JobSkipped,
        JobState.MISSED: JobMissed,
        JobState.LOST: JobLost,
    }
    return kinds[state](record.id, reason)


def check_callback(kind: CallbackKind, fn: Callable[..., object]) -> None:
    """Raise `InvalidOption` unless *fn* can be called with a job."""
    why = misfit(fn, 1)
    if why is not None:
        raise InvalidOption(f"on_{kind} takes a function of one argument, the job, such as def note(job): …; {why}")


F = TypeVar("F", bound="Callable[[Job[Any]], object]")


class Hooks:
    """The ``on_…`` decorators that tasks and jobs share.

    A callback gets the `Job`, may be a coroutine function, runs in the process
    that made the move, after the move is recorded and before a local ``await
    job`` returns, and at most once. What it raises is logged and changes
    nothing.
    """

    __slots__ = ()

    def _on(self, kind: CallbackKind, fn: Callable[[Job[Any]], object]) -> None:
        raise NotImplementedError

    def on_submit(self, fn: F) -> F:
        """Call *fn* with the job when it is stored; usable as a decorator."""
        self._on("submit", fn)
        return fn

    def on_start(self, fn: F) -> F:
        """Call *fn* with the job when its body begins; usable as a decorator."""
        self._on("start", fn)
        return fn

    def on_done(self, fn: F) -> F:
        """Call *fn* with the job when it is DONE; usable as a decorator."""
        self._on("done", fn)
        return fn

    def on_error(self, fn: F) -> F:
        """Call *fn* with the job when it is FAILED; usable as a decorator."""
        self._on("error", fn)
        return fn

    def on_timeout(self, fn: F) -> F:
        """Call *fn* with the job when it is TIMED_OUT; usable as a decorator."""
        self._on("timeout", fn)
        return fn

    def on_cancel(self, fn: F) -> F:
        """Call *fn* with the job when it is CANCELLED; usable as a decorator."""
        self._on("cancel", fn)
        return fn

    def on_retry(self, fn: F) -> F:
        """Call *fn* with the job when a failed attempt of it will be tried again; usable as a decorator."""
        self._on("retry", fn)
        return fn

    def on_lost(self, fn: F) -> F:
        """Call *fn* with the job when it is LOST; usable as a decorator."""
        self._on("lost", fn)
        return fn


class Job(Hooks, Generic[T_co]):
    """One requested run of a task.

    ``await job`` returns the body's result or raises: `JobFailed` (with the
    original exception as ``__cause__`` if it was raised in this process and, on
    a store that keeps JSON, the job ended while it was awaited), `JobTimedOut`,
    `JobCancelled`, `JobSkipped`, `JobMissed`, `JobLost`, `ResultUnavailable`.
    With ``store_result=False`` it returns None. Cancelling whoever waits never
    cancels the job.
    """

    __slots__ = ("_client", "_record", "is_duplicate")

    def __init__(self, record: JobRecord, client: JobClient, is_duplicate: bool = False) -> None:  # a hot constructor
        self._record = record
        self._client = client
        self.is_duplicate = is_duplicate
        """True if this job was there before: it held the ``unique`` key, or an earlier backfill had made it."""

    # -- facts -----------------------------------------------------------------------

    @property
    def id(self) -> str:
        """Its id, the same in every process."""
        return self._record.id

    @property
    def task(self) -> str:
        """The task's name."""
        return self._record.task

    @property
    def state(self) -> JobState:
        """Where it stands."""
        return self._record.state

    @property
    def reason(self) -> str | None:
        """Why it stands there: why it was skipped, missed, cancelled, given back."""
        return self._record.reason

    @property
    def attempt(self) -> int:
        """How often a worker has taken it."""
        return self._record.attempt

    @property
    def failures(self) -> int:
        """How many attempts have failed."""
        return self._record.failures

    @property
    def rescues(self) -> int:
        """How often it was taken back from a worker that died."""
        return self._record.rescues

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments."""
        return self._record.args

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments."""
        return dict(self._record.kwargs)

    @property
    def queue(self) -> str:
        """The queue it waits in."""
        return self._record.queue

    @property
    def priority(self) -> int:
        """0 is most urgent, 2 the default."""
        return self._record.priority

    @property
    def metadata(self) -> Any:
        """The ``metadata=`` it was submitted with."""
        return self._record.options.metadata

    @property
    def timestamps(self) -> Timestamps:
        """When it made its moves."""
        return Timestamps(self._record)

    @property
    def nominal(self) -> datetime | None:
        """The fire time it serves; None for a submitted job."""
        origin = self._record.origin
        return as_datetime(origin.nominal_ns) if origin is not None else None

    @property
    def schedule(self) -> str | None:
        """The id of the schedule it comes from."""
        origin = self._record.origin
        return origin.schedule_id if origin is not None else None

    @property
    def missed_count(self) -> int:
        """Fire times before this one that nobody served (for a MISSED row: that it stands for)."""
        origin = self._record.origin
        return origin.missed_count if origin is not None else 0

    @property
    def submitted_by(self) -> SubmittedBy:
        """Who asked for it."""
        return submitter_of(self._record)

    @property
    def progress(self) -> Progress | None:
        """What the body said last about how far it is."""
        return self._record.progress

    @property
    def duration(self) -> float | None:
        """Seconds its body ran in the latest attempt, None while it has not finished or never began."""
        record = self._record
        if record.finished_at_ns is None or record.running_at_ns is None:
            return None
        return (record.finished_at_ns - record.running_at_ns) / 1e9

    @property
    def lag(self) -> float | None:
        """Seconds from its due time to the start of its body, 0 or more; None before that."""
        record = self._record
        # A clock that was set back between the two would make it negative.
        return None if record.running_at_ns is None else max(0, record.running_at_ns - record.run_at_ns) / 1e9

    @property
    def error(self) -> ErrorInfo | None:
        """What the latest failed attempt raised."""
        return self._record.error

    def result(self) -> T_co:
        """Return the result of a finished job, or raise as awaiting it would.

        Raises:
            JobNotFinished: If it is not finished; ``await`` it instead.
        """
        if not self._record.state.is_finished:
            raise JobNotFinished(f"job {self.id} ({self.task}) is {self.state.value}; await it to get its result")
        error = self._error()
        if error is not None:
            raise error
        value: T_co = self._record.result
        return value

    def _error(self) -> BaseException | None:
        """Return what awaiting it raises now that it is finished, or None."""
        return error_of(self._record)

    # -- actions ---------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, T_co]:
        return self._wait(None).__await__()

    async def wait(self, timeout: Seconds | None = None) -> T_co:  # noqa: ASYNC109  # ends the waiting, not the job
        """Wait up to *timeout* seconds for the result.

        Raises:
            TimeoutError: If it is not finished by then; the job goes on.
            JobError: As awaiting it does.
        """
        timeout_s = None if timeout is None else to_seconds(timeout, "timeout")
        try:
            return await self._wait(timeout_s)
        except TimeoutError:
            if self._client.is_settled(self._record):  # the job's own: it ran longer than its timeout
                raise
            raise TimeoutError(
                f"job {self.id} ({self.task}) is {self.state.value} after {timeout_s:g} s of waiting; it goes on"
            ) from None

    def wait_sync(self, timeout: Seconds | None = None) -> T_co:
        """Wait as `wait` does, from a thread or from code without a loop; blocks until then.

        Raises:
            WrongLoop: On the app's own thread, where blocking would stop the app.
            TimeoutError: If it is not finished by then; the job goes on.
            JobError: As awaiting it does.
        """
        refusal = "wait_sync would block the app's own event loop; write `await job` here"
        return from_thread(self._client.loop, refusal, self.wait, timeout)

    async def _wait(self, timeout_s: float | None) -> T_co:
        client = self._client
        if not client.is_settled(self._record):
            async with asyncio.timeout(timeout_s):
                # Once more if it was retried before we came to read how it had ended.
                while not client.is_settled(self._record):
                    await across_loops(client.loop, all_settled, client, [self._record], False)
        return self.result()

    async def cancel(self, wait: Seconds = 10) -> bool:
        """Cancel the job and wait up to *wait* seconds for its end.

        A waiting job is CANCELLED at once; a running coroutine gets
        ``CancelledError``, a thread sees ``current_job().cancel_requested``.

        Returns:
            True if its final state is CANCELLED; False if it ended otherwise or still runs.
        """
        wait_s = to_seconds(wait, "wait")
        record = self._record

        async def ask() -> bool:
            return await self._client.cancel_job(record, wait_s)

        return await across_loops(self._client.loop, ask)

    async def refresh(self) -> Job[T_co]:
        """Read the job anew from the store.

        Raises:
            JobGone: If it was purged.
        """

        async def ask() -> JobRecord:
            return await self._client.fetch(self._record)

        self._record = await across_loops(self._client.loop, ask)
        return self

    def _on(self, kind: CallbackKind, fn: Callable[[Job[Any]], object]) -> None:
        check_callback(kind, fn)
        self._client.add_callback(self._record, kind, fn)

    def __repr__(self) -> str:
        return f"<Job {self.id} {self.task} {self.state.value}>"


@overload
async def gather(jobs: Iterable[Job[T]], *, return_exceptions: Literal[False] = False) -> list[T]: ...
@overload
async def gather(jobs: Iterable[Job[T]], *, return_exceptions: bool) -> list[T | JobError]: ...
async def gather(jobs: Iterable[Job[T]], *more: Any, return_exceptions: bool = False) -> list[Any]:
    """Wait for all *jobs* and return their results in order.

    Cheaper than ``asyncio.gather``, which makes a task per job. With
    *return_exceptions* errors stand in their places; without, the first job
    that fails ends the waiting and its error is raised (the others go on).
    Cancelling the wait cancels no job.
    """
    waited = _jobs_of(jobs, more)
    records = [job._record for job in waited]
    by_client = dict.fromkeys({job._client for job in waited}, records)
    if len(by_client) > 1:
        by_client = {client: [job._record for job in waited if job._client is client] for client in by_client}
    if waited:
        await settled_everywhere(by_client, not return_exceptions)
    results: list[Any] = [record.result for record in records if record.state is _DONE and record.error is None]
    if len(results) == len(records) and Unreadable not in set(map(type, results)):
        return results
    # Once more if a job was retried before we came to read how it had ended.
    while not (all(r.state.is_finished for r in records) or (not return_exceptions and has_failure(records))):
        await settled_everywhere(by_client, not return_exceptions)
    if return_exceptions:
        return [job._error() or job._record.result for job in waited]
    results = []
    for job, record in zip(waited, records, strict=True):
        # A job still open here is none of ours to judge: another one failed and ended the waiting.
        if record.state.is_finished:
            error = job._error()
            if error is not None:
                raise error
            results.append(record.result)
    return results


def _jobs_of(jobs: Any, more: tuple[Any, ...]) -> list[Job[Any]]:
    """Return *jobs* as a list, after a look whether they are jobs.

    Raises:
        UsageError: If they are not, or came one by one as ``asyncio.gather`` takes them.
    """
    if more or isinstance(jobs, Job):
        raise UsageError("gather takes one iterable of jobs: gather([first, second])")
    waited = list(jobs)
    for job in waited:
        if not isinstance(job, Job):
            for other in waited:
                if asyncio.iscoroutine(other):
                    other.close()  # or Python warns of each, beside the point
            raise UsageError(f"gather takes jobs, got {job!r}; write `await app.submit(…)` first, which returns one")
    return waited
