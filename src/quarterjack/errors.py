"""Every error quarterjack raises on purpose.

One root, split by who must act:

    QuarterjackError
    ├── UsageError                 the caller: something was asked that cannot be done
    │   ├── InvalidOption          (ValueError)   a value out of its range
    │   │   ├── InvalidTrigger                    a trigger that cannot be built
    │   │   │   └── NeverFires                    … because no instant matches
    │   │   ├── NaiveDatetime                     a datetime without a zone
    │   │   ├── NotPeriodic                       the trigger has no next or prev
    │   │   └── InvalidArguments   (TypeError)    arguments that do not fit the task
    │   ├── DuplicateName          (ValueError)   a task or schedule id taken already
    │   ├── UnknownTask            (LookupError)
    │   ├── UnknownSchedule        (LookupError)
    │   ├── JobGone                (LookupError)  no such job, or purged
    │   ├── UniqueConflict         (ValueError)   ``on_conflict="raise"`` found a job
    │   ├── NoCurrentJob           (LookupError)  asked outside a job's body
    │   ├── NotRunning             (RuntimeError) the app is not running
    │   ├── WrongLoop              (RuntimeError) one app, two event loops
    │   ├── Forked                 (RuntimeError) a running app used after a fork
    │   ├── BatchMismatch          (ValueError)   a batch's body returned another number of results
    │   ├── WouldDeadlock          (RuntimeError) a job awaits what waits for its own slot
    │   └── MissingExtra           (ImportError)  names the install line
    ├── JobError                   what ``await job`` raises
    │   ├── JobFailed
    │   ├── JobTimedOut            (TimeoutError)
    │   ├── JobCancelled           JobSkipped, JobMissed, JobLost
    │   └── ResultUnavailable      the job is done, its result could not be kept
    ├── FlowRefused                a flow turned the job away
    │   ├── QueueFull, WaitedTooLong (TimeoutError), DeadlineExceeded (TimeoutError)
    │   ├── CircuitOpen, NoResource
    ├── StoreError
    │   ├── LeaseLost, Conflict, StoreUnavailable, Orphaned
    ├── ExecutorError
    │   ├── ExecutorFull, ExecutorClosed
    │   ├── CommandFailed          a command ended with an exit code that means failure
    │   ├── BodyDied               the process of a body ended under it
    │   └── RaisedElsewhere        what a body raised in another process, where that itself cannot travel
    ├── StartupFailed              a start-up hook or the lifespan failed
    └── IllegalMove                a state machine was asked for a move it does not have

Facts are attributes, the text is for people and says what to do next. Errors
cross processes, so ``args`` equal the fields and every one survives pickling.

What a body raises to steer its own job (`Discard`, `Snooze`, `RetryLater`)
are verbs, not errors; they stand at the end and derive from `JobSignal`.
"""

from __future__ import annotations

from datetime import timedelta

from ._exit_codes import how_ended

__all__ = [
    "BatchMismatch",
    "BodyDied",
    "CircuitOpen",
    "CommandFailed",
    "Conflict",
    "DeadlineExceeded",
    "Discard",
    "DuplicateName",
    "ExecutorClosed",
    "ExecutorError",
    "ExecutorFull",
    "FlowRefused",
    "Forked",
    "IllegalMove",
    "InvalidArguments",
    "InvalidOption",
    "InvalidTrigger",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobGone",
    "JobLost",
    "JobMissed",
    "JobNotFinished",
    "JobSignal",
    "JobSkipped",
    "JobTimedOut",
    "LeaseLost",
    "MissingExtra",
    "NaiveDatetime",
    "NeverFires",
    "NoCurrentJob",
    "NoResource",
    "NotPeriodic",
    "NotRunning",
    "Orphaned",
    "QuarterjackError",
    "QueueFull",
    "RaisedElsewhere",
    "ResultUnavailable",
    "RetryLater",
    "Snooze",
    "StartupFailed",
    "StoreError",
    "StoreUnavailable",
    "UniqueConflict",
    "UnknownSchedule",
    "UnknownTask",
    "UsageError",
    "WaitedTooLong",
    "WouldDeadlock",
    "WrongLoop",
]


class QuarterjackError(Exception):
    """The root of everything quarterjack raises on purpose."""


# -- the caller must act ------------------------------------------------------------


class UsageError(QuarterjackError):
    """Something was asked for that cannot be done; the text says what to do instead."""


class InvalidOption(UsageError, ValueError):
    """A value lies outside what is allowed; the text names field, value and range."""


class InvalidTrigger(InvalidOption):
    """A trigger cannot be built from these values."""


class NeverFires(InvalidTrigger):
    """The trigger is well-formed, but no instant will ever match it."""


class NaiveDatetime(InvalidOption):
    """A datetime has no zone, so it names no instant."""


class NotPeriodic(InvalidOption):
    """The trigger's fire times depend on how its runs end, so they cannot be listed."""


class InvalidArguments(InvalidOption, TypeError):
    """The arguments do not fit the task's signature."""


class DuplicateName(UsageError, ValueError):
    """A task or a schedule of this name exists already."""


class UnknownTask(UsageError, LookupError):
    """No task of this name is registered."""


class UnknownSchedule(UsageError, LookupError):
    """No schedule has this id."""


class JobGone(UsageError, LookupError):
    """The store holds no job of this id: it never existed, or it was purged."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id

    def __str__(self) -> str:
        return (
            f"no job {self.job_id!r} in the store: it was purged after its retention, or never existed; "
            "keep the Job handle, or raise the store's retention"
        )


class JobNotFinished(UsageError, RuntimeError):
    """The result of a job was asked for before it has ended."""


class UniqueConflict(UsageError, ValueError):
    """An unfinished job with the same unique key exists, and ``on_conflict="raise"``."""

    def __init__(self, key: str, job_id: str) -> None:
        super().__init__(key, job_id)
        self.key, self.job_id = key, job_id

    def __str__(self) -> str:
        return f"job {self.job_id} already holds the unique key {self.key!r}"


class NoCurrentJob(UsageError, LookupError):
    """``current_job()`` was called outside a job's body."""

    def __str__(self) -> str:
        return "no job is running here: current_job() works only inside a task's body, and not in a thread it started"


class NotRunning(UsageError, RuntimeError):
    """The app is not running (not started yet, or stopped)."""


class WrongLoop(UsageError, RuntimeError):
    """An object that belongs to one event loop was used from another."""


class Forked(UsageError, RuntimeError):
    """A running app was inherited through ``os.fork`` and used in the child."""


class WouldDeadlock(UsageError, RuntimeError):
    """A job awaits another one that waits for a slot which only jobs hold that wait themselves.

    *job* awaits, *awaited* waits at *gate*; all three in words.
    """

    def __init__(self, job: str, awaited: str, gate: str) -> None:
        super().__init__(job, awaited, gate)
        self.job, self.awaited, self.gate = job, awaited, gate

    def __str__(self) -> str:
        if not self.gate:
            return f"{self.job} would wait for ever: it awaits itself by way of {self.awaited}"
        return (
            f"{self.job} would wait for ever: {self.awaited} needs a slot of {self.gate}, and all are held by jobs "
            "that wait like this one; have it pass another gate, raise the limit, or let waiting jobs lend their "
            'slots: ConcurrencyLimit(…, reentrant="donate")'
        )


class MissingExtra(UsageError, ImportError):
    """An optional dependency is not installed; the text is the install line."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(what, extra)
        self.what, self.extra = what, extra

    def __str__(self) -> str:
        return f"{self.what} needs an optional dependency: pip install 'quarterjack[{self.extra}]'"


# -- what awaiting a job raises -----------------------------------------------------


class JobError(QuarterjackError):
    """The job ended in another state than DONE. *job_id* names it, *reason* says why."""

    def __init__(self, job_id: str, reason: str = "") -> None:
        super().__init__(job_id, reason)
        self.job_id, self.reason = job_id, reason

    def _what(self) -> str:
        return "did not succeed"

    def __str__(self) -> str:
        return f"job {self.job_id} {self._what()}" + (f": {self.reason}" if self.reason else "")


class JobFailed(JobError):
    """The body raised and no retry was left.

    ``error_type``, ``message`` and ``traceback_text`` describe the exception;
    ``__cause__`` is the exception itself if it was raised in this process and, on
    a store that keeps JSON, the job ended while it was awaited; else None.
    """

    def __init__(self, job_id: str, error_type: str, message: str, traceback_text: str = "") -> None:
        super().__init__(job_id, f"{error_type}: {message}" if message else error_type)
        self.args = (job_id, error_type, message, traceback_text)
        self.error_type, self.message, self.traceback_text = error_type, message, traceback_text

    def __repr__(self) -> str:
        return f"JobFailed({self.job_id!r}, {self.error_type!r}, {self.message!r})"  # a log needs no second traceback

    def _what(self) -> str:
        return "failed"


class JobTimedOut(JobError, TimeoutError):
    """The body ran longer than its timeout."""

    def _what(self) -> str:
        return "timed out"


class JobCancelled(JobError):
    """The job was cancelled. Not asyncio's CancelledError: the waiter goes on."""

    def _what(self) -> str:
        return "was cancelled"


class JobSkipped(JobError):
    """The schedule's overlap policy left this run out."""

    def _what(self) -> str:
        return "was skipped"


class JobMissed(JobError):
    """The run was too late to start."""

    def _what(self) -> str:
        return "was missed"


class JobLost(JobError):
    """Workers died under this job more than ``max_rescues`` times."""

    def _what(self) -> str:
        return "was lost"


class ResultUnavailable(JobError):
    """The job is DONE, but its result could not be kept (too large, or not JSON)."""

    def _what(self) -> str:
        return "is done, but its result is not available"


# -- a flow turned the job away -------------------------------------------------------


class FlowRefused(QuarterjackError):
    """A flow did not let the job start; it never ran, and trying again at once would not help."""


class BatchMismatch(UsageError, ValueError):
    """The body of a batch did not return one result for each of its *items*."""

    def __init__(self, task: str, items: int, returned: str) -> None:
        super().__init__(task, items, returned)
        self.task, self.items, self.returned = task, items, returned

    def __str__(self) -> str:
        return (
            f"{self.task} returned {self.returned} for a batch of {self.items}; it must return a list with one result "
            "for each item, in their order (an exception in the place of an item that failed)"
        )


class QueueFull(FlowRefused):
    """The flow's waiting room holds *max_queue* jobs already."""

    def __init__(self, max_queue: int, why: str = "no room for one more") -> None:
        super().__init__(max_queue, why)
        self.max_queue, self.why = max_queue, why

    def __str__(self) -> str:
        return (
            f"{self.why}: at most max_queue={self.max_queue} may wait; submit less, or wait for room: with "
            '`await manager.submit_wait(…)` or `await app.submit(…)`, in a flow whose overflow is "block"'
        )


class WaitedTooLong(FlowRefused, TimeoutError):
    """The job waited longer for its flow than ``max_wait``."""

    def __init__(self, max_wait_s: float) -> None:
        super().__init__(max_wait_s)
        self.max_wait_s = max_wait_s

    def __str__(self) -> str:
        return f"it waited longer for its flow than max_wait={self.max_wait_s:g} s"


class DeadlineExceeded(FlowRefused, TimeoutError):
    """The job was not done within its `Deadline`, its waits and retries included."""

    def __init__(self, deadline_s: float) -> None:
        super().__init__(deadline_s)
        self.deadline_s = deadline_s

    def __str__(self) -> str:
        return f"it was not done within its deadline of {self.deadline_s:g} s, waits and retries included"


class CircuitOpen(FlowRefused):
    """A circuit breaker lets nothing through; *retry_in_s* is when it tries again (None: not by the clock alone)."""

    def __init__(self, name: str, retry_in_s: float | None = None, state: str = "open") -> None:
        super().__init__(name, retry_in_s, state)
        self.name, self.retry_in_s, self.state = name, retry_in_s, state

    def __str__(self) -> str:
        if self.state == "isolated":
            return f"{self.name} is isolated until reset()"
        if self.state == "half_open":
            return f"{self.name} is half-open, and its probes are under way"
        when = "until its health check succeeds" if self.retry_in_s is None else f"for {_few(self.retry_in_s)} s more"
        return f"{self.name} is open {when}: too many calls have failed"


def _few(seconds: float) -> str:
    """Return *seconds* with the digits that matter: 0.25, 12.5, 1800."""
    return f"{seconds:.3g}" if seconds < 100 else f"{seconds:.0f}"


class NoResource(FlowRefused):
    """A router has no healthy resource to choose from."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"{self.name}: no resource is healthy and has a weight above 0"


# -- the seams ----------------------------------------------------------------------


class StoreError(QuarterjackError):
    """A store could not do what it was asked."""


class LeaseLost(StoreError):
    """The lease ran out or moved on; nothing this attempt did will be recorded."""

    def __init__(self, job_id: str, holder: str | None) -> None:
        super().__init__(job_id, holder)
        self.job_id, self.holder = job_id, holder

    def __str__(self) -> str:
        return f"the lease of job {self.job_id} is held by {self.holder or 'nobody'} now"


class Conflict(StoreError):
    """Somebody else changed the row first."""


class StoreUnavailable(StoreError):
    """The store did not answer in time, or says that it cannot at the moment: trying again may help."""


class Orphaned(StoreError):
    """A stored job that this process cannot run: its task is unknown here, or its arguments do not fit it.

    It stays stored, for a process that can.
    """

    def __init__(self, task: str, why: str) -> None:
        super().__init__(task, why)
        self.task, self.why = task, why

    def __str__(self) -> str:
        return f"no job of {self.task!r} can run here: {self.why}"


class ExecutorError(QuarterjackError):
    """An executor could not take or run a body."""


class ExecutorFull(ExecutorError):
    """All slots and the waiting room of the executor are taken; the job goes back to the queue."""


class ExecutorClosed(ExecutorError):
    """The executor was stopped."""


class BodyDied(ExecutorError):
    """The process of a body ended under it: by a crash, by ``os._exit``, or killed from outside.

    Attributes:
        code: The exit code; a negative one is the signal that ended it; None if nobody knows.
        hint: What that means, in words.
    """

    def __init__(self, code: int | None, hint: str) -> None:
        super().__init__(code, hint)
        self.code, self.hint = code, hint

    def __str__(self) -> str:
        return f"its process died: {self.hint}"


class CommandFailed(ExecutorError):
    """A command ended with an exit code that means failure.

    Attributes:
        program: What was run.
        code: Its exit code; a negative one is the signal that ended it.
        output: The first and the last of what it wrote.
    """

    def __init__(self, program: str, code: int, output: str) -> None:
        super().__init__(program, code, output)
        self.program, self.code, self.output = program, code, output

    def __str__(self) -> str:
        is_odd = ", which is not among its ok_codes" if self.code == 0 else ""
        return f"{self.program} ended {how_ended(self.code)}{is_odd}"


class RaisedElsewhere(ExecutorError):
    """What a body raised in another process, where the exception itself could not travel.

    ``Retry(on=…)`` takes it for what it stands for: *kinds* are the names of the exception's classes.

    Attributes:
        type_name: Its class.
        message: Its text.
        traceback_text: Where it was raised.
        kinds: Its class and all bases of that, with their modules.
    """

    def __init__(self, type_name: str, message: str, traceback_text: str, kinds: tuple[str, ...]) -> None:
        super().__init__(type_name, message, traceback_text, kinds)
        self.type_name, self.message, self.traceback_text, self.kinds = type_name, message, traceback_text, kinds

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class StartupFailed(QuarterjackError):
    """A start-up hook or the lifespan raised; ``__cause__`` is its exception."""


class IllegalMove(QuarterjackError):
    """A job cannot make this move from the state it is in."""

    def __init__(self, state: str, event: str) -> None:
        super().__init__(state, event)
        self.state, self.event = state, event

    def __str__(self) -> str:
        return f"a job that is {self.state} cannot be {self.event}"


# -- verbs a body raises to steer its own job -----------------------------------------


class JobSignal(Exception):  # verbs, not errors: `raise Snooze(60)`
    """Base of what a body raises to say what becomes of its own job."""


class Discard(JobSignal):
    """Finish this job as FAILED with *reason*; never retry it."""

    def __init__(self, reason: str = "discarded") -> None:
        super().__init__(reason)
        self.reason = reason


class Snooze(JobSignal):
    """Run this job again after *delay* (seconds or timedelta); not a failure."""

    def __init__(self, delay: float | timedelta) -> None:
        super().__init__(delay)
        self.delay = delay


class RetryLater(JobSignal):
    """Count this attempt as failed and, if a retry is left, try again after *after*."""

    def __init__(self, after: float | timedelta | None = None, reason: str = "retry later") -> None:
        super().__init__(after, reason)
        self.after, self.reason = after, reason

    def __str__(self) -> str:
        return self.reason
