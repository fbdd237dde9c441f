"""A play: two apps on one durable store and a virtual clock; something goes wrong, and what must not come of it.

Ticks, short and long jobs, one that fails once, one that is cancelled, one that
may begin only once, a serial line. Calls of an app fail before they worked, or after (the answer is
lost); they come late, by longer than a lease, before or after they worked; the
process dies there; no call of an app, or of any, works for a while; an app is
told to stop. Whatever it was, in the end

- every job is finished, and none ran that the store had not given to its worker;
- every tick has one job, and it ran;
- the result in the store is that of the attempt that the store names;
- what may begin only once did not begin twice; and if no way to the store was all the trouble, nothing did."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Final

from quarterjack import Every, Job, JobError, JobState, Quarterjack, current_job
from quarterjack.errors import StoreUnavailable
from quarterjack.model import JobFilter, JobRecord
from quarterjack.stores import Encoding, Store
from quarterjack.testing._clock import VirtualClock
from quarterjack.testing._loop import virtual_loop
from tests.stores.reference import ReferenceStore, Tables

__all__ = ["CALLS", "KINDS", "MAIN", "Fault", "Outage", "Play", "Stop", "check"]

LEASE_S: Final = 2.0
LATE_S: Final = 2 * LEASE_S + 0.5
PLAYED_S: Final = 9.0
AFTERWARDS_S: Final = 14.0
"""What may still be needed: a lease that runs out, a look, and the longest pause of an outage."""
GRACE_S: Final = 1.0
KINDS: Final = ("before", "after", "late before", "late after", "dies before", "dies after")
MAIN: Final = ("jobs_claim", "jobs_finish", "jobs_renew", "schedules_fire")
CALLS: Final = (
    "jobs_claim",
    "jobs_finish",
    "jobs_renew",
    "jobs_release",
    "jobs_get",
    "schedules_due",
    "schedules_fire",
    "schedules_get",
    "schedules_put",
    "workers_put",
    "now_ns",
)


@dataclass(frozen=True)
class Fault:
    """The *nth* time that app *app* makes the call *call*, *kind* happens."""

    app: str
    call: str
    nth: int
    kind: str


@dataclass(frozen=True)
class Outage:
    """From *at_s* on, for *for_s* seconds, no call works that the app *app* makes; None is everybody."""

    app: str | None
    at_s: float
    for_s: float


@dataclass(frozen=True)
class Stop:
    """At *at_s* the app *app* is told to stop."""

    app: str
    at_s: float


@dataclass
class Play:
    """One play: what the apps share, and what they did."""

    faults: tuple[Fault, ...] = ()
    outages: tuple[Outage, ...] = ()
    stops: tuple[Stop, ...] = ()
    apps: tuple[str, ...] = ("one", "two")
    clock: VirtualClock = field(default_factory=VirtualClock, init=False)
    tables: Tables = field(default_factory=Tables, init=False)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]], init=False)
    dead: set[str] = field(default_factory=set[str], init=False)
    began: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]], init=False)
    strays: list[str] = field(default_factory=list[str], init=False)
    failed: set[str] = field(default_factory=set[str], init=False)
    tasks: dict[str, tuple[Any, Any, Any]] = field(default_factory=dict[str, tuple[Any, Any, Any]], init=False)
    _began_ns: int = field(default=0, init=False)
    _stopping: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]], init=False)

    def app(self, name: str, **options: Any) -> Quarterjack:
        """Return an app with the scenario's tasks."""
        store = ReferenceStore(self.tables)
        for call in sorted(Store.__abstractmethods__ - {"listen", "open", "close"}):
            setattr(store, call, partial(self._call, name, call, getattr(store, call)))
        app = Quarterjack(store, clock=self.clock, lease=LEASE_S, shutdown_grace=GRACE_S, concurrency=4, **options)
        self._tasks(app, name)
        return app

    async def _call(self, app: str, call: str, real: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        self.calls[app, call] += 1
        now = (app, call, self.calls[app, call])
        hits = [fault for fault in self.faults if (fault.app, fault.call, fault.nth) == now]
        await asyncio.sleep(0.001)
        for fault in hits:
            await self._strike(fault, "before")
        self._refuse(app)
        answer = await real(*args, **kwargs)
        await asyncio.sleep(0.001)
        for fault in hits:
            await self._strike(fault, "after")
        self._refuse(app)
        return answer

    def _refuse(self, app: str) -> None:
        if app in self.dead:
            raise StoreUnavailable("its process is dead")
        for outage in self.outages:
            if outage.app in {None, app} and 0 <= self._played_s - outage.at_s < outage.for_s:
                raise StoreUnavailable("there is no way to the store")

    @property
    def _played_s(self) -> float:
        """For how long it has been played; less than nothing while the apps start."""
        return (self.clock.now_ns() - self._began_ns) / 1e9 if self._began_ns else -1.0

    async def _strike(self, fault: Fault, when: str) -> None:
        if fault.kind == when:
            raise StoreUnavailable(f"{fault.call} fails")
        if fault.kind == f"late {when}":
            await asyncio.sleep(LATE_S)
        if fault.kind == f"dies {when}":
            self.dead.add(fault.app)

    # -- bodies --------------------------------------------------------------------------

    def _tasks(self, app: Quarterjack, name: str) -> None:
        async def tick() -> list[Any]:
            return await self._run(name, 0.2)

        async def work(seconds: float) -> list[Any]:
            return await self._run(name, seconds)

        async def flaky() -> list[Any]:
            done = await self._run(name, 0.1)
            if current_job().id not in self.failed and name not in self.dead:
                self.failed.add(current_job().id)
                raise ValueError("once")
            return done

        app.task(Every(seconds=2), overlap="allow", missed="all")(tick)
        app.task(Every(seconds=3), overlap="queue_all", missed="all", name="line")(tick)
        self.tasks[name] = app.task(work), app.task(retry=3)(flaky), app.task(name="once", max_rescues=0)(work)

    async def _run(self, name: str, seconds: float) -> list[Any]:
        """A body: note that it began, and whether the store agrees that this worker has it."""
        job = current_job()
        if name not in self.dead:
            self.began.append((job.id, name, job.attempt))
            row = ReferenceStore._job(self._reader, job.id)
            if row.attempt != job.attempt or not row.state.is_held:
                self.strays.append(f"{job.task} {job.id} began as attempt {job.attempt} in {name}, but it is {row!r}")
        await asyncio.sleep(seconds)
        return [job.attempt, name]

    @property
    def tries(self) -> Counter[str]:
        """How often the body of each job began."""
        return Counter(job_id for job_id, _, _ in self.began)

    # -- the scenario ---------------------------------------------------------------------

    async def perform(self) -> list[JobRecord]:
        """Play it; return the rows that are left."""
        client = self.app("client", role="client")
        async with self._running(client) as stopping:
            work, flaky, once = self.tasks["client"]
            jobs = [await client.submit(work, 0.3) for _ in range(6)]
            jobs += [await client.submit(work, 5.0) for _ in range(2)]
            jobs.append(await client.submit(flaky))
            onces = [await client.submit(once, seconds) for seconds in (0.3, 0.3, 4.0)]
            cancelled = await client.submit(work, 30.0)
            await self._run_on(3.1, stopping)
            cancelling = asyncio.create_task(_again(cancelled))
            await self._run_on(PLAYED_S + AFTERWARDS_S + sum(outage.for_s for outage in self.outages), stopping)
            await cancelling
            await asyncio.wait_for(_ended([*jobs, *onces, cancelled]), 5)
            assert {job.state for job in jobs} == {JobState.DONE}, jobs
            assert cancelled.state is JobState.CANCELLED, cancelled
            return (await self._reader.jobs_list(JobFilter(), limit=10_000)).jobs

    async def _run_on(self, until_s: float, stopping: dict[str, AsyncExitStack]) -> None:
        """Let time pass, and tell those to stop whose time has come."""
        for stop in sorted(self.stops, key=lambda stop: stop.at_s):
            if stop.app in stopping and stop.at_s < until_s:
                await self.clock.run_for(max(0.0, stop.at_s - self._played_s))
                self._stopping.append(asyncio.create_task(stopping.pop(stop.app).aclose()))
        await self.clock.run_for(max(0.0, until_s - self._played_s))

    @asynccontextmanager
    async def _running(self, client: Quarterjack) -> AsyncIterator[dict[str, AsyncExitStack]]:
        self._reader = ReferenceStore(self.tables)
        with virtual_loop(self.clock):
            async with AsyncExitStack() as stack:
                stacks = {name: await stack.enter_async_context(AsyncExitStack()) for name in ("client", *self.apps)}
                for name, own in stacks.items():
                    await self._start(own, client if name == "client" else self.app(name))
                await self._reader.open(self.clock, client._running().ids, Encoding())
                self._began_ns = self.clock.now_ns()
                yield stacks
                await self._reader.close()
            await asyncio.gather(*self._stopping)

    async def _start(self, stack: AsyncExitStack, app: Quarterjack) -> None:
        for _ in (*self.faults, None):
            try:
                await stack.enter_async_context(app)
            except StoreUnavailable:  # a fault struck as it started: it is started anew, as its supervisor would
                if self.dead:
                    return
            else:
                return
        raise AssertionError("each fault strikes once")


async def _again(job: Job[Any]) -> None:
    """Cancel a job, as soon as the store can be reached."""
    while True:
        try:
            await job.cancel(wait=0)
        except StoreUnavailable:
            await asyncio.sleep(0.25)
        else:
            return


async def _ended(jobs: list[Job[Any]]) -> None:
    for job in jobs:
        try:
            await job
        except JobError:
            pass


def check(play: Play, rows: list[JobRecord]) -> None:
    """See that nothing is lost, nothing is there twice, and the fence has held."""
    assert play.strays == []
    ticks = {name: Counter[int]() for name in ("tick", "line")}
    is_smooth = not (play.faults or play.stops or any(outage.app for outage in play.outages))
    for row in rows:
        is_young = row.submitted_at_ns is not None and row.submitted_at_ns > play.clock.now_ns() - 6e9
        assert row.state.is_finished or is_young, row
        if row.origin is not None:
            ticks[row.task][row.origin.nominal_ns] += 1
            assert row.state is JobState.DONE or is_young, (row, row.reason)
        if row.state is JobState.DONE:
            assert row.result[0] == row.attempt, (row, row.result)
        if row.task == "once":
            assert play.tries[row.id] <= 1, "at most once"
            assert row.state is not JobState.CANCELLED or play.stops
        assert row.rescues == 0 or not is_smooth, "nobody died, and nobody takes what others still run"
    assert len(play.stops) < len(play.apps), "somebody goes on"
    for name, every_s in (("tick", 2), ("line", 3)):
        found = sorted(ticks[name])
        assert set(ticks[name].values()) == {1}, ticks
        assert {b - a for a, b in pairwise(found)} == {every_s * 10**9}, found
        assert len(found) >= (PLAYED_S + AFTERWARDS_S) / every_s - 2
