"""`TaskManager`: a flow with a queue in front, in this process, without a store.

The shortest way to "not all at once": submit coroutine functions, await their
jobs, leave the block when all are done. For tasks with schedules, retries that
survive a restart or several processes, take a `Quarterjack` app; the strategies
are the same."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Hashable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from threading import get_ident
from types import TracebackType
from typing import Any, ClassVar, Final, ParamSpec, Self, TypedDict, TypeVar, Unpack, cast

from ._crossing import from_thread
from ._durations import Seconds, to_seconds
from ._manager_jobs import ManagedJob, ManagerJobs
from ._numbers import number, whole_number
from ._signatures import explained
from .clock import clock_of
from .errors import InvalidOption, NotRunning, UsageError, WrongLoop
from .events import Subscription
from .flow._fleet import fleet_forms
from .flow.batch import Batch, OnError
from .flow.flow import Flow, Strategy
from .flow.waiting import NO_KEY
from .job import Job
from .model import NO_KWARGS, NO_OPTIONS, JobIds, RunOptions
from .options import check_names, resolve_options
from .policies.backoff import Retry
from .runtime._bodies import Once, check_body, check_once, close_unrun, fits_as_it_is
from .runtime.engine import Engine
from .runtime.fleet import Fleet
from .runtime.handles import Handles
from .runtime.managed import Chosen, ManagedRun, NotYet
from .runtime.managed_items import Batched
from .stores import Store, store_from

__all__ = ["ManagedJob", "ManagerOptions", "Submitter", "TaskManager"]

P = ParamSpec("P")
T = TypeVar("T")
Item = TypeVar("Item")
Res = TypeVar("Res")


class ManagerOptions(TypedDict, total=False):
    """What ``manager.options(…)`` takes."""

    key: Mapping[str, Hashable]
    cost: float
    priority: int
    metadata: Mapping[str, Any] | None
    timeout: Seconds | None
    retry: int | Retry
    delay: Seconds


NOTICE_S: Final = 1.0
"""So long after jobs were cancelled the log names those whose bodies go on."""
_FIELDS: Final = frozenset(ManagerOptions.__annotations__)


class Submitter:
    """Submits with options that were chosen once. Made by `TaskManager.options`."""

    __slots__ = ("_chosen", "_manager")

    def __init__(self, manager: TaskManager, chosen: Chosen) -> None:
        self._manager, self._chosen = manager, chosen

    def submit(self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """See `TaskManager.submit`."""
        return self._manager._submit(fn, args, kwargs, self._chosen)

    async def submit_wait(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]:
        """See `TaskManager.submit_wait`."""
        return await self._manager._submit_wait(fn, args, kwargs, self._chosen)

    def submit_threadsafe(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]:
        """See `TaskManager.submit_threadsafe`."""
        return self._manager._submit_threadsafe(fn, args, kwargs, self._chosen)


class TaskManager:
    """Runs coroutine functions as its flow allows.

        async with TaskManager(ConcurrencyLimit(3)) as manager:
            jobs = [manager.submit(fetch, url) for url in urls]
            print(await gather(jobs))

    Leaving the block waits for every job; leaving it by an exception cancels them.
    What is submitted before the block is entered waits for that.

    Args:
        strategies: What each job passes: strategies, or one `Flow`.
        grace: Seconds that bodies may take to end once they are cancelled.
        store: Where its gates with ``scope="fleet"`` hold: a URL, or a `Store` that nobody has opened.

    Raises:
        InvalidOption: If the strategies cannot work together, or *store* names no store, or no gate needs one.
    """

    _meant: ClassVar = {"max_concurrent": "write TaskManager(ConcurrencyLimit(5))"}

    @explained
    def __init__(self, *strategies: Strategy | Flow, grace: Seconds = 30.0, store: Store | str | None = None) -> None:
        is_flow = len(strategies) == 1 and isinstance(strategies[0], Flow)
        self.flow: Final = cast("Flow", strategies[0]) if is_flow else Flow(*strategies)
        self._jobs: Final = ManagerJobs(self.flow)
        self._fleet_gates: Final = fleet_forms(self.flow.gates)
        if store is not None and not self._fleet_gates:
            raise InvalidOption(
                'store is where gates with scope="fleet" hold, and the flow has none; a manager stores no jobs'
            )
        self._store: Final = None if store is None else store_from(store)
        self._stack: Final = AsyncExitStack()
        self._plain: Final = self._chosen(NO_OPTIONS, NO_KEY, 1.0)
        self._grace_s = to_seconds(grace, "grace")
        self._ids = JobIds()
        self._direct: Engine | None = None
        """The engine while jobs go to it without a further look."""
        self._fitting: object = None
        """The function submitted last, which takes `_fitting_count` arguments: it need not be looked at again."""
        self._fitting_count = 0
        self._thread: int | None = None
        """Where it runs, once it does."""
        self._is_closed = False
        self._idle = asyncio.Event()
        self._fatal: BaseException | None = None
        self._host: asyncio.Task[Any] | None = None
        self._is_ending = False
        self._closing: Final = asyncio.Lock()
        self._has_cancelled_host = False

    # -- looking -----------------------------------------------------------------------

    def why_waiting(self, job: Job[Any]) -> str | None:
        """Return in words which gate holds *job* up and for how long, or what else; None if it does not wait."""
        return self._jobs.why_waiting(job)

    def stats(self) -> dict[str, Any]:
        """Return counts: jobs that wait, pause, run and have failed, and what each gate tells (per key, too)."""
        return self._jobs.stats()

    # -- life --------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Begin: what was submitted before waits for its gates now.

        Raises:
            UsageError: If it was entered before, or a gate with ``scope="fleet"`` has no store.
            StoreError: If *store* does not open.
        """
        if self._jobs.engine is not None or self._is_closed:
            raise UsageError("this TaskManager was entered before; make another one, the strategies may be shared")
        await self._hold_limits()
        try:
            self._begin(asyncio.get_running_loop())
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    def _begin(self, loop: asyncio.AbstractEventLoop) -> None:
        self._thread = get_ident()
        clock = clock_of(loop)
        context = contextvars.copy_context()
        self._host = asyncio.current_task()
        self._jobs.own_handles = Handles(
            self._jobs, {}, self._jobs.event_stream, clock, lambda: context, self._on_fatal
        )
        self._jobs.engine = engine = Engine(
            self.flow,
            loop,
            clock,
            self._ids,
            singles=self._jobs.singles,
            events=self._jobs.event_stream,
            on_idle=self._idle.set,
            on_move=self._jobs.on_move,
            on_fatal=self._on_fatal,
        )
        self._direct = engine if self.flow.dedupe is None else None
        early, self._jobs.early = self._jobs.early, []
        for run in early:
            engine.adopt(run)

    async def _hold_limits(self) -> None:
        """See to it that gates of a fleet have a store."""
        if self._store is not None:
            await self._stack.enter_async_context(Fleet.opened(self._store, self._fleet_gates))
        for gate in self._fleet_gates:
            gate.check_bound()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        try:
            await self.stop(drain=kind is None)
        except asyncio.CancelledError:
            self._raise_fatal()
            raise
        if kind is None or issubclass(kind, asyncio.CancelledError):
            self._raise_fatal()

    async def idle(self) -> None:
        """Wait until no job is left; more may be submitted meanwhile and afterwards.

        Raises:
            UsageError: In the body of one of its jobs, which would wait for itself.
        """
        engine = self._jobs.running()
        engine.refuse_own("idle()", "await the jobs that are meant, gather([…])")
        await self._no_job_left(engine)

    async def _no_job_left(self, engine: Engine) -> None:
        engine.batches.flush()
        while engine.unfinished:
            self._idle.clear()
            await self._idle.wait()

    async def stop(self, *, drain: bool = True) -> None:
        """Take no more jobs, and wait until those there are have ended: by themselves, or cancelled. Idempotent.

        Cancelled while it waits, it cancels them; cancelled once more, it leaves behind what still runs.
        Before the block is entered it cancels what was submitted.

        Raises:
            UsageError: With *drain* in the body of one of its jobs, which would wait for itself.
        """
        engine = self._jobs.engine
        if engine is not None and drain:
            engine.refuse_own("stop()", "return and let the block end, or cancel all of them: stop(drain=False)")
        self._is_closed, self._direct = True, None
        if engine is None:
            for run in tuple(self._jobs.early):
                self._jobs.cancel_early(run, "the manager was stopped")
            return
        engine.batches.flush(drain=True)
        try:
            if drain and self._fatal is None:
                await self._no_job_left(engine)
        finally:
            for run in tuple(engine.unfinished):
                engine.cancel(run, "the manager was stopped")
            await self._end(engine)

    async def _end(self, engine: Engine) -> None:
        """See bodies and callbacks end, and close the store, whatever cancels come: they only shorten the waiting."""
        self._is_ending = True
        patience_s = 0.0
        try:
            await self._bodies_end(engine)
            patience_s = self._grace_s
        finally:
            try:
                await self._jobs.handles.drain(patience_s, asyncio.Event())
            finally:
                async with self._closing:  # whoever stops it too comes back no sooner than it is closed
                    await self._stack.aclose()

    async def _bodies_end(self, engine: Engine) -> None:
        # Whoever pressed Ctrl-C would else see nothing of a body that swallows its cancellation.
        notice_at = engine.monotonic() + NOTICE_S
        notice = engine.dispatcher.call_at(notice_at, partial(engine.name_those_left, self._grace_s))
        try:
            async with asyncio.timeout(self._grace_s):
                await self._no_job_left(engine)
                await engine.batches.end(self._grace_s)
        except TimeoutError:
            engine.abandon(f"did not end within {self._grace_s:g} s of being cancelled")
        except asyncio.CancelledError:
            engine.abandon("had not ended when the end of its manager was cancelled")
            raise
        finally:
            notice.cancel()

    def _on_fatal(self, error: BaseException) -> None:
        """A body raised KeyboardInterrupt or SystemExit: the block ends with it."""
        if self._fatal is not None:
            return
        self._fatal = error
        if self._host is not None and not self._is_ending:  # a host that is cancelled then would leave jobs behind
            self._has_cancelled_host = self._host.cancel()

    def _raise_fatal(self) -> None:
        """The block was cancelled because a body wants the program to end: let it hear that instead."""
        if self._fatal is None:
            return
        if self._has_cancelled_host and self._host is not None:
            self._host.uncancel()
        raise self._fatal

    # -- batches -----------------------------------------------------------------------

    @explained
    def batch(
        self,
        fn: Callable[[list[Item]], Awaitable[Sequence[Res]]],
        /,
        *,
        max_size: int,
        max_wait: Seconds = 0.05,
        max_bytes: int | None = None,
        on_error: OnError = "fail_all",
    ) -> Batched[Item, Res]:
        """Return *fn*, which takes a list of items, as something to submit with one item.

            insert = manager.batch(insert_rows, max_size=100)
            job = manager.submit(insert, row)

        Each item is a job with a state, a result, a timeout, retries and a cancel of its
        own; the flow is passed by the batch. Leaving the block, `idle` and `stop` wait for
        no more items.

        Args:
            fn: A coroutine function; it returns as many results, in the same order. An
                exception among them fails that item alone.
            max_size: See `Batch`, as for the others.
            max_wait: Seconds that the first item waits for others.
            max_bytes: Bytes of a batch.
            on_error: What becomes of the items when *fn* raises.

        Raises:
            InvalidOption: Naming the option, the value and the range.
        """
        if not callable(fn):
            raise InvalidOption(f"batch takes a coroutine function of a list of items, got {fn!r}")
        how = Batch(max_size, max_wait, max_bytes, on_error)

        async def submit(batched: Batched[Item, Res], item: Item) -> Job[Res]:
            return await self.submit_wait(batched, item)

        return Batched(fn, how, submit)

    # -- submitting --------------------------------------------------------------------

    def submit(self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs) -> Job[T]:
        """Have ``fn(*args, **kwargs)`` run as soon as the flow lets it; return its job.

        A coroutine object is taken too; it can run once, so not with retries or a `Dedupe`,
        and is closed if it is refused.

        Raises:
            QueueFull: If the flow has ``max_queue`` and turns this one away.
            InvalidOption: If a gate can never let it through.
            InvalidArguments: If *fn* cannot be called like that, or surely returns nothing to await.
            NotRunning: After `stop`.
            WrongLoop: In another thread than the manager's, while it runs: see `submit_threadsafe`.
        """
        return self._submit(fn, args, kwargs, self._plain)

    async def submit_wait(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]:
        """As `submit`, but wait for room where the flow's queue is full and its ``overflow`` is ``"block"``."""
        return await self._submit_wait(fn, args, kwargs, self._plain)

    def submit_threadsafe(
        self, fn: Callable[P, Coroutine[Any, Any, T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Job[T]:
        """As `submit`, from another thread; `Job.wait_sync` waits for it there."""
        return self._submit_threadsafe(fn, args, kwargs, self._plain)

    def options(self, **options: Unpack[ManagerOptions]) -> Submitter:
        """Return something to submit with, under these options.

        Args:
            options: ``metadata``, which is where gates with ``by=`` look for a key first; ``key``, such
                keys that are no data of the job's; ``cost`` at gates that weigh; ``priority``, by
                which nobody is chosen without an order among the strategies; ``timeout``, ``retry``, ``delay``.

        Raises:
            InvalidOption: Naming the option, its value and what is allowed.
        """
        where = "TaskManager.options"
        check_names(options, _FIELDS, where)
        key, cost = options.get("key", NO_KEY), options.get("cost", 1.0)
        if not isinstance(key, Mapping):
            raise InvalidOption(f'{where}: key must be a mapping such as {{"tenant": "acme"}}, got {key!r}')
        rest = {name: value for name, value in options.items() if name not in {"key", "cost"}}
        if self.flow.retry is not None and rest.get("retry") is not None:
            raise InvalidOption(f"{where}: the flow holds a retry already, {self.flow.retry!r}; give one of the two")
        return Submitter(self, self._chosen(resolve_options(rest, where), key, cost))

    def _chosen(self, run: RunOptions, key: Mapping[str, Hashable], cost: Any) -> Chosen:
        """Return options together with what the flow says where they are silent."""
        flow = self.flow
        timeout_s = flow.timeout.seconds if run.timeout_s is None and flow.timeout is not None else run.timeout_s
        if timeout_s is not None and flow.deadline is not None and timeout_s > flow.deadline.seconds:
            raise InvalidOption(
                f"timeout={timeout_s:g} of an attempt is above {flow.deadline!r} of the whole job: it can never be met"
            )
        retry = flow.retry or run.retry
        return Chosen(run, key, number(cost, "cost", 0.0, exclusive=True), retry, timeout_s)

    def _submit(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Chosen
    ) -> Job[Any]:
        engine = self._direct
        if (
            engine is None
            or kwargs
            or fn is not self._fitting
            or len(args) != self._fitting_count
            or get_ident() != self._thread
        ):
            return self._submit_checked(fn, args, kwargs, chosen)
        run = engine.submit(fn, args, NO_KWARGS, chosen)
        # All arguments are given: the interpreter has no shorter way through a constructor with defaults.
        return ManagedJob(run, self._jobs, False)  # type: ignore[arg-type]  # a run has all a handle reads of a record

    def _submit_checked(self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Chosen) -> Job[Any]:
        """Take what is not known to fit: look at it, and refuse what can only fail."""
        try:
            if self._thread is not None and self._thread != get_ident():
                raise WrongLoop("submit is for the thread of the manager's loop; from another one: submit_threadsafe")
            if not kwargs and fits_as_it_is(fn, len(args)):
                self._fitting, self._fitting_count = fn, len(args)
            else:
                self._check(fn, args, kwargs, chosen)
            body = Once(fn) if inspect.iscoroutine(fn) else fn
            if self._direct is None:
                return self._submit_otherwise(body, args, kwargs or NO_KWARGS, chosen)
            run = self._direct.submit(body, args, kwargs or NO_KWARGS, chosen)
        except BaseException:
            close_unrun(fn)
            raise
        return ManagedJob(run, self._jobs)  # type: ignore[arg-type]  # likewise

    def _check(self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Chosen) -> None:
        if inspect.iscoroutine(fn):
            check_once(args or kwargs, chosen.retry, self.flow.dedupe)
        else:
            check_body(fn, args, kwargs, _FIELDS)

    def _submit_otherwise(self, fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Chosen) -> Job[Any]:
        """Take a job before the start, or one that may be there already."""
        if self._is_closed:
            raise NotRunning("this TaskManager was stopped and takes no more jobs")
        engine = self._jobs.engine
        now = 0.0 if engine is None else engine.monotonic()
        run = ManagedRun(engine or NotYet(self._ids), fn, args, kwargs, chosen, contextvars.copy_context(), now)
        there = self._jobs.there_already(run)
        if there is not None:
            return ManagedJob(there, self._jobs, is_duplicate=True)  # type: ignore[arg-type]  # likewise
        if engine is None:
            self._jobs.take_early(run)
        else:
            engine.put(run)
        if run.single is not None and not run.state.is_finished:  # with a full batch it may have been turned away
            self._jobs.singles[run.single] = run
        return ManagedJob(run, self._jobs)  # type: ignore[arg-type]  # likewise

    async def _submit_wait(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Chosen
    ) -> Job[Any]:
        try:
            engine = self._jobs.running()
            if self.flow.overflow == "block":
                self._check(fn, args, kwargs, chosen)
                probe = ManagedRun(engine, fn, args, kwargs, chosen, None, 0.0)
                if self._jobs.there_already(probe) is None:  # a duplicate needs no room
                    await engine.room_of(fn).wait_for_room()
        except BaseException:
            close_unrun(fn)
            raise
        return self._submit(fn, args, kwargs, chosen)

    def _submit_threadsafe(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], chosen: Chosen
    ) -> Job[Any]:
        context = contextvars.copy_context()

        async def there() -> Job[Any]:
            return context.run(self._submit, fn, args, kwargs, chosen)

        refusal = "submit_threadsafe would block the manager's own event loop; write manager.submit(…) here"
        try:
            return from_thread(self._jobs.loop, refusal, there)
        except Exception:  # a wait that is interrupted says nothing of the job: it may have been taken
            close_unrun(fn)
            raise

    def events(self, limit: int = 10_000) -> Subscription:
        """Return an asynchronous iterator over what happens to jobs that are submitted from now on.

        At most *limit* events wait; a slower reader loses the oldest and is told by `EventsDropped`.
        """
        return self._jobs.event_stream.subscribe(whole_number(limit, "limit", 1))
