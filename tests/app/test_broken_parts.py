"""Whatever raises — task, trigger, callback, listener, dependency — it hurts nobody else, and is told once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from quarterjack import Depends, Every, Job, JobState, Quarterjack, StoreError, Trigger, current_job
from quarterjack.events import CallbackFailed, Event, LoopBlocked, ScheduleEvent
from quarterjack.testing import faults, virtual_time
from tests.app.kit import START, Boom, ends_as, sleeper


def with_a_healthy_neighbour(app: Quarterjack) -> Any:
    @app.task(Every(minutes=1))
    async def neighbour() -> None: ...

    return neighbour


async def test_raising_task_fails_its_job_and_its_schedule_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    """A bug in one job is that job's failure, logged once with what identifies it."""
    app = Quarterjack()
    neighbour = with_a_healthy_neighbour(app)

    @app.task(Every(minutes=2))
    async def bad() -> None:
        raise Boom("no good")

    async with virtual_time(app, start=START) as world:
        await world.run_for("4m")
        assert world.outcomes(bad) == ["failed", "failed"]
        assert world.outcomes(neighbour) == ["done"] * 4
        records = [record for record in caplog.records if "failed in attempt" in record.message]
        assert [record.__dict__["job"] for record in records] == [job.id for job in world.jobs(bad)]
        assert {record.__dict__["task"] for record in records} == {"bad"}


class Grenade(Trigger):
    """Fires each minute until it blows up."""

    fuse: int = 3

    def next(self, after: datetime) -> datetime | None:
        if after.minute >= self.fuse:
            raise Boom("trigger")
        return after.replace(second=0, microsecond=0) + timedelta(minutes=1)


async def test_raising_trigger_parks_its_schedule_alone(caplog: pytest.LogCaptureFixture) -> None:
    """One broken rule must not stop the scheduler; the schedule says what is wrong with it."""
    app = Quarterjack()
    neighbour = with_a_healthy_neighbour(app)
    task = sleeper(app)

    @app.task(Grenade())
    async def doomed() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("10m")
        assert len(world.runs(neighbour)) == 10
        assert len(world.runs(doomed)) in {2, 3}
        view = next(s for s in await app.schedules() if s.id == "doomed")
        assert "Boom: trigger" in (view.parked_reason or "")
        assert "parked" in [event.kind for event in world.events if isinstance(event, ScheduleEvent)]
        assert caplog.text.count("schedule doomed is parked") == 1
        await app.schedule(task.bind(0.0), Grenade(fuse=0), id="at once")
        await world.run_for("1m")
        view = next(s for s in await app.schedules() if s.id == "at once")
        assert view.parked_reason is not None


async def test_parked_schedule_lives_again_with_a_new_trigger() -> None:
    """Mending the rule is all it takes."""
    app = Quarterjack()

    @app.task(Grenade())
    async def doomed() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("10m")
        before = len(world.runs(doomed))
        await app.update_schedule("doomed", trigger=Every(minutes=1))
        await world.run_for("5m")
        assert len(world.runs(doomed)) == before + 5


@pytest.mark.parametrize("is_async", [True, False])
async def test_raising_callback_changes_nothing(is_async: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Callbacks look on; the job's state is not theirs to break, nor the callbacks after them."""
    app = Quarterjack()
    task = sleeper(app)
    said: list[str] = []

    async def slow(job: Job[Any]) -> None:
        raise Boom("callback")

    def quick(job: Job[Any]) -> None:
        raise Boom("callback")

    task.on_done(slow if is_async else quick)
    task.on_done(lambda job: said.append(job.id))
    async with virtual_time(app) as world:
        job = await app.submit(task, 1)
        assert await job == 1
        assert said == [job.id]
        (event,) = [event for event in world.events if isinstance(event, CallbackFailed)]
        assert event.job_id == job.id
    assert caplog.text.count("raised") == 1


async def test_raising_listener_is_logged_once_per_kind_and_breaks_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A broken metric must neither stop jobs nor fill the disk."""
    app = Quarterjack()
    neighbour = with_a_healthy_neighbour(app)

    def listener(event: Event) -> None:
        raise Boom

    app.event_stream.listen(listener)
    async with virtual_time(app, start=START) as world:
        await world.run_for("10m")
        assert world.outcomes(neighbour) == ["done"] * 10
    assert caplog.text.count("event listener") == 1


async def test_raising_dependency_fails_the_job_before_its_body() -> None:
    """A body must not run without what it asked for."""
    app = Quarterjack()
    ran: list[int] = []

    def connect() -> int:
        raise Boom("no connection")

    @app.task(retry=1)
    async def body(value: int = Depends(connect)) -> None:
        ran.append(value)

    async with virtual_time(app):
        job = await app.submit(body)
        await ends_as(job, JobState.FAILED)
        assert job.error is not None
        assert job.error.type_name == "Boom"
    assert ran == []


async def test_dependency_is_cleaned_up_after_a_raising_body() -> None:
    """A connection goes back to its pool whatever the body did."""
    app = Quarterjack()
    said: list[str] = []

    async def connection() -> AsyncIterator[int]:
        said.append("open")
        try:
            yield 1
        finally:
            said.append("closed")

    @app.task
    async def bad(value: int = Depends(connection)) -> None:
        raise Boom

    async with virtual_time(app):
        await ends_as(await app.submit(bad), JobState.FAILED)
    assert said == ["open", "closed"]


async def test_raising_around_fails_the_job() -> None:
    """A wrapper is part of the run."""
    app = Quarterjack()
    task = sleeper(app)

    @app.around
    async def broken(job: Any, proceed: Any) -> Any:
        await proceed()
        raise Boom

    async with virtual_time(app):
        await ends_as(await app.submit(task, 1), JobState.FAILED)


async def test_blocking_body_delays_others_but_no_tick_is_lost_and_it_is_told() -> None:
    """Blocking the loop is a bug the watchdog names while it lasts; ticks catch up by their policy."""
    app = Quarterjack(watchdog=0.1)
    told: list[Event] = []
    ticks: list[int] = []

    @app.task(Every(milliseconds=100), missed="all", overlap="allow")
    async def tick() -> None:
        ticks.append(round(current_job().nominal.timestamp() * 10))  # type: ignore[union-attr]

    @app.task
    async def blocks() -> None:
        time.sleep(0.8)

    app.event_stream.listen(told.append)
    async with app:
        await asyncio.sleep(0.25)
        await (await app.submit(blocks))
        await asyncio.sleep(0.35)
    assert ticks == list(range(ticks[0], ticks[0] + len(ticks)))
    assert len(ticks) >= 12
    blocked = [event for event in told if isinstance(event, LoopBlocked)]
    assert blocked
    assert blocked[-1].task == "blocks"
    assert "test_broken_parts" in blocked[-1].where


@pytest.mark.parametrize("call", ["jobs_claim", "jobs_finish", "schedules_fire"])
async def test_failing_store_call_is_tried_again(call: str, caplog: pytest.LogCaptureFixture) -> None:
    """A store that does not answer for a moment costs a moment, never a job or a tick."""
    app = Quarterjack()
    task = sleeper(app)
    neighbour = with_a_healthy_neighbour(app)
    with faults(app.store) as broken:
        async with virtual_time(app, start=START) as world:
            await world.run_for(30)
            broken.fail_next(call, times=3)
            job = await app.submit(task, 1)
            assert await job == 1
            await world.run_for("3m")
            assert world.outcomes(neighbour) == ["done"] * 3
            assert broken.pending == 0
    assert "failed on demand" in caplog.text


async def test_lost_answer_of_the_store_runs_nothing_twice() -> None:
    """The work was done and the answer lost: the next try must find that out."""
    app = Quarterjack()
    ran: list[str] = []

    @app.task(Every(minutes=1))
    async def tick() -> None:
        ran.append(str(current_job().nominal))

    with faults(app.store) as broken:
        async with virtual_time(app, start=START) as world:
            await world.run_for(30)
            broken.fail_next("finish", times=2, after=True)
            await world.run_for("3m")
    assert len(ran) == len(set(ran)) == 3


async def test_submit_tells_its_caller_that_the_store_failed() -> None:
    """Who submits must know whether the job is there."""
    app = Quarterjack()
    task = sleeper(app)
    with faults(app.store) as broken:
        async with virtual_time(app) as world:
            broken.fail_next("jobs_put")
            with pytest.raises(StoreError):
                await app.submit(task, 1)
            assert world.jobs() == []


async def test_error_that_cannot_be_printed_fails_its_job_alone(caplog: pytest.LogCaptureFixture) -> None:
    """An exception whose text raises is still only an exception."""
    caplog.set_level(logging.CRITICAL)
    app = Quarterjack()
    task = sleeper(app)

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise Boom

    @app.task
    async def bad() -> None:
        raise Unprintable

    async with virtual_time(app):
        await ends_as(await app.submit(bad), JobState.FAILED)
        assert await (await app.submit(task, 1)) == 1
