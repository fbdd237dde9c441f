"""A server in memory that several apps of one loop share, as processes share a real one.

Nothing live crosses its border: rows are copied both ways, arguments, results,
progress and checkpoints go through JSON. Its clock is its own. Each app has a
`Connection`, whose calls take time and may fail, before or after they worked;
hints may be lost altogether, which leaves polling."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, ClassVar, NamedTuple

from pydantic_core import from_json, to_json

from quarterjack import Quarterjack
from quarterjack.clock import Alarm, Clock
from quarterjack.errors import StoreUnavailable
from quarterjack.model import JobIds, JobRecord, JobState, Schedule
from quarterjack.stores import MemoryStore, Store
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import NO_CHECKPOINT, Hint, HintListener
from quarterjack.testing._clock import VirtualClock
from quarterjack.testing._loop import virtual_loop

Fault = Callable[["Connection", str, bool], Awaitable[None]]
"""Called before and after (True) the work of each call; may wait, may raise."""


class SkewedClock(Clock):
    """A machine's clock that is off by *skew_s* against the clock it is made of."""

    def __init__(self, inner: Clock, skew_s: float) -> None:
        self._inner = inner
        self.skew_ns = round(skew_s * 1e9)

    def now_ns(self) -> int:
        return self._inner.now_ns() + self.skew_ns

    def monotonic_ns(self) -> int:
        return self._inner.monotonic_ns()

    def boottime_ns(self) -> int:
        return self._inner.boottime_ns()

    def open_alarm(self, loop: asyncio.AbstractEventLoop, on_wake: Callable[[], None]) -> Alarm:
        return _SkewedAlarm(self._inner.open_alarm(loop, on_wake), self.skew_ns)


class _SkewedAlarm:
    def __init__(self, inner: Alarm, skew_ns: int) -> None:
        self._inner = inner
        self._skew_ns = skew_ns

    def set(self, due_ns: int | None, /) -> None:
        self._inner.set(None if due_ns is None else due_ns - self._skew_ns)

    def close(self) -> None:
        self._inner.close()


class Told(NamedTuple):
    """A hint on its way."""

    hint: Hint
    ids: Sequence[str]


class Server:
    """What all connections share."""

    def __init__(self, clock: Clock, *, has_hints: bool = True, latency_s: float = 0.0005) -> None:
        self.clock = clock
        self.store = MemoryStore(keep_finished=10**9)
        self.has_hints = has_hints
        self.latency_s = latency_s
        self.fault: Fault | None = None
        self.connections: list[Connection] = []
        self.is_open = False
        self.calls: list[tuple[str, str]] = []
        self.asked: tuple[Any, ...] = ()
        """What the call was given that a fault is asked about."""
        self._told: list[Told] = []

    async def open(self) -> None:
        """Begin to serve, once."""
        if not self.is_open:
            self.is_open = True
            await self.store.open(self.clock, JobIds())
            self.store.listen(lambda hint, ids: self._told.append(Told(hint, tuple(ids))))

    def connect(self, name: str = "") -> Connection:
        """Return a store for one app."""
        made: Any = Connection  # its calls are filled in below, which type checkers do not see
        connection: Connection = made(self, name or f"app{len(self.connections)}")
        return connection

    async def call(self, by: Connection, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Do what a connection asks, at the moment its request arrives."""
        self.calls.append((by.label, name))
        await self._travel(by, name, args, is_after=False)
        if not by.is_open:
            raise StoreUnavailable("this connection is closed")
        answer = copied(await self._work(by, name, copied(args), kwargs))
        await self._travel(by, name, args, is_after=True)
        return answer

    async def _travel(self, by: Connection, name: str, args: tuple[Any, ...], *, is_after: bool) -> None:
        if self.latency_s:
            await asyncio.sleep(self.latency_s)
        if self.fault is not None:
            self.asked = args
            await self.fault(by, name, is_after)

    async def _work(self, by: Connection, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name == "jobs_finish":
            self._begin(args[0])
        answer = await getattr(self.store, name)(*args, **kwargs)  # never suspends: one step, as a transaction is
        told, self._told = self._told, []
        if name == "jobs_finish" and args[0]:
            told.append(Told(Hint.ENDED, [finish.job_id for finish in args[0]]))
        for one in told:
            self._tell(by, one)
        return answer

    def _begin(self, finishes: Sequence[Any]) -> None:
        """The bodies that ended had begun, which the memory store would know of its live rows."""
        for finish in finishes:
            row = self.store._jobs.get(finish.job_id)
            if row is not None and row.state.is_held and row.attempt == finish.attempt and finish.running_at_ns:
                row.state = JobState.RUNNING

    def _tell(self, by: Connection, told: Told) -> None:
        for connection in self.connections:
            is_own = connection is by
            hint = Hint.ENDED if told.hint is Hint.FINISHED and not is_own else told.hint
            if is_own or self.has_hints:
                connection.hear(hint, told.ids)


class Connection(Store):
    """The store of one app; see the module's head."""

    name: ClassVar[str] = "double"
    is_shared: ClassVar[bool] = True
    keeps_objects: ClassVar[bool] = False
    never_suspends: ClassVar[bool] = False
    uses_local_clock: ClassVar[bool] = False

    def __init__(self, server: Server, name: str) -> None:
        self.server = server
        self.label = name
        self.is_open = False
        self._listeners: list[HintListener] = []
        server.connections.append(self)

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        del clock, ids, encoding
        await self.server.open()
        self.is_open = True

    async def close(self) -> None:
        self.is_open = False
        self._listeners.clear()

    def listen(self, hint: HintListener) -> Callable[[], None]:
        self._listeners.append(hint)
        return partial(self._unlisten, hint)

    def _unlisten(self, hint: HintListener) -> None:
        if hint in self._listeners:
            self._listeners.remove(hint)

    def hear(self, hint: Hint, ids: Sequence[str]) -> None:
        """Pass a hint on, in the loop's next turn."""
        for listener in tuple(self._listeners):
            asyncio.get_running_loop().call_soon(listener, hint, ids)

    async def jobs_put(self, jobs: Sequence[JobRecord]) -> list[JobRecord]:
        rows: list[JobRecord] = await self.server.call(self, "jobs_put", (jobs,), {})
        return [_stamped(job, row) if job.id == row.id else row for job, row in zip(jobs, rows, strict=True)]


def _stamped(job: JobRecord, row: JobRecord) -> JobRecord:
    for name in ("state", "submitted_at_ns", "run_at_ns", "order_at_ns", "delay_born"):
        setattr(job, name, getattr(row, name))
    return job


def _call(name: str) -> Callable[..., Any]:
    async def call(self: Connection, *args: Any, **kwargs: Any) -> Any:
        return await self.server.call(self, name, args, kwargs)

    call.__name__ = name
    return call


for _name in sorted(Connection.__abstractmethods__):
    assert inspect.iscoroutinefunction(getattr(Store, _name)), _name
    setattr(Connection, _name, _call(_name))
Connection.__abstractmethods__ = frozenset()


# -- the border ---------------------------------------------------------------------------


def copied(value: Any) -> Any:
    """Return *value* as it comes out at the other end."""
    if isinstance(value, JobRecord):
        return _copied_job(value)
    if isinstance(value, Schedule):
        return value.copy()
    if hasattr(value, "_asdict"):
        return type(value)(**{name: _field(name, item) for name, item in value._asdict().items()})
    if isinstance(value, list | tuple):
        return type(value)(copied(item) for item in value)
    return value


def _field(name: str, item: Any) -> Any:
    if name in {"result", "checkpoint"} and item is not NO_CHECKPOINT:
        return through_json(item)
    if name == "exception":
        return None
    return copied(item)


def _copied_job(job: JobRecord) -> JobRecord:
    found = job.copy()
    found.args, found.kwargs = tuple(through_json(list(job.args))), through_json(dict(job.kwargs))
    found.result, found.checkpoint = through_json(job.result), through_json(job.checkpoint)
    found.error = copied(job.error)
    return found


def through_json(value: Any) -> Any:
    """Return what is left of a value that was written as JSON."""
    return from_json(to_json(value))


# -- fleets ---------------------------------------------------------------------------------


@asynccontextmanager
async def fleet(server: Server, *apps: Quarterjack, start: str | None = None) -> AsyncIterator[VirtualClock]:
    """Run *apps*, each with a store of *server*'s, on the server's virtual clock."""
    del start
    clock = server.clock
    assert isinstance(clock, VirtualClock)
    with virtual_loop(clock):
        async with AsyncExitStack() as stack:
            for app in apps:
                if app.clock is not clock and not isinstance(app.clock, SkewedClock):
                    app.clock = clock
                await stack.enter_async_context(app)
            yield clock
