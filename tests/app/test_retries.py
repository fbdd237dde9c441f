"""Trying again, later, once: retries, snoozing, delays, unique keys, priorities."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from quarterjack import (
    Discard,
    Job,
    JobFailed,
    JobState,
    Quarterjack,
    Retry,
    RetryLater,
    Snooze,
    Unique,
    UniqueConflict,
    current_job,
    gather,
)
from quarterjack.testing import World, virtual_time
from tests.app.kit import Boom, ends_as, sleeper

EXACT = Retry(on=Exception, attempts=3, base=10, jitter="none")


async def test_retry_goes_back_to_the_queue_with_growing_pauses() -> None:
    """A failing server gets rest, longer each time, and holds no slot meanwhile."""
    app = Quarterjack(concurrency=1)
    began: list[float] = []

    @app.task(retry=EXACT)
    async def fails() -> None:
        began.append(asyncio.get_running_loop().time())
        raise Boom

    sleep = sleeper(app)
    async with virtual_time(app) as world:
        job = await app.submit(fails)
        await world.run_for(1)
        assert job.state is JobState.SUBMITTED
        assert job.reason == "Boom"
        assert await (await app.submit(sleep, 1)) == 1, "the slot is free"
        await ends_as(job, JobState.FAILED)
    assert [round(b - began[0]) for b in began] == [0, 10, 30]
    assert (job.attempt, job.failures, job.rescues) == (3, 3, 0)


async def test_retry_by_number_stops_after_so_many_attempts() -> None:
    """`retry=3` means three attempts in all."""
    app = Quarterjack()

    @app.task(retry=3)
    async def fails() -> None:
        raise Boom

    async with virtual_time(app):
        job = await app.submit(fails)
        with pytest.raises(JobFailed):
            await job
        assert (job.attempt, job.failures) == (3, 3)


async def test_error_that_the_policy_does_not_name_is_final() -> None:
    """Retrying a programming error only hides it."""
    app = Quarterjack()

    @app.task(retry=Retry(attempts=5, on=(OSError,)))
    async def fails() -> None:
        raise Boom

    async with virtual_time(app):
        job = await app.submit(fails)
        await ends_as(job, JobState.FAILED)
        assert job.attempt == 1


async def test_snooze_costs_no_retry() -> None:
    """Waiting for the other side to be ready is no failure, however often."""
    app = Quarterjack()

    @app.task(retry=EXACT)
    async def polls() -> int:
        if current_job().attempt <= 4:
            raise Snooze(timedelta(minutes=1))
        if current_job().attempt == 5:
            raise Boom
        return current_job().attempt

    async with virtual_time(app) as world:
        before = world.now
        job = await app.submit(polls)
        assert await job == 6
        assert (job.attempt, job.failures) == (6, 1)
        assert (world.now - before).total_seconds() == 4 * 60 + 10


async def test_retry_later_counts_as_a_failure_and_sets_the_pause() -> None:
    """A server that says "in 90 seconds" knows better than a back-off."""
    app = Quarterjack()

    @app.task(retry=EXACT)
    async def busy() -> str:
        if current_job().attempt == 1:
            raise RetryLater(after=90)
        return "ok"

    async with virtual_time(app) as world:
        before = world.now
        job = await app.submit(busy)
        assert await job == "ok"
        assert job.failures == 1
        assert (world.now - before).total_seconds() == 90


async def test_retry_later_without_a_retry_left_fails() -> None:
    """`RetryLater` asks; the policy decides."""
    app = Quarterjack()

    @app.task
    async def busy() -> None:
        raise RetryLater(after=90, reason="busy")

    async with virtual_time(app):
        job = await app.submit(busy)
        await ends_as(job, JobState.FAILED)
        assert (job.attempt, job.reason) == (1, "busy")


@pytest.mark.parametrize("delay", [-1, float("nan"), float("inf"), "soon"])
async def test_signal_with_an_impossible_delay_fails_the_job_with_the_reason(delay: float) -> None:
    """A wrong number in a body is that body's failure, not the worker's."""
    app = Quarterjack()

    @app.task(retry=3)
    async def odd() -> None:
        raise Snooze(delay)

    async with virtual_time(app):
        job = await app.submit(odd)
        await ends_as(job, JobState.FAILED)
        assert "Snooze(delay)" in (job.reason or "")


async def test_checkpoint_is_there_in_the_next_attempt() -> None:
    """A long job goes on where it failed."""
    app = Quarterjack()

    @app.task(retry=EXACT)
    async def steps() -> int:
        me = current_job()
        done = me.last_checkpoint or 0
        me.checkpoint(done + 1)
        if done < 2:
            raise Boom
        return done

    async with virtual_time(app):
        assert await (await app.submit(steps)) == 2


# -- unique -------------------------------------------------------------------------


async def test_unique_answers_with_the_unfinished_job() -> None:
    """Pressing the button twice must not send two mails."""
    app = Quarterjack()
    task = sleeper(app).options(unique="x")
    async with virtual_time(app) as world:
        first = await app.submit(task, 10)
        await world.run_for(1)
        second = await app.submit(task, 99)
        assert (second.id, second.is_duplicate, first.is_duplicate) == (first.id, True, False)
        assert await gather([first, second]) == [10, 10]
        third = await app.submit(task, 1)
        assert third.id != first.id
        assert len(world.jobs()) == 2


async def test_unique_counts_a_waiting_retry() -> None:
    """A job that waits for its next attempt is not over."""
    app = Quarterjack()

    @app.task(retry=EXACT, unique="x")
    async def fails() -> None:
        raise Boom

    async with virtual_time(app) as world:
        first = await app.submit(fails)
        await world.run_for(1)
        assert (await app.submit(fails)).id == first.id
        await ends_as(first, JobState.FAILED)
        assert (await app.submit(fails)).id != first.id


async def test_unique_is_per_task() -> None:
    """Two tasks may use the same word."""
    app = Quarterjack()
    one = sleeper(app)

    @app.task(unique="x")
    async def other() -> None: ...

    async with virtual_time(app):
        first = await app.submit(one.options(unique="x"), 5)
        assert (await app.submit(other)).id != first.id


async def test_unique_queued_lets_a_running_job_be_followed() -> None:
    """`scope="queued"`: the running one may have read old data, so one more may wait, and only one."""
    app = Quarterjack(concurrency=1)
    task = sleeper(app).options(unique=Unique("x", scope="queued"))
    async with virtual_time(app) as world:
        first = await app.submit(task, 10)
        await world.run_for(1)
        second = await app.submit(task, 10)
        third = await app.submit(task, 10)
        assert second.id != first.id
        assert third.id == second.id


async def test_unique_for_a_period_outlives_the_job() -> None:
    """`scope=timedelta`: at most one an hour, however short each is."""
    app = Quarterjack()
    task = sleeper(app).options(unique=Unique("x", scope=timedelta(hours=1)))
    async with virtual_time(app) as world:
        first = await app.submit(task, 1)
        await world.run_for("59m")
        assert (await app.submit(task, 1)).id == first.id
        await world.run_for("1m")
        assert (await app.submit(task, 1)).id != first.id


async def test_unique_replace_takes_the_place_of_a_waiting_job() -> None:
    """The newest request counts; what it replaces is cancelled and says by what."""
    app = Quarterjack()
    task = sleeper(app).options(unique=Unique("x", on_conflict="replace"), delay=60)
    async with virtual_time(app) as world:
        first = await app.submit(task, 1)
        second = await app.submit(task, 2)
        await ends_as(first, JobState.CANCELLED)
        assert second.id in (first.reason or "")
        await world.run_for(61)
        running = await app.submit(task, 3)
        assert running.id == second.id, "a running job is not replaced"
        assert await second == 2


async def test_unique_raise_stores_none_of_a_batch() -> None:
    """All or nothing: half a batch is the worst of both."""
    app = Quarterjack()
    task = sleeper(app)
    strict = task.options(unique=Unique("x", on_conflict="raise"))
    async with virtual_time(app) as world:
        first = await app.submit(strict, 10)
        with pytest.raises(UniqueConflict, match=first.id):
            await app.submit_many([task.bind(1.0), strict.bind(2.0)])
        assert len(world.jobs()) == 1


async def test_unique_within_one_batch_is_one_job() -> None:
    """A batch is no way around the key."""
    app = Quarterjack()
    task = sleeper(app).options(unique="x")
    async with virtual_time(app) as world:
        jobs = await app.submit_many([task.bind(1.0), task.bind(2.0)])
        assert jobs[0].id == jobs[1].id
        assert [job.is_duplicate for job in jobs] == [False, True]
        assert len(world.jobs()) == 1


# -- delay and priority -------------------------------------------------------------


@pytest.mark.parametrize("step", [-3600, 3600, 86_400])
async def test_delay_is_not_stretched_by_a_clock_step(step: int) -> None:
    """A delay of ten minutes is ten minutes, whatever somebody does to the wall clock."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app) as world:
        clock = asyncio.get_running_loop()
        begun = clock.time()
        job = await app.submit(task.options(delay=600), 0)
        await world.run_for(60)
        await world.step_clock(step)
        assert await job == 0
        assert clock.time() - begun == pytest.approx(600)


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_run_at_goes_by_the_wall_clock(step: int) -> None:
    """Noon is what the clock on the wall says it is."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app, start="2026-03-02T10:00") as world:
        job = await app.submit(task.options(run_at=world.now + timedelta(hours=2)), 0)
        await world.run_for(60)
        await world.step_clock(step)
        await job
        assert world.now.isoformat() == "2026-03-02T12:00:00+00:00"


async def test_retry_pause_is_not_stretched_by_a_clock_step() -> None:
    """A back-off is elapsed time too."""
    app = Quarterjack()
    began: list[float] = []

    @app.task(retry=EXACT)
    async def fails() -> None:
        began.append(asyncio.get_running_loop().time())
        raise Boom

    async with virtual_time(app) as world:
        job = await app.submit(fails)
        await world.run_for(1)
        await world.step_clock(-7200)
        await ends_as(job, JobState.FAILED)
    assert [round(b - began[0]) for b in began] == [0, 10, 30]


async def started_order(app: Quarterjack, world: World, jobs: list[Job[float]]) -> list[int]:
    await gather(jobs)
    return sorted(range(len(jobs)), key=lambda n: jobs[n].timestamps.running_at or world.now)


async def test_urgent_jobs_start_first_and_equals_in_order_of_submission() -> None:
    """0 is most urgent; among equals nobody is overtaken."""
    app = Quarterjack(concurrency=1)
    task = sleeper(app)
    async with virtual_time(app) as world:
        blocker = await app.submit(task, 1)
        await world.settle()
        jobs = [await app.submit(task.options(priority=p), 1) for p in (2, 4, 0, 2, 1, 0)]
        await blocker
        assert await started_order(app, world, jobs) == [2, 5, 4, 0, 3, 1]


async def test_waiting_makes_up_for_priority() -> None:
    """A flood of urgent jobs must not starve the others: ten seconds of waiting outweigh one level."""
    app = Quarterjack(concurrency=1)
    task = sleeper(app)
    async with virtual_time(app) as world:
        await app.submit(task, 60)
        await world.settle()
        patient = await app.submit(task.options(priority=4), 1)
        await world.run_for(45)
        urgent = await app.submit(task.options(priority=0), 1)
        assert await started_order(app, world, [patient, urgent]) == [0, 1]


async def test_discard_inside_a_retry_ends_it() -> None:
    """What was worth trying may turn out not to be."""
    app = Quarterjack()

    @app.task(retry=EXACT)
    async def fails() -> None:
        raise Discard("gone") if current_job().attempt == 2 else Boom

    async with virtual_time(app):
        job = await app.submit(fails)
        await ends_as(job, JobState.FAILED)
        assert (job.attempt, job.reason) == (2, "gone")


async def test_job_that_was_cancelled_while_it_waited_runs_once_when_it_is_retried() -> None:
    """Its old place in the queue must not come to life beside the new one."""
    app = Quarterjack(concurrency=2)
    task = sleeper(app)
    async with virtual_time(app) as world:
        await app.submit_many([task.bind(10), task.bind(10)])
        await world.settle()
        waiting = await app.submit(task, 5)
        delayed = await app.submit(task.options(delay=15), 5)
        assert await waiting.cancel()
        assert await delayed.cancel()
        assert await app.retry(state=JobState.CANCELLED) == 2
        await world.run_for("1m")
        assert [(job.state, job.attempt) for job in (waiting, delayed)] == [(JobState.DONE, 1)] * 2


@pytest.mark.parametrize("step", [-3600, 3600])
async def test_clock_step_lets_nobody_overtake(step: int) -> None:
    """Who waits keeps the place, though newcomers bring stamps of another hour."""
    app = Quarterjack(concurrency=1)
    task = sleeper(app)
    async with virtual_time(app) as world:
        await app.submit(task, 10)
        await world.run_for(1)
        old = await app.submit(task, 1)
        await world.run_for(1)
        await world.step_clock(step)
        new = await app.submit(task, 1)
        assert await started_order(app, world, [old, new]) == [0, 1]
        assert old.lag == 9


async def test_what_the_log_says_fits_what_happened(caplog: pytest.LogCaptureFixture) -> None:
    """A discarded job is no fault and shows no traceback; a timeout is told although nothing raised."""
    app = Quarterjack()

    @app.task
    async def discards() -> None:
        raise Discard("the address does not exist")

    @app.task
    async def later() -> None:
        raise RetryLater(after=0.1, reason="busy")

    @app.task(timeout=1)
    async def slow() -> None:
        await asyncio.sleep(60)

    with caplog.at_level("INFO", logger="quarterjack"):
        async with virtual_time(app):
            jobs = [await app.submit(task) for task in (discards, later, slow)]
            errors = await gather(jobs, return_exceptions=True)
    lines = {
        (record.levelname, record.getMessage().split(") ", 1)[1])
        for record in caplog.records
        if "job " in record.getMessage()
    }
    assert ("INFO", "is discarded: the address does not exist") in lines
    assert ("WARNING", "timed out in attempt 1: ran longer than its timeout of 1 s") in lines
    assert ("ERROR", "failed in attempt 1: busy") in lines
    assert [bool(record.exc_info) for record in caplog.records if record.levelname == "INFO"] == [False]
    assert "RetryLater: busy" in str(errors[1])
