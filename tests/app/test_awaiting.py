"""Jobs of an app that await jobs in the limits they hold: told where it can never end, lent if asked, lifted."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any, Final

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Flow,
    Job,
    JobFailed,
    JobState,
    Priority,
    Quarterjack,
    Retry,
    TaskManager,
    Waiting,
    WouldDeadlock,
    gather,
)
from quarterjack.runtime.admission import AHEAD
from quarterjack.testing import virtual_time

HOUR: Final = 3600.0

WAYS: Final = (
    "a child",
    "gather",
    "a chain",
    "a chain without a flow",
    "a retry",
    "a batch",
    "a queue",
    "a crowd",
    "later",
)


# A thread that waits holds virtual time: only what needs none can be tried with one.
@pytest.mark.parametrize(("way", "in_thread"), [*((way, False) for way in WAYS), ("a child", True), ("a queue", True)])
async def test_a_job_that_awaits_one_that_needs_its_slot_is_told(way: str, in_thread: bool) -> None:
    """It would wait for ever, wherever the other stands: in its flow, in the store, in a batch, after a pause."""
    app = Quarterjack()
    limit = ConcurrencyLimit(1, name="database")
    flow = Flow(limit)
    app.queue("narrow", flow=flow)

    @app.task(flow=flow)
    async def leaf() -> None: ...

    @app.task
    async def between() -> None:
        await (await app.submit(leaf))

    @app.task(flow=Flow(ConcurrencyLimit(5)))
    async def between_flows() -> None:
        await (await app.submit(leaf))

    @app.task
    async def anything() -> None: ...

    @app.batch(max_size=5, max_wait=1, flow=flow)
    async def together(items: list[int]) -> list[int]:
        return items

    @app.task(flow=flow, retry=Retry(on=OSError, base=60, jitter="none"))
    async def flaky() -> None:
        raise OSError

    async def behind_a_crowd() -> Job[Any]:
        await app.submit_many(leaf.bind() for _ in range(2 * AHEAD))
        await asyncio.sleep(5)
        return await app.submit(leaf)

    before: dict[str, Any] = {"a retry": flaky, "later": leaf.options(delay=60)}
    awaited: dict[str, Any] = {
        "a child": lambda: app.submit(leaf),
        "gather": lambda: app.submit(leaf),
        "a chain": lambda: app.submit(between_flows),
        "a chain without a flow": lambda: app.submit(between),
        "a batch": lambda: app.submit(together, 1),
        "a queue": lambda: app.submit(anything.options(queue="narrow")),
        "a crowd": behind_a_crowd,
    }
    children: list[Job[Any]] = []

    @app.task(flow=flow)
    async def parent() -> object:
        job = children[0] if children else await awaited[way]()
        return await gather([job]) if way == "gather" else await job

    @app.task(flow=flow)
    def threaded() -> object:
        return asyncio.run_coroutine_threadsafe(awaited[way](), loop).result().wait_sync()

    async with virtual_time(app) as world:
        loop = asyncio.get_running_loop()
        if way in before:
            children.append(await app.submit(before[way]))
            await world.run_for(1)
        job = await app.submit(threaded if in_thread else parent)
        await world.run_for(HOUR)
        cause = told(job)
        assert cause is not None or way.startswith("a chain"), "of a chain it may be the middle one that is told"
        assert cause is None or (cause.gate, job.id in cause.job) == ("database", True)
        assert all(one.state.is_finished for one in children)
    assert limit.used == 0


def told(job: Job[Any]) -> WouldDeadlock | None:
    """Return what a job that has failed was told, if it was that."""
    with pytest.raises(JobFailed) as caught:
        job.result()
    cause = caught.value.__cause__
    return cause if isinstance(cause, WouldDeadlock) else None


async def test_nobody_is_told_of_a_wait_that_ends() -> None:
    """While one holder works the limit will open; a rate only takes its time; a free slot is a free slot."""
    app = Quarterjack()
    limit = ConcurrencyLimit(2)

    @app.task(flow=limit)
    async def leaf(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "leaf"

    @app.task(flow=limit)
    async def parent() -> list[str]:
        return await gather([await app.submit(leaf, 1.0) for _ in range(5)])

    async with virtual_time(app) as world:
        working = await app.submit(leaf, 10.0)
        job = await app.submit(parent)
        await world.run_for(60)
        assert (job.result(), working.state) == (["leaf"] * 5, JobState.DONE)
    assert limit.used == 0


async def test_a_limit_that_lends_lets_a_tree_of_jobs_pass() -> None:
    """At most one body works at a time, and whoever is cancelled leaves no slot behind."""
    app = Quarterjack(concurrency=3)
    limit = ConcurrencyLimit(1, reentrant="donate")
    working = most = 0

    @app.task(flow=limit)
    async def tree(depth: int) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(1)
        working -= 1
        return 1 if not depth else sum(await gather([await app.submit(tree, depth - 1) for _ in range(2)]))

    async with virtual_time(app) as world:
        job = await app.submit(tree, 3)
        await world.run_for(60)
        assert (job.result(), most, limit.used) == (8, 1, 0)
        job = await app.submit(tree, 3)
        await world.run_for(3)
        assert await job.cancel()
        await world.run_for(60)
        assert {one.state for one in await app.jobs(task="tree", limit=100)} == {JobState.DONE, JobState.CANCELLED}
    assert limit.used == 0


@pytest.mark.parametrize("way", ["first", "before it comes", "through one without a flow"])
async def test_a_job_that_a_more_urgent_one_awaits_is_lifted(way: str) -> None:
    """Else the urgent one waits behind everything that its helper waits behind."""
    app = Quarterjack()
    flow = Flow(ConcurrencyLimit(1), Priority(aging=1000))
    begun: list[str] = []
    helper: Job[Any]

    @app.task(flow=flow)
    async def work(name: str, seconds: float = 10) -> None:
        begun.append(name)
        await asyncio.sleep(seconds)

    @app.task
    async def between() -> None:
        await (await app.submit(work.options(priority=4), "helper"))

    @app.task(priority=0)
    async def urgent() -> None:
        await helper

    async with virtual_time(app) as world:
        await app.submit(work, "first")
        await world.run_for(1)
        if way == "first":
            helper = await app.submit(work.options(priority=4), "helper")
        elif way == "before it comes":
            helper = await app.submit(work.options(priority=4, delay=3), "helper")
        else:
            helper = await app.submit(between)
        await world.run_for(1)
        others = [await app.submit(work.options(priority=3), f"other {n}") for n in range(3)]
        await world.run_for(0.5)
        await app.submit(urgent)
        await world.run_for(100)
        assert states(others) == {JobState.DONE}
    assert begun[:2] == ["first", "helper"]


def states(jobs: list[Job[Any]]) -> set[JobState]:
    """Return where they stand."""
    return {job.state for job in jobs}


async def test_a_batch_that_comes_to_a_limit_later_closes_the_circle_too() -> None:
    """In a manager: its item was awaited while the batch still gathered."""
    limit = ConcurrencyLimit(1)

    async def body(items: list[int]) -> list[int]:
        return items

    async def parent() -> None:
        await manager.submit(together, 1)

    async with asyncio.timeout(5), TaskManager(limit) as manager:
        together = manager.batch(body, max_size=5, max_wait=0.01)
        with pytest.raises(WouldDeadlock):
            await manager.submit(parent)
        await manager.idle()
    assert limit.used == 0


def tree(rng: Random, depth: int = 3) -> Any:
    """Return a job: what it does, or the jobs that it awaits."""
    if not depth or rng.random() < 0.4:
        return rng.choice(["work", "fail"])
    return [tree(rng, depth - 1) for _ in range(rng.randint(1, 3))]


async def grown(kind: type[ConcurrencyLimit], seed: int) -> None:
    """Run a forest of jobs, each of which awaits one for each branch, and assert what must hold."""
    rng = Random(seed)
    slots, lends = rng.randint(1, 3), rng.random() < 0.5
    limit = kind(slots, reentrant="donate" if lends else "raise")
    app = Quarterjack(concurrency=rng.choice([2, 100]))
    told = 0

    async def node(branches: Any) -> None:
        nonlocal told
        await asyncio.sleep(rng.random())
        if isinstance(branches, list):
            tasks = [rng.choice([limited, limited, free]) for _ in branches]
            jobs = [await app.submit(task, branch) for task, branch in zip(tasks, branches, strict=True)]
            try:
                await gather(jobs, return_exceptions=rng.random() < 0.5)
            except WouldDeadlock:
                told += 1
                raise
        elif branches == "fail":
            raise OSError

    limited = app.task(name="limited", flow=Flow(limit))(node)
    free = app.task(name="free")(node)
    forest = [tree(rng) for _ in range(rng.randint(1, 5))]
    cancels = [rng.randrange(len(forest)) for _ in range(rng.randint(0, 2))]
    async with virtual_time(app) as world:
        jobs = [await app.submit(limited, branches) for branches in forest]
        for n in cancels:
            await world.run_for(rng.random() * 5)
            await jobs[n].cancel(0)
        await world.run_for(HOUR)
        left = [one for one in await app.jobs(limit=1000) if not one.state.is_finished]
        assert not left, f"{left} would wait for ever"
    assert limit.used == 0, "no slot is lost"
    assert not (lends and told), "a limit that lends tells of no deadlock"


@pytest.mark.parametrize("seed", range(12))
async def test_forests_of_jobs_end_whatever_happens(seed: int) -> None:
    """No hang, no slot lost; and a limit that lends tells of no deadlock. Some of the jobs pass no flow."""
    await grown(ConcurrencyLimit, seed)


class Silent(ConcurrencyLimit):
    """Does not say that it stays closed."""

    def stays_closed(self, job: Waiting, held: float) -> bool:
        return False


class Leaky(ConcurrencyLimit):
    """Forgets to count what it has back."""

    def take_back(self, job: Waiting) -> None:
        self._lent.discard(job)


@pytest.mark.parametrize("kind", [Silent, Leaky])
async def test_check_of_forests_finds_a_limit_that_does_not_hold(kind: type[ConcurrencyLimit]) -> None:
    """A check that cannot fail proves nothing."""
    found = 0
    for seed in range(12):
        try:
            await grown(kind, seed)
        except AssertionError:
            found += 1
    assert found
