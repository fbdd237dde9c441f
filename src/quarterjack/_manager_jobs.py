"""What the jobs of a `TaskManager` ask of it, and what is seen of them from outside."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from ._durations import Seconds
from ._why_words import span
from .errors import DeadlineExceeded, NotRunning
from .events import EventStream, JobEventKind
from .flow._keys import key_of
from .flow.flow import Flow
from .job import CallbackKind, Job, error_of
from .model import JobRecord, JobState
from .runtime.engine import Engine
from .runtime.handles import Handles, settled_within
from .runtime.job_events import FINAL_KINDS, job_event
from .runtime.managed import ManagedRun

__all__ = ["ManagedJob", "ManagerJobs"]

T = TypeVar("T")

_SUBMITTED: Final = JobState.SUBMITTED
_CALLBACKS: Final[Mapping[str, CallbackKind]] = {"running": "start", "retry": "retry"}


class ManagedJob(Job[T]):
    """A job of a manager: awaiting it raises what its body raised, the very exception."""

    __slots__ = ()

    def _error(self) -> BaseException | None:
        record = self._record
        original = None if record.error is None else record.error.exception
        is_own = record.state is JobState.FAILED or isinstance(original, DeadlineExceeded)
        return original if original is not None and is_own else error_of(record)

    async def cancel(self, wait: Seconds = 10) -> bool:
        """See `Job.cancel`. Before the manager is entered the job is CANCELLED at once."""
        run: Any = self._record
        manager: Any = self._client
        if manager.cancel_early(run, "cancelled by request"):
            return run.state is JobState.CANCELLED
        return await super().cancel(wait)


class _Several(list[Callable[[Any], None]]):
    """Those who wait for one job, where there are several."""

    __slots__ = ()

    def __call__(self, record: Any) -> None:
        for notify in self:
            notify(record)


class ManagerJobs:
    """The jobs of a manager, and what their handles ask; what submits them and ends it stands in `TaskManager`."""

    def __init__(self, flow: Flow) -> None:
        self.flow: Final = flow
        self.event_stream: Final = EventStream()
        self.engine: Engine | None = None
        self.own_handles: Handles | None = None
        self.early: list[ManagedRun] = []
        """Submitted before there was an engine."""
        self.singles: dict[Hashable, ManagedRun] = {}

    def running(self) -> Engine:
        """Return the engine.

        Raises:
            NotRunning: Before the manager is entered.
        """
        if self.engine is None:
            raise NotRunning("this TaskManager is not running; enter it: async with TaskManager(…) as manager")
        return self.engine

    # -- coming ------------------------------------------------------------------------

    def there_already(self, run: ManagedRun) -> ManagedRun | None:
        """Return the run that *run* would repeat, if the flow has a `Dedupe` and there is one."""
        dedupe = self.flow.dedupe
        if dedupe is None:
            return None
        run.single = (run.fn, key_of(dedupe.by, run, dedupe))
        return self.singles.get(run.single)

    def take_early(self, run: ManagedRun) -> None:
        """Keep *run* until there is an engine."""
        if self.flow.order is not None:
            self.flow.order.check(run)
        self.early.append(run)

    # -- looking -----------------------------------------------------------------------

    def why_waiting(self, job: Job[Any]) -> str | None:
        """Return in words which gate holds *job* up and for how long, or what else; None if it does not wait."""
        run: Any = job._record
        if run.state is not JobState.SUBMITTED:
            return None
        engine = self.engine
        if engine is None:
            return "the manager is not entered yet"
        now = engine.monotonic()
        if run.due is not None and run.due > now:
            return f"it pauses for {_in_words(run.due - now)} more" + (f" after {run.reason}" if run.reason else "")
        held = engine.room.why_or_behind(run) if run.seat is None else run.seat.why()
        if held is None:
            return "its turn comes in the loop's next turn"
        if math.isinf(held.until):
            return f"{held.label} {held.words}"
        return f"{held.label} lets it start in {_in_words(max(0.0, held.until - now))}"

    def stats(self) -> dict[str, Any]:
        """Return counts: jobs that wait, pause, run and have failed, and what each gate tells (per key, too)."""
        engine = self.engine
        runs = engine.unfinished if engine is not None else ()
        states = [run.state for run in runs]
        seated = sum(run.seat is not None and not run.state.is_finished for run in runs if run.state is _SUBMITTED)
        waiting = engine.room.size + seated if engine is not None else len(self.early)
        submitted = states.count(JobState.SUBMITTED)
        return {
            "waiting": waiting,
            "pausing": submitted - waiting if engine is not None else 0,
            "running": len(states) - submitted,
            "failed": 0 if engine is None else engine.failed,
            "gates": self.flow.stats(),
        }

    # -- what its jobs ask ---------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop it runs on.

        Raises:
            NotRunning: Before it is entered.
        """
        return self.running().loop

    @property
    def handles(self) -> Handles:
        """Who waits for jobs with callbacks.

        Raises:
            NotRunning: Before it is entered.
        """
        if self.own_handles is None:
            raise NotRunning("this TaskManager is not running; enter it: async with TaskManager(…) as manager")
        return self.own_handles

    def is_settled(self, record: Any) -> bool:
        """Say whether the job is finished and its callbacks have run."""
        if record.callbacks:
            return self.handles.is_settled(record)
        is_finished: bool = record.state.is_finished
        return is_finished

    def watch(self, records: Iterable[Any], notify: Callable[[Any], None]) -> int:
        """Call *notify* once for each job that is not settled yet, when it is; return how many those are."""
        waited = 0
        for run in records:
            if run.callbacks:
                waited += self.handles.watch((run,), notify)
            elif not run.state.is_finished:
                waited += 1
                known = run.watcher
                run.watcher = notify if known is None else _Several((*_each(known), notify))
        return waited

    def unwatch(self, records: Iterable[Any], notify: Callable[[Any], None]) -> None:
        """Forget *notify*."""
        for run in records:
            left = [other for other in _each(run.watcher) if other is not notify]
            run.watcher = None if not left else left[0] if len(left) == 1 else _Several(left)
            if run.callbacks:
                self.handles.unwatch((run,), notify)

    def add_callback(self, record: Any, kind: CallbackKind, fn: Callable[[Job[Any]], object]) -> None:
        """Call *fn* when the job makes a move of *kind*.

        Raises:
            NotRunning: Before the manager is entered.
        """
        self.running()
        if not record.callbacks and not record.state.is_finished:
            record.is_plain, record.callbacks = False, True
            for notify in _each(record.watcher):
                self.handles.watch((record,), notify)
            record.watcher = None
        self.handles.add(record, kind, fn)

    def on_move(self, move: str, run: ManagedRun) -> None:
        """A job with callbacks, or one that somebody listens to, has made a move: tell of it."""
        record: JobRecord = cast("Any", run)
        if self.event_stream.has_listeners:
            kind = FINAL_KINDS[run.state] if move == "end" else cast("JobEventKind", move)
            self.event_stream.send(job_event(kind, record))
        if move == "end":
            self.handles.settle(record, None)
        elif move in _CALLBACKS:
            self.handles.tell(record, _CALLBACKS[move])

    async def cancel_job(self, record: Any, wait_s: float) -> bool:
        """Cancel one job and wait up to *wait_s* for its end; say whether it is CANCELLED."""
        engine = self.running()
        engine.cancel(record, "cancelled by request")
        await settled_within(self, record, wait_s)
        return record.state is JobState.CANCELLED

    def cancel_early(self, run: ManagedRun, reason: str) -> bool:
        """Cancel a job if the block is not entered yet: nobody has to be told. Say whether that was so."""
        if self.engine is not None:
            return False
        if run in self.early:
            self.early.remove(run)
            if run.single is not None:
                self.singles.pop(run.single, None)
            run.drop(reason)
        return True

    async def fetch(self, record: Any) -> Any:
        """Return the job as it is: a manager's is always current."""
        return record


def _each(known: Callable[[Any], None] | None) -> list[Callable[[Any], None]]:
    if known is None:
        return []
    return list(known) if isinstance(known, _Several) else [known]


def _in_words(seconds: float) -> str:
    """Return a span as an app tells it; flows of a manager wait for milliseconds, too."""
    return span(seconds) if seconds >= 0.1 else f"{round(seconds, 3):g} seconds"
