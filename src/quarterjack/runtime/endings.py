"""How attempts end: what becomes of their jobs, once their bodies have returned, raised, or do not stop.

The half of the worker that executors report to; what is decided here is handed
to the recorder. Plain function calls on one `Attempt`, all on the app's loop."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from quarterjack.command import unrun
from quarterjack.errors import InvalidOption
from quarterjack.events import CancelIgnored, JobEventKind
from quarterjack.model import ErrorInfo, Fenced, Finish, FinishKind, JobRecord, Outcome, OutcomeKind
from quarterjack.policies.backoff import NO_RETRY
from quarterjack.stores.base import Claim, Renewal, Store

from ._ends import age_s, log_failure
from .fallback import falls_back
from .job_events import job_event
from .run import Attempt
from .signals import without_handler
from .verdict import Verdict, decide, describe
from .worker_host import WorkerHost

if TYPE_CHECKING:
    from .admission import Admission
    from .claiming import Claimer
    from .deaths import Deaths
    from .decoding import Orphans
    from .entrance import Entry
    from .recording import Recorder

__all__ = ["STOPPED", "Endings"]

log = logging.getLogger("quarterjack.worker")

STOPPED: Final = "its worker stopped"
OVERRUN: Final = "job %s (%s) is done, but %s; use executor='thread' for it, or await where it waits"
ALIVE: Final = Outcome(OutcomeKind.DONE)
LOST_S: Final = 30.0
"""How long a lost body is waited for on a store without leases."""
_LOGGED: Final = frozenset({FinishKind.FAILED, FinishKind.TIMED_OUT})


def _is_nobodys(outcome: Outcome) -> bool:
    """Say whether an end is nobody's business once the lease has moved on."""
    return outcome.kind is OutcomeKind.ORPHANED or (outcome.kind is OutcomeKind.CANCELLED and outcome.stopped)


class Endings(ABC):
    """What a worker holds, and how that ends.

    Args:
        host: The app.
    """

    claimer: Claimer
    recorder: Recorder
    deaths: Deaths
    orphans: Orphans

    def __init__(self, host: WorkerHost) -> None:
        self._host = host
        self._store = host.store
        self.monotonic_ns = host.clock.monotonic_ns
        self.events = host.events
        self.handles = host.handles
        self.checks_results = host.checks_results
        self.flows: Admission | None = None
        """None where nothing has a flow: then it costs nothing."""
        self.held_by_id: dict[str, Attempt] = {}
        self.ended_early: set[Attempt] = set()
        """Attempts whose body ended before the outcome that says it still runs was recorded."""
        self._zombies: set[Attempt] = set()
        self._retry_waits: set[Attempt] = set()
        """Attempts whose retry, or way back, waits for a body that does not stop; nothing is recorded of them yet."""
        self._gives_back = False
        """True once the app stops and others can take its jobs over."""
        self._rng = Random()  # noqa: S311  # spreads retries, guards nothing

    @abstractmethod
    def poke(self) -> None:
        """There may be something to claim."""

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
        self.deaths.note(attempt.record.task, outcome)
        if outcome.kind is OutcomeKind.ORPHANED and not attempt.record.cancel_requested:
            outcome = self.orphans.given_up(attempt, outcome.reason or "") or outcome
            error = outcome.error
        if self._decides_nothing(attempt, outcome):
            return
        has_begun = attempt.running_at_ns is not None
        if outcome.kind is OutcomeKind.MISSED and has_begun:  # a third party's executor: what ran was not missed
            outcome = outcome._replace(kind=OutcomeKind.CANCELLED)
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

    def _decides_nothing(self, attempt: Attempt, outcome: Outcome) -> bool:
        """Take care of an end that is no end of its job: it was lost, or nobody there can run it, or it is not ours."""
        is_lost = outcome.kind is OutcomeKind.LOST
        if is_lost and not self._store.is_shared:
            self._on_lost(attempt)
        elif is_lost or (not attempt.is_current and _is_nobodys(outcome)):
            self._leave(attempt)
        elif outcome.kind is OutcomeKind.ORPHANED and not attempt.record.cancel_requested:
            self.orphans.send_back(attempt, outcome.reason or "")
        else:
            return False
        return True

    def _on_lost(self, attempt: Attempt) -> None:
        """Nobody knows whether a body still runs, and no lease will run out: wait as long as one would, and count it.

        One that is not to be begun again is taken from us at once, and the store ends it.
        """
        record = attempt.record
        if record.cancel_requested or record.rescues >= record.options.max_rescues:
            log.warning("job %s (%s) is out of reach; it is not begun again", record.id, record.task)
            self._leave(attempt)
            self.recorder.errands.insist("ending a lost job", partial(_expire, self._store, attempt))
            return
        log.warning("job %s (%s) is out of reach; it is begun anew in %g s", record.id, record.task, LOST_S)
        record.rescues += 1  # the row itself, where a store is of one process
        self.give_back(attempt, "its body was lost", round(LOST_S * 1e9))

    def _leave(self, attempt: Attempt) -> None:
        """Hold an attempt no more, whatever becomes of its job."""
        if self.held_by_id.get(attempt.job_id) is attempt:
            del self.held_by_id[attempt.job_id]
        self.recorder.recorded.set()
        self.claimer.wake.set()

    def entry_of(self, attempt: Attempt) -> Entry | None:
        """Return what stands for *attempt* in its flow; None if it has none."""
        return None if self.flows is None else self.flows.entry_of(attempt)

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

        What is final came of no body, and is worth no other attempt.
        """
        if self.deaths.is_counting:
            self.deaths.note(attempt.record.task, ALIVE)
        if (why := unrun(result)) is not None:
            self._end(attempt, Verdict(FinishKind.FAILED, 0, describe(InvalidOption(why)), why))
            return
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
        if reason is not None and not is_final:
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

    # -- what is done about it ---------------------------------------------------------

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

    def spawn(self, call: Coroutine[Any, Any, None]) -> None:
        """Do something that nobody waits for but `stop`."""
        self.recorder.errands.spawn(call)

    def record(self, attempt: Attempt, finish: Finish) -> None:
        """Have the end of an attempt recorded."""
        self.recorder.add(attempt, finish)
        self.claimer.wake.set()

    def send(self, kind: JobEventKind, record: JobRecord) -> None:
        """Tell the event stream about a job's move."""
        self.events.send(job_event(kind, record))


async def _expire(store: Store, attempt: Attempt) -> None:
    """Have a lease run out now, and the store do what it does then."""
    await store.jobs_renew(attempt.owner, [attempt.renewal()], 0.0)
    await store.jobs_claim(Claim(attempt.owner, [], None))
