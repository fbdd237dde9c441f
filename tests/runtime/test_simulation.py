"""Two apps on one durable store and one virtual clock, and a fault at every store call they make.

One scenario is played again and again: ticks, short and long jobs, one that
fails once, one that is cancelled, a serial line. In each play one call of one
app goes wrong: it fails before it worked, or after (the answer is lost); it
comes late, by longer than a lease, before or after it worked; or the process
dies there. Whatever it was, in the end

- every job is finished, and none ran that the store had not given to its worker;
- every tick has one job, and it ran;
- the result in the store is that of the attempt that the store names."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise, product
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quarterjack import Every, Job, JobError, JobState, Quarterjack, current_job
from quarterjack.errors import StoreUnavailable
from quarterjack.model import JobFilter, JobRecord
from quarterjack.runtime import worker
from quarterjack.runtime.recording import Recorder
from quarterjack.runtime.renewal import Renewer
from quarterjack.stores import Encoding, Store
from quarterjack.testing._clock import VirtualClock
from quarterjack.testing._loop import virtual_loop
from tests.stores.reference import ReferenceStore, Tables

LEASE_S: Final = 2.0
LATE_S: Final = 2 * LEASE_S + 0.5
PLAYED_S: Final = 9.0
AFTERWARDS_S: Final = 14.0
"""What may still be needed: a lease that runs out, a look, and the longest pause of an outage."""
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


@dataclass
class Play:
    """One play: what the apps share, and what they did."""

    faults: tuple[Fault, ...] = ()
    clock: VirtualClock = field(default_factory=VirtualClock)
    tables: Tables = field(default_factory=Tables)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    dead: set[str] = field(default_factory=set[str])
    began: list[tuple[str, str, int]] = field(default_factory=list[tuple[str, str, int]])
    strays: list[str] = field(default_factory=list[str])
    failed: set[str] = field(default_factory=set[str])
    tasks: dict[str, tuple[Any, Any]] = field(default_factory=dict[str, tuple[Any, Any]])

    def app(self, name: str, **options: Any) -> Quarterjack:
        """Return an app with the scenario's tasks."""
        store = ReferenceStore(self.tables)
        for call in sorted(Store.__abstractmethods__ - {"listen", "open", "close"}):
            setattr(store, call, partial(self._call, name, call, getattr(store, call)))
        app = Quarterjack(store, clock=self.clock, lease=LEASE_S, shutdown_grace=1, concurrency=4, **options)
        self._tasks(app, name)
        return app

    async def _call(self, app: str, call: str, real: Callable[..., Awaitable[Any]], *args: Any, **kwargs: Any) -> Any:
        self.calls[app, call] += 1
        now = (app, call, self.calls[app, call])
        hits = [fault for fault in self.faults if (fault.app, fault.call, fault.nth) == now]
        await asyncio.sleep(0.001)
        for fault in hits:
            await self._strike(fault, "before")
        self._refuse_the_dead(app)
        answer = await real(*args, **kwargs)
        await asyncio.sleep(0.001)
        for fault in hits:
            await self._strike(fault, "after")
        self._refuse_the_dead(app)
        return answer

    def _refuse_the_dead(self, app: str) -> None:
        if app in self.dead:
            raise StoreUnavailable("its process is dead")

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
        self.tasks[name] = app.task(work), app.task(retry=3)(flaky)

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
        async with self._running(client):
            work, flaky = self.tasks["client"]
            jobs = [await client.submit(work, 0.3) for _ in range(6)]
            jobs += [await client.submit(work, 5.0) for _ in range(2)]
            jobs.append(await client.submit(flaky))
            cancelled = await client.submit(work, 30.0)
            await self.clock.run_for(3.1)
            await cancelled.cancel(wait=0)
            await self.clock.run_for(PLAYED_S - 3.1)
            await self.clock.run_for(AFTERWARDS_S)
            await asyncio.wait_for(_ended([*jobs, cancelled]), 5)
            assert {job.state for job in jobs} == {JobState.DONE}, jobs
            assert cancelled.state is JobState.CANCELLED, cancelled
            return (await self._reader.jobs_list(JobFilter(), limit=10_000)).jobs

    @asynccontextmanager
    async def _running(self, client: Quarterjack) -> AsyncIterator[None]:
        self._reader = ReferenceStore(self.tables)
        with virtual_loop(self.clock):
            async with AsyncExitStack() as stack:
                for app in (client, self.app("one"), self.app("two")):
                    await self._start(stack, app)
                await self._reader.open(self.clock, client._running().ids, Encoding())
                yield
                await self._reader.close()

    async def _start(self, stack: AsyncExitStack, app: Quarterjack) -> None:
        try:
            await stack.enter_async_context(app)
        except StoreUnavailable:  # the fault struck as it started: it is started anew, as its supervisor would
            if not self.dead:
                await stack.enter_async_context(app)


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
    for row in rows:
        is_young = row.submitted_at_ns is not None and row.submitted_at_ns > play.clock.now_ns() - 6e9
        assert row.state.is_finished or is_young, row
        if row.origin is not None:
            ticks[row.task][row.origin.nominal_ns] += 1
            assert row.state is JobState.DONE or is_young, (row, row.reason)
        if row.state is JobState.DONE:
            assert row.result[0] == row.attempt, (row, row.result)
    for name, every_s in (("tick", 2), ("line", 3)):
        found = sorted(ticks[name])
        assert set(ticks[name].values()) == {1}, ticks
        assert {b - a for a, b in pairwise(found)} == {every_s * 10**9}, found
        assert len(found) >= (PLAYED_S + AFTERWARDS_S) / every_s - 2


@pytest.fixture(autouse=True)
def _same_chances(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every play draw the same numbers."""
    for name, module in list(sys.modules.items()):
        if name.startswith("quarterjack.runtime.") and hasattr(module, "Random"):
            monkeypatch.setattr(module, "Random", partial(Random, 7))


def faults(most: int) -> Iterator[Fault]:
    """Return faults at the first calls of each kind; which app has them hardly matters."""
    for call, nth, kind in product(CALLS, range(1, most + 1), KINDS):
        yield Fault(("one", "two")[(nth + len(call)) % 2], call, nth, kind)


async def test_without_a_fault_all_is_well() -> None:
    """The scenario itself: and it makes every kind of call that a fault may strike."""
    play = Play()
    rows = await play.perform()
    check(play, rows)
    assert max(play.tries.values()) == 2  # the one that fails once


async def played(*those: Fault) -> str | None:
    """Play the scenario with these faults; return what went wrong, if anything did."""
    play = Play(those)
    try:
        check(play, await play.perform())
        assert max(play.tries.values()) <= 1 + max(1, len(those)), play.tries
    except (AssertionError, TimeoutError) as error:
        return f"{those}: {error}"
    return None


@pytest.mark.parametrize("kind", KINDS)
async def test_a_fault_at_the_first_call_of_each_sort_loses_nothing(kind: str) -> None:
    """Whatever fails first, in whichever way, the others make up for it."""
    wrong = [await played(fault) for fault in faults(1) if fault.kind == kind and fault.call in MAIN]
    assert [one for one in wrong if one is not None] == []


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("nth", [1, 2, 4])
async def test_a_fault_at_any_of_the_next_calls_loses_nothing(nth: int) -> None:
    """The same later on, when jobs run, leases are renewed and outcomes wait; and at every other call."""
    chosen = [fault for fault in faults(nth) if fault.nth == nth and (nth > 1 or fault.call not in MAIN)]
    wrong = [await played(fault) for fault in chosen]
    assert [one for one in wrong if one is not None] == []


at_any_call = st.builds(
    Fault,
    st.sampled_from(["one", "two"]),
    st.sampled_from(MAIN + MAIN + CALLS),
    st.integers(1, 8),
    st.sampled_from([kind for kind in KINDS if "dies" not in kind]),
)


@given(those=st.lists(at_any_call, min_size=2, max_size=4, unique_by=lambda fault: (fault.app, fault.call, fault.nth)))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_several_faults_together_lose_nothing(those: list[Fault]) -> None:
    """Troubles seldom come alone."""
    assert await played(*those) is None


async def _renew_nothing(self: Renewer, attempts: object) -> None:
    del self, attempts


def _drop(self: Recorder, batch: object) -> None:
    del batch
    self._under_way = 0


NEVER: Final = Fault("nobody", "", 0, "")
BROKEN: Final = {
    "leases are not renewed": (Renewer, "_renew", _renew_nothing, [NEVER]),
    "outcomes are dropped": (Recorder, "_put_back", _drop, [Fault("one", "jobs_finish", 1, "before")]),
    "late claims are begun": (
        worker,
        "FRESH_SHARE",
        1e-9,
        [Fault("one", call, nth, "late after") for call in ("schedules_fire", "jobs_claim") for nth in (1, 2)],
    ),
}


@pytest.mark.parametrize("how", BROKEN)
async def test_a_broken_mechanism_is_found(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A simulation that cannot fail would prove nothing."""
    owner, name, broken, where = BROKEN[how]
    assert [one for one in [await played(fault) for fault in where] if one is not None] == []
    monkeypatch.setattr(owner, name, broken)
    assert [one for one in [await played(fault) for fault in where] if one is not None] != []
