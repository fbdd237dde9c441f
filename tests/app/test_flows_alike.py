"""Flows mean the same on every store, and in an app the same as in a `TaskManager`."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Deadline,
    DeadlineExceeded,
    Fallback,
    Flow,
    Gate,
    InvalidOption,
    Job,
    JobFailed,
    JobState,
    Order,
    Priority,
    Quarterjack,
    Retry,
    TaskManager,
    WaitedTooLong,
    Waiting,
    gather,
)
from quarterjack.stores import MemoryStore
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing import VirtualClock, virtual_loop

from .kit import ends_as

Apps = Callable[[], Quarterjack]
Seen = tuple[tuple[Any, ...], Mapping[str, Any]]


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock("2026-03-02T09:00Z")


@pytest.fixture(params=["memory", "strict", "sqlite"])
def new_app(request: pytest.FixtureRequest, tmp_path: Path, clock: VirtualClock) -> Apps:
    """Return what makes an app on each kind of store: one keeps objects, one checks them, one keeps JSON."""

    def make() -> Quarterjack:
        is_file = request.param == "sqlite"
        store = SQLiteStore(tmp_path / "jobs.db", synchronous="off") if is_file else MemoryStore()
        app = Quarterjack(store, strict=request.param == "strict")
        app.clock = clock
        return app

    return make


class Watched(Order):
    """Notes the arguments that it sees, and goes by one of them."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    def rank(self, job: Waiting, now: float) -> float:
        self.seen.append((job.args, dict(job.kwargs)))
        return float(job.kwargs.get("due", 0))


CALLS: list[Seen] = [((1,), {"due": -10}), ((2, -20), {}), ((), {"due": -30, "n": 3})]


async def test_strategies_see_arguments_as_they_were_written_on_every_store(new_app: Apps, clock: VirtualClock) -> None:
    """A rule that reads `kwargs` and passes its tests on memory would be another one in production, in silence."""
    watched, ran = Watched(), list[int]()
    app = new_app()

    async def work(n: int, due: int = 0) -> None:
        ran.append(n)

    task = app.task(flow=Flow(ConcurrencyLimit(1, by=lambda job: str(sorted(job.kwargs))), watched))(work)
    with virtual_loop(clock):
        async with app:
            for args, kwargs in CALLS:
                await (await app.submit(task, *args, **kwargs))
            in_apps, watched.seen = watched.seen, []
        async with TaskManager(watched) as manager:
            for args, kwargs in CALLS:
                await manager.submit(work, *args, **kwargs)
    assert ran == [1, 2, 3, 1, 2, 3]
    for call in CALLS:
        assert call in in_apps
        assert call in watched.seen
    assert all(seen in CALLS for seen in in_apps)


async def test_an_order_that_goes_by_a_name_keeps_its_order_on_every_store(new_app: Apps, clock: VirtualClock) -> None:
    """The latest of these is the most urgent one; whether a store wrote them down makes no difference."""
    app, ran = new_app(), list[int]()

    @app.task(flow=Flow(ConcurrencyLimit(1), Watched()))
    async def work(n: int, due: int = 0) -> None:
        ran.append(n)

    with virtual_loop(clock):
        async with app:
            jobs = await app.submit_many([work.bind(n, due=-n) for n in range(4)])
            for job in jobs:
                await job
    assert ran == [3, 2, 1, 0]


async def test_tenants_with_a_queue_each_take_turns_however_much_is_stored(new_app: Apps, clock: VirtualClock) -> None:
    """Among jobs of one queue only what is claimed takes turns; this is what the page says to do for more."""
    app, ran = new_app(), list[str]()
    order, limit = Priority(fair_by="tenant"), ConcurrencyLimit(1)
    for tenant in ("crowd", "small"):
        app.queue(tenant, flow=Flow(order, limit))

    @app.task
    async def work(tenant: str) -> None:
        ran.append(tenant)
        await asyncio.sleep(1)

    with virtual_loop(clock):
        async with app:
            jobs = [*await app.submit_many([work.options(queue="crowd").bind("crowd") for _ in range(50)])]
            await jobs[3]
            jobs += await app.submit_many([work.options(queue="small").bind("small") for _ in range(3)])
            await gather(jobs)
    begun = [n for n, tenant in enumerate(ran) if tenant == "small"]
    assert begun[0] <= 6
    assert [b - a for a, b in pairwise(begun)] == [2, 2]


# -- deadlines and what stands in -------------------------------------------------------

Submit = Callable[..., Awaitable[Job[Any]]]
Submitter = Callable[[Flow, Callable[..., Any]], AbstractAsyncContextManager[Submit]]


@pytest.fixture(params=["manager", "memory", "sqlite"])
def submitter(request: pytest.FixtureRequest, tmp_path: Path, clock: VirtualClock) -> Submitter:
    """Return what runs bodies in one flow: a manager, or an app, and yields how they are submitted."""

    @asynccontextmanager
    async def run(flow: Flow, fn: Callable[..., Any]) -> AsyncIterator[Submit]:
        if request.param == "manager":
            async with TaskManager(flow) as manager:

                async def submit(*args: Any) -> Job[Any]:
                    return manager.submit(fn, *args)

                yield submit
            return
        is_file = request.param == "sqlite"
        app = Quarterjack(SQLiteStore(tmp_path / "jobs.db", synchronous="off") if is_file else MemoryStore())
        app.clock = clock
        task = app.task(flow=flow)(fn)
        async with app:

            async def store(*args: Any) -> Job[Any]:
                return await app.submit(task, *args)

            yield store

    return run


async def fails_after(seconds: float) -> str:
    await asyncio.sleep(seconds)
    raise OSError("gone")


async def late(error: BaseException) -> str:
    await asyncio.sleep(10)
    return f"stood in for {error}"


class Shut(Gate):
    """Lets nobody in."""

    def eta(self, job: Waiting, now: float) -> float:
        return math.inf


STALE = Fallback("stale", on=OSError)
LATE = Fallback(late, on=OSError)


@pytest.mark.parametrize(
    ("around", "fails_at"),
    [
        pytest.param((STALE,), 60, id="running"),
        pytest.param((STALE, Shut), 0, id="waiting"),
        pytest.param((STALE, Retry(on=OSError, base=1, jitter="none")), 60, id="running, to be tried again"),
        pytest.param((LATE,), 25, id="its fallback at work"),
        pytest.param((Fallback(late),), 25, id="its fallback for all at work"),
    ],
)
async def test_past_a_deadline_nothing_stands_in(
    submitter: Submitter, clock: VirtualClock, around: tuple[Any, ...], fails_at: float
) -> None:
    """Whoever set it waits no longer; a stale answer told as done would hide that the time ran out."""
    flow = Flow(Deadline(30), *(one() if isinstance(one, type) else one for one in around))
    with virtual_loop(clock):
        async with submitter(flow, fails_after) as submit:
            job = await submit(fails_at)
            await ends_as(job, JobState.TIMED_OUT)
            assert job.error is not None
            assert job.error.type_name == DeadlineExceeded.__name__
            assert job.reason == "it was not done within its deadline of 30 s, waits and retries included"
            assert took(job) == 30


@pytest.mark.parametrize(("fallback", "at"), [(STALE, 10), (LATE, 20)], ids=["value", "function"])
async def test_within_its_deadline_a_fallback_stands_in_and_the_reason_says_so(
    submitter: Submitter, clock: VirtualClock, fallback: Fallback, at: float
) -> None:
    """Nobody could tell a stand-in from what the body returned."""
    with virtual_loop(clock):
        async with submitter(Flow(Deadline(30), fallback), fails_after) as submit:
            job = await submit(10)
            assert await job == ("stale" if fallback is STALE else "stood in for gone")
            assert (job.state, job.reason) == (JobState.DONE, "its fallback stood in for OSError")
            assert took(job) == at


async def test_a_fallback_that_fails_is_told_with_its_own_error(
    submitter: Submitter, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its own time-out is no deadline's; and like each failure it is logged, whether anybody awaits the job or not."""

    async def fails(error: BaseException) -> str:
        async with asyncio.timeout(1):
            return await late(error)

    with virtual_loop(clock):
        async with submitter(Flow(Deadline(30), Fallback(fails)), fails_after) as submit:
            job = await submit(0)
            await ends_as(job, JobState.FAILED)
            assert job.reason == "its fallback raised TimeoutError"
            assert took(job) == 1
    (line,) = (line for line in caplog.records if line.levelname == "ERROR")
    assert line.exc_info is not None
    assert line.exc_info[0] is TimeoutError


# -- what is known of what runs here ------------------------------------------------------


async def test_a_job_runs_for_whoever_asks_here_from_the_moment_its_body_begins(
    new_app: Apps, clock: VirtualClock
) -> None:
    """The store hears of it a second later; the process that runs it said until then that it was about to begin."""
    app, begun = new_app(), asyncio.Event()

    @app.task
    async def body() -> None:
        begun.set()
        await asyncio.sleep(10)

    with virtual_loop(clock):
        async with app:
            job = await app.submit(body)
            await begun.wait()
            why = await app.why_waiting(job)
            again = await app.job(job.id)
            await job.refresh()
            assert "it is running" in why.words
            assert (job.state, again.state) == (JobState.RUNNING, JobState.RUNNING)
            assert job.timestamps.running_at is not None
            assert job.timestamps.running_at == again.timestamps.running_at
            await job


# -- causes -------------------------------------------------------------------------------


async def test_whoever_awaits_a_job_while_it_ends_has_the_exception_as_the_cause(
    new_app: Apps, clock: VirtualClock
) -> None:
    """A row has its words alone: they are what there is, where JSON is kept, for whoever comes later."""
    app = new_app()
    task = app.task(flow=Flow(ConcurrencyLimit(1), max_wait=5))(fails_after)
    with virtual_loop(clock):
        async with app:
            jobs = [await app.submit(task, 10) for _ in range(3)]
            errors = await asyncio.gather(*jobs[:2], return_exceptions=True)
            causes = [error.__cause__ for error in errors if isinstance(error, JobFailed)]
            assert [type(cause) for cause in causes] == [OSError, WaitedTooLong]
            with pytest.raises(JobFailed) as caught:
                await jobs[2]
            keeps_objects = app._running().store.keeps_objects
    assert caught.value.error_type == "WaitedTooLong"
    assert isinstance(caught.value.__cause__, WaitedTooLong if keeps_objects else type(None))


# -- batches ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flow", "options", "why"),
    [
        (
            ConcurrencyLimit(1, by="tenant"),
            {},
            r"has neither a key nor an argument of that name; .*metadata=\{'tenant'",
        ),
        (ConcurrencyLimit(2), {"cost": 5}, "cost=5 is above max_concurrent=2"),
        (ConcurrencyLimit(1, by=lambda job: job.metadata["tenant"]), {}, "its by= raised TypeError"),
        (Priority(levels=3), {"priority": 4}, "priority"),
    ],
    ids=["no key", "too heavy", "by a function", "no such priority"],
)
async def test_an_item_whose_batch_could_never_pass_is_refused_when_it_is_submitted(
    new_app: Apps, clock: VirtualClock, flow: Any, options: dict[str, Any], why: str
) -> None:
    """It was stored, and failed when nobody looked any more; a plain task's `submit` says so at once."""
    app = new_app()
    task = app.batch(max_size=10, flow=flow)(lengths)
    with virtual_loop(clock):
        async with app:
            with pytest.raises(InvalidOption, match=why):
                await app.submit(task.options(**options), "a")
            with pytest.raises(InvalidOption, match=why):
                await app.submit_many([task.bind("a").options(**options)])
            assert await app.jobs() == []


async def test_items_are_asked_as_their_batch_will_be(new_app: Apps, clock: VirtualClock) -> None:
    """What is asked at submission and passes is let through later: keys, weights and functions mean the same twice."""
    app, seen = new_app(), list[tuple[Any, Any]]()

    def by(job: Waiting) -> str:
        seen.append((job.args, dict(job.kwargs)))
        return "all"

    flow = Flow(ConcurrencyLimit(2, by="tenant"), ConcurrencyLimit(2, by=by))
    task = app.batch(max_size=10, flow=flow)(lengths)
    with virtual_loop(clock):
        async with app:
            job = await app.submit(task.options(metadata={"tenant": "acme", "more": 1}, cost=2), "ab")
            at_submission = list(seen)
            assert await job == 2
    assert at_submission == [((["ab"],), {})]
    assert set(map(repr, seen)) == set(map(repr, at_submission))


@pytest.mark.parametrize("is_app", [False, True], ids=["manager", "app"])
async def test_a_batch_that_fails_is_one_traceback_in_the_log(
    clock: VirtualClock, caplog: pytest.LogCaptureFixture, is_app: bool
) -> None:
    """A failed insert of a hundred rows was a hundred equal ones; two batches are two."""

    async def fails(rows: list[str]) -> list[int]:
        raise OSError(f"gone with {len(rows)}")

    app = Quarterjack()
    app.clock = clock
    task = app.batch(max_size=3)(fails)
    with virtual_loop(clock):
        async with app, TaskManager() as manager:
            batch = manager.batch(fails, max_size=3)
            rows = ["a", "b", "c", "d"]
            jobs = [await app.submit(task, row) if is_app else manager.submit(batch, row) for row in rows]
            for job in jobs:
                await ends_as(job, JobState.FAILED)
    lines = [line for line in caplog.records if line.levelname == "ERROR"]
    assert [line.exc_info is not None for line in lines] == [True, False, False, True]
    assert [line.getMessage().split(": ")[-1] for line in lines] == ["gone with 3"] * 3 + ["gone with 1"]


async def lengths(rows: list[str]) -> list[int]:
    return list(map(len, rows))


def took(job: Job[Any]) -> int:
    """Return how long a job took from its submission to its end, in whole seconds."""
    submitted, finished = job.timestamps.submitted_at, job.timestamps.finished_at
    assert submitted is not None
    assert finished is not None
    return round((finished - submitted).total_seconds())
