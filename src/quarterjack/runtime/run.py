"""One job's way through the worker, as short named steps over one record.

    prepare ─▶ submit ─▶ began ─▶ (body) ─▶ finished ─▶ recorded ─▶ told

`Attempt` is the record of one try. It is at once what the executor sees (a
`Call`), what the executor reports to (a `Report`), and what ``current_job()``
reads, so that a job costs one object here. Its stamps are store time at the
claim plus monotonic time since, so that waits and durations are never
negative however the wall clock is set meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from typing import TYPE_CHECKING, Any, Final

from quarterjack._fast import new_tuple
from quarterjack.codec import encode_call, plain_checkpoint, result_codec
from quarterjack.context import CURRENT
from quarterjack.executors import Executor, Handle
from quarterjack.executors.elsewhere import meta_of
from quarterjack.flow.inheritance import lift
from quarterjack.flow.waiting import Waiting
from quarterjack.lifecycle import Move, move
from quarterjack.model import ErrorInfo, Fenced, Finish, FinishKind, JobRecord, JobState, Outcome, OutcomeKind, Progress
from quarterjack.stores.base import NO_CHECKPOINT, Renewal
from quarterjack.task import TaskDefinition

if TYPE_CHECKING:
    from .awaits import Loan
    from .worker import Worker

__all__ = ["NO_CONTEXT", "Attempt"]

_SCHEDULED, _RUNNING = JobState.SCHEDULED, JobState.RUNNING
_NOT_BEGUN: Final = frozenset({JobState.SCHEDULED, JobState.STARTED})
_DONE = OutcomeKind.DONE
NO_CONTEXT: Final = Context()
"""In place of its own: an attempt that is over and whose body runs no more."""


class Attempt:
    """One try at one job, from its claim to its recorded outcome."""

    __slots__ = (
        "_is_lent",
        "_offset_ns",
        "_waiters",
        "_worker",
        "args",
        "cancel_grace_s",
        "completes",
        "context",
        "definition",
        "ended_mono_ns",
        "executor",
        "fn",
        "handle",
        "is_coroutine",
        "job_id",
        "kwargs",
        "number",
        "outcome",
        "owner",
        "pending_checkpoint",
        "record",
        "resource",
        "running_at_ns",
        "sent",
        "timeout_s",
    )

    def __init__(
        self,
        worker: Worker,
        record: JobRecord,
        definition: TaskDefinition,
        executor: Executor,
        fn: Callable[..., Any],
        claimed_mono_ns: int,
        context: Context,
        is_coroutine: bool,  # a hot constructor, called in one place
    ) -> None:
        self._worker = worker
        self._waiters = 0
        self._is_lent = False
        self._offset_ns = (record.scheduled_at_ns or 0) - claimed_mono_ns
        self.record = record
        self.job_id = record.id
        self.definition = definition
        self.executor = executor
        self.fn = fn
        self.args: tuple[Any, ...] = record.args
        self.kwargs: Mapping[str, Any] = record.kwargs
        self.is_coroutine = is_coroutine
        self.number = record.attempt
        self.owner = record.owner or ""
        options = record.options
        self.timeout_s = options.timeout_s
        self.cancel_grace_s = options.cancel_grace_s
        self.context = context
        self.handle: Handle | None = None
        self.running_at_ns: int | None = None
        self.outcome: Outcome | None = None
        self.ended_mono_ns: int | None = None
        self.pending_checkpoint: Any = None
        self.sent: Renewal | None = None
        """What a shared store was told of it last."""
        self.resource: Any = None
        """What a router of its flow chose for it."""
        self.completes = False
        """Its body meant to commit its end in a transaction of its own: the row may say another one than the body."""
        context.run(CURRENT.set, self)

    # -- what the executor sees ------------------------------------------------------

    @property
    def ref(self) -> str:
        """``<job id>.<attempt>``."""
        return f"{self.record.id}.{self.number}"

    @property
    def task(self) -> str:
        """The task's full name."""
        return self.record.task

    @property
    def deadline_ns(self) -> int | None:
        """When it is too late for its body to begin; None: never."""
        late_s = self.record.options.start_deadline_s
        return None if late_s is None else self.record.run_at_ns + round(late_s * 1e9)

    @property
    def max_result_bytes(self) -> int | None:
        """How large its result may be, where results are stored as JSON."""
        options = self.record.options
        return options.max_result_bytes if self._worker.checks_results and options.store_result else None

    def payload(self) -> bytes:
        """Return its arguments as JSON."""
        return encode_call(self.definition, self.args, self.kwargs)

    def meta(self) -> dict[str, Any]:
        """Return what ``current_job()`` tells in another process."""
        return meta_of(self.record, self.number)

    def read_result(self, data: bytes) -> Any:
        """Return the result that travelled as JSON."""
        return result_codec(self.definition).read(data)

    @property
    def fence(self) -> Fenced:
        """What proves the right to write the job's row."""
        return Fenced(self.record.id, self.number, self.owner)

    @property
    def is_current(self) -> bool:
        """False once the lease has moved on: the row then belongs to another attempt."""
        record = self.record
        return record.attempt == self.number and record.owner == self.owner

    @property
    def is_unwanted(self) -> bool:
        """True once somebody wants the body to end, or nobody waits for it any more."""
        return self.record.cancel_requested or self.outcome is not None or not self.is_current

    @property
    def began_mono_ns(self) -> int | None:
        """When the body began, on the monotonic clock; None before."""
        return None if self.running_at_ns is None else self.running_at_ns - self._offset_ns

    @property
    def accepted_mono_ns(self) -> int | None:
        """When an executor or its queue took it, on the monotonic clock; None before."""
        started_at_ns = self.record.started_at_ns
        return None if started_at_ns is None else started_at_ns - self._offset_ns

    def stamp(self, mono_ns: int | None = None) -> int:
        """Return store time for a monotonic instant (default: now), never before the claim."""
        return self._offset_ns + (self._worker.monotonic_ns() if mono_ns is None else mono_ns)

    # -- what the store is told while it runs ------------------------------------------

    def renewal(self) -> Renewal:
        """Return its sign of life, with what its body said last. From any thread."""
        record = self.record
        kept = record.progress, self.pending_checkpoint
        return Renewal(self.job_id, self.number, *kept, self.running_at_ns, record.started_at_ns)

    @property
    def has_words(self) -> bool:
        """True if its body has said something that the store does not know. From any thread."""
        sent = self.sent
        if sent is None:
            return self.record.progress is not None or self.pending_checkpoint is not None
        return sent.progress is not self.record.progress or sent.checkpoint is not self.pending_checkpoint

    def correct(self, row: JobRecord) -> None:
        """Have a row that was read of its job say that the body runs: the store hears of it a little later."""
        record = self.record
        is_behind = row.state in _NOT_BEGUN and record.state is _RUNNING
        if is_behind and (row.attempt, row.owner) == (self.number, self.owner):
            row.state, row.progress = record.state, record.progress
            row.started_at_ns, row.running_at_ns = record.started_at_ns, record.running_at_ns

    # -- what the executor reports ---------------------------------------------------

    def accepted(self) -> None:
        """The body waits in a queue that is not ours."""
        record = self.record
        if self.is_current and record.started_at_ns is None:
            record.state = move(record.state, Move.ACCEPTED)
            record.started_at_ns = self.stamp()

    def began(self, at_mono_ns: int | None = None) -> None:
        """The body begins: stamp it, and tell who wants to know."""
        record, worker = self.record, self._worker
        mono = worker.monotonic_ns() if at_mono_ns is None else at_mono_ns
        self.running_at_ns = stamp = self._offset_ns + mono
        if record.attempt != self.number or record.owner != self.owner:
            return  # the lease has moved on
        record.state = _RUNNING if record.state is _SCHEDULED else move(record.state, Move.BEGAN)
        record.running_at_ns = stamp
        if record.started_at_ns is None:
            record.started_at_ns = stamp
        if self.definition.callbacks or worker.events.has_listeners or worker.handles.of_jobs:
            worker.on_began(self)

    def done(self, result: Any, reason: str | None = None, info: ErrorInfo | None = None) -> None:
        """The body returned; *reason* says what is odd about it, *info* why its result could not be kept."""
        self.handle = None  # as `_let_go`; a frame per job
        self.context = NO_CONTEXT
        if self._is_lent:
            self._end_loan()
        self._worker.on_done(self, result, reason, info)

    def finished(self, outcome: Outcome, at_mono_ns: int | None = None) -> None:
        """The attempt is over."""
        self.ended_mono_ns = at_mono_ns
        if outcome.kind is _DONE and outcome.stopped:
            self.done(outcome.result, outcome.reason, outcome.info)
            return
        self.outcome = outcome
        if outcome.stopped:
            self._let_go()
        self._worker.on_finished(self, outcome)

    def ended(self) -> None:
        """The body that outlived its outcome is over too."""
        self._let_go()
        self._worker.on_ended(self)

    def _let_go(self) -> None:
        """Break the circle attempt, context, attempt: 100,000 jobs would leave it to the garbage collector."""
        self.handle = None
        self.context = NO_CONTEXT
        self._end_loan()

    # -- what the body says ----------------------------------------------------------

    def tell(self, done: float, total: float | None, text: str) -> None:
        """The body says how far it is: an executor of its process would report the same."""
        self.progress(done, total, text)

    def progress(self, done: float, total: float | None, text: str) -> None:
        """Keep what the body says about how far it is; from any thread."""
        if self.is_current:
            self.record.progress = Progress(done, total, text)
            self._worker.on_progress(self)

    def keep(self, value: Any) -> None:
        """Keep a value for the next attempt; from any thread.

        Raises:
            InvalidArguments: If the store cannot keep it.
        """
        if self.is_current:
            if self._worker.checks_results:
                value = plain_checkpoint(self.record.task, value)
            self.record.checkpoint = value
            self.pending_checkpoint = NO_CHECKPOINT if value is None else value

    @property
    def passing(self) -> Any:
        """What the gates of its flow see of it; None if it has none."""
        return self._worker.entry_of(self)

    def lend_slot(self, records: Sequence[JobRecord], waiter: asyncio.Future[None]) -> Loan | None:
        """The body waits for other jobs: its slot may serve them meanwhile. From any loop."""
        self._on_own_loop(self._lend)
        flows = self._worker.flows
        if flows is None or asyncio.get_running_loop() is not self._worker.handles.loop:
            return None
        return flows.awaits.begin(self, records, waiter)

    async def reclaim_slot(self, loan: Loan | None, *, at_once: bool) -> None:
        """The body goes on; for a moment one slot too many of its executor may be taken. From any loop."""
        try:
            if loan is not None:
                await loan.end(at_once=at_once)
        finally:
            self._on_own_loop(self._reclaim)

    def wait_begins(self, awaited: Sequence[Any]) -> None:
        """The body waits for these jobs: those of a manager are as urgent as it from now on."""
        priority = self.record.priority
        for job in awaited:
            if isinstance(job, Waiting):
                lift(job, priority)

    def wait_ends(self, awaited: Sequence[Any]) -> None:
        """The body goes on; whom it lifted keeps that."""

    def _on_own_loop(self, function: Callable[[], None]) -> None:
        loop = self._worker.handles.loop
        if asyncio.get_running_loop() is loop:
            function()
        else:
            with suppress(RuntimeError):  # closed: nobody counts slots any more
                loop.call_soon_threadsafe(function)

    def _lend(self) -> None:
        # One slot, however many wait under this body; none once it is over, when its slot is free anyhow.
        self._waiters += 1
        if self._waiters == 1 and self.context is not NO_CONTEXT:
            self._is_lent = True
            self.executor.lend(1)
            self._worker.poke()

    def _reclaim(self) -> None:
        self._waiters -= 1
        if not self._waiters:
            self._end_loan()

    def _end_loan(self) -> None:
        if self._is_lent:
            self._is_lent = False
            self.executor.lend(-1)

    def finish(
        self,
        kind: FinishKind,
        result: Any = None,
        error: ErrorInfo | None = None,
        reason: str | None = None,
        delay_ns: int = 0,
        zombie: bool = False,  # the order of `Finish`
    ) -> Finish:
        """Return the entry for ``jobs_finish`` with this attempt's fence and stamps."""
        ended = self.ended_mono_ns
        at_ns = self._offset_ns + (self._worker.monotonic_ns() if ended is None else ended)
        started_ns, running_ns = self.record.started_at_ns, self.running_at_ns
        owner = self.owner
        # Not Finish(…): a named tuple's own constructor costs a Python frame, and this runs once per job.
        finish: Finish = new_tuple(
            Finish,
            (
                self.job_id,
                self.number,
                owner,
                kind,
                at_ns,
                started_ns,
                running_ns,
                result,
                error,
                reason,
                delay_ns,
                zombie,
            ),
        )
        return finish
