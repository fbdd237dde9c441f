"""Jobs of a `TaskManager`: one process, one loop, no store.

    submit ─▶ (gates) ─▶ begin ─▶ (body) ─▶ end ─▶ told, or submitted once more

A `ManagedRun` is at once the job's record, what the flow sees of it, and what
``current_job()`` reads: with an object for each of these a job cost twice as
much (measured), and a hundred thousand may wait at once. For the same reason
what most jobs never have is read from the class and kept in a dict that is made
for the first of it.

Each attempt runs in an asyncio task of its own, in a copy of the context the
job was submitted in."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

from quarterjack.context import CURRENT
from quarterjack.flow.alarms import Alarm
from quarterjack.flow.deadlock import Wait, waits_of
from quarterjack.flow.inheritance import wait_begins, wait_ends
from quarterjack.flow.waiting import NO_KEY, Phase, Waiting
from quarterjack.model import (
    NO_OPTIONS,
    ErrorInfo,
    JobIds,
    JobState,
    Origin,
    OutcomeKind,
    Progress,
    RunOptions,
    SubmittedBy,
)
from quarterjack.policies.backoff import NO_RETRY, Retry

from ._bodies import Once, not_awaitable
from .batching import Seat

if TYPE_CHECKING:
    from quarterjack.model import JobRecord

    from .engine import Engine

__all__ = ["Chosen", "ManagedRun", "NotYet", "Watcher"]

_SUBMITTED, _RUNNING = JobState.SUBMITTED, JobState.RUNNING
_NEW, _STARTED = Phase.NEW, Phase.STARTED
_UNCALLED: Final[Any] = object()
"""In place of what a body's function returned, before it did."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What jobs were submitted with, and what their flow adds to it; shared by all of one ``options()``."""

    run: RunOptions = NO_OPTIONS
    key: Mapping[str, Hashable] = field(default_factory=lambda: NO_KEY)
    cost: float = 1.0
    retry: Retry = NO_RETRY
    timeout_s: float | None = None
    is_prompt: bool = field(init=False)
    """They wait for nothing but their gates."""
    is_plain: bool = field(init=False)
    """When a body begins and when it returns, stamps and whoever waits for it are all there is to see to."""
    looks_at_results: bool = field(init=False)
    """What a body returned may be worth another attempt, or earns retries."""

    def __post_init__(self) -> None:
        retry = self.retry
        if self.run.metadata:  # as in an app, where a key is among them
            object.__setattr__(self, "key", {**self.run.metadata, **self.key})
        looks_at_results = retry.on_result is not None or retry.budget is not None
        is_plain = self.timeout_s is None and retry.deadline_s is None and not looks_at_results
        object.__setattr__(self, "is_prompt", not self.run.delay_ns)
        object.__setattr__(self, "is_plain", is_plain)
        object.__setattr__(self, "looks_at_results", looks_at_results)


class _Rare(Waiting):
    """The defaults of what most jobs never have."""

    __slots__ = ()

    reason: str | None = None
    failures: int = 0
    rescues: int = 0
    origin: Origin | None = None
    submitted_by: SubmittedBy | None = None
    progress: Progress | None = None
    checkpoint: Any = None
    cancel_requested: bool = False
    timed_out: bool = False
    is_late: bool = False
    """Its deadline has passed."""
    came: float | None = None
    """When it was submitted, if it was to wait for its time first: monotonic seconds."""
    first_due: float = 0.0
    """When the attempt was due that failed first: monotonic seconds."""
    due: float | None = None
    """When it was last to run, if not at once: monotonic seconds."""
    alarm: Alarm | None = None
    """Of a pause, of the last instant at which a retry may start, or of the attempt's timeout."""
    deadline: Alarm | None = None
    single: Hashable = None
    """What it is the one run of, where a flow has a `Dedupe`."""
    _id: str | None = None
    seat: Seat | None = None
    """Of an item of a batch, while it gathers and runs."""


class ManagedRun(_Rare):
    """One job of a manager, all its attempts."""

    __slots__ = (
        "__dict__",
        "_lane",
        "_phase",
        "_rank",
        "_seq",
        "args",
        "attempt",
        "callbacks",
        "chosen",
        "context",
        "cost",
        "engine",
        "enqueued_at",
        "error",
        "finished_at",
        "fn",
        "is_plain",
        "kwargs",
        "result",
        "scheduled_at",
        "started_at",
        "state",
        "watcher",
        "worker",
    )

    def __init__(
        self,
        engine: Engine | NotYet,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        chosen: Chosen,
        context: Context | None,
        now: float,  # a hot constructor, called in one place
    ) -> None:
        self.engine: Engine = engine  # type: ignore[assignment]  # before the block is entered nobody asks it for more
        self.fn = fn
        self.args = args
        self.kwargs = kwargs
        self.chosen = chosen
        self.cost = chosen.cost
        self.context = context
        self.enqueued_at = now
        self.state = _SUBMITTED
        self.attempt = 0
        self.scheduled_at: float | None = None
        self.started_at = None
        self.finished_at: float | None = None
        self.result: Any = None
        self.watcher: Watcher | None = None
        self.worker: asyncio.Task[None] | None = None
        self.error: ErrorInfo | None = None
        self.callbacks = False
        """Somebody wants to be called when it moves."""
        self.is_plain = False
        """See `Chosen.is_plain`; nothing else acts on it either."""
        self._phase = _NEW

    # -- what the flow sees, and the record says ---------------------------------------

    @property
    def id(self) -> str:  # type: ignore[override]
        """Made when somebody asks: most jobs of a manager are never named."""
        if self._id is None:
            self._id = self.engine.ids()
        return self._id

    @property
    def task(self) -> str:  # type: ignore[override]
        return getattr(self.fn, "__qualname__", None) or type(self.fn).__qualname__

    @property
    def options(self) -> RunOptions:
        return self.chosen.run

    @property
    def queue(self) -> str:
        return self.chosen.run.queue

    @property
    def priority(self) -> int:  # type: ignore[override]
        return self.chosen.run.priority

    @property
    def key(self) -> Mapping[str, Hashable]:  # type: ignore[override]
        return self.chosen.key

    @property
    def metadata(self) -> Mapping[str, Any] | None:  # type: ignore[override]
        return self.chosen.run.metadata

    @property
    def stands_in(self) -> Waiting | None:  # type: ignore[override]
        return None if self.seat is None else self.seat.group

    @property
    def run_at_ns(self) -> int:
        return self.engine.wall_ns(self.enqueued_at if self.due is None else self.due) or 0

    @property
    def submitted_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.enqueued_at if self.came is None else self.came)

    @property
    def scheduled_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.scheduled_at)

    @property
    def started_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.started_at)

    @property
    def running_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.started_at)

    @property
    def finished_at_ns(self) -> int | None:
        return self.engine.wall_ns(self.finished_at)

    # -- what the body asks ------------------------------------------------------------

    @property
    def record(self) -> ManagedRun:
        """Itself."""
        return self

    @property
    def number(self) -> int:
        """Which try this is, from 1."""
        return self.attempt

    @property
    def is_unwanted(self) -> bool:
        """True once the body should end."""
        return self.cancel_requested or self.timed_out or self.is_late

    def tell(self, done: float, total: float | None, text: str) -> None:
        """Keep what the body says about how far it is."""
        self.progress = Progress(done, total, text)

    def keep(self, value: Any) -> None:
        """Keep a value for the next attempt."""
        self.checkpoint = value

    @property
    def passing(self) -> ManagedRun:
        """Itself, too."""
        return self

    def lend_slot(self, records: Sequence[JobRecord], waiter: asyncio.Future[None]) -> Wait | None:
        """The body awaits other jobs: gates that lend get its slots back, and a wait without end is told of."""
        if self._phase is not _STARTED or asyncio.get_running_loop() is not self.engine.loop:
            return None
        awaited = [one for one in cast("Sequence[Any]", records) if isinstance(one, ManagedRun)]
        return waits_of(self.engine.dispatcher).begin(self, awaited, waiter)

    async def reclaim_slot(self, loan: Wait | None, *, at_once: bool) -> None:
        """The body goes on, once it has its slots again; *at_once* where it was interrupted."""
        if loan is not None:
            await loan.end(at_once=at_once)

    def wait_begins(self, awaited: Sequence[Any]) -> None:
        """The body waits for these jobs: they are as urgent as it from now on."""
        wait_begins(self, awaited)

    def wait_ends(self, awaited: Sequence[Any]) -> None:
        """The body goes on."""
        wait_ends(self, awaited)

    # -- an end before any -------------------------------------------------------------

    def drop(self, reason: str) -> None:
        """It was cancelled before there was an engine to run it."""
        self.state, self.reason, self.cancel_requested = JobState.CANCELLED, reason, True
        self.context = None
        if isinstance(self.fn, Once):
            self.fn.close()

    # -- one attempt -------------------------------------------------------------------

    def is_driven_by(self, task: asyncio.Task[Any]) -> bool:
        """Say whether *task*, begun eagerly, runs the body: the context of each of them is its own."""
        coroutine: Any = task.get_coro()
        context: Any = task.get_context()  # type: ignore[attr-defined,unused-ignore]  # from Python 3.12 on
        return getattr(coroutine, "cr_code", None) is ManagedRun.drive.__code__ and context is self.context

    async def drive(self) -> None:
        """Run the body once, and report how that ended."""
        engine = self.engine
        lane, body = self._lane, _UNCALLED
        CURRENT.set(self)  # type: ignore[arg-type]  # it is its own record
        self.state = _RUNNING
        now = engine.monotonic()
        if self.worker is None:  # begun eagerly, before who made the task could say which it is
            if engine.factory is None:
                self.scheduled_at = now
            else:
                self.worker = asyncio.current_task()
        if self.is_plain and not lane.starters:
            self._phase, self.started_at = _STARTED, now
        elif not engine.began(self, now):
            return
        try:
            if engine.wraps:
                result = await self._wrapped()
            else:
                kwargs = self.kwargs
                body = self.fn(*self.args, **kwargs) if kwargs else self.fn(*self.args)  # no dict is made for none
                result = await body
        except asyncio.CancelledError:
            engine.ended(self, OutcomeKind.TIMED_OUT if self.timed_out else OutcomeKind.CANCELLED, None)
        except BaseException as error:  # the user's code runs here, and whatever it raises is its job's outcome
            engine.ended(self, OutcomeKind.RAISED, self._raised(error, body))
        else:
            engine.returned(self, result)

    def _raised(self, error: BaseException, body: Any) -> BaseException:
        """Return what a body has raised, in the words it needs."""
        if isinstance(error, GeneratorExit) and self.engine.loop.is_closed():
            raise error  # the loop was closed under the body: nobody is there to hear of it
        if isinstance(error, TypeError) and body is not _UNCALLED and not inspect.isawaitable(body):
            return not_awaitable(self.fn, body)
        return error

    async def _wrapped(self) -> Any:
        """Run the body inside the flow's wraps, the first one outermost."""

        async def body() -> Any:
            found = self.fn(*self.args, **self.kwargs)
            if not inspect.isawaitable(found):
                raise not_awaitable(self.fn, found)
            return await found

        proceed: Callable[[], Any] = body
        for wrap in reversed(self.engine.wraps):
            proceed = partial(wrap, self, proceed)
        return await proceed()


Watcher = Callable[[Any], None]


class NotYet:
    """In place of the engine, for jobs that are submitted before there is one."""

    def __init__(self, ids: JobIds) -> None:
        self.ids = ids

    def wall_ns(self, mono: float | None) -> int | None:
        """Return nothing: no time is kept yet."""
        del mono
        return None
