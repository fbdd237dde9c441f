"""The worker: claims jobs, has executors run them, and records how they ended.

Two small tasks, both asleep when there is nothing to do: the *claimer* takes as
many jobs from the store as there are free slots (`claiming`), the *recorder*
hands outcomes back in batches (`recording`). Everything between is plain
function calls on one `Attempt`: how it begins stands here, how it ends in `endings`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any, Final

from quarterjack.errors import StoreError
from quarterjack.executors import Executor, Report
from quarterjack.flow.dispatcher import Dispatcher
from quarterjack.model import Fenced, FinishKind, JobRecord
from quarterjack.why_waiting import Held

from ._ends import past_deadline
from .admission import Admission
from .batching import Seat
from .claiming import Claimer
from .deaths import Deaths
from .decoding import Decoder, Orphans
from .endings import STOPPED, Endings
from .launching import CANCELLED, LEASE_LOST, launch, leave_behind, leave_to_next, let_go, outlives
from .recording import Recorder
from .run import Attempt
from .worker_host import Prepared, WorkerHost

__all__ = ["Worker"]

log = logging.getLogger("quarterjack.worker")

LATE: Final = "its claim was answered too late"
FRESH_SHARE: Final = 2
"""A claim must be answered before half of its lease is over: what is left must do until the first renewal."""


class Worker(Endings):
    """Runs the jobs of one process."""

    def __init__(self, host: WorkerHost, queues: Sequence[str]) -> None:
        super().__init__(host)
        self._fresh_ns = 2**62 if host.lease_s is None else round(host.lease_s * 1e9) // FRESH_SHARE
        self.orphans = Orphans(self, has_others=host.store.is_shared)
        self._decoder = None if host.store.keeps_objects else Decoder(host, self.orphans)
        self._prepared: Mapping[str, Prepared] = {}
        self._context: Context = host.context
        self.deaths = Deaths(self._on_parked)
        self._change: asyncio.Future[None] | None = None
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
        self.recorder.tells_executors = any(one.executor.capabilities.survives_worker_restart for one in lanes)
        self.claimer.regroup(lanes, lanes if self.flows is None else self.flows.regroup(lanes))
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

    def zombies_at(self, executor: Executor) -> int:
        """Return how many of them take a slot of *executor*."""
        return sum(attempt.executor is executor for attempt in self._zombies)

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
        if before is not None and (self._lose(before) or outlives(before)):  # its lease ran out, and came back to us
            leave_to_next(self, before)
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

    def kept_of(self, executor: Executor) -> int:
        """Return how many of an executor's slots are kept for ticks now."""
        return self.claimer.kept_of(executor)

    def claim_more(self) -> None:
        """There is room in a flow, or a slot."""
        self.claimer.wake.set()

    async def rows_of(self, attempts: Sequence[Attempt]) -> list[JobRecord | None]:
        """Return what the store has of their jobs.

        Raises:
            StoreError: If it does not answer.
        """
        return await self._store.jobs_get([attempt.job_id for attempt in attempts])

    def waits_no_more(self, job_id: str) -> None:
        """A job with a flow began or ended: who waits to submit one more may."""
        if self._host.flows is not None:
            self._host.flows.left(job_id)

    def in_flow(self, record: JobRecord) -> tuple[Held | None, int]:
        """Return what holds a job up in its flow here; of one that is not claimed, how many wait there before it."""
        attempt = self.held_by_id.get(record.id)
        if attempt is not None and isinstance(attempt.handle, Seat):
            held = attempt.handle.why()
            return None if held is None else Held(held.label, held.until - self._host.clock.monotonic(), held.words), 0
        if self.flows is None:
            return None, 0
        return (None, self.flows.ahead_of(record)) if attempt is None else (self.flows.held_up(attempt), 0)

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
        """The leases of these have moved on: end what still runs, or leave it to who has it, and keep silent about it.

        Attempts, not jobs: a newer attempt at the same job may be ours meanwhile.
        """
        outliving = [attempt for attempt in attempts if self._lose(attempt)]
        if outliving:
            self.recorder.errands.insist("asking who has lost jobs now", partial(let_go, self, outliving))

    def _lose(self, attempt: Attempt) -> bool:
        """End a body whose lease has moved on; True if that must not be, as it may be another attempt's by now."""
        record = attempt.record
        if self.held_by_id.get(record.id) is not attempt or attempt.handle is None or not attempt.is_current:
            return False  # over already, and the fence judges its outcome; or told before
        if not self._store.keeps_objects:
            record.owner = None
        if outlives(attempt):
            return True
        log.warning("the lease of job %s (%s) was lost; its body is cancelled", record.id, record.task)
        attempt.handle.cancel(LEASE_LOST)
        return False

    def cancel_local(self, job_ids: Sequence[str]) -> None:
        """Interrupt jobs held here that somebody wants to end, for the reason that stands in the store."""
        held = [attempt for job_id in job_ids if (attempt := self.held_by_id.get(job_id)) is not None]
        for attempt in held:
            attempt.record.cancel_requested = True
        if self._store.keeps_objects:
            self._interrupt(held)
        elif held:
            self.recorder.errands.spawn(self._cancel(held))

    async def _cancel(self, held: Sequence[Attempt]) -> None:
        with suppress(StoreError):  # then without the reason
            for attempt, row in zip(held, await self.rows_of(held), strict=True):
                if row is not None and row.attempt == attempt.number:
                    attempt.record.reason = row.reason
        self._interrupt([attempt for attempt in held if self.held_by_id.get(attempt.job_id) is attempt])

    def _interrupt(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            reason = attempt.record.reason or CANCELLED
            if attempt in self._retry_waits:  # told to stop before: there is nothing left but to say so
                self._retry_waits.discard(attempt)
                self.record(attempt, attempt.finish(FinishKind.CANCELLED, reason=reason, zombie=True))
            elif attempt.handle is not None:
                attempt.handle.cancel(reason)
