"""Jobs of a `TaskManager`: one process, one loop, no store.

    submit ─▶ (gates) ─▶ begin ─▶ (body) ─▶ end ─▶ told, or submitted once more

A `ManagedRun` is at once the job's record, what the flow sees of it, and what
``current_job()`` reads: with an object for each of these a job cost twice as
much (measured), and a hundred thousand may wait at once. For the same reason
what most jobs never have is read from the class and kept in a dict that is made
for the first of it.

Each attempt runs in an asyncio task of its own, in a copy of the context the
job was submitted in."""

from __future__ import annotations

import asyncio
import inspect
import logging
import sys
from collections.abc import Callable, Coroutine, Hashable, Mapping, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final, cast

from quarterjack.context import CURRENT
from quarterjack.errors import DeadlineExceeded, InvalidArguments, UsageError
from quarterjack.flow.alarms import Alarm
from quarterjack.flow.base import Wrap
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.inheritance import inherit, wait_begins, wait_ends
from quarterjack.flow.outcome import CANCELLED, NOT_STARTED, RETURNED, Ended, EndKind
from quarterjack.flow.waiting import NO_KEY, Phase, Waiting
from quarterjack.model import (
    NO_OPTIONS,
    ErrorInfo,
    FinishKind,
    JobIds,
    JobState,
    Origin,
    Outcome,
    OutcomeKind,
    Progress,
    RunOptions,
    SubmittedBy,
)
from quarterjack.policies.backoff import NO_RETRY, Retry

from .batching import Batcher, Seat
from .managed_items import Batched, ItemSeat
from .verdict import Verdict, decide, describe, past_deadline_words

if TYPE_CHECKING:
    from quarterjack.clock import Clock
    from quarterjack.flow.flow import Flow

__all__ = ["Chosen", "Engine", "ManagedRun", "NotYet", "Once", "Watcher"]

log = logging.getLogger("quarterjack.manager")

_SUBMITTED, _SCHEDULED, _RUNNING, _DONE = JobState.SUBMITTED, JobState.SCHEDULED, JobState.RUNNING, JobState.DONE
_NEW, _TAKEN, _STARTED = Phase.NEW, Phase.TAKEN, Phase.STARTED
_CAN_START_EAGERLY: Final = sys.version_info >= (3, 12)
_STATES: Final[Mapping[FinishKind, JobState]] = {
    FinishKind.DONE: JobState.DONE,
    FinishKind.FAILED: JobState.FAILED,
    FinishKind.TIMED_OUT: JobState.TIMED_OUT,
    FinishKind.CANCELLED: JobState.CANCELLED,
}
_TIMED_OUT: Final = Ended(EndKind.TIMED_OUT)


@dataclass(frozen=True, slots=True)
class Chosen:
    """What jobs were submitted with, and what their flow adds to it; shared by all of one ``options()``."""

    run: RunOptions = NO_OPTIONS
    key: Mapping[str, Hashable] = field(default_factory=lambda: NO_KEY)
    cost: float = 1.0
    retry: Retry = NO_RETRY
    timeout_s: float | None = None
    is_plain: bool = field(init=False)
    """A body's begin needs no more than its stamps."""
    looks_at_results: bool = field(init=False)
    """What a body returned may be worth another attempt, or earns retries."""

    def __post_init__(self) -> None:
        retry = self.retry
        object.__setattr__(self, "is_plain", self.timeout_s is None and retry.deadline_s is None)
        object.__setattr__(self, "looks_at_results", retry.on_result is not None or retry.budget is not None)


class _Rare(Waiting):
    """The defaults of what most jobs never have."""

    __slots__ = ()

    reason: str | None = None
    failures: int = 0
    rescues: int = 0
    origin: Origin | None = None
    submitted_by: SubmittedBy | None = None
    error: ErrorInfo | None = None
    progress: Progress | None = None
    checkpoint: Any = None
    cancel_requested: bool = False
    timed_out: bool = False
    is_late: bool = False
    """Its deadline has passed."""
    alarm: Alarm | None = None
    """Of a pause, of the last instant at which a retry may start, or of the attempt's timeout."""
    deadline: Alarm | None = None
    first_due: float = 0.0
    """When the attempt was due that failed first: monotonic seconds."""
    due: float | None = None
    """When it was last to run, if not at once: monotonic seconds."""
    seat: Seat | None = None
    """Of an item of a batch, while it gathers and runs."""
    callbacks: bool = False
    """Somebody wants to be called when it moves."""


class ManagedRun(_Rare):
    """One job of a manager, all its attempts."""

    __slots__ = (
        "__dict__",
        "_id",
        "_lane",
        "_phase",
        "_rank",
        "_seq",
        "args",
        "attempt",
        "chosen",
        "context",
        "cost",
        "engine",
        "enqueued_at",
        "finished_at",
        "fn",
        "kwargs",
        "result",
        "scheduled_at",
        "started_at",
        "state",
        "watcher",
        "worker",
    )

    def __init__(
        self,
        engine: Engine | NotYet,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        chosen: Chosen,
        context: Context | None,
        now: float,  # a hot constructor, called in one place
    ) -> None:
        self.engine = cast("Engine", engine)
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.chosen = chosen
        self.cost = chosen.cost
        self.context = context
        self.enqueued_at = now
        self.state = _SUBMITTED
        self.attempt = 0
        self.scheduled_at: float | None = None
        self.started_at = None
        self.finished_at: float | None = None
        self.result: Any = None
        self.watcher: Watcher | None = None
        self.worker: asyncio.Task[None] | None = None
        self._phase = _NEW
        self._id: str | None = None

    # -- what the flow sees, and the record says ---------------------------------------

    @property
    def id(self) -> str:  # type: ignore[override]
        """Made when somebody asks: most jobs of a manager are never named."""
        if self._id is None:
            self._id = self.engine.ids()
        return self._id

    @property
    def task(self) -> str:  # type: ignore[override]
        return getattr(self.fn, "__qualname__", None) or type(self.fn).__qualname__

    @property
    def options(self) -> RunOptions:
        return self.chosen.run

    @property
    def queue(self) -> str:
        return self.chosen.run.queue

    @property
    def priority(self) -> int:  # type: ignore[override]
        return self.chosen.run.priority

    @property
    def key(self) -> Mapping[str, Hashable]:  # type: ignore[override]
        return self.chosen.key

    @property
    def metadata(self) -> Mapping[str, Any] | None:  # type: ignore[override]
        return self.chosen.run.metadata

    @property
    def stands_in(self) -> Waiting | None:  # type: ignore[override]
        return None if self.seat is None else self.seat.group

    @property
    def run_at_ns(self) -> int:
        return self.engine.wall_ns(self.enqueued_at if self.due is None else self.due) or 0

    @property
    def submitted_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.enqueued_at)

    @property
    def scheduled_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.scheduled_at)

    @property
    def started_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.started_at)

    @property
    def running_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.started_at)

    @property
    def finished_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.finished_at)

    # -- what the body asks ------------------------------------------------------------

    @property
    def record(self) -> ManagedRun:
        """Itself."""
        return self

    @property
    def number(self) -> int:
        """Which try this is, from 1."""
        return self.attempt

    @property
    def is_unwanted(self) -> bool:
        """True once the body should end."""
        return self.cancel_requested or self.timed_out or self.is_late

    def tell(self, done: float, total: float | None, text: str) -> None:
        """Keep what the body says about how far it is."""
        self.progress = Progress(done, total, text)

    def keep(self, value: Any) -> None:
        """Keep a value for the next attempt."""
        self.checkpoint = value

    def lend_slot(self) -> None:
        """Do nothing: a manager has no slots but those of its gates, which a job keeps."""

    def reclaim_slot(self) -> None:
        """Do nothing: it lent none."""

    def wait_begins(self, awaited: Sequence[Any]) -> None:
        """The body waits for these jobs: they are as urgent as it from now on."""
        wait_begins(self, awaited)

    def wait_ends(self, awaited: Sequence[Any]) -> None:
        """The body goes on."""
        wait_ends(self, awaited)

    # -- one attempt -------------------------------------------------------------------

    async def drive(self) -> None:
        """Run the body once, and report how that ended."""
        engine = self.engine
        lane, body = self._lane, None
        CURRENT.set(cast("Any", self))  # it is its own record
        self.state = _RUNNING
        if self.worker is None:  # begun eagerly, before who made the task could say which it is
            self.worker = cast("asyncio.Task[None]", asyncio.current_task())
        now = engine.monotonic()
        if self.chosen.is_plain and not lane.starters and not self.callbacks:
            self._phase, self.started_at = _STARTED, now
        elif not engine.began(self, now):
            return
        try:
            if engine.wraps:
                result = await engine.wrapped(self)
            else:
                body = self.fn(*self.args, **self.kwargs)
                result = await body
        except asyncio.CancelledError:
            engine.ended(self, OutcomeKind.TIMED_OUT if self.timed_out else OutcomeKind.CANCELLED, None)
        except BaseException as error:  # the user's code runs here, and whatever it raises is its job's outcome
            if isinstance(error, GeneratorExit) and engine.loop.is_closed():
                raise  # the loop was closed under the body: nobody is there to hear of it
            if isinstance(error, TypeError) and body is not None and not inspect.isawaitable(body):
                error = not_awaitable(self.fn, body)
            engine.ended(self, OutcomeKind.RAISED, error)
        else:
            engine.returned(self, result)


Watcher = Callable[[Any], None]


class NotYet:
    """In place of the engine, for jobs that are submitted before there is one."""

    def __init__(self, ids: JobIds) -> None:
        self.ids = ids

    def wall_ns(self, mono: float | None) -> int | None:
        """Return nothing: no time is kept yet."""
        del mono
        return None


class Once:
    """A coroutine object as a body: it can run once, and is closed if it never does."""

    __slots__ = ("__qualname__", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.__qualname__: str = getattr(coroutine, "__qualname__", "coroutine")
        self._coroutine: Coroutine[Any, Any, Any] | None = coroutine

    def __call__(self) -> Coroutine[Any, Any, Any]:
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is None:
            raise UsageError("a coroutine object cannot run twice; submit the function and its arguments instead")
        return coroutine

    def close(self) -> None:
        """It will not run: Python need not warn that nobody awaited it."""
        if self._coroutine is not None:
            self._coroutine.close()


def not_awaitable(fn: Callable[..., Any], body: object) -> InvalidArguments:
    """Return what to raise about a body that is no coroutine."""
    name = getattr(fn, "__qualname__", repr(fn))
    return InvalidArguments(
        f"{name} returned {type(body).__name__}, not something to await: a manager runs coroutine functions; "
        f"submit(asyncio.to_thread, {name}, …) runs it in a thread"
    )


class Engine:
    """Runs the jobs of one manager on one loop.

    Args:
        flow: What they pass.
        loop: Where.
        clock: The loop's.
        ids: Makes ids.
        on_idle: Told when no job is left.
        on_move: Told "start", "retry" and the end of jobs with callbacks; it has the end's `tell` to call.
        on_fatal: Told of a KeyboardInterrupt or SystemExit that a body raised.
    """

    def __init__(
        self,
        flow: Flow,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        ids: JobIds,
        *,
        on_idle: Callable[[], None],
        on_move: Callable[[str, ManagedRun], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self.flow = flow
        self.loop = loop
        self.ids = ids
        self.monotonic = clock.monotonic
        self._offset_ns = clock.now_ns() - clock.monotonic_ns()
        self.dispatcher = Dispatcher.of(loop)
        self.room = flow.room(self.dispatcher, self._start, self.refuse)
        self.wraps: Final[tuple[Wrap, ...]] = flow.wraps
        self._is_prompt = flow.deadline is None and flow.order is None
        """A job without a delay needs no alarm when it is submitted, and inherits nothing."""
        self._on_idle = on_idle
        self._on_move = on_move
        self._on_fatal = on_fatal
        self._factory = loop.get_task_factory()
        self._rng = Random()  # noqa: S311  # spreads retries, guards nothing
        self.unfinished: set[ManagedRun] = set()
        self.batchers: dict[Batched[Any, Any], Batcher] = {}
        self.is_draining = False

    def wall_ns(self, mono: float | None) -> int | None:
        """Return the wall clock's reading at a monotonic instant, as at the start of the manager."""
        return None if mono is None else self._offset_ns + round(mono * 1e9)

    # -- in ------------------------------------------------------------------------------

    def submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Chosen
    ) -> ManagedRun:
        """Let a new job wait for its gates.

        Raises:
            InvalidOption, QueueFull: As `WaitingRoom.put` does; nothing is left of it then.
        """
        run = ManagedRun(self, fn, args, kwargs, chosen, copy_context(), self.monotonic())
        if self._is_prompt and not chosen.run.delay_ns and type(fn) is not Batched:
            self.room.put(run)
            self.unfinished.add(run)
        else:
            self.put(run)
        return run

    def put(self, run: ManagedRun) -> None:
        """As `submit`, with a job that was made before."""
        if self.room.order is not None:
            self._inherit(run)
        delay_ns = run.chosen.run.delay_ns
        if delay_ns:
            self._pause(run, delay_ns)
        else:
            self._enter(run)
        if run.state.is_finished:  # its batch went with it, and was turned away at once
            return
        self.unfinished.add(run)
        deadline = self.flow.deadline
        if deadline is not None:
            at = run.enqueued_at + deadline.seconds
            run.deadline = self.dispatcher.call_at(at, partial(self._too_late, run))

    def adopt(self, run: ManagedRun) -> None:
        """As `put`, with a job that was submitted before there was an engine: a refusal is its end."""
        run.engine, run.enqueued_at = self, self.monotonic()
        try:
            self.put(run)
        except Exception as error:  # the room is full, or a user's gate runs here: it fails this job alone
            self.refuse(run, error)

    def _enter(self, run: ManagedRun) -> None:
        """Let *run* wait: for the others of its batch, or for its gates.

        Raises:
            InvalidOption, QueueFull: As `WaitingRoom.put` does.
        """
        if isinstance(run.fn, Batched):
            self._gather(run)
        else:
            self.room.put(run)

    def _gather(self, run: ManagedRun) -> None:
        batched = cast("Batched[Any, Any]", run.fn)
        batcher = self.batchers.get(batched)
        if batcher is None:
            batcher = self.batchers[batched] = Batcher(batched.batch, self.flow, self.dispatcher, batched.__qualname__)
            batcher.is_draining = self.is_draining
        run.seat = seat = ItemSeat(run)
        batcher.add(seat)

    def _inherit(self, run: ManagedRun) -> None:
        """What a body submits is as urgent as its own job."""
        parent: Any = None if run.context is None else run.context.get(CURRENT)
        if parent is not None:
            inherit(run, parent.urgency if isinstance(parent, ManagedRun) else parent.record.priority)

    def _start(self, job: ManagedRun) -> None:
        """Its gates are taken: begin an attempt."""
        job.state = _SCHEDULED
        job.attempt += 1
        job.scheduled_at = self.monotonic()
        if self._factory is not None:
            self._start_by_factory(job)
        elif _CAN_START_EAGERLY and self.dispatcher.is_pumping:  # else a caller of submit would run the body
            asyncio.Task(job.drive(), loop=self.loop, context=job.context, eager_start=True)  # type: ignore[call-arg,unused-ignore]
        else:  # as create_task does, less its Python frame
            job.worker = asyncio.Task(job.drive(), loop=self.loop, context=job.context)

    def _start_by_factory(self, job: ManagedRun) -> None:
        """A loop with a task factory of its own decides how tasks are made and begun."""
        coroutine = job.drive()
        try:
            worker = self.loop.create_task(coroutine, context=job.context)
        except BaseException:
            coroutine.close()
            raise
        if job.state is _SCHEDULED:  # else it has begun, eagerly, and knows; or has ended
            job.worker = worker

    def refuse(self, job: ManagedRun, error: Exception) -> None:
        """A gate turned it away."""
        self._finish(job, Verdict(FinishKind.FAILED, error=describe(error), reason=str(error)))

    def began(self, run: ManagedRun, now: float) -> bool:
        """The body begins, and somebody wants to know; False if it is not to begin, for it is too late to try again."""
        if run.alarm is not None:  # of the retry's deadline
            run.alarm.cancel()
            run.alarm = None
        if run.failures and not run.chosen.retry.in_time(now - run.first_due):
            self.dispatcher.give(run, NOT_STARTED)
            self._end_untried(run)
            return False
        self.dispatcher.started(run, now)
        self.watch_over(run, now, run.chosen.timeout_s)
        return True

    def watch_over(self, run: ManagedRun, now: float, timeout_s: float | None) -> None:
        """The body begins: its time is limited, and callbacks hear of it."""
        if timeout_s is not None:
            run.alarm = self.dispatcher.call_at(now + timeout_s, partial(self._time_out, run, timeout_s))
        if run.callbacks:
            self._on_move("start", run)

    async def wrapped(self, run: ManagedRun) -> Any:
        """Run the body inside the flow's wraps, the first one outermost."""

        async def body() -> Any:
            return await run.fn(*run.args, **run.kwargs)

        proceed: Callable[[], Any] = body
        for wrap in reversed(self.wraps):
            proceed = partial(wrap, run, proceed)
        return await proceed()

    # -- out -----------------------------------------------------------------------------

    def returned(self, run: ManagedRun, result: Any) -> None:
        """The body returned."""
        now = self.monotonic()
        self.dispatcher.give(run, RETURNED, now)
        if run.state is not _RUNNING:  # it was left behind, and had its slots until now
            return
        self.done(run, result, now)

    def done(self, run: ManagedRun, result: Any, now: float) -> None:
        """An attempt returned, and its gates have theirs back."""
        if run.alarm is not None:
            run.alarm.cancel()
            run.alarm = None
        if run.chosen.looks_at_results and self._comes_again(run, result):
            return
        if run.attempt > 1:
            run.error = run.reason = None  # of an attempt that failed before
        run.result = result
        self._settle(run, _DONE, now)

    def ended(self, run: ManagedRun, kind: OutcomeKind, error: BaseException | None) -> None:
        """The body raised, was cancelled, or ran too long: over, or once more."""
        if run.alarm is not None:
            run.alarm.cancel()
            run.alarm = None
        self.dispatcher.give(run, _ended(kind, error))
        if run.state is not _RUNNING:  # it was left behind
            return
        self.over(run, kind, error)

    def over(self, run: ManagedRun, kind: OutcomeKind, error: BaseException | None) -> None:
        """An attempt that did not return is over, and its gates have theirs back: the end, or once more."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self._on_fatal(error)
        if run.is_late:
            self._end_late(run)
            return
        verdict = self._decide(run, Outcome(kind, error=error, reason=run.reason or _WHY.get(kind)))
        self._follow(run, verdict)

    def _decide(self, run: ManagedRun, outcome: Outcome) -> Verdict:
        now = self.monotonic()
        if not run.failures:
            run.first_due = run.enqueued_at if run.due is None else run.due
        return decide(
            outcome,
            failures=run.failures,
            retry=run.chosen.retry,
            cancel_requested=run.cancel_requested or run.is_late,
            rng=self._rng,
            age_s=now - run.first_due,
            now=now,
        )

    def _comes_again(self, run: ManagedRun, result: Any) -> bool:
        """Say whether what the body returned is worth another attempt, or cannot be judged; it is seen to then."""
        retry = run.chosen.retry
        if retry.on_result is not None:
            verdict = self._decide(run, Outcome(OutcomeKind.DONE, result))
            if verdict.kind is not FinishKind.DONE:
                self._follow(run, verdict)
                return True
        if retry.budget is not None:
            retry.budget.earn(self.monotonic())
        return False

    def _follow(self, run: ManagedRun, verdict: Verdict) -> None:
        if verdict.kind in _STATES:
            self._finish(run, verdict)
        else:
            self._once_more(run, verdict)

    def _once_more(self, run: ManagedRun, verdict: Verdict) -> None:
        """A retry or a snooze: it keeps its age, and holds nothing while it waits."""
        if verdict.kind is FinishKind.RETRY:
            run.failures += 1
            if run.callbacks:
                self._on_move("retry", run)
        run.state, run.reason, run.error = _SUBMITTED, verdict.reason, verdict.error
        run.timed_out, run.worker = False, None
        self._pause(run, verdict.delay_ns)

    def _pause(self, run: ManagedRun, delay_ns: int) -> None:
        run.due = self.monotonic() + delay_ns / 1e9
        run.alarm = self.dispatcher.call_at(run.due, partial(self._resume, run))

    def _resume(self, run: ManagedRun) -> None:
        run.alarm = None
        deadline_s = run.chosen.retry.deadline_s
        if run.failures and deadline_s is not None:
            run.alarm = self.dispatcher.call_at(run.first_due + deadline_s, partial(self._overdue, run))
        try:
            self._enter(run)
        except Exception as error:  # the room is full, or a user's gate runs here: it fails this job alone
            self.refuse(run, error)

    def _overdue(self, run: ManagedRun) -> None:
        """The deadline of its retry has passed; what waits still is not tried again."""
        run.alarm = None
        seat = run.seat
        if self.room.remove(run) if seat is None else run.state is _SUBMITTED and seat.leave():
            self._end_untried(run)

    def _end_untried(self, run: ManagedRun) -> None:
        reason = past_deadline_words(run.reason or "failed", run.chosen.retry)
        error = run.error or describe(TimeoutError(reason))
        run.failures -= 1  # counted when it was to be tried again
        self._finish(run, Verdict(FinishKind.FAILED, error=error, reason=reason))

    def _finish(self, run: ManagedRun, verdict: Verdict) -> None:
        run.error, run.reason = verdict.error, verdict.reason
        if verdict.kind is FinishKind.FAILED or verdict.kind is FinishKind.TIMED_OUT:
            run.failures += 1
        self._settle(run, _STATES[verdict.kind], self.monotonic())

    def _settle(self, run: ManagedRun, state: JobState, now: float) -> None:
        run.finished_at = now
        run.state = state
        if isinstance(run.fn, Once):
            run.fn.close()
        run.worker = run.context = None  # job, task, context, job: a circle that only the collector would undo
        if run.deadline is not None:
            run.deadline.cancel()
        self.unfinished.discard(run)
        if run.callbacks:
            self._on_move("end", run)
        elif run.watcher is not None:
            watcher, run.watcher = run.watcher, None
            watcher(run)
        if not self.unfinished:
            self._on_idle()

    def flush(self, *, drain: bool = False) -> None:
        """Batches wait for no more items; *drain*: nor will those to come."""
        self.is_draining = self.is_draining or drain
        for batcher in self.batchers.values():
            batcher.is_draining = self.is_draining
            batcher.flush()

    async def end_batches(self, grace_s: float) -> None:
        """Interrupt the bodies of batches, and wait for them."""
        for batcher in self.batchers.values():
            await batcher.stop(grace_s)

    def abandon(self, why: str) -> None:
        """Bodies that ignore their cancellation are left to themselves, with their slots; their jobs are over."""
        for run in tuple(self.unfinished):
            log.warning("job %s (%s) %s; it is left behind", run.id, run.task, why)
            run.seat = None
            self._finish(run, Verdict(FinishKind.CANCELLED, reason=why))

    # -- ends that somebody asks for -------------------------------------------------------

    def cancel(self, run: ManagedRun, reason: str = "cancelled") -> None:
        """End *run*: at once while it waits, by ``CancelledError`` while it runs."""
        if run.state.is_finished or run.cancel_requested:
            return
        run.cancel_requested = True
        run.reason = reason
        if self._stop(run, reason):
            self._finish(run, Verdict(FinishKind.CANCELLED, reason=reason))

    def _stop(self, run: ManagedRun, reason: str) -> bool:
        """Interrupt *run*; say whether it is over at once, for its body does not run."""
        worker = run.worker
        if run.seat is not None and not run.seat.leave():
            return False
        if worker is None:
            self.room.remove(run)
            if run.alarm is not None:
                run.alarm.cancel()
                run.alarm = None
            return True
        worker.cancel(reason)
        if run._phase is not _TAKEN:
            return False
        self.dispatcher.give(run, NOT_STARTED)  # cancelled before its first step, its coroutine is never entered
        return True

    def _time_out(self, run: ManagedRun, limit_s: float) -> None:
        run.alarm = None
        if run.cancel_requested or (run.worker is None and run.seat is None):
            return
        run.timed_out = True
        run.reason = f"ran longer than its timeout of {limit_s:g} s"
        if run.worker is not None:
            run.worker.cancel(run.reason)
        elif run.seat is not None and run.seat.leave():
            self.over(run, OutcomeKind.TIMED_OUT, None)

    def _too_late(self, run: ManagedRun) -> None:
        """Its deadline has passed."""
        if run.cancel_requested:
            return
        run.is_late = True
        if self._stop(run, "its deadline has passed"):
            self._end_late(run)

    def _end_late(self, run: ManagedRun) -> None:
        error = DeadlineExceeded(0.0 if self.flow.deadline is None else self.flow.deadline.seconds)
        self._finish(run, Verdict(FinishKind.TIMED_OUT, error=describe(error), reason=str(error)))


_WHY: Final = {OutcomeKind.CANCELLED: "the body raised CancelledError"}


def _ended(kind: OutcomeKind, error: BaseException | None) -> Ended:
    if kind is OutcomeKind.RAISED:
        return Ended(EndKind.RAISED, error)
    return _TIMED_OUT if kind is OutcomeKind.TIMED_OUT else CANCELLED
