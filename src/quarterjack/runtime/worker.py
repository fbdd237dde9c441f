"""The worker: claims jobs, has executors run them, and records how they ended.

Two small tasks, both asleep when there is nothing to do. The *claimer* asks the
store for as many jobs as there are free slots; the *recorder* hands outcomes
back in batches. Everything between is plain function calls on one `Attempt`.

Fairness: a tenth of the slots is kept for scheduled ticks, which come already
leased from ``schedules_fire``, so a flood of submitted jobs never fills the
last slot before a tick; and the claimer lets the loop turn after each batch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from random import Random
from typing import TYPE_CHECKING, Any, Final

from quarterjack.errors import ExecutorClosed, ExecutorFull, StoreError
from quarterjack.events import CancelIgnored, JobEventKind
from quarterjack.executors import Report
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.model import ErrorInfo, Fenced, Finish, FinishKind, JobRecord, Outcome, OutcomeKind
from quarterjack.policies.backoff import NO_RETRY
from quarterjack.stores.base import Claim, Want
from quarterjack.why import Held

from ._ends import age_s, log_failure, past_deadline
from .admission import Admission
from .batching import Seat
from .entrance import Entry
from .fallback import falls_back
from .job_events import FINAL_KINDS, FINISH_KINDS, job_event
from .run import NO_CONTEXT, Attempt
from .signals import without_handler
from .verdict import Verdict, decide
from .worker_host import Lanes, Prepared, WorkerHost

if TYPE_CHECKING:
    from quarterjack.timer import TimerHandle


__all__ = ["Worker"]

log = logging.getLogger("quarterjack.worker")

TICK_SHARE: Final = 10
"""One slot in this many is kept for scheduled ticks (none where there is only one, or no schedule)."""
CLAIM_MOST: Final = 32
"""Jobs claimed in one turn of the loop where a claim is a function call; see `FLOOD` in ``_app_jobs``."""
_LOGGED: Final = frozenset({FinishKind.FAILED, FinishKind.TIMED_OUT})
REFUSED_DELAY_NS: Final = 1_000_000_000
"""A job whose executor is closed, or in trouble, is given back for so long; another process may have a better one."""
OVERRUN: Final = "job %s (%s) is done, but %s; use executor='thread' for it, or await where it waits"
STOPPED: Final = "its worker stopped"
LAST_TRIES: Final = 5
"""How often a stopping worker tries to record its last outcomes before it gives them up."""
POLL_S: Final = 1.0
"""On a shared store hints may be lost; looking again this often (jittered) is what counts."""


class Worker:
    """Runs the jobs of one process."""

    def __init__(self, host: WorkerHost, queues: Sequence[str]) -> None:
        self._host = host
        self.monotonic_ns = host.clock.monotonic_ns
        self._store = host.store
        self.events = host.events
        self.handles = host.handles
        self.queues = list(queues)
        self._keep_for_ticks = False
        self._checks_results = host.checks_results
        self._claim_most = CLAIM_MOST if host.store.keeps_objects else 1_000_000
        self._prepared: Mapping[str, Prepared] = {}
        self._context: Context = host.context
        self._rng = Random()  # noqa: S311  # spreads retries, guards nothing
        self._flows: Admission | None = None
        """None where nothing has a flow: then it costs nothing."""
        self._attempts: dict[str, Attempt] = {}
        self._zombies: set[Attempt] = set()
        self._retry_waits: set[Attempt] = set()
        """Attempts whose retry waits for the end of a body that does not stop; nothing is recorded of them yet."""
        self._ended_early: set[Attempt] = set()
        """Attempts whose body ended before the outcome that says it still runs was recorded."""
        self._outbox: list[tuple[Finish, Attempt]] = []
        self._wake = asyncio.Event()
        self._to_record = asyncio.Event()
        self._recorded = asyncio.Event()
        self._change: asyncio.Future[None] | None = None
        self._due: TimerHandle | None = None
        self._poll: asyncio.TimerHandle | None = None
        self._claiming = True
        self._is_ending = False
        self._gives_back = False
        self._by_executor: list[Lanes] = []
        self._claimer: asyncio.Task[None] | None = None
        self._recorder: asyncio.Task[None] | None = None
        self._unlisten: list[Callable[[], None]] = []
        self._calls: set[asyncio.Task[None]] = set()
        """Store calls under way that nobody waits for; `stop` does."""

    # -- life ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to claim and to record."""
        host = self._host
        if host.flows is not None:
            dispatcher = Dispatcher.of(asyncio.get_running_loop())
            self._flows = Admission(self, dispatcher, host.flows, host.tasks, is_shared=self._store.is_shared)
        self.regroup()
        self._prepared, self._context = self._host.prepared, self._host.context
        self._claimer = self._begin_task(self._claim_forever(), "quarterjack-claimer")
        self._recorder = self._begin_task(self._record_forever(), "quarterjack-recorder")

    def _begin_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        loop, context = asyncio.get_running_loop(), self._host.context.copy()
        task = loop.create_task(coroutine, name=name, context=context)
        task.add_done_callback(self._on_task_end)
        return task

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if self._is_ending:
            return
        error = RuntimeError(f"somebody cancelled {task.get_name()}") if task.cancelled() else task.exception()
        if error is None:
            return
        if task is self._recorder:  # the app ends now; how its last bodies end is recorded all the same
            self._recorder = self._begin_task(self._record_forever(), task.get_name())
        self._host.fatal(error)

    def regroup(self) -> None:
        """Learn anew which executors there are, and which lanes of jobs go to each."""
        for end in self._unlisten:
            end()
        lanes = self._host.lanes()
        self._unlisten = [one.executor.on_free(self.poke) for one in lanes]
        self._by_executor = lanes if self._flows is None else self._flows.regroup(lanes)
        self.poke()

    def poke(self) -> None:
        """There may be something to claim."""
        self._wake.set()
        self.notice()

    def changed(self) -> asyncio.Future[None]:
        """Return a future that is done once jobs began here, ended, or may have come."""
        if self._change is None:
            self._change = asyncio.get_running_loop().create_future()
        return self._change

    def notice(self) -> None:
        """Something changed: tell who waits for `changed`."""
        if self._change is not None:
            if not self._change.done():
                self._change.set_result(None)
            self._change = None

    def stop_claiming(self) -> None:
        """Take no more jobs; a flag only, for a signal's handler."""
        self._claiming = False

    def leave_flows(self) -> None:
        """Give back what waits in flows: after `stop_claiming` it would begin no more."""
        if self._flows is not None:
            self._flows.give_back_all(STOPPED)

    @property
    def is_claiming(self) -> bool:
        """False once it was told to stop: then nothing begins here any more."""
        return self._claiming

    @property
    def running(self) -> int:
        """Jobs held by this process."""
        return len(self._attempts)

    @property
    def zombies(self) -> int:
        """Bodies that outlived their outcome."""
        return len(self._zombies)

    def attempts(self) -> list[Attempt]:
        """Return what this process holds now."""
        return list(self._attempts.values())

    def held(self) -> list[Attempt]:
        """Return whose leases to renew: what runs here, and bodies that outlived their outcome."""
        return [*self._attempts.values(), *self._zombies]

    async def idle(self) -> None:
        """Wait until no job is held here and every outcome is recorded."""
        while self._attempts or self._outbox:
            self._recorded.clear()
            await self._recorded.wait()

    async def stop(self) -> None:
        """End both tasks; outcomes that are not recorded yet are recorded first."""
        self._claiming = False
        self._is_ending = True
        self._to_record.set()
        if self._claimer is not None:
            self._claimer.cancel()
        # The recorder may be at the store with outcomes: it ends by itself when they are recorded.
        tasks = [task for task in (self._claimer, self._recorder) if task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)
        if not self._store.is_shared:  # on a shared one their leases run out, and another worker takes them
            for attempt in self.attempts():
                self.record(attempt, attempt.finish(FinishKind.CANCELLED, reason="shutdown", zombie=True))
        await self._flush()
        await asyncio.gather(*self._calls, return_exceptions=True)
        if self._flows is not None:
            self._flows.close()
        for end in self._unlisten:
            end()
        for timer in (self._due, self._poll):
            if timer is not None:
                timer.cancel()
        self._due = self._poll = None

    # -- claiming --------------------------------------------------------------------

    def free_for_ticks(self, wanted: int) -> Claim | None:
        """Return a claim over every free slot, for jobs that fire now; None if there is none."""
        if not self._claiming:
            return None
        flows = self._flows
        queues = tuple(self.queues if flows is None else flows.plain(self.queues))
        wants = [
            Want(queues, lanes, min(free, wanted))
            for executor, lanes, _ in self._by_executor
            if (free := executor.free) > 0
        ]
        if flows is not None:
            wants += flows.wants(self.queues, most=wanted, for_ticks=True)
        return Claim(self._host.owner, wants, self._host.lease_s) if wants else None

    def keep_for_ticks(self, is_wanted: bool) -> None:
        """Keep a share of the slots for ticks from now on, or (without schedules) none."""
        if self._keep_for_ticks and not is_wanted:
            self.poke()
        self._keep_for_ticks = is_wanted

    def kept_of(self, slots: int) -> int:
        """Return how many of an executor's slots are kept for ticks now."""
        return max(1, slots // TICK_SHARE) if self._keep_for_ticks and slots > 1 else 0

    def _wants(self) -> list[Want]:
        """Return what there is room for, leaving a share of each executor to ticks."""
        flows = self._flows
        queues = tuple(self.queues if flows is None else flows.plain(self.queues))
        wants: list[Want] = [] if flows is None else flows.wants(self.queues, most=self._claim_most)
        for executor, lanes, ticks in self._by_executor:
            slots, free = executor.slots, executor.free
            if flows is not None:
                free -= flows.reserved(executor)
            kept = self.kept_of(slots)
            if free > kept:
                wants.append(Want(queues, lanes, min(free - kept, self._claim_most)))
            if kept and free > 0:  # ticks that found every slot taken are not to wait behind a flood
                wants.append(Want(queues, ticks, min(free, kept)))
        if len(self.queues) > 1:
            self.queues.append(self.queues.pop(0))  # the next claim begins with the next queue
        return wants

    async def _claim_forever(self) -> None:
        while True:
            self._wake.clear()
            if self._flows is not None and self._flows.look_at_slots():
                # What waits for a slot goes first; only once it went is it known how many slots are left.
                asyncio.get_running_loop().call_soon(self._wake.set)
            if self._claiming and (wants := self._wants()):
                found = await self._claim(wants)
                if found:
                    await asyncio.sleep(0)  # let the bodies, the timer and everybody else have their turn
                    continue
            await self._wake.wait()

    async def _claim(self, wants: list[Want]) -> bool:
        try:
            claimed = await self._store.jobs_claim(Claim(self._host.owner, wants, self._host.lease_s))
        except StoreError:
            log.exception("claiming jobs failed; trying again in %g s", POLL_S)
            asyncio.get_running_loop().call_later(POLL_S, self.poke)
            return False
        self._arm(claimed.next_run_at_ns)
        self.begin(claimed.jobs)
        return bool(claimed.jobs)

    def _arm(self, next_run_at_ns: int | None) -> None:
        if self._store.is_shared:
            if self._poll is not None:
                self._poll.cancel()
            self._poll = asyncio.get_running_loop().call_later(POLL_S * self._rng.uniform(0.8, 1.2), self.poke)
        if self._due is not None:
            if self._due.due_ns == next_run_at_ns:
                return
            self._due.cancel()
            self._due = None
        if next_run_at_ns is not None:
            self._due = self._host.timer.call_at(next_run_at_ns, self._on_due)

    def _on_due(self) -> None:
        self._due = None
        self.poke()

    # -- running ---------------------------------------------------------------------

    def begin(self, jobs: Sequence[JobRecord]) -> None:
        """Take leased jobs to their executors."""
        if not jobs:
            return
        self.notice()
        now = self.monotonic_ns()
        for record in jobs:
            if self._claiming:
                self._begin(record, now)
            else:  # told to stop since these were claimed
                self._release(record, Fenced(record.id, record.attempt, record.owner or ""), STOPPED)

    def _begin(self, record: JobRecord, now_mono_ns: int) -> None:
        host = self._host
        prepared = self._prepared[record.task]
        executor = prepared.executor
        if record.options.executor is not prepared.definition.options.executor:
            executor = host.executor_of(record, prepared)
        attempt = Attempt(
            self,
            record,
            prepared.definition,
            executor,
            prepared.fn,
            now_mono_ns,
            self._context.copy(),
            prepared.is_coroutine,
        )
        before = self._attempts.get(record.id)
        if before is not None and before.handle is not None:  # its lease ran out meanwhile, and came back to us
            before.handle.cancel("its lease was lost")
        self._attempts[record.id] = attempt
        if self.events.has_listeners:
            self.send("scheduled", record)
        if (record.options.start_deadline_s is not None or record.failures) and self._is_too_late(attempt):
            return
        if self._flows is None or not self._flows.receive(attempt):
            self.launch(attempt, attempt)

    def launch(self, attempt: Attempt, report: Report) -> bool:
        """Hand an attempt to its executor; False if that has no room, and its job is given back."""
        record, executor = attempt.record, attempt.executor
        try:
            handle = executor.submit(attempt, report)
        except ExecutorFull as error:  # another app was quicker; once it has a free slot again, that is told
            is_odd = executor.free > 0  # such as a pool that can start no thread: we would claim the job again at once
            if is_odd:
                log.warning("executor %s has free slots and refused job %s: %s", executor.name, record.id, error)
            self.give_back(attempt, str(error), REFUSED_DELAY_NS if is_odd else 0)
            return False
        except ExecutorClosed as error:
            self.give_back(attempt, str(error), REFUSED_DELAY_NS)
            return False
        except Exception as error:  # a third party's executor runs here
            log.exception("executor %s refused job %s", executor.name, record.id)
            report.finished(Outcome(OutcomeKind.REJECTED, error=error, reason=str(error)))
        else:
            if attempt.context is not NO_CONTEXT:  # else begun eagerly, and done with its first step
                attempt.handle = handle
                if record.cancel_requested:  # in its first step, when there was no handle yet
                    handle.cancel("cancelled")
        return True

    def _is_too_late(self, attempt: Attempt) -> bool:
        record = attempt.record
        if record.failures and (verdict := past_deadline(record, attempt.stamp())) is not None:
            self._end(attempt, verdict)
            return True
        late_s = (attempt.stamp() - record.run_at_ns) / 1e9
        deadline = record.options.start_deadline_s
        if deadline is None or late_s <= deadline:
            return False
        self.miss(attempt)
        return True

    def miss(self, attempt: Attempt) -> None:
        """It is too late for a job to begin: record that it was missed."""
        late_s = (attempt.stamp() - attempt.record.run_at_ns) / 1e9
        reason = f"{late_s:.3f} s late, start_deadline is {attempt.record.options.start_deadline_s:g} s"
        self.record(attempt, attempt.finish(FinishKind.MISSED, reason=reason))

    def claim_more(self) -> None:
        """There is room in a flow, or a slot."""
        self._wake.set()

    def waits_no_more(self, job_id: str) -> None:
        """A job with a flow began or ended: who waits to submit one more may."""
        if self._host.flows is not None:
            self._host.flows.left(job_id)

    def give_back(self, attempt: Attempt, reason: str, delay_ns: int = 0) -> None:
        """Put a job that did not begin back into the store."""
        del self._attempts[attempt.record.id]
        self._recorded.set()
        self._release(attempt.record, attempt.fence, reason, delay_ns)

    def _release(self, record: JobRecord, fence: Fenced, reason: str, delay_ns: int = 0) -> None:
        if self.events.has_listeners:
            self.send("released", record)
        self.spawn(self._store.jobs_release([fence], delay_ns=delay_ns, reason=reason))

    # -- what attempts tell ----------------------------------------------------------

    def on_began(self, attempt: Attempt) -> None:
        """A body begins."""
        self.handles.tell(attempt.record, "start")
        if self.events.has_listeners:
            self.send("running", attempt.record)

    def on_progress(self, attempt: Attempt) -> None:
        """A body says how far it is; from any thread."""
        if self.events.has_listeners:
            with suppress(RuntimeError):  # the loop is closed, and the body was left behind
                self.handles.loop.call_soon_threadsafe(self.send, "progress", attempt.record)

    def on_finished(self, attempt: Attempt, outcome: Outcome) -> None:
        """An attempt is over: decide what becomes of its job, and have it recorded."""
        error = outcome.error
        if error is not None and not isinstance(error, Exception) and outcome.kind is OutcomeKind.RAISED:
            self._host.fatal(without_handler(error))
        if outcome.kind is OutcomeKind.LOST:
            self._attempts.pop(attempt.record.id, None)
            self._recorded.set()
            return
        if outcome.kind is OutcomeKind.CANCELLED and not attempt.record.cancel_requested:
            is_unbegun = not self._claiming and attempt.running_at_ns is None
            if self._gives_back or is_unbegun:
                self.give_back(attempt, STOPPED)
                return
        if not outcome.stopped:
            self._on_zombie(attempt)
        record = attempt.record
        entry = self.entry_of(attempt)
        verdict = self._judge(attempt, outcome, entry)
        if entry is not None and verdict.kind in _LOGGED and falls_back(self, entry, outcome, verdict):
            return
        if verdict.kind is FinishKind.RETRY and not outcome.stopped:
            record.reason = f"{verdict.reason}; to be retried when its body has ended"
            self._retry_waits.add(attempt)
            return
        self._end(attempt, verdict, error, zombie=not outcome.stopped)

    def entry_of(self, attempt: Attempt) -> Entry | None:
        """Return what stands for *attempt* in its flow; None if it has none."""
        return None if self._flows is None else self._flows.entry_of(attempt)

    def in_flow(self, record: JobRecord) -> tuple[Held | None, int]:
        """Return what holds a job up in its flow here; of one that is not claimed, how many wait there before it."""
        attempt = self._attempts.get(record.id)
        if attempt is not None and isinstance(attempt.handle, Seat):
            held = attempt.handle.why()
            return None if held is None else Held(held[0], held[1] - self._host.clock.monotonic()), 0
        if self._flows is None:
            return None, 0
        return (None, self._flows.ahead_of(record)) if attempt is None else (self._flows.held_up(attempt), 0)

    def _judge(self, attempt: Attempt, outcome: Outcome, entry: Entry | None) -> Verdict:
        record, ended = attempt.record, attempt.ended_mono_ns
        verdict = decide(
            outcome,
            failures=record.failures,
            retry=record.options.retry if entry is None else entry.retry,
            cancel_requested=record.cancel_requested,
            rng=self._rng,
            age_s=age_s(record, attempt.stamp(ended)),
            now=self.monotonic_ns() / 1e9,
        )
        return verdict if entry is None else entry.entrance.within_deadline(entry.run, verdict)

    def _comes_again(self, attempt: Attempt, result: Any) -> bool:
        """Say whether what a body returned is worth another attempt, or cannot be judged; it is recorded then."""
        entry = self.entry_of(attempt)
        retry = attempt.record.options.retry if entry is None else entry.retry
        if retry.on_result is not None:
            verdict = self._judge(attempt, Outcome(OutcomeKind.DONE, result), entry)
            if verdict.kind is not FinishKind.DONE:
                self._end(attempt, verdict)
                return True
        if retry.budget is not None:
            retry.budget.earn(self.monotonic_ns() / 1e9)
        return False

    def _end(
        self, attempt: Attempt, verdict: Verdict, error: BaseException | None = None, zombie: bool = False
    ) -> None:
        if verdict.kind in _LOGGED:
            log_failure(attempt.record, attempt.number, error, verdict)
        self.record(
            attempt,
            attempt.finish(verdict.kind, None, verdict.error, verdict.reason, verdict.delay_ns, zombie=zombie),
        )

    def on_done(self, attempt: Attempt, result: Any, reason: str | None = None, *, is_final: bool = False) -> None:
        """A body returned; *reason* says what is odd about it. What is final is worth no other attempt."""
        info: ErrorInfo | None = None
        options = attempt.record.options
        may_come_again = options.retry is not NO_RETRY or self._flows is not None
        if may_come_again and not is_final and self._comes_again(attempt, result):
            return
        if not options.store_result:
            result = None
        elif self._checks_results:
            try:
                result = self._host.check_result(result, attempt.record)
            except ValueError as error:
                result, info = None, error.args[0]
        if reason is not None:
            record = attempt.record
            log.warning(OVERRUN, record.id, record.task, reason, extra={"job": record.id, "task": record.task})
        outbox = self._outbox
        outbox.append((attempt.finish(FinishKind.DONE, result, info, reason), attempt))
        self._wake.set()  # for each: the first outcome's slot may be taken again while the recorder is at the store
        if len(outbox) == 1:
            self._to_record.set()

    def _on_zombie(self, attempt: Attempt) -> None:
        self._zombies.add(attempt)
        record = attempt.record
        log.warning(
            "job %s (%s) still runs although it was told to stop; its slot stays taken until it ends",
            record.id,
            record.task,
        )
        if self.events.has_listeners:
            event = CancelIgnored(
                at_ns=attempt.stamp(), job_id=record.id, task=record.task, after_s=attempt.cancel_grace_s
            )
            self.events.send(event)

    def on_ended(self, attempt: Attempt) -> None:
        """A body that outlived its outcome is over."""
        self._zombies.discard(attempt)
        self.poke()
        outcome = attempt.outcome
        if attempt in self._retry_waits and outcome is not None:
            self._retry_waits.discard(attempt)
            self.on_finished(attempt, outcome._replace(stopped=True))
        elif self._attempts.get(attempt.job_id) is attempt:
            self._ended_early.add(attempt)
        else:
            self.spawn(self._store.jobs_ended([attempt.fence]))

    def spawn(self, call: Coroutine[Any, Any, None]) -> None:
        """Make a store call that nobody waits for."""
        task = asyncio.get_running_loop().create_task(call)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    def interrupt_all(self) -> None:
        """The app stops: interrupt every body. A shared store gets its jobs back, another worker runs them."""
        self._gives_back = self._store.is_shared
        for attempt in self.attempts():
            attempt.record.cancel_requested = attempt.record.cancel_requested or not self._gives_back
            if attempt.handle is not None:
                attempt.handle.cancel("shutdown")

    def cancel_local(self, job_ids: Sequence[str], reason: str = "cancelled") -> None:
        """Interrupt jobs held here that somebody wants to end."""
        for job_id in job_ids:
            attempt = self._attempts.get(job_id)
            if attempt is not None:
                attempt.record.cancel_requested = True
                if attempt in self._retry_waits:  # told to stop before: there is nothing left but to say so
                    self._retry_waits.discard(attempt)
                    self.record(attempt, attempt.finish(FinishKind.CANCELLED, reason=reason, zombie=True))
                elif attempt.handle is not None:
                    attempt.handle.cancel(reason)

    # -- recording -------------------------------------------------------------------

    def record(self, attempt: Attempt, finish: Finish) -> None:
        """Have the end of an attempt recorded."""
        self._outbox.append((finish, attempt))
        self._wake.set()
        if len(self._outbox) == 1:
            self._to_record.set()

    async def _record_forever(self) -> None:
        while not self._is_ending:
            await self._to_record.wait()
            await self._flush()

    async def _flush(self) -> None:
        tries = 0
        while self._outbox:
            self._to_record.clear()
            batch, self._outbox = self._outbox, []
            try:
                refused = await self._store.jobs_finish([finish for finish, _ in batch])
            except StoreError:
                tries += self._is_ending
                if tries >= LAST_TRIES:
                    log.exception("recording %d outcomes failed %d times; they are lost", len(batch), tries)
                    break
                log.exception("recording %d outcomes failed; trying again in %g s", len(batch), POLL_S)
                self._outbox = batch + self._outbox
                await asyncio.sleep(POLL_S)
                continue
            except asyncio.CancelledError:  # who ends us left the rest of the runtime; the next one records it
                self._outbox = batch + self._outbox
                raise
            self._tell(batch, refused)
        self._to_record.clear()

    def _tell(self, batch: list[tuple[Finish, Attempt]], refused: list[Finish]) -> None:
        """The outcomes are recorded: tell events, callbacks and waiters."""
        stale = {id(finish) for finish in refused} if refused else None
        listeners, settle = self.events.has_listeners, self.handles.settle
        for finish, attempt in batch:
            record = attempt.record
            if self._attempts.get(record.id) is attempt:
                del self._attempts[record.id]
            if stale is not None and id(finish) in stale:
                log.warning("the outcome of job %s was refused: its lease had moved on", record.id)
                continue
            if listeners:
                # The store may have made another end of it: a retry of a job somebody cancelled is none.
                kind = FINAL_KINDS.get(record.state) or FINISH_KINDS[finish.kind]
                self.events.send(job_event(kind, record, finish.at_ns))
            if record.state.is_finished:
                settle(record, attempt.definition)
            elif finish.kind is FinishKind.RETRY:
                self.handles.tell(record, "retry")
        if self._ended_early:
            ended = [attempt for _, attempt in batch if attempt in self._ended_early]
            self._ended_early.difference_update(ended)
            self.spawn(self._store.jobs_ended([attempt.fence for attempt in ended]))
        self._recorded.set()

    def send(self, kind: JobEventKind, record: JobRecord) -> None:
        """Tell the event stream about a job's move."""
        self.events.send(job_event(kind, record))
