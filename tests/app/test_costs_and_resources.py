"""What a job of an app weighs at the gates of its flow, and which resource they gave it."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Depends,
    Every,
    Flow,
    Gate,
    InvalidOption,
    Job,
    JobFailed,
    Quarterjack,
    Resource,
    TaskManager,
    Waiting,
    WeightedRoundRobin,
    current_job,
    gather,
)
from quarterjack.testing import virtual_time

from .kit import sleeper

# -- cost -----------------------------------------------------------------------------


async def test_a_heavy_job_takes_as_many_slots_as_it_says() -> None:
    """On the task for all of its jobs, in `options` for one, on a schedule for its runs."""
    app = Quarterjack()
    limit = ConcurrencyLimit(4)
    light = sleeper(app, flow=Flow(limit))
    heavy = app.task(name="heavy", flow=Flow(limit), cost=3)(asyncio.sleep)
    async with virtual_time(app) as world:
        jobs: list[Job[Any]] = [await app.submit(heavy, 5.0)]
        await world.run_for(1)
        jobs.append(await app.submit(light.options(cost=2).bind(5.0)))
        await world.run_for(1)
        assert limit.used == 3
        await world.run_for(10)
        await gather(jobs)
        await app.schedule(light.bind(9.9), Every(seconds=10), id="heavy runs", cost=4)
        await world.run_for(15)
        assert limit.used == 4
        await app.update_schedule("heavy runs", cost=0.5)
        await world.run_for(20)
        assert limit.used == 0.5
    assert limit.used == 0


@pytest.mark.parametrize("cost", [0, -1, "3", float("nan"), True])
def test_a_cost_that_weighs_nothing_is_refused_where_it_is_written(cost: Any) -> None:
    """With the option, the value and the range."""
    with pytest.raises(InvalidOption, match="cost must be a number above 0"):
        Quarterjack().task(cost=cost)(asyncio.sleep)


async def test_a_job_that_is_too_heavy_is_refused_when_it_is_submitted() -> None:
    """It could never start."""
    app = Quarterjack()
    task = sleeper(app, flow=ConcurrencyLimit(2))
    async with virtual_time(app):
        with pytest.raises(InvalidOption, match="cost=3"):
            await app.submit(task.options(cost=3), 1.0)


class Seen(Gate):
    """Notes what batches look like to a gate."""

    def __init__(self, by: Any = None) -> None:
        super().__init__(by=by)
        self.seen: list[tuple[float, int, Any]] = []

    def eta(self, job: Waiting, now: float) -> float:
        return now

    def take(self, job: Waiting, now: float) -> None:
        self.seen.append((job.cost, job.priority, dict(job.key)))

    def fresh(self) -> Gate:
        other = super().fresh()
        assert isinstance(other, Seen)
        other.seen = self.seen
        return other


async def test_a_batch_of_an_app_weighs_as_its_heaviest_item_and_goes_by_their_keys() -> None:
    """As in a manager: the flow is passed by the batch, with the most urgent priority, and tenants do not mix."""
    app = Quarterjack()
    seen = Seen(by="tenant")

    @app.batch(max_size=10, max_wait=1, flow=Flow(seen))
    async def insert(rows: list[int]) -> list[int]:
        return [len(rows)] * len(rows)

    async with virtual_time(app):
        of_acme, of_blue = [insert.options(metadata={"tenant": name, "note": [name]}) for name in ("acme", "blue")]
        jobs = [
            await app.submit(of_acme, 1),
            await app.submit(of_acme.options(cost=3), 2),
            await app.submit(of_blue.options(priority=0), 3),
        ]
        assert await gather(jobs) == [2, 2, 1]
    assert sorted(seen.seen, key=str) == [(1.0, 0, {"tenant": "blue"}), (3.0, 2, {"tenant": "acme"})]


# -- resources --------------------------------------------------------------------------


def mirrors() -> WeightedRoundRobin[str]:
    """Two of them, by turns."""
    return WeightedRoundRobin(Resource("a", "https://a"), Resource("b", "https://b"))


async def test_a_body_gets_the_resource_that_its_hint_asks_for() -> None:
    """Callers do not pass it; plain functions and dependencies get it as coroutine functions do."""
    app = Quarterjack()
    flow = Flow(mirrors())

    @app.task(flow=flow)
    async def fetch(path: str, mirror: Resource[str]) -> str:
        return mirror.value + path

    @app.task(flow=flow)
    def plain(mirror: Resource[str], path: str = "/plain") -> str:
        return mirror.value + path

    def url(path: str, mirror: Resource[str]) -> str:
        return mirror.value + path

    @app.task(flow=flow)
    async def depends(path: str, url: Annotated[str, Depends(url)], mirror: Annotated[Resource[str], "a note"]) -> str:
        assert url.startswith(mirror.value)
        return url

    submit: Any = app.submit
    async with app:
        assert await (await submit(fetch, "/x")) == "https://a/x"
        assert await (await submit(fetch, "/x")) == "https://b/x"
        assert await (await submit(plain)) == "https://a/plain"
        assert await (await submit(depends, "/d")) == "https://b/d"
    assert await fetch("/x", Resource("c", "https://c")) == "https://c/x"


async def test_a_resource_that_nobody_can_choose_is_told_at_the_start_or_none() -> None:
    """A task without a router in its flow has nothing to work with, unless it says that it can do without."""
    app = Quarterjack()

    @app.task
    async def may(mirror: Resource[str] | None = None) -> str:
        return "none" if mirror is None else mirror.value

    submit: Any = app.submit
    async with app:
        assert await (await submit(may)) == "none"

    @app.task(flow=ConcurrencyLimit(1))
    async def needs(mirror: Resource[str]) -> str:
        return mirror.value

    with pytest.raises(InvalidOption, match="needs asks for a Resource, and nothing in its flow chose one"):
        async with app:
            pass


async def test_a_resource_may_be_chosen_by_the_queue_that_a_job_is_sent_to() -> None:
    """The app cannot know where a job will go; one that went elsewhere fails and says why."""
    app = Quarterjack()
    app.queue("mirrored", flow=Flow(mirrors()))

    @app.task
    async def needs(mirror: Resource[str]) -> str:
        return mirror.value

    submit: Any = app.submit
    async with app:
        assert await (await submit(needs.options(queue="mirrored")))
        with pytest.raises(JobFailed, match="needs asks for a Resource, and nothing in its flow chose one"):
            await (await submit(needs))


async def test_a_batch_has_the_resource_that_was_chosen_for_it() -> None:
    """In an app and in a manager; a batch is one job to the router."""
    app = Quarterjack()

    @app.batch(max_size=2, max_wait=1, flow=Flow(mirrors()))
    async def insert(rows: list[int], mirror: Resource[str] | None = None) -> list[str]:
        assert mirror is not None
        return [mirror.name] * len(rows)

    submit: Any = app.submit
    async with virtual_time(app):
        assert sorted(await gather([await submit(insert, n) for n in range(4)])) == ["a", "a", "b", "b"]

    async def body(rows: list[int]) -> list[str]:
        return [current_job().resource.name] * len(rows)

    async with TaskManager(mirrors()) as manager:
        batch = manager.batch(body, max_size=2)
        assert await gather([manager.submit(batch, n) for n in range(4)]) == ["a", "a", "b", "b"]


async def test_a_schedule_says_why_it_has_no_flow_of_its_own() -> None:
    """It is stored and outlives the process, which a flow does not; a queue has one."""
    app = Quarterjack()
    task = sleeper(app)
    schedule: Any = app.schedule
    async with virtual_time(app):
        with pytest.raises(InvalidOption, match=r"flow.*stored.*schedule\(…, queue=…\)"):
            await schedule(task.bind(1.0), Every(seconds=1), flow=Flow(ConcurrencyLimit(1)))
