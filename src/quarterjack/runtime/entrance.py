"""A waiting room of an app's worker: where leased jobs wait for their flow, before their executor.

    claimed ─▶ (gates, a slot) ─▶ executor ─▶ began ─▶ (body) ─▶ finished ─▶ [ended]

An `Entry` is what the flow sees of an attempt, the handle by which it is
cancelled while it waits, and then what its executor reports to: so a job
without a flow pays nothing for all this. A job that waits holds a lease and no
slot. Its gates are taken when it is handed over, stamped when its body begins,
and given back when that has really ended, in a thread that cannot be stopped too."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, Protocol

from quarterjack.errors import DeadlineExceeded, WaitedTooLong
from quarterjack.executors import Executor, Report
from quarterjack.flow.alarms import Alarm
from quarterjack.flow.base import Gate, Wrap
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.flow.flow import Flow
from quarterjack.flow.for_apps import check_wraps
from quarterjack.flow.outcome import CANCELLED, NOT_STARTED, RETURNED, Ended, EndKind
from quarterjack.flow.room import WaitingRoom
from quarterjack.flow.waiting import Phase
from quarterjack.model import FinishKind, Outcome, OutcomeKind
from quarterjack.policies.backoff import NO_RETRY, Retry

from ._ends import first_due_ns, untried
from .flows import Candidate
from .run import Attempt
from .verdict import Verdict, describe

__all__ = ["Entrance", "EntranceHost", "Entry"]

_S: Final = 1_000_000_000


class EntranceHost(Protocol):
    """What is asked of the worker."""

    def launch(self, attempt: Attempt, report: Report) -> bool: ...
    def miss(self, attempt: Attempt) -> None: ...
    def give_back(self, attempt: Attempt, reason: str, delay_ns: int = 0) -> None: ...
    def claim_more(self) -> None: ...
    def waits_no_more(self, job_id: str) -> None: ...


class Entry(Candidate):
    """An attempt in its flow."""

    __slots__ = ("_lane", "_phase", "_rank", "_seq", "alarm", "awaits", "ended_as", "entrance", "lifted_to", "run")

    def __init__(self, entrance: Entrance, run: Attempt, fn: Callable[..., Any], since: float) -> None:
        super().__init__(run.record, fn, since)
        self._phase = Phase.NEW
        self.lifted_to = None
        self.awaits = ()
        self.entrance = entrance
        self.run = run
        self.alarm: Alarm | None = None
        self.ended_as: Ended = CANCELLED
        """How its outcome was told, of a body that goes on after it."""

    @property
    def place(self) -> tuple[Executor, bool]:
        """Where it runs, and whether it is a schedule's run of now: those have slots kept for them."""
        record = self.run.record
        return self.run.executor, record.origin is not None and not record.is_backfill

    @property
    def retry(self) -> Retry:
        """What the job's options say, else its flow."""
        own = self.run.record.options.retry
        return own if own is not NO_RETRY else self.entrance.flow.retry or NO_RETRY

    # -- while it waits: a handle ------------------------------------------------------

    def cancel(self, reason: str) -> None:
        """End it while it waits; once it is handed over, its executor's handle is asked instead."""
        if self.leave():
            self.run.finished(Outcome(OutcomeKind.CANCELLED, reason=reason))
            self.entrance.over(self)

    def leave(self) -> bool:
        """Take it out of the room; say whether it was there."""
        self.disarm()
        return self.entrance.room.remove(self)

    def disarm(self) -> None:
        """It waits no more: no limit of its waiting counts."""
        if self.alarm is not None:
            self.alarm.cancel()
            self.alarm = None

    # -- what the executor reports -----------------------------------------------------

    def accepted(self) -> None:
        """See `Report`."""
        self.run.accepted()

    def began(self, at_mono_ns: int | None = None) -> None:
        """The body begins: gates that count starts count it."""
        entrance = self.entrance
        # Now, not *at_mono_ns*: a thread's letter is read a little later, and no gate is to see time run backwards.
        entrance.dispatcher.started(self, entrance.dispatcher.monotonic())
        self.run.began(at_mono_ns)
        entrance.host.waits_no_more(self.id)

    def progress(self, done: float, total: float | None, text: str) -> None:
        """See `Report`."""
        self.run.progress(done, total, text)

    def keep(self, value: Any) -> None:
        """See `Report`."""
        self.run.keep(value)

    def done(self, result: Any) -> None:
        """The body returned."""
        self.give(RETURNED)
        self.run.done(result)
        self.entrance.forget(self)

    def finished(self, outcome: Outcome, at_mono_ns: int | None = None) -> None:
        """The attempt is over; its gates come back when its body is, too."""
        if outcome.kind is OutcomeKind.TIMED_OUT:
            outcome = self.entrance.past_deadline(self.run, outcome)
        ended = _as_pass(outcome)
        if outcome.stopped:
            self.give(ended)
        else:
            self.ended_as = ended
        self.run.finished(outcome, at_mono_ns)
        if outcome.stopped:
            self.entrance.forget(self)

    def ended(self) -> None:
        """The body that outlived its outcome is over."""
        self.give(self.ended_as)
        self.run.ended()
        self.entrance.forget(self)

    def give(self, ended: Ended) -> None:
        """Give back what it took, if it took anything; once."""
        if self._phase is Phase.TAKEN:
            self.entrance.dispatcher.give(self, NOT_STARTED)
        elif self._phase is Phase.STARTED:
            self.entrance.dispatcher.give(self, ended)


class Entrance:
    """The waiting room of one flow, in one worker."""

    def __init__(
        self, host: EntranceHost, dispatcher: Dispatcher, flow: Flow, slots: Gate, max_wait_s: float | None
    ) -> None:
        self.host = host
        self.dispatcher = dispatcher
        self.flow = flow
        self.max_wait_s = max_wait_s
        self.entries: dict[Attempt, Entry] = {}
        """Who waits here, or holds gates."""
        self.room = WaitingRoom(dispatcher, (*flow.gates, slots), flow.order, start=self._start, refuse=self._turn_away)
        self._timeout_s = None if flow.timeout is None else flow.timeout.seconds
        self._deadline_s = None if flow.deadline is None else flow.deadline.seconds

    def receive(self, run: Attempt, fn: Callable[..., Any]) -> None:
        """Let a leased job wait for its gates."""
        record, now = run.record, self.dispatcher.monotonic()
        came_ns = record.run_at_ns if run.number == 1 else (record.submitted_at_ns or record.run_at_ns)
        entry = Entry(self, run, fn, now - (run.stamp() - came_ns) / _S)
        self.entries[run] = entry
        run.handle = entry
        if (limit_ns := self._limit_ns(entry)) is not None and limit_ns <= run.stamp():
            self._on_limit(entry)
            return
        try:
            if self.flow.wraps:
                check_wraps(self.flow, run.executor, f"task {run.task!r}", is_coroutine=run.definition.is_coroutine)
            self.room.put(entry)
        except Exception as error:  # a user's gate or key runs here: it fails this job alone
            self._turn_away(entry, error)
            return
        if limit_ns is not None:
            entry.alarm = self.dispatcher.call_at(now + (limit_ns - run.stamp()) / _S, partial(self._on_limit, entry))

    def waiting(self) -> list[Entry]:
        """Return who waits for the gates, oldest claim first."""
        return [entry for entry in self.entries.values() if entry._phase is Phase.WAITING]

    def forget(self, entry: Entry) -> None:
        """Its pass is over."""
        self.entries.pop(entry.run, None)

    def over(self, entry: Entry) -> None:
        """It ended before it began: another may wait in its place."""
        self.forget(entry)
        self.host.waits_no_more(entry.id)
        self.host.claim_more()

    # -- what the room says --------------------------------------------------------------

    def _start(self, entry: Entry) -> None:
        """Its gates are taken and there is a slot: hand it over."""
        entry.disarm()
        run = entry.run
        run.resource = entry.resource
        left = [one for one in (run.timeout_s or self._timeout_s, self.left_s(run)) if one is not None]
        run.timeout_s = min(left) if left else None
        if self.flow.wraps:
            run.fn, run.is_coroutine = _wrapped(self.flow.wraps, entry, run.fn), True
        if not self.host.launch(run, entry):
            entry.give(NOT_STARTED)
            self.forget(entry)
        self.host.claim_more()

    def _turn_away(self, entry: Entry, error: Exception) -> None:
        """A gate rejects it, or it waited too long."""
        entry.disarm()
        kind = OutcomeKind.TIMED_OUT if isinstance(error, DeadlineExceeded) else OutcomeKind.REJECTED
        entry.run.finished(Outcome(kind, error=error, reason=str(error)))
        self.over(entry)

    # -- limits of time ------------------------------------------------------------------

    def _limits(self, entry: Entry) -> list[tuple[int, Exception | Verdict | None]]:
        """Return until when it may wait, by the store's clock, and what becomes of it then; None: it is missed."""
        run = entry.run
        record = run.record
        limits: list[tuple[int, Exception | Verdict | None]] = []
        if record.options.start_deadline_s is not None:
            limits.append((record.run_at_ns + round(record.options.start_deadline_s * _S), None))
        if self.max_wait_s is not None:
            limits.append((record.run_at_ns + round(self.max_wait_s * _S), WaitedTooLong(self.max_wait_s)))
        if self._deadline_s is not None:
            limits.append((self._deadline_ns(run), DeadlineExceeded(self._deadline_s)))
        retry = entry.retry
        if record.failures and retry.deadline_s is not None:
            limits.append((first_due_ns(record) + round(retry.deadline_s * _S), untried(record, retry)))
        return limits

    def _limit_ns(self, entry: Entry) -> int | None:
        return min((at_ns for at_ns, _ in self._limits(entry)), default=None)

    def _on_limit(self, entry: Entry) -> None:
        entry.leave()
        _, end = min(self._limits(entry), key=lambda limit: limit[0])
        if isinstance(end, Verdict):
            error = None if end.error is None else end.error.exception
            entry.run.finished(Outcome(OutcomeKind.REJECTED, error=error, reason=end.reason))
            self.over(entry)
            return
        if end is not None:
            self._turn_away(entry, end)
            return
        self.host.miss(entry.run)
        self.over(entry)

    def _deadline_ns(self, run: Attempt) -> int:
        record = run.record
        since_ns = record.run_at_ns if record.submitted_at_ns is None else record.submitted_at_ns
        return since_ns + round((self._deadline_s or 0.0) * _S)

    def left_s(self, run: Attempt) -> float | None:
        """Return the seconds until the job's deadline, 0 once it has passed; None if it has none."""
        return None if self._deadline_s is None else max(0.0, (self._deadline_ns(run) - run.stamp()) / _S)

    def past_deadline(self, run: Attempt, outcome: Outcome) -> Outcome:
        """Return *outcome* as the deadline's, if it was that which came first."""
        left_s = self.left_s(run)
        if left_s is None or left_s > 0:
            return outcome
        error = self._exceeded()
        return outcome._replace(error=error, reason=str(error))

    def within_deadline(self, run: Attempt, verdict: Verdict) -> Verdict:
        """Return *verdict*; the end of the job instead, if the next attempt would come after its deadline."""
        left_s = self.left_s(run)
        if left_s is None or verdict.kind not in {FinishKind.RETRY, FinishKind.SNOOZE}:
            return verdict
        if verdict.delay_ns < left_s * _S:
            return verdict
        if verdict.error is None or not left_s:
            return self.late()
        return Verdict(FinishKind.FAILED, 0, verdict.error, f"{verdict.reason}; no retry, as {self._exceeded()}")

    def late(self) -> Verdict:
        """Return the end of a job whose deadline has passed."""
        error = self._exceeded()
        return Verdict(FinishKind.TIMED_OUT, 0, describe(error), str(error))

    def _exceeded(self) -> DeadlineExceeded:
        return DeadlineExceeded(self._deadline_s or 0.0)


def _as_pass(outcome: Outcome) -> Ended:
    if outcome.kind is OutcomeKind.DONE:
        return RETURNED
    if outcome.kind is OutcomeKind.TIMED_OUT and not isinstance(outcome.error, DeadlineExceeded):
        return Ended(EndKind.TIMED_OUT, outcome.error)  # past the job's deadline the attempt was merely cut short
    if outcome.kind in {OutcomeKind.RAISED, OutcomeKind.DIED}:
        return Ended(EndKind.RAISED, outcome.error)
    return CANCELLED


def _wrapped(wraps: Sequence[Wrap], entry: Entry, fn: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """Return the body inside the flow's wraps, the first one outermost; they run where it runs."""

    async def body(*args: Any, **kwargs: Any) -> Any:
        async def innermost() -> Any:
            result = fn(*args, **kwargs)
            return await result if inspect.isawaitable(result) else result

        proceed: Callable[[], Awaitable[Any]] = innermost
        for wrap in reversed(wraps):
            proceed = partial(wrap, entry, proceed)
        return await proceed()

    return body
