"""The worker: claims jobs, has executors run them, and records how they ended.

Two small tasks, both asleep when there is nothing to do: the *claimer* takes as
many jobs from the store as there are free slots (`claiming`), the *recorder*
hands outcomes back in batches (`recording`). Everything between is plain
function calls on one `Attempt`, and stands here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from random import Random
from typing import Any, Final

from quarterjack.events import CancelIgnored, JobEventKind
from quarterjack.executors import Report
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.model import ErrorInfo, Fenced, Finish, FinishKind, JobRecord, Outcome, OutcomeKind
from quarterjack.policies.backoff import NO_RETRY
from quarterjack.stores.base import Renewal
from quarterjack.why_waiting import Held

from ._ends import age_s, log_failure, past_deadline
from .admission import Admission
from .batching import Seat
from .claiming import Claimer
from .deaths import Deaths
from .decoding import Decoder
from .entrance import Entry
from .fallback import falls_back
from .job_events import job_event
from .launching import launch, leave_behind
from .recording import Recorder
from .run import Attempt
from .signals import without_handler
from .verdict import Verdict, decide
from .worker_host import Prepared, WorkerHost

__all__ = ["Worker"]

log = logging.getLogger("quarterjack.worker")

_LOGGED: Final = frozenset({FinishKind.FAILED, FinishKind.TIMED_OUT})
OVERRUN: Final = "job %s (%s) is done, but %s; use executor='thread' for it, or await where it waits"
ALIVE: Final = Outcome(OutcomeKind.DONE)
LOST_S: Final = 30.0
"""How long a lost body is waited for on a store without leases."""
LATE: Final = "its claim was answered too late"
FRESH_SHARE: Final = 2
"""A claim must be answered before half of its lease is over: what is left must do until the first renewal."""
STOPPED: Final = "its worker stopped"


class Worker:
    """Runs the jobs of one process."""

    def __init__(self, host: WorkerHost, queues: Sequence[str]) -> None:
        self._host = host
        self.monotonic_ns = host.clock.monotonic_ns
        self._store = host.store
        self.events = host.events
        self.handles = host.handles
        self.checks_results = host.checks_results
        self._fresh_ns = 2**62 if host.lease_s is None else round(host.lease_s * 1e9) // FRESH_SHARE
        self._decoder = None if host.store.keeps_objects else Decoder(host, self)
        self._prepared: Mapping[str, Prepared] = {}
        self._context: Context = host.context
        self._rng = Random()  # noqa: S311  # spreads retries, guards nothing
        self.flows: Admission | None = None
        """None where nothing has a flow: then it costs nothing."""
        self.held_by_id: dict[str, Attempt] = {}
        self._zombies: set[Attempt] = set()
        self._retry_waits: set[Attempt] = set()
        """Attempts whose retry, or way back, waits for a body that does not stop; nothing is recorded of them yet."""
        self.ended_early: set[Attempt] = set()
        """Attempts whose body ended before the outcome that says it still runs was recorded."""
        self.deaths = Deaths(self._on_parked)
        self._change: asyncio.Future[None] | None = None
        self._gives_back = False
        self.claimer = Claimer(self, host, queues)
        self.recorder = Recorder(host, self.held_by_id, self.ended_early, self.poke)
        self._claiming: asyncio.Task[None] | None = None
        self._recording: asyncio.Task[None] | None = None
        self._unlisten: list[Callable[[], None]] = []

    # -- life ------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to claim and to record."""
        host = self._host
        if host.flows is not None:
            dispatcher = Dispatcher.of(asyncio.get_running_loop())
            self.flows = Admission(self, dispatcher, host.flows, host.tasks, is_shared=self._store.is_shared)
        self.regroup()
        self._prepared, self._context = self._host.places.prepared, self._host.context
        self._claiming = self._begin_task(self.claimer.run(), "quarterjack-claimer")
        self._recording = self._begin_task(self.recorder.run(), "quarterjack-recorder")

    def _begin_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        loop, context = asyncio.get_running_loop(), self._host.context.copy()
        task = loop.create_task(coroutine, name=name, context=context)
        task.add_done_callback(self._on_task_end)
        return task

    def _on_task_end(self, task: asyncio.Task[None]) -> None:
        if self.recorder.is_ending:
            return
        error = RuntimeError(f"somebody cancelled {task.get_name()}") if task.cancelled() else task.exception()
        if error is None:
            return
        if task is self._recording:  # the app ends now; how its last bodies end is recorded all the same
            self._recording = self._begin_task(self.recorder.run(), task.get_name())
        self._host.fatal(error)

    def regroup(self) -> None:
        """Learn anew which executors there are, and which lanes of jobs go to each."""
        for end in self._unlisten:
            end()
        lanes = self._host.places.lanes(self.deaths.parked)
        self._unlisten = [one.executor.on_free(self.poke) for one in lanes]
        self.claimer.by_executor = lanes if self.flows is None else self.flows.regroup(lanes)
        self.poke()

    def _on_parked(self) -> None:
        # Not at once: it is told by an executor in the middle of a report.
        asyncio.get_running_loop().call_soon(self.regroup, context=self._context)

    def poke(self) -> None:
        """There may be something to claim."""
        self.claimer.wake.set()
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
        self.claimer.is_open = False

    def leave_flows(self) -> None:
        """Give back what waits in flows: after `stop_claiming` it would begin no more."""
        if self.flows is not None:
            self.flows.give_back_all(STOPPED)

    @property
    def is_claiming(self) -> bool:
        """False once it was told to stop: then nothing begins here any more."""
        return self.claimer.is_open

    @property
    def running(self) -> int:
        """Jobs held by this process."""
        return len(self.held_by_id)

    @property
    def zombies(self) -> int:
        """Bodies that outlived their outcome."""
        return len(self._zombies)

    def attempts(self) -> list[Attempt]:
        """Return what this process holds now."""
        return list(self.held_by_id.values())

    def held(self) -> list[Attempt]:
        """Return whose leases to renew: what runs here, and bodies that outlived their outcome."""
        return [*self.held_by_id.values(), *self._zombies]

    def fences(self) -> list[Fenced]:
        """Return every lease that this process knows to be its own."""
        return [*(attempt.fence for attempt in self.held()), *self.on_their_way()]

    def on_their_way(self) -> list[Fenced]:
        """Return jobs that were given back, whose leases are ours until the store knows. From any thread."""
        return list(self.recorder.errands.going)

    async def idle(self) -> None:
        """Wait until no job is held here and every outcome is recorded."""
        while self.held_by_id or self.recorder.outbox:
            self.recorder.recorded.clear()
            await self.recorder.recorded.wait()

    async def stop(self) -> None:
        """End both tasks; outcomes that are not recorded yet are recorded first, as long as there is patience."""
        self.claimer.end()
        self.recorder.end()
        tasks = [task for task in (self._claiming, self._recording) if task is not None]
        async with self._host.patience.limit():
            for task in tasks:
                await asyncio.wait({task})  # not cancelled with us: the recorder puts back what it could not record
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.claimer.unanswered.is_owed:
            self.recorder.errands.insist("giving jobs back", self.claimer.settle)
        if not self._store.is_shared:  # on a shared one their leases run out, and another worker takes them
            for attempt in self.attempts():
                self.record(attempt, attempt.finish(FinishKind.CANCELLED, reason="shutdown", zombie=True))
        self._retry_waits.clear()  # what ends from now on is left to its lease
        async with self._host.patience.limit():
            await self.recorder.close()
        if self.flows is not None:
            self.flows.close()
        for end in self._unlisten:
            end()

    # -- running ---------------------------------------------------------------------

    def begin(self, jobs: Sequence[JobRecord], asked_ns: int) -> None:
        """Take leased jobs to their executors; they were asked for at *asked_ns*, on the monotonic clock.

        Their leases have run since then. An answer that comes late brings none to rely on.
        """
        if not jobs:
            return
        self.notice()
        now, claimer = self.monotonic_ns(), self.claimer
        for record in jobs:
            if now - asked_ns > self._fresh_ns:
                self._release(record, record.fence, LATE)
            elif claimer.is_open:
                self._begin(record, now)
            else:  # told to stop since these were claimed
                self._release(record, record.fence, STOPPED)

    def _begin(self, record: JobRecord, now_mono_ns: int) -> None:
        host = self._host
        prepared = self._prepared[record.task]
        executor = prepared.executor
        if record.options.executor is not prepared.definition.options.executor:
            executor = host.places.of(record, prepared)
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
        before = self.held_by_id.get(record.id)
        if before is not None and before.handle is not None:  # its lease ran out meanwhile, and came back to us
            before.handle.cancel("its lease was lost")
        self.held_by_id[record.id] = attempt
        if self.events.has_listeners:
            self.send("scheduled", record)
        if self._decoder is not None and not self._decoder.fits(attempt):
            return
        if (record.options.start_deadline_s is not None or record.failures) and self._is_too_late(attempt):
            return
        if self.flows is None or not self.flows.receive(attempt):
            self.launch(attempt, attempt)

    def launch(self, attempt: Attempt, report: Report) -> bool:
        """Hand an attempt to its executor; False if that has no room, and its job is given back."""
        return launch(self, attempt, report)

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

    def kept_of(self, slots: int) -> int:
        """Return how many of an executor's slots are kept for ticks now."""
        return self.claimer.kept_of(slots)

    def claim_more(self) -> None:
        """There is room in a flow, or a slot."""
        self.claimer.wake.set()

    def waits_no_more(self, job_id: str) -> None:
        """A job with a flow began or ended: who waits to submit one more may."""
        if self._host.flows is not None:
            self._host.flows.left(job_id)

    def give_back(self, attempt: Attempt, reason: str, delay_ns: int = 0) -> None:
        """Put a job that did not begin, or was interrupted by the stop, back into the store."""
        del self.held_by_id[attempt.record.id]
        self.recorder.recorded.set()
        news = [attempt.renewal()] if attempt.has_words and not self._store.keeps_objects else []
        self._release(attempt.record, attempt.fence, reason, delay_ns, *news)

    def _release(self, record: JobRecord, fence: Fenced, reason: str, delay_ns: int = 0, *news: Renewal) -> None:
        if self.events.has_listeners:
            self.send("released", record)
        self.recorder.errands.give_back(fence, reason, delay_ns, *news)

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
        is_over = outcome.kind is OutcomeKind.CANCELLED and outcome.stopped
        self.deaths.note(attempt.record.task, outcome)
        if outcome.kind is OutcomeKind.LOST and not self._store.is_shared:
            self._on_lost(attempt)
            return
        if outcome.kind is OutcomeKind.LOST or (is_over and not attempt.is_current):
            if self.held_by_id.get(attempt.job_id) is attempt:
                del self.held_by_id[attempt.job_id]
            self.recorder.recorded.set()
            self.claimer.wake.set()
            return
        has_begun = attempt.running_at_ns is not None
        if self._gives_back and has_begun and attempt.record.options.max_rescues == 0:
            attempt.record.cancel_requested = True  # at most once: it ends with us
        if outcome.kind is OutcomeKind.CANCELLED and not attempt.record.cancel_requested:
            if self._gives_back and not outcome.stopped:  # until it ends, or the process does, nobody else begins it
                self._on_zombie(attempt)
                self._retry_waits.add(attempt)
                return
            if self._gives_back or (not has_begun and not self.claimer.is_open):
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

    def _on_lost(self, attempt: Attempt) -> None:
        """Nobody knows whether a body still runs, and no lease will run out: wait as long as one would."""
        log.warning(
            "job %s (%s) is out of reach; it is begun anew in %g s", attempt.job_id, attempt.record.task, LOST_S
        )
        self.give_back(attempt, "its body was lost", round(LOST_S * 1e9))

    def entry_of(self, attempt: Attempt) -> Entry | None:
        """Return what stands for *attempt* in its flow; None if it has none."""
        return None if self.flows is None else self.flows.entry_of(attempt)

    def in_flow(self, record: JobRecord) -> tuple[Held | None, int]:
        """Return what holds a job up in its flow here; of one that is not claimed, how many wait there before it."""
        attempt = self.held_by_id.get(record.id)
        if attempt is not None and isinstance(attempt.handle, Seat):
            held = attempt.handle.why()
            return None if held is None else Held(held.label, held.until - self._host.clock.monotonic(), held.words), 0
        if self.flows is None:
            return None, 0
        return (None, self.flows.ahead_of(record)) if attempt is None else (self.flows.held_up(attempt), 0)

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

    def on_done(
        self,
        attempt: Attempt,
        result: Any,
        reason: str | None = None,
        info: ErrorInfo | None = None,
        *,
        is_final: bool = False,
    ) -> None:
        """A body returned; *reason* says what is odd about it, *info* why its result could not be kept.

        What is final is worth no other attempt.
        """
        if self.deaths.is_counting:
            self.deaths.note(attempt.record.task, ALIVE)
        options = attempt.record.options
        may_come_again = options.retry is not NO_RETRY or self.flows is not None
        if may_come_again and not is_final and self._comes_again(attempt, result):
            return
        if not options.store_result:
            result = None
        elif self.checks_results and info is None:
            try:
                result = self._host.check_result(result, attempt.record)
            except ValueError as error:
                result, info = None, error.args[0]
        if reason is not None:
            record = attempt.record
            log.warning(OVERRUN, record.id, record.task, reason, extra={"job": record.id, "task": record.task})
        outbox = self.recorder.outbox
        outbox.append((attempt.finish(FinishKind.DONE, result, info, reason), attempt))
        # For each: the first outcome's slot may be taken again while the recorder is at the store.
        self.claimer.wake.set()
        if len(outbox) == 1:
            self.recorder.wake.set()

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
        elif self.held_by_id.get(attempt.job_id) is attempt:
            self.ended_early.add(attempt)
        else:
            self.recorder.errands.body_ended([attempt.fence])

    def spawn(self, call: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for but `stop`."""
        self.recorder.errands.spawn(call)

    def interrupt_all(self) -> None:
        """The app stops: interrupt every body. A shared store gets its jobs back, but for those that may begin once."""
        self._gives_back = self._store.is_shared
        for attempt in self.attempts():
            if self._gives_back and leave_behind(attempt):
                self.give_back(attempt, STOPPED)
                continue
            attempt.record.cancel_requested = attempt.record.cancel_requested or not self._gives_back
            if attempt.handle is not None:
                attempt.handle.cancel("shutdown")

    def lose(self, attempts: Sequence[Attempt]) -> None:
        """The leases of these have moved on: end what still runs, and keep silent about it.

        Attempts, not jobs: a newer attempt at the same job may be ours meanwhile.
        """
        for attempt in attempts:
            record = attempt.record
            if self.held_by_id.get(record.id) is not attempt or attempt.handle is None:
                continue  # over already; the fence judges its outcome
            if not self._store.keeps_objects:
                record.owner = None
            log.warning("the lease of job %s (%s) was lost; its body is cancelled", record.id, record.task)
            attempt.handle.cancel("its lease was lost")

    def cancel_local(self, job_ids: Sequence[str], reason: str = "cancelled") -> None:
        """Interrupt jobs held here that somebody wants to end."""
        for job_id in job_ids:
            attempt = self.held_by_id.get(job_id)
            if attempt is not None:
                attempt.record.cancel_requested = True
                if attempt in self._retry_waits:  # told to stop before: there is nothing left but to say so
                    self._retry_waits.discard(attempt)
                    self.record(attempt, attempt.finish(FinishKind.CANCELLED, reason=reason, zombie=True))
                elif attempt.handle is not None:
                    attempt.handle.cancel(reason)

    def record(self, attempt: Attempt, finish: Finish) -> None:
        """Have the end of an attempt recorded."""
        self.recorder.add(attempt, finish)
        self.claimer.wake.set()

    def send(self, kind: JobEventKind, record: JobRecord) -> None:
        """Tell the event stream about a job's move."""
        self.events.send(job_event(kind, record))
