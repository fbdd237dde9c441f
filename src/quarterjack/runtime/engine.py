"""Runs the jobs of a `TaskManager`: from their submission over attempts, pauses and limits of time to their end.

    put ─▶ (gates) ─▶ _start ─▶ began ─▶ (body) ─▶ returned, ended ─▶ settle
     ▲                                                     │
     └────────────────── _resume ◀── _once_more ◀──────────┘

What a body asks of its own job stands in `quarterjack.runtime.managed`."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from random import Random
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final

from quarterjack._fast import EAGER_TASKS
from quarterjack.context import CURRENT
from quarterjack.errors import DeadlineExceeded, UsageError
from quarterjack.executors._fresh import UNBEGUN, Fresh
from quarterjack.flow.base import Wrap
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.inheritance import inherit
from quarterjack.flow.outcome import NOT_STARTED, RETURNED
from quarterjack.flow.room import MadeWay, WaitingRoom
from quarterjack.flow.waiting import Phase
from quarterjack.model import FINAL_STATES, FinishKind, JobIds, JobState, Outcome, OutcomeKind

from ._bodies import Once
from ._ends import as_ended, log_failure
from ._snapshots import Snapshots
from ._stand_in import falls_back
from .managed import Chosen, ManagedRun
from .managed_items import Batches, ItemSeat, is_batched
from .verdict import Verdict, decide, describe, past_deadline_words

if TYPE_CHECKING:
    from quarterjack.clock import Clock
    from quarterjack.events import EventStream
    from quarterjack.flow.flow import Flow

__all__ = ["Engine"]

log = logging.getLogger("quarterjack.manager")

_SUBMITTED, _SCHEDULED, _RUNNING, _DONE = JobState.SUBMITTED, JobState.SCHEDULED, JobState.RUNNING, JobState.DONE
_TAKEN: Final = Phase.TAKEN
MOST_NAMES: Final = 5
"""So many functions are named whose jobs the end waits for."""


class Engine:
    """Runs the jobs of one manager on one loop.

    Args:
        flow: What they pass.
        loop: Where.
        clock: The loop's.
        ids: Makes ids.
        singles: The runs of a flow with a `Dedupe`, by what they are the one run of.
        events: Who listens.
        on_idle: Told when no job is left.
        on_move: Told "submitted", "running", "retry", "snooze" and "end" of jobs with callbacks, and of all that were
            submitted while somebody listened; it has the end's waiters to tell.
        on_fatal: Told of a KeyboardInterrupt or SystemExit that a body raised.
    """

    def __init__(
        self,
        flow: Flow,
        loop: asyncio.AbstractEventLoop,
        clock: Clock,
        ids: JobIds,
        *,
        singles: dict[Hashable, ManagedRun],
        events: EventStream,
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
        self.singles: Final = singles
        self._events = events
        self._is_prompt = flow.deadline is None and flow.order is None
        """A job without a delay needs no alarm when it is submitted, and inherits nothing."""
        self.snapshot: Final = Snapshots().take
        self._on_idle = on_idle
        self._on_move = on_move
        self._on_fatal = on_fatal
        self.factory: Final = loop.get_task_factory()
        self._rng = Random()  # noqa: S311  # spreads retries, guards nothing
        self.unfinished: set[ManagedRun] = set()
        self.failed = 0
        """Jobs that ended as FAILED or TIMED_OUT."""
        self.batches: Final = Batches(flow, self.dispatcher)
        self._fresh: Final = Fresh(loop, _unbegun, self._never_began)

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
        run = ManagedRun(self, fn, args, kwargs, chosen, self.snapshot(), self.monotonic())
        if self._is_prompt and chosen.is_prompt and type(fn) is FunctionType and not self._events.has_listeners:
            run.is_plain = chosen.is_plain
            self.room.put(run)
            self.unfinished.add(run)
        else:
            self.put(run)
        return run

    def put(self, run: ManagedRun) -> None:
        """As `submit`, with a job that was made before."""
        if self.room.overflow == "block" and is_batched(run.fn):
            self.batches.of(run.fn).room.refuse_if_full(run.task)
        if self.room.order is not None:
            self._inherit(run)
        delay_ns = run.chosen.run.delay_ns
        if delay_ns:
            run.came = run.enqueued_at
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
        if self._events.has_listeners:
            run.is_plain, run.callbacks = False, True
            self._on_move("submitted", run)

    def adopt(self, run: ManagedRun) -> None:
        """As `put`, with a job that was submitted before there was an engine: a refusal is its end."""
        run.engine, run.enqueued_at = self, self.monotonic()
        try:
            self.put(run)
        except Exception as error:  # the room is full, or a user's gate runs here: it fails this job alone
            self.refuse(run, error)
            if not run.state.is_finished:  # something stands in for it
                self.unfinished.add(run)

    def _enter(self, run: ManagedRun) -> None:
        """Let *run* wait: for the others of its batch, or for its gates.

        Raises:
            InvalidOption, QueueFull: As `WaitingRoom.put` does.
        """
        if is_batched(run.fn):
            run.seat = seat = ItemSeat(run)
            self.batches.of(run.fn).add(seat)
        else:
            self.room.put(run)

    def room_of(self, fn: Callable[..., Any]) -> WaitingRoom:
        """Return where jobs of *fn* wait for their gates: those of a batch in another room than single ones."""
        return self.batches.of(fn).room if is_batched(fn) else self.room

    def _inherit(self, run: ManagedRun) -> None:
        """What a body submits is as urgent as its own job."""
        parent: Any = None if run.context is None else run.context.get(CURRENT)
        if parent is not None:
            inherit(run, parent.urgency if isinstance(parent, ManagedRun) else parent.record.priority)

    def _start(self, job: ManagedRun) -> None:
        """Its gates are taken: begin an attempt."""
        job.state = _SCHEDULED
        job.attempt += 1
        context = job.context
        if job.attempt == 1 and context is not None:
            job.context = context = context.copy()  # others may have been submitted in the same
        if self.factory is not None:
            job.scheduled_at = self.monotonic()
            self._start_by_factory(job)
        elif EAGER_TASKS and self.dispatcher.is_pumping:  # else a caller of submit would run the body
            worker = asyncio.Task(job.drive(), loop=self.loop, context=context, eager_start=True)  # type: ignore[call-arg,unused-ignore]
            if job.state is _RUNNING and job.worker is None:
                job.worker = worker
        else:  # as create_task does, less its Python frame
            job.scheduled_at = self.monotonic()
            job.worker = asyncio.Task(job.drive(), loop=self.loop, context=context)
            self._fresh.add(job)

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
            self._fresh.add(job)

    def refuse(self, job: ManagedRun, error: Exception) -> None:
        """A gate turned it away, or it made way for a newer one."""
        if isinstance(error, MadeWay):
            self._finish(job, Verdict(FinishKind.CANCELLED, reason=str(error)))
            return
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
            self._on_move("running", run)

    # -- out -----------------------------------------------------------------------------

    def returned(self, run: ManagedRun, result: Any) -> None:
        """The body returned."""
        now = self.monotonic()
        self.dispatcher.give(run, RETURNED, now)
        if run.state is not _RUNNING:  # it was left behind, and had its slots until now
            return
        if not run.is_plain:
            self.done(run, result, now)
            return
        run.result = result
        run.finished_at = now
        run.state = _DONE
        run.worker = run.context = None  # as in `settle`
        unfinished = self.unfinished
        unfinished.discard(run)
        watcher = run.watcher
        if watcher is not None:
            run.watcher = None
            watcher(run)
        if not unfinished:
            self._on_idle()

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
        self.settle(run, _DONE, now)

    def ended(self, run: ManagedRun, kind: OutcomeKind, error: BaseException | None) -> None:
        """The body raised, was cancelled, or ran too long: over, or once more."""
        if run.alarm is not None:
            run.alarm.cancel()
            run.alarm = None
        self.dispatcher.give(run, as_ended(kind, error))
        if run.state is not _RUNNING:  # it was left behind
            return
        self.over(run, kind, error)

    def _never_began(self, run: ManagedRun) -> None:
        """Nothing of an attempt has run: it was made anew meanwhile, or somebody else has cancelled its task."""
        if run.worker is None or not run.worker.done():
            return
        if run.alarm is not None:
            run.alarm.cancel()
            run.alarm = None
        run.reason = run.reason or UNBEGUN
        self.dispatcher.give(run, NOT_STARTED)
        self.over(run, OutcomeKind.CANCELLED, None)

    def over(self, run: ManagedRun, kind: OutcomeKind, error: BaseException | None) -> None:
        """An attempt that did not return is over, and its gates have theirs back: the end, or once more."""
        if isinstance(error, KeyboardInterrupt | SystemExit):
            self._on_fatal(error)
        if run.is_late:
            self.end_late(run)
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
        if verdict.kind in FINAL_STATES:
            self._finish(run, verdict)
        else:
            self._once_more(run, verdict)

    def _once_more(self, run: ManagedRun, verdict: Verdict) -> None:
        """A retry or a snooze: it keeps its age, and holds nothing while it waits."""
        if verdict.kind is FinishKind.RETRY:
            run.failures += 1
        run.state, run.reason, run.error = _SUBMITTED, verdict.reason, verdict.error
        run.timed_out, run.worker, run.is_plain = False, None, False
        if run.callbacks:
            self._on_move("retry" if verdict.kind is FinishKind.RETRY else "snooze", run)
        self._pause(run, verdict.delay_ns)

    def _pause(self, run: ManagedRun, delay_ns: int) -> None:
        run.due = self.monotonic() + delay_ns / 1e9
        run.alarm = self.dispatcher.call_at(run.due, partial(self._resume, run))

    def _resume(self, run: ManagedRun) -> None:
        run.alarm = None
        if not run.attempt and run.due is not None:
            run.enqueued_at = run.due  # it did not wait for its gates before
        deadline_s = run.chosen.retry.deadline_s
        if run.failures and deadline_s is not None:
            run.alarm = self.dispatcher.call_at(run.first_due + deadline_s, partial(self._overdue, run))
        try:
            self._enter(run)
        except Exception as error:  # the room is full, or a user's gate runs here: it fails this job alone
            self.refuse(run, error)
        self.dispatcher.look_again()  # who awaits it may hold what it waits for

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
            if self.flow.fallback is not None and falls_back(self, run, self.flow.fallback):
                return
        self.settle(run, FINAL_STATES[verdict.kind], self.monotonic())

    def settle(self, run: ManagedRun, state: JobState, now: float) -> None:
        """*run* has ended: forget it, and tell whoever waits for it."""
        run.finished_at = now
        run.state = state
        if type(run.fn) is Once:
            run.fn.close()
        run.worker = run.context = None  # job, task, context, job: a circle that only the collector would undo
        if run.deadline is not None:
            run.deadline.cancel()
        if run.single is not None and self.singles.get(run.single) is run:  # else it was turned away as it came
            del self.singles[run.single]
        self.unfinished.discard(run)
        if run.callbacks:
            self._on_move("end", run)
        elif run.watcher is not None:
            watcher, run.watcher = run.watcher, None
            watcher(run)
        if state is not _DONE:
            self._tell_of(run, state)
        if not self.unfinished:
            self._on_idle()

    def _tell_of(self, run: ManagedRun, state: JobState) -> None:
        """A job that failed is counted and logged, whether anybody awaits it or not."""
        if state is JobState.CANCELLED:
            return
        self.failed += 1
        error = None if run.error is None else run.error.exception
        if not isinstance(error, KeyboardInterrupt | SystemExit):  # which end the block, and are raised there
            kind = FinishKind.TIMED_OUT if state is JobState.TIMED_OUT else FinishKind.FAILED
            log_failure(run, run.attempt, error, Verdict(kind, error=run.error, reason=run.reason), log)

    def refuse_own(self, what: str, instead: str) -> None:
        """Refuse *what* where the body of one of its own jobs asks for it: that waits for all of them.

        Raises:
            UsageError: Saying what to do *instead*.
        """
        task = asyncio.current_task()
        if any(self._worker_of(run) is task for run in self.unfinished) or self.batches.has_body(task):
            raise UsageError(f"{what} in the body of a job of this TaskManager would wait for that job: {instead}")

    def name_those_left(self, grace_s: float) -> None:
        """Name, in the log, the bodies that go on although their jobs were cancelled: the end waits for them."""
        names = Counter(run.task for run in self.unfinished)
        left = ", ".join(name if n == 1 else f"{name} ({n} jobs)" for name, n in names.most_common(MOST_NAMES))
        if left:
            log.warning("cancelled, and still running, so the end waits up to %g s for them: %s", grace_s, left)

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
        worker = self._worker_of(run)
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

    def _worker_of(self, run: ManagedRun) -> asyncio.Task[Any] | None:
        """Return the task of its body: while the first part of one runs that was begun eagerly, nobody knows it yet."""
        if run.worker is None and run.state is _RUNNING and run.seat is None:
            found = (task for task in asyncio.all_tasks(self.loop) if run.is_driven_by(task))
            run.worker = next(found, None)
        return run.worker

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
            self.end_late(run)

    def end_late(self, run: ManagedRun) -> None:
        """*run* ends with `DeadlineExceeded`."""
        error = DeadlineExceeded(0.0 if self.flow.deadline is None else self.flow.deadline.seconds)
        run.error, run.reason = describe(error), str(error)
        run.failures += 1
        self.settle(run, JobState.TIMED_OUT, self.monotonic())  # no fallback: nobody waits for it any more


_WHY: Final = {OutcomeKind.CANCELLED: "the body raised CancelledError"}


def _unbegun(runs: list[ManagedRun]) -> list[ManagedRun]:
    return [run for run in runs if run._phase is _TAKEN]
