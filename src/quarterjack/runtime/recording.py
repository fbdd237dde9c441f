"""The recorder: hands outcomes to the store in batches, and then tells of them.

What ends while a batch is under way makes the next one, so batches grow with
the load and a lone outcome waits for nobody. While the store does not answer
outcomes are kept and tried again; none is dropped. There are at most
`OUTCOMES_MOST` of them: beyond that the worker begins nothing more.

At the end it goes on trying as long as the app has patience, and says what it
leaves to the leases: those jobs run again, in whichever process takes them over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from quarterjack.errors import StoreError, StoreUnavailable
from quarterjack.events import EventStream
from quarterjack.model import ErrorInfo, Finish, FinishKind, JobRecord, JobState
from quarterjack.stores.base import Renewal, Store

from ._ends import adopt
from .errands import Errands
from .job_events import FINAL_KINDS, FINISH_KINDS, job_event
from .outage import Outage

if TYPE_CHECKING:
    from .handles import Handles
    from .run import Attempt

__all__ = ["OUTCOMES_MOST", "Recorder", "RecorderHost"]

log = logging.getLogger("quarterjack.worker")

OUTCOMES_MOST: Final = 10_000
"""Outcomes that may wait to be recorded; a job begun before is recorded all the same."""
BATCH: Final = 200
"""Outcomes in one call: beyond a hundred or two a bigger transaction is no quicker per outcome."""
DOUBTS: Final = 3
"""How often an outcome must fail by itself, while others are recorded, to be held to be the fault."""
LAST_PAUSE_S: Final = 1.0
"""How long a stopping worker waits between two tries, at most."""

Entry = tuple[Finish, "Attempt"]


class RecorderHost(Protocol):
    """What the recorder needs of the app around it."""

    @property
    def store(self) -> Store: ...
    @property
    def events(self) -> EventStream: ...
    @property
    def handles(self) -> Handles: ...
    @property
    def outage(self) -> Outage: ...
    @property
    def owner(self) -> str: ...
    @property
    def lease_s(self) -> float | None: ...


class Recorder:
    """Records how the jobs of one worker end.

    Args:
        host: The app.
        held: The worker's attempts by job id; one whose end is recorded leaves it.
        ended_early: Attempts whose body ended before the outcome that says it still runs was recorded.
        on_room: Told when it is full no more.
    """

    def __init__(
        self, host: RecorderHost, held: dict[str, Attempt], ended_early: set[Attempt], on_room: Callable[[], None]
    ) -> None:
        self._host = host
        self._store = host.store
        self._held = held
        self._ended_early = ended_early
        self._on_room = on_room
        self.outbox: list[Entry] = []
        """What is to be recorded."""
        self.wake = asyncio.Event()
        """To be set once there is something in an empty outbox."""
        self.recorded = asyncio.Event()
        """Set whenever a job is held here no more."""
        self.tells_executors = False
        """True once there is an executor that keeps what it knows of an outcome until the store has it."""
        self._under_way = 0
        self._most = BATCH
        self._has_worked = False
        self._doubts: dict[Attempt, tuple[int, Renewal | None]] = {}
        self._ending = asyncio.Event()
        self.errands = Errands(host, self._pause)

    @property
    def is_ending(self) -> bool:
        """True once the worker stops."""
        return self._ending.is_set()

    @property
    def waiting(self) -> int:
        """Outcomes that are not recorded yet."""
        return len(self.outbox) + self._under_way

    @property
    def is_full(self) -> bool:
        """True while no job may begin, for there is no room for its outcome."""
        return self.waiting >= OUTCOMES_MOST

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

    def end(self) -> None:
        """Record what there is, and then no more."""
        self._ending.set()
        self.wake.set()

    async def close(self) -> None:
        """Record what there is, and wait for the calls under way; once cancelled, say what is left."""
        try:
            await self.flush()
            await self.errands.done()
        finally:
            self.errands.leave()
            self._tell_left()

    def _tell_left(self) -> None:
        if self.outbox:
            jobs = [finish.job_id for finish, _ in self.outbox[:5]]
            text = "%d outcomes could not be recorded (%s%s); their leases run out, and these jobs run again"
            log.error(text, len(self.outbox), ", ".join(jobs), ", …" if len(self.outbox) > len(jobs) else "")

    # -- outcomes ----------------------------------------------------------------------

    async def flush(self) -> None:
        """Record what there is; a store that fails is asked again."""
        while self.outbox:
            self.wake.clear()
            batch = self._take()
            try:
                answers = await self._finish(batch)
            except StoreError as error:
                self._put_back(batch)
                if not isinstance(error, StoreUnavailable) and self._narrow(batch, error):
                    continue
                await self._pause(self._host.outage.failed("recording outcomes", error))
                continue
            except asyncio.CancelledError:  # who ends us left the rest of the runtime; the next one records it
                self._put_back(batch)
                raise
            self._host.outage.worked("recording outcomes")
            self._most, self._has_worked = min(BATCH, self._most * 2), True
            was_full, self._under_way = self.is_full, 0
            for _, attempt in batch if self._doubts else ():
                self._doubts.pop(attempt, None)
            self._tell(batch, answers)
            if was_full:
                self._on_room()
        self.wake.clear()

    def _take(self) -> list[Entry]:
        if len(self.outbox) <= self._most or self._store.keeps_objects:
            batch, self.outbox = self.outbox, []
        else:
            batch, self.outbox = self.outbox[: self._most], self.outbox[self._most :]
        self._under_way = len(batch)
        return batch

    def _put_back(self, batch: list[Entry]) -> None:
        self._under_way = 0
        self.outbox = batch + self.outbox

    def _narrow(self, batch: list[Entry], error: StoreError) -> bool:
        """Find the one outcome that a store refuses for what is in it; say whether to try again at once.

        An outage fails them all, so one is to blame only if between its failures others are recorded, or,
        where it is the only one, its lease is renewed. It is then recorded without its result: a job must end.
        """
        if len(batch) > 1:
            self._most = max(1, len(batch) // 2)
            return not self._store.keeps_objects
        ((finish, attempt),) = batch
        doubts, renewed = self._doubts.get(attempt, (0, None))
        if self._has_worked or (len(self.outbox) == 1 and attempt.sent is not renewed):
            doubts, self._has_worked = doubts + 1, False
        self._doubts[attempt] = doubts, attempt.sent
        if doubts >= DOUBTS:
            del self._doubts[attempt]
            log.error("the outcome of job %s cannot be stored as it is: %s", finish.job_id, error)
            self.outbox[0] = finish._replace(result=None, error=ErrorInfo("OutcomeNotStored", str(error))), attempt
            return True
        self.outbox.append(self.outbox.pop(0))
        return False

    async def _pause(self, pause_s: float) -> None:
        """Wait; not for long once the end has come."""
        if self.is_ending:
            await asyncio.sleep(min(pause_s, LAST_PAUSE_S))
            return
        try:
            async with asyncio.timeout(pause_s):
                await self._ending.wait()
        except TimeoutError:
            pass

    async def _finish(self, batch: list[Entry]) -> list[JobState | None]:
        """Record a batch; return for each the state its job has now, None where it was refused."""
        if not self._store.keeps_objects:
            await self._keep_news(batch)
        answers = await self._store.jobs_finish([finish for finish, _ in batch])
        if self._store.keeps_objects:
            return answers
        if None in answers:
            await self._look_at_refused(batch, answers)
        for (finish, attempt), state in zip(batch, answers, strict=True):
            if state is not None:
                adopt(attempt.record, finish, state)
        await self._read_completed([attempt.record for _, attempt in batch if attempt.completes])
        return answers

    async def _read_completed(self, records: Sequence[JobRecord]) -> None:
        """From its commit on a job is done, whatever its body did then: adopt what was committed."""
        ended = [record for record in records if record.state.is_finished]
        for record, row in zip(
            ended, await self._store.jobs_get([one.id for one in ended]) if ended else (), strict=True
        ):
            if row is not None:
                record.result, record.error, record.reason = row.result, row.error, row.reason
                record.failures = row.failures

    async def _keep_news(self, batch: list[Entry]) -> None:
        """Store what bodies said last, before their leases end: the next attempt reads the checkpoint."""
        news = [(attempt, attempt.renewal()) for _, attempt in batch if attempt.has_words]
        if news:
            await self._store.jobs_renew(self._host.owner, [renewal for _, renewal in news], self._host.lease_s)
            for attempt, renewal in news:
                attempt.sent = renewal

    async def _look_at_refused(self, batch: list[Entry], answers: list[JobState | None]) -> None:
        """An outcome may be refused because it was recorded before, and only the answer was lost."""
        refused = [n for n, state in enumerate(answers) if state is None]
        rows = await self._store.jobs_get([batch[n][0].job_id for n in refused])
        for n, row in zip(refused, rows, strict=True):
            finish = batch[n][0]
            if row is None or row.attempt != finish.attempt or row.state.is_held:
                continue
            if row.state.is_finished or finish.kind in _BACK:
                answers[n] = row.state

    def _tell(self, batch: list[Entry], answers: Sequence[JobState | None]) -> None:
        """The outcomes are recorded: tell events, callbacks and waiters."""
        events, handles = self._host.events, self._host.handles
        listeners, settle, held = events.has_listeners, handles.settle, self._held
        for (finish, attempt), state in zip(batch, answers, strict=True):
            record = attempt.record
            if held.get(record.id) is attempt:
                del held[record.id]
            if state is None:
                log.warning("the outcome of job %s was refused: its lease had moved on", record.id)
                continue
            if listeners:
                # The store may have made another end of it: a retry of a job somebody cancelled is none.
                events.send(job_event(FINAL_KINDS.get(state) or FINISH_KINDS[finish.kind], record, finish.at_ns))
            if state.is_finished:
                settle(record, attempt.definition)
            elif finish.kind is FinishKind.RETRY:
                handles.tell(record, "retry")
        if self._ended_early:
            ended = [attempt for _, attempt in batch if attempt in self._ended_early]
            self._ended_early.difference_update(ended)
            if ended:
                self.errands.body_ended([attempt.fence for attempt in ended])
        if self.tells_executors:
            for (_, attempt), state in zip(batch, answers, strict=True):
                if attempt.executor.capabilities.survives_worker_restart:
                    _tell_executor(attempt, is_stored=state is not None)
        self.recorded.set()


def _tell_executor(attempt: Attempt, *, is_stored: bool) -> None:
    try:
        attempt.executor.settled(attempt.ref, is_stored=is_stored)
    except Exception:  # a third party's; the outcome is recorded whatever it makes of that
        log.exception("executor %s failed to hear that job %s is settled", attempt.executor.name, attempt.job_id)


_BACK: Final = frozenset({FinishKind.RETRY, FinishKind.SNOOZE})
