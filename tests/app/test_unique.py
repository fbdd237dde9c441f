"""Unique keys of what a schedule fires, and what duration says of a job that ended between two attempts."""

from __future__ import annotations

import asyncio

from quarterjack import Every, JobState, Quarterjack, Retry
from quarterjack.testing import virtual_time
from tests.app.kit import Boom, sleeper


async def test_unique_holds_for_what_a_schedule_fires() -> None:
    """Per task, all unfinished states: a schedule's jobs are jobs.

    The bug: fire times never looked at the key, and three bodies ran at once.
    """
    app = Quarterjack()
    running, most = 0, 0

    @app.task(Every(seconds=10), unique="x", overlap="allow")
    async def work() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(25)
        running -= 1

    async with virtual_time(app) as world:
        await world.run_for(62)
        job = await app.submit(work)
        assert job.is_duplicate
        rows, left_out = await app.jobs(task="work"), ["skipped", "skipped"]
        assert [row.state.value for row in reversed(rows)] == ["done", *left_out, "running", *left_out]
        assert rows[0].reason == f"job {job.id} holds its unique key 'x'"
    assert most == 1


async def test_duration_of_a_job_that_was_cancelled_between_two_attempts() -> None:
    """The minute it waited for its next attempt is no time its body ran, and it is not the slowest job."""
    app = Quarterjack()

    @app.task(retry=Retry(on=Exception, attempts=3, base=60, jitter="none"))
    async def fails() -> None:
        await asyncio.sleep(2)
        raise Boom

    sleep = sleeper(app)
    async with virtual_time(app) as world:
        job = await app.submit(fails)
        await world.run_for(50)
        other = await app.submit(sleep, 5)
        await other
        assert (await app.slowest(1))[0].id == other.id
        assert await job.cancel()
        assert (job.state, job.duration, job.lag) == (JobState.CANCELLED, None, None)
        assert [row.id for row in await app.slowest()] == [other.id]
