"""Two gates that are one limit of the fleet: a job that met both would need that limit twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from quarterjack import ConcurrencyLimit, FixedWindow, Flow, Gate, InvalidOption, Quarterjack, TaskManager, TokenBucket
from quarterjack.testing import virtual_loop
from tests.flow.fleets import FORMS

TWINS: Final = r"two limits named 'zz' in one flow are one limit.*put the same object into both"


def limit(by: str | None = None) -> Gate:
    return ConcurrencyLimit(1, scope="fleet", name="zz", by=by)


async def work(tenant: str = "acme") -> str:
    return tenant


def app_with(queue: Gate, task: Gate) -> Quarterjack:
    """Return an app whose task passes both gates."""
    app = Quarterjack()
    app.queue("q", flow=queue)
    app.task(queue="q", flow=task)(work)
    return app


@pytest.mark.parametrize("make", FORMS.values(), ids=FORMS.keys())
def test_twins_of_a_fleet_are_refused_in_a_flow(make: Callable[..., Gate]) -> None:
    """The bug: it was taken, and no job of it ever began, for each asked for two slots of one."""
    with pytest.raises(InvalidOption, match="one limit, which a job would need twice"):
        Flow(make(name="zz"), make(name="zz"))


def test_twins_are_found_in_flows_inside_and_in_a_manager() -> None:
    """A flow in a flow counts as its strategies, and a manager makes a flow of its own."""
    with pytest.raises(InvalidOption, match=TWINS):
        Flow(Flow(limit()), limit())
    with pytest.raises(InvalidOption, match=TWINS):
        TaskManager(limit(), limit(), store="memory")
    with pytest.raises(InvalidOption, match=TWINS):
        Flow(limit("tenant"), limit("user"))


async def test_twins_on_a_task_and_its_queue_are_refused_at_the_start_of_the_app() -> None:
    """Each flow is right by itself: only together they would hold a job for ever."""
    with pytest.raises(InvalidOption, match=rf"work' in queue 'q'.*{TWINS}"):
        async with app_with(limit(), limit()):
            pytest.fail("it started")


async def test_twins_of_which_a_batch_meets_one_and_its_items_the_other_are_refused() -> None:
    """The items would hold the slot that their batch waits for, until the end of days."""
    app = Quarterjack()
    app.queue("q", flow=limit())

    @app.batch(max_size=3, queue="q", flow=limit())
    async def many(items: list[int]) -> list[int]:
        return items

    with pytest.raises(InvalidOption, match=rf"many' in queue 'q': its items .*{TWINS}"):
        async with app:
            pytest.fail("it started")


async def test_twins_of_which_one_is_in_the_queue_that_a_job_names_are_refused_with_the_job() -> None:
    """The task is in another queue by itself, so nothing was wrong at the start."""
    app = Quarterjack()
    app.queue("q", flow=limit())
    task = app.task(flow=limit())(work)
    async with app:
        with pytest.raises(InvalidOption, match=TWINS):
            await app.submit(task.options(queue="q"))


async def test_the_same_object_in_both_is_one_limit() -> None:
    """It counts a job once, so one slot is enough; refused with the twins, it would break apps that work."""
    same = limit()
    with virtual_loop():
        assert Flow(same, same).gates == (same,)
        async with app_with(same, same) as app:
            (task,) = app.tasks().values()
            job = await app.submit(task)
            assert await job.wait(timeout=5) == "acme"


async def test_limits_of_other_kinds_or_names_or_of_a_key_each_are_not_twins() -> None:
    """The store keeps them apart: so many of all, and of these so many a tenant, under one name is usual."""
    others: list[Gate] = [
        TokenBucket(rate=1, burst=1, scope="fleet", name="zz"),
        FixedWindow(1, per=1, scope="fleet", name="zz"),
        ConcurrencyLimit(1, scope="fleet", name="other"),
        ConcurrencyLimit(1, name="zz"),
    ]
    with virtual_loop():
        async with TaskManager(limit(), limit("tenant"), *others, store="memory") as manager:
            assert await manager.submit(work, "acme").wait(timeout=5) == "acme"
