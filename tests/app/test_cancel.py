"""Cancelling and timeouts: in each state, by anybody, and never a slot lost over it."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from quarterjack import (
    Every,
    JobCancelled,
    JobFailed,
    JobState,
    JobTimedOut,
    Quarterjack,
    Retry,
    Snooze,
    current_job,
    gather,
)
from quarterjack.events import CancelIgnored
from quarterjack.testing import virtual_time
from tests.app.kit import Boom, ends_as, sleeper, stubborn


async def all_slots_are_free(app: Quarterjack, task: Any, slots: int) -> None:
    """See that *slots* bodies run side by side again."""
    jobs = await app.submit_many(task.bind(1.0) for _ in range(slots))
    await gather(jobs)
    assert {job.lag for job in jobs} == {0.0}, "all of them began at once"


@pytest.mark.parametrize("moment", ["delayed", "waiting", "scheduled", "running", "retrying", "snoozed"])
async def test_cancel_in_each_state_ends_the_job_and_leaks_no_slot(moment: str) -> None:
    """Whatever a job is just doing, cancelling it works and leaves the worker whole."""
    app = Quarterjack(concurrency=2)
    task = sleeper(app)

    @app.task(retry=Retry(on=Exception, attempts=3, base=60, jitter="none"))
    async def again() -> None:
        raise Boom if moment == "retrying" else Snooze(60)

    async with virtual_time(app) as world:
        if moment == "waiting":
            await app.submit_many([task.bind(30), task.bind(30)])
            await world.run_for(1)
        if moment in {"retrying", "snoozed"}:
            job: Any = await app.submit(again)
        else:
            job = await app.submit(task.options(delay=10 if moment == "delayed" else 0), 20)
        if moment == "scheduled":
            while job.state is JobState.SUBMITTED:
                await asyncio.sleep(0)
            assert job.state in {JobState.SCHEDULED, JobState.RUNNING}
        else:
            await world.run_for(1)
        assert await job.cancel()
        with pytest.raises(JobCancelled):
            await job
        assert job.attempt == {"delayed": 0, "waiting": 0}.get(moment, 1)
        await world.run_for("5m")
        await all_slots_are_free(app, task, 2)


async def test_cancel_in_every_turn_of_the_loop_leaks_no_slot() -> None:
    """A task cancelled before its first step never enters its coroutine: whoever counts there leaks."""
    app = Quarterjack(concurrency=2)
    task = sleeper(app)
    async with virtual_time(app):
        for turns in range(12):
            job = await app.submit(task, 20)
            for _ in range(turns):
                await asyncio.sleep(0)
            assert await job.cancel(), f"after {turns} turns"
            assert job.state is JobState.CANCELLED
        await all_slots_are_free(app, task, 2)


async def test_cancel_of_a_finished_job_changes_nothing() -> None:
    """`cancel` says whether the final state is CANCELLED, and is harmless when late."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app):
        job = await app.submit(task, 1)
        assert await job == 1
        assert not await job.cancel()
        gone = await app.submit(task, 1)
        assert await gone.cancel()
        assert await gone.cancel(), "it is cancelled still"


async def test_body_that_cleans_up_is_awaited() -> None:
    """`cancel` returns when the clean-up is done, so that what it frees is free."""
    app = Quarterjack()
    said: list[str] = []

    @app.task
    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(2)
            said.append("tidied")

    async with virtual_time(app) as world:
        job = await app.submit(tidy)
        await world.run_for(1)
        assert await job.cancel()
        assert said == ["tidied"]
        assert job.duration == 3


async def test_body_that_swallows_its_cancel_and_returns_is_done() -> None:
    """Its work was done and its result is real: that is what the record must say."""
    app = Quarterjack()
    task = stubborn(app, 3)
    async with virtual_time(app) as world:
        job = await app.submit(task)
        await world.run_for(1)
        assert not await job.cancel()
        assert await job == "went on"
        assert job.state is JobState.DONE


async def test_body_that_ignores_its_cancel_is_reported_and_keeps_its_slot_until_it_ends() -> None:
    """It cannot be stopped; saying so beats waiting for ever, and its slot is really taken."""
    app = Quarterjack(concurrency=1)
    task = stubborn(app, 60, cancel_grace=5)
    sleep = sleeper(app)
    async with virtual_time(app) as world:
        job = await app.submit(task)
        await world.run_for(1)
        assert await job.cancel(wait=30)
        assert job.duration == 6, "told to stop after 1 s, given up after 5 more"
        (told,) = [event for event in world.events if isinstance(event, CancelIgnored)]
        assert (told.job_id, told.after_s) == (job.id, 5)
        following = await app.submit(sleep, 1)
        await following
        assert following.lag == 54
        await all_slots_are_free(app, sleep, 1)


async def test_timeout_ends_the_body_and_the_job() -> None:
    """A body that hangs costs its timeout and no more."""
    app = Quarterjack(concurrency=1)
    task = sleeper(app, timeout=5)
    async with virtual_time(app):
        job = await app.submit(task, 60)
        with pytest.raises(JobTimedOut, match="longer than its timeout of 5 s"):
            await job
        assert job.duration == 5
        await all_slots_are_free(app, task, 1)


async def test_timeout_is_retried_where_the_policy_covers_it() -> None:
    """A hanging server is the very thing that retries are for."""
    app = Quarterjack()
    task = sleeper(app, timeout=5, retry=Retry(attempts=3, base=10, jitter="none", on=(TimeoutError,)))
    async with virtual_time(app) as world:
        before = world.now
        job = await app.submit(task, 60)
        await ends_as(job, JobState.TIMED_OUT)
        assert (job.attempt, job.failures) == (3, 3)
        assert (world.now - before).total_seconds() == 5 + 10 + 5 + 20 + 5


async def test_timeout_that_the_policy_does_not_cover_is_final() -> None:
    """`on=` is a promise about what is tried again."""
    app = Quarterjack()
    task = sleeper(app, timeout=5, retry=Retry(attempts=3, on=(Boom,)))
    async with virtual_time(app):
        job = await app.submit(task, 60)
        await ends_as(job, JobState.TIMED_OUT)
        assert job.attempt == 1


async def test_body_that_turns_its_timeout_into_an_error_has_timed_out() -> None:
    """What stopped it was the timeout, whatever it says."""
    app = Quarterjack()

    @app.task(timeout=5)
    async def wraps() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise Boom from None

    async with virtual_time(app):
        job = await app.submit(wraps)
        await ends_as(job, JobState.TIMED_OUT)


async def test_body_that_raises_timeout_error_itself_has_failed() -> None:
    """A time limit of the body's own is an error like any other."""
    app = Quarterjack()

    @app.task(timeout=50)
    async def own() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(10)

    async with virtual_time(app):
        job = await app.submit(own)
        await ends_as(job, JobState.FAILED)
        assert job.error is not None
        assert job.error.type_name == "TimeoutError"


async def test_cancel_requested_is_seen_by_a_thread_and_its_slot_comes_back_with_its_end() -> None:
    """A thread cannot be stopped, only asked; its job is CANCELLED at once, its slot when it is really over."""
    app = Quarterjack()
    began, ended = threading.Event(), threading.Event()

    @app.task
    def looks_up() -> None:
        me = current_job()
        began.set()
        while not me.cancel_requested:
            ended.wait(0.001)
        ended.set()

    async with app:
        job = await app.submit(looks_up)
        await asyncio.to_thread(began.wait, 5)
        assert await job.cancel()
        await asyncio.to_thread(ended.wait, 5)
        with pytest.raises(JobCancelled):
            await job


async def test_thread_that_timed_out_frees_its_overlap_only_when_it_ends() -> None:
    """Two bodies at once is what `overlap="skip"` forbids, and a timed-out thread still runs."""
    app = Quarterjack()
    began, release = threading.Event(), threading.Event()

    @app.task(Every(seconds=10), timeout=2, overlap="skip")
    def hangs() -> None:
        began.set()
        release.wait()

    async with virtual_time(app) as world:
        await world.advance(10)
        await asyncio.to_thread(began.wait, 5)
        await world.advance(25)
        at_35 = world.outcomes(hangs)
        release.set()
        await asyncio.to_thread(threading.Event().wait, 0.05)
        await world.run_for(10)
        assert at_35 == ["timed_out", "skipped", "skipped"]
        assert world.outcomes(hangs) == [*at_35, "done"]


async def test_cancelled_job_is_not_tried_again() -> None:
    """Who cancels a job means the job, not the attempt."""
    app = Quarterjack()

    @app.task(retry=5)
    async def clumsy() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise Boom from None

    async with virtual_time(app) as world:
        job = await app.submit(clumsy)
        await world.run_for(1)
        await job.cancel()
        with pytest.raises((JobFailed, JobCancelled)):
            await job
        await world.run_for("1h")
        assert job.attempt == 1


async def test_body_that_cancels_itself_is_cancelled() -> None:
    """A bare CancelledError from within is an end like any other, and the worker lives on."""
    app = Quarterjack(concurrency=1)
    sleep = sleeper(app)

    @app.task
    async def gives_in() -> None:
        raise asyncio.CancelledError

    async with virtual_time(app):
        job = await app.submit(gives_in)
        await ends_as(job, JobState.CANCELLED)
        await all_slots_are_free(app, sleep, 1)


async def test_body_that_blocks_past_its_timeout_is_done_and_told(caplog: pytest.LogCaptureFixture) -> None:
    """Its result is there, so it is DONE; but its timeout meant something, and could not be kept."""
    app = Quarterjack()

    @app.task(timeout=0.02)
    async def blocks() -> str:
        time.sleep(0.1)  # the slip it is about
        return "late"

    async with app:
        job = await app.submit(blocks)
        assert await job == "late"
        assert job.state is JobState.DONE
        assert "over its timeout of 0.02 s: it blocks the event loop" in (job.reason or "")
    (line,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert line.getMessage().startswith(f"job {job.id} (blocks) is done, but ran 0.1")


async def test_body_in_time_has_nothing_told_of_its_timeout(caplog: pytest.LogCaptureFixture) -> None:
    """Most jobs with a timeout keep it."""
    app = Quarterjack()

    @app.task(timeout=10)
    async def waits() -> None:
        await asyncio.sleep(9.999)

    async with virtual_time(app) as world:
        job = await app.submit(waits)
        await world.run_for("1m")
        assert (job.state, job.reason) == (JobState.DONE, None)
    assert caplog.records == []
