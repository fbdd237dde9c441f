"""The recorder: hands outcomes to the store in batches, and then tells of them.

What ends while a batch is under way makes the next one, so batches grow with
the load and a lone outcome waits for nobody."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from quarterjack.errors import StoreError
from quarterjack.model import Finish, FinishKind, JobState

from .claiming import POLL_S
from .job_events import FINAL_KINDS, FINISH_KINDS, job_event
from .worker_host import WorkerHost

if TYPE_CHECKING:
    from .run import Attempt
    from .worker import Worker

__all__ = ["Recorder"]

log = logging.getLogger("quarterjack.worker")

LAST_TRIES: Final = 5
"""How often a stopping worker tries to record its last outcomes before it gives them up."""


class Recorder:
    """Records the outcomes of one worker."""

    def __init__(self, worker: Worker, host: WorkerHost) -> None:
        self._worker = worker
        self._store = host.store
        self._events = host.events
        self._handles = host.handles
        self.outbox: list[tuple[Finish, Attempt]] = []
        """What is to be recorded."""
        self.wake = asyncio.Event()
        """To be set once there is something in an empty outbox."""
        self.recorded = asyncio.Event()
        """Set whenever a job is held here no more."""
        self.is_ending = False

    def add(self, attempt: Attempt, finish: Finish) -> None:
        """Have the end of an attempt recorded."""
        self.outbox.append((finish, attempt))
        if len(self.outbox) == 1:
            self.wake.set()

    async def run(self) -> None:
        """Record what comes, until it is told to end and nothing is left."""
        while not self.is_ending:
            await self.wake.wait()
            await self.flush()

    async def flush(self) -> None:
        """Record what there is; a store that fails is asked again."""
        tries = 0
        while self.outbox:
            self.wake.clear()
            batch, self.outbox = self.outbox, []
            try:
                states = await self._store.jobs_finish([finish for finish, _ in batch])
            except StoreError:
                tries += self.is_ending
                if tries >= LAST_TRIES:
                    log.exception("recording %d outcomes failed %d times; they are lost", len(batch), tries)
                    break
                log.exception("recording %d outcomes failed; trying again in %g s", len(batch), POLL_S)
                self.outbox = batch + self.outbox
                await asyncio.sleep(POLL_S)
                continue
            except asyncio.CancelledError:  # who ends us left the rest of the runtime; the next one records it
                self.outbox = batch + self.outbox
                raise
            self._tell(batch, states)
        self.wake.clear()

    def _tell(self, batch: list[tuple[Finish, Attempt]], states: list[JobState | None]) -> None:
        """The outcomes are recorded: tell events, callbacks and waiters."""
        is_copy = not self._store.keeps_objects
        listeners, settle = self._events.has_listeners, self._handles.settle
        for (finish, attempt), state in zip(batch, states, strict=True):
            record = attempt.record
            if self._worker.held_by_id.get(record.id) is attempt:
                del self._worker.held_by_id[record.id]
            if state is None:
                log.warning("the outcome of job %s was refused: its lease had moved on", record.id)
                continue
            if is_copy:
                record.state = state
            if listeners:
                # The store may have made another end of it: a retry of a job somebody cancelled is none.
                kind = FINAL_KINDS.get(state) or FINISH_KINDS[finish.kind]
                self._events.send(job_event(kind, record, finish.at_ns))
            if state.is_finished:
                settle(record, attempt.definition)
            elif finish.kind is FinishKind.RETRY:
                self._handles.tell(record, "retry")
        if self._worker.ended_early:
            ended = [attempt for _, attempt in batch if attempt in self._worker.ended_early]
            self._worker.ended_early.difference_update(ended)
            self._worker.spawn(self._store.jobs_ended([attempt.fence for attempt in ended]))
        self.recorded.set()
