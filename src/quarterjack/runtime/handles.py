"""Who waits for a job, and what is called back when it moves.

Callbacks run first, in order of registration; then whoever awaits the job in
this process is told. A job without callbacks and without waiters costs two
dictionary look-ups here."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import Context, ContextVar
from typing import Any, Final, final

from quarterjack.clock import Clock
from quarterjack.errors import JobGone, NotRunning
from quarterjack.events import CallbackFailed, EventStream
from quarterjack.job import CallbackKind, Job, JobClient
from quarterjack.model import JobRecord, JobState
from quarterjack.task import TaskDefinition

from .afar import Afar

__all__ = ["FINAL_KINDS", "Handles", "settled_within"]

log = logging.getLogger("quarterjack.callbacks")

FINAL_KINDS: Final[Mapping[JobState, CallbackKind]] = {
    JobState.DONE: "done",
    JobState.FAILED: "error",
    JobState.TIMED_OUT: "timeout",
    JobState.CANCELLED: "cancel",
    JobState.LOST: "lost",
}

_CALLED_BACK: Final[ContextVar[str]] = ContextVar("quarterjack_called_back")
"""In a callback: the id of its job, which it may await although its callbacks have not all run."""
GONE_MOST: Final = 1_000
"""Of so many purged jobs it is remembered that they are gone, for those who still wait."""
CANCEL_GRACE_S: Final = 1.0
"""How long callbacks that were cancelled at shutdown may take to end."""

Callback = Callable[[Job[Any]], object]
Notify = Callable[[JobRecord], None]


@final
class _Several(list[Notify]):
    """Those who wait for one job, where there are several."""

    __slots__ = ()


class Handles:
    """Waiters and callbacks of one running app. Belongs to its loop."""

    def __init__(
        self,
        client: JobClient,
        tasks: Mapping[str, TaskDefinition],
        events: EventStream,
        clock: Clock,
        context: Callable[[], Context],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._client = client
        self._tasks = tasks
        self._events = events
        self._clock = clock
        self._context = context
        self._on_fatal = on_fatal
        self._watchers: dict[str, Notify | _Several] = {}
        """Nearly every job has one waiter, and a list for each of 100,000 would cost more than the jobs' results."""
        self.of_jobs: dict[str, list[tuple[CallbackKind, Callback]]] = {}
        """Callbacks of single jobs, by id."""
        self._settling: set[str] = set()
        self.afar: Afar | None = None
        """Looks after jobs that run elsewhere; None where rows are live."""
        self._gone: dict[str, None] = {}
        self._running: set[asyncio.Task[None]] = set()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The app's loop."""
        return self._client.loop

    # -- waiting ---------------------------------------------------------------------

    def is_settled(self, record: JobRecord) -> bool:
        """Say whether the job is finished and its callbacks have run; they themselves need not wait for that."""
        return record.state.is_finished and (record.id not in self._settling or _CALLED_BACK.get(None) == record.id)

    def watch(self, records: Iterable[JobRecord], notify: Notify) -> int:
        """Call *notify* once for each job when it is settled; return how many are not settled yet.

        Those that are settled already are not told about.

        Raises:
            JobGone: If the store has one of them no more.
        """
        if self.afar is not None:
            records = tuple(records)
            self._watch_afar(self.afar, records)
        watchers, settling = self._watchers, self._settling
        waited = 0
        for record in records:
            job_id = record.id
            if record.state.is_finished and (job_id not in settling or _CALLED_BACK.get(None) == job_id):
                continue
            waited += 1
            known = watchers.get(job_id)
            if known is None:
                watchers[job_id] = notify
            elif isinstance(known, _Several):
                known.append(notify)
            else:
                watchers[job_id] = _Several((known, notify))
        return waited

    def _watch_afar(self, afar: Afar, records: Iterable[JobRecord]) -> None:
        for record in records:
            if record.id in self._gone:
                raise JobGone(record.id)
            if not record.state.is_finished:
                afar.watch(record)

    def unwatch(self, records: Iterable[JobRecord], notify: Notify) -> None:
        """Forget *notify*."""
        watchers = self._watchers
        for record in records:
            known = watchers.get(record.id)
            if isinstance(known, _Several):
                known[:] = [other for other in known if other is not notify]
            if known is notify or known == []:
                del watchers[record.id]
                if self.afar is not None and record.id not in self.of_jobs:
                    self.afar.unwatch(record.id)

    def expect(self, job_ids: Sequence[str]) -> None:
        """These jobs have ended in the store: nobody is told before `settle` has run their callbacks."""
        self._settling.update(job_ids)

    def forget(self, job_id: str) -> None:
        """The store has the job no more: nothing will be told about it."""
        self._settling.discard(job_id)

    def settle(self, record: JobRecord, definition: TaskDefinition | None) -> None:
        """Run the callbacks of a finished job, then tell whoever waits for it."""
        if self.afar is not None:
            self.afar.ended(record)
        if not self.of_jobs and (definition is None or not definition.callbacks):
            if self._settling:
                self._settling.discard(record.id)
            if self._watchers:
                self._tell_waiters(record)
            return
        kind = FINAL_KINDS.get(record.state)
        calls = self._calls(record, kind) if kind is not None else []
        if calls and kind is not None:
            self._settling.add(record.id)
            self._spawn(self._settle(record, kind, self._task_calls(record, kind)), record, kind)
            return
        self._settling.discard(record.id)
        self._notify(record)

    def settle_afar(self, record: JobRecord) -> None:
        """As `settle`, of a job that ended elsewhere: its task's callbacks ran there, those of its handle run here."""
        if self.afar is not None:
            self.afar.ended(record)
        kind = FINAL_KINDS.get(record.state)
        if kind is not None and self._own_calls(record, kind):
            self._settling.add(record.id)
            self._spawn(self._settle(record, kind, []), record, kind)
            return
        self._settling.discard(record.id)
        self._notify(record)

    def gone(self, record: JobRecord) -> None:
        """The store has the job no more: who waits for it hears of that."""
        self._gone[record.id] = None
        if len(self._gone) > GONE_MOST:
            del self._gone[next(iter(self._gone))]
        if self.afar is not None:
            self.afar.unwatch(record.id)
        self._settling.discard(record.id)
        self._notify(record)

    async def _settle(self, record: JobRecord, kind: CallbackKind, task_calls: list[Callback]) -> None:
        try:
            await self._call_all(record, kind, task_calls)
            called = 0
            while following := self._own_calls(record, kind)[called:]:  # one may be added while others run
                await self._call_all(record, kind, following)
                called += len(following)
        finally:
            self._settling.discard(record.id)
            self._notify(record)

    def _notify(self, record: JobRecord) -> None:
        if self.of_jobs:
            self.of_jobs.pop(record.id, None)
        if self._watchers:
            self._tell_waiters(record)

    def _tell_waiters(self, record: JobRecord) -> None:
        known = self._watchers.pop(record.id, None)
        if known is None:
            return
        if isinstance(known, _Several):
            for notify in known:
                notify(record)
        else:
            known(record)

    # -- callbacks -------------------------------------------------------------------

    def add(self, record: JobRecord, kind: CallbackKind, fn: Callback) -> None:
        """Call *fn* when *record* makes a move of *kind*; at once if it has made it already. From any thread.

        Raises:
            NotRunning: On another thread or loop, once the app's own loop is closed.
        """
        if not self._is_here():
            self._add_from_elsewhere(record, kind, fn)
            return
        is_settled = self.is_settled(record)
        has_begun = kind == "start" and record.running_at_ns is not None
        if kind == "submit" or has_begun or (is_settled and FINAL_KINDS.get(record.state) == kind):
            self._spawn(self._call_all(record, kind, [fn]), record, kind)
        if not is_settled and kind != "submit":
            self.of_jobs.setdefault(record.id, []).append((kind, fn))
            if self.afar is not None:
                self.afar.watch(record)

    def _is_here(self) -> bool:
        try:
            return asyncio.get_running_loop() is self.loop
        except RuntimeError:  # a thread without a loop
            return False

    def _add_from_elsewhere(self, record: JobRecord, kind: CallbackKind, fn: Callback) -> None:
        try:
            self.loop.call_soon_threadsafe(self.add, record, kind, fn, context=Context())
        except RuntimeError:
            raise NotRunning(f"the app of job {record.id} has ended; on_{kind} would call nothing") from None

    def _calls(self, record: JobRecord, kind: CallbackKind) -> list[Callback]:
        return [*self._task_calls(record, kind), *self._own_calls(record, kind)]

    def _task_calls(self, record: JobRecord, kind: CallbackKind) -> list[Callback]:
        definition = self._tasks.get(record.task)
        return definition.callbacks.get(kind, []) if definition is not None else []

    def _own_calls(self, record: JobRecord, kind: CallbackKind) -> list[Callback]:
        own = self.of_jobs.get(record.id) if self.of_jobs else None
        return [fn for known, fn in own if known == kind] if own else []

    def tell(self, record: JobRecord, kind: CallbackKind) -> None:
        """Run the callbacks of a move that is not final."""
        calls = self._calls(record, kind)
        if calls:
            self._spawn(self._call_all(record, kind, calls), record, kind)

    async def _call_all(self, record: JobRecord, kind: CallbackKind, calls: list[Callback]) -> None:
        job: Job[Any] = Job(record, self._client)
        _CALLED_BACK.set(record.id)
        for fn in calls:
            try:
                result = fn(job)
                if inspect.isawaitable(result):
                    await result
            except Exception as error:  # users' code runs here; it may change nothing about its job
                self._complain(fn, kind, record, error)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():  # the shutdown ends it
                    raise
                self._complain(fn, kind, record, error)  # it awaited something that was cancelled
            except (KeyboardInterrupt, SystemExit) as error:  # as a body does: the app ends in an orderly way
                self._on_fatal(error)

    def _complain(self, fn: Callback, kind: str, record: JobRecord, error: BaseException) -> None:
        name = getattr(fn, "__qualname__", repr(fn))
        log.exception(
            "on_%s callback %s of job %s (%s) raised", kind, name, record.id, record.task, extra={"job": record.id}
        )
        if self._events.has_listeners:
            self._events.send(
                CallbackFailed(at_ns=self._clock.now_ns(), callback=name, job_id=record.id, error=repr(error))
            )

    def _spawn(self, coroutine: Coroutine[Any, Any, None], record: JobRecord, kind: CallbackKind) -> None:
        name = f"the on_{kind} callback of job {record.id} ({record.task})"
        task = asyncio.get_running_loop().create_task(coroutine, name=name, context=self._context().copy())
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def drain(self, grace_s: float, hurry: asyncio.Event) -> None:
        """Wait until every callback has ended, up to *grace_s* seconds or until *hurry* is set.

        What still runs then is cancelled, each with a line in the log.
        """
        if not self._running:
            return
        hurried = asyncio.ensure_future(hurry.wait())
        try:
            async with asyncio.timeout(grace_s):
                while self._running and not hurry.is_set():
                    await asyncio.wait({*self._running, hurried}, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            hurried.cancel()
            left = tuple(self._running)
            for task in left:
                log.warning("%s still runs at shutdown and is cancelled", task.get_name())
                task.cancel()
        if left:
            await asyncio.wait(left, timeout=CANCEL_GRACE_S)


async def settled_within(client: JobClient, record: JobRecord, wait_s: float) -> None:
    """Wait until the job is settled, at most *wait_s* seconds; which of the two it was, its state says."""
    done = asyncio.Event()

    def notify(_: JobRecord) -> None:
        done.set()

    if not client.watch((record,), notify):
        return
    try:
        async with asyncio.timeout(wait_s):
            await done.wait()
    except TimeoutError:
        pass
    finally:
        client.unwatch((record,), notify)
