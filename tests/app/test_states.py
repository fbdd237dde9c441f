"""A job's way: states and stamps in order, callbacks once each, and what awaiting it raises."""

from __future__ import annotations

import asyncio
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quarterjack import (
    FINISHED,
    Discard,
    Every,
    Job,
    JobCancelled,
    JobError,
    JobFailed,
    JobGone,
    JobMissed,
    JobSkipped,
    JobState,
    JobTimedOut,
    Quarterjack,
    ResultUnavailable,
    Retry,
    current_job,
    gather,
)
from quarterjack.testing import virtual_time
from tests.app.kit import START, Boom, ends_as, sleeper

NOW = datetime.fromisoformat(START).replace(tzinfo=UTC)


async def test_states_follow_each_other_and_every_stamp_is_exact() -> None:
    """A user reads from the stamps where the time went, so each must name its own moment."""
    app = Quarterjack(concurrency=1)
    task = sleeper(app)
    async with virtual_time(app, start=START) as world:
        await app.submit(task, 3)
        job = await app.submit(task.options(delay=2), 5)
        seen = [job.state]
        await world.run_for(2)
        seen.append(job.state)
        assert seen == [JobState.SUBMITTED] * 2, "its time has come, but the only slot is taken"
        await world.run_for(2)
        assert job.state is JobState.RUNNING
        assert await job == 5
        stamps = job.timestamps
        seconds = {
            name: (getattr(stamps, name) - NOW).total_seconds()
            for name in ("submitted_at", "run_at", "scheduled_at", "started_at", "running_at", "done_at", "finished_at")
        }
    assert seconds == {
        "submitted_at": 0, "run_at": 2, "scheduled_at": 3, "started_at": 3,
        "running_at": 3, "done_at": 8, "finished_at": 8,
    }  # fmt: skip
    assert (job.lag, job.duration, job.attempt, job.failures) == (1.0, 5.0, 1, 0)
    assert stamps.failed_at is None


async def test_callbacks_are_told_of_each_state_once_in_order_and_before_the_waiter() -> None:
    """Who awaits a job may rely on what its callbacks have done."""
    app = Quarterjack()
    said: list[str] = []

    @app.task(retry=Retry(on=Exception, attempts=2, base=1, jitter="none"))
    async def flaky() -> None:
        said.append("body")
        if current_job().attempt == 1:
            raise Boom

    for kind in ("submit", "start", "done", "error", "timeout", "cancel", "retry", "lost"):

        async def note(job: Job[Any], kind: str = kind) -> None:
            await asyncio.sleep(0)
            said.append(f"{kind} {job.state.value}")

        getattr(flaky, f"on_{kind}")(note)
    async with virtual_time(app) as world:
        job = await app.submit(flaky)
        job.on_done(lambda _: said.append("the job's own"))
        await job
        said.append("waiter")
        await world.run_for("1h")
    assert said[-3:] == ["done done", "the job's own", "waiter"]
    assert sorted(word.split()[0] for word in said[:-2]) == [
        "body", "body", "done", "retry", "start", "start", "submit"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("way", "kind"), [("error", "error"), ("timeout", "timeout"), ("cancel", "cancel"), ("done", "done")]
)
async def test_exactly_one_final_callback_is_called(way: str, kind: str) -> None:
    """A job ends one way, so one of its final callbacks is called, once."""
    app = Quarterjack()
    said: list[str] = []

    @app.task(timeout=10)
    async def body() -> None:
        if way == "error":
            raise Boom
        await asyncio.sleep({"timeout": 20, "cancel": 5, "done": 1}[way])

    for name in ("done", "error", "timeout", "cancel", "lost"):
        getattr(body, f"on_{name}")(lambda job, name=name: said.append(name))
    async with virtual_time(app) as world:
        job = await app.submit(body)
        await world.run_for(2)
        if way == "cancel":
            assert await job.cancel()
        await world.run_for(60)
    assert said == [kind]


async def test_callback_added_after_the_end_is_called_at_once() -> None:
    """`job.on_done(f)` just after `submit` must not depend on who is quicker."""
    app = Quarterjack()
    task, said = sleeper(app), list[str]()
    async with virtual_time(app) as world:
        job = await app.submit(task, 1)
        await job
        job.on_done(lambda job: said.append(job.id))
        job.on_error(lambda job: said.append("no"))
        await world.settle()
        assert said == [job.id]


async def test_await_returns_the_result_and_again() -> None:
    """A handle is no one-shot future: many may wait, now and later."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app):
        job = await app.submit(task, 3)
        assert list(await asyncio.gather(job.wait(), job.wait())) == [3, 3]
        assert await job == job.result() == 3


async def test_await_of_a_failed_job_raises_it_with_its_cause() -> None:
    """The waiter sees the error as if the body had run in its place, and what survives a process."""
    app = Quarterjack()

    @app.task
    async def bad() -> None:
        raise Boom("no good")

    async with virtual_time(app):
        with pytest.raises(JobFailed, match="Boom: no good") as caught:
            await (await app.submit(bad))
    error = caught.value
    assert isinstance(error.__cause__, Boom)
    assert (error.error_type, error.message) == ("Boom", "no good")
    assert "raise Boom" in error.traceback_text
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.args) == (JobFailed, error.args)


async def test_each_bad_end_raises_its_own_error() -> None:
    """Callers tell by type what became of the job, without reading texts."""
    app = Quarterjack()
    task = sleeper(app)
    scheduled = app.task(Every(minutes=1), overlap="skip")(long_body)
    async with virtual_time(app, start=START) as world:
        slow = await app.submit(task.options(timeout=1), 5)
        with pytest.raises(JobTimedOut, match="timeout of 1 s"):
            await slow
        with pytest.raises(TimeoutError):
            slow.result()
        cancelled = await app.submit(task, 5)
        assert await cancelled.cancel()
        with pytest.raises(JobCancelled, match="cancelled by request"):
            await cancelled
        await world.run_for("3m")
        skipped = world.jobs(scheduled, state=JobState.SKIPPED)[0]
        with pytest.raises(JobSkipped, match="still running"):
            await skipped
        busy = await app.submit(task.options(start_deadline=5, run_at=world.now - timedelta(seconds=9)), 1)
        with pytest.raises(JobMissed, match=r"9\.000 s late, start_deadline is 5 s"):
            await busy
    assert {slow.state, cancelled.state, skipped.state, busy.state} <= FINISHED
    assert slow.timestamps.timed_out_at
    assert cancelled.timestamps.cancelled_at
    assert skipped.timestamps.skipped_at
    assert busy.timestamps.missed_at


async def long_body() -> None:
    await asyncio.sleep(3600)


async def test_waiting_with_a_timeout_ends_the_waiting_only() -> None:
    """A waiter that gives up must not take the work with it."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app):
        job = await app.submit(task, 10)
        with pytest.raises(TimeoutError):
            await job.wait(timeout=1)
        waiter = asyncio.ensure_future(job.wait())
        await asyncio.sleep(1)
        waiter.cancel()
        await asyncio.gather(waiter, return_exceptions=True)
        assert job.state is JobState.RUNNING
        assert await job == 10


async def test_result_of_an_unfinished_job_is_refused() -> None:
    """`result()` never blocks and never invents a None."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app):
        job = await app.submit(task, 10)
        with pytest.raises(RuntimeError, match="await it"):
            job.result()
        await job


async def test_result_that_json_cannot_hold_leaves_the_job_done() -> None:
    """The work was done: running it again for its result would do it twice."""
    app = Quarterjack()
    ran: list[int] = []

    @app.task(retry=3)
    async def odd() -> object:
        ran.append(1)
        return object()

    async with virtual_time(app) as world:
        job = await app.submit(odd)
        with pytest.raises(ResultUnavailable, match="not JSON"):
            await job
        await world.run_for("1h")
    assert job.state is JobState.DONE
    assert ran == [1]


async def test_live_objects_pass_through_memory_when_not_strict() -> None:
    """A program on one machine may hand its own objects to its jobs."""
    app = Quarterjack()
    thing = object()

    @app.task
    async def echo(value: object) -> object:
        return value

    async with virtual_time(app, strict=False):
        assert await (await app.submit(echo, thing)) is thing


async def test_store_result_false_keeps_nothing() -> None:
    """Large results that nobody reads are not kept."""
    app = Quarterjack()

    @app.task(store_result=False)
    async def big() -> object:
        return object()

    async with virtual_time(app):
        job = await app.submit(big)
        assert await job is None


async def test_discard_fails_without_a_retry_and_says_why() -> None:
    """`Discard` is how a body says that trying again is pointless."""
    app = Quarterjack()

    @app.task(retry=5)
    async def never() -> None:
        raise Discard("the address does not exist")

    async with virtual_time(app):
        job = await app.submit(never)
        await ends_as(job, JobState.FAILED)
    assert (job.attempt, job.reason) == (1, "the address does not exist")


async def test_gather_returns_results_in_order_or_raises_the_first_failure() -> None:
    """`gather` is how many jobs are awaited cheaply, and it must mean what asyncio's means."""
    app = Quarterjack()
    task = sleeper(app)

    @app.task
    async def bad() -> float:
        raise Boom

    async with virtual_time(app) as world:
        assert await gather(await app.submit_many(task.bind(s) for s in (3.0, 1.0, 2.0))) == [3, 1, 2]
        jobs = [await app.submit(task, 5), await app.submit(bad), await app.submit(task, 2)]
        before = world.now
        with pytest.raises(JobFailed):
            await gather(jobs)
        assert world.now == before, "the first failure ends the waiting"
        mixed = await gather(jobs, return_exceptions=True)
        assert (mixed[0], type(mixed[1]), mixed[2]) == (5, JobFailed, 2)
        assert await gather([]) == []


async def test_gather_waits_for_the_jobs_of_several_apps() -> None:
    """Each app has its own waiters; the failure of one app's job ends the waiting for the other's."""
    first, second = Quarterjack(), Quarterjack()
    task, other = sleeper(first), sleeper(second)

    @second.task
    async def bad() -> float:
        await asyncio.sleep(2)
        raise Boom

    async with virtual_time(first, second) as world:
        jobs = [await first.submit(task, 5), await second.submit(other, 3), await first.submit(task, 1)]
        assert await gather(jobs) == [5, 3, 1]
        before = world.now
        with pytest.raises(JobFailed):
            await gather([await first.submit(task, 60), await second.submit(bad)])
        assert world.now - before == timedelta(seconds=2)


async def test_slowest_are_those_that_run_or_ran() -> None:
    """A job that waits for its retry is not slow, however long it waits."""
    app = Quarterjack()
    task = sleeper(app)

    @app.task(retry=Retry(on=Exception, attempts=2, base=3600, cap=3600, jitter="none"))
    async def flaky() -> None:
        raise Boom

    async with virtual_time(app) as world:
        waiting, running = await app.submit(flaky), await app.submit(task, 600)
        await world.run_for("5m")
        assert waiting.timestamps.running_at is not None
        assert [job.id for job in await app.slowest()] == [running.id]


async def test_lookups_find_what_was_submitted() -> None:
    """`job`, `jobs`, `slowest` and `dump` are how people look at a running app."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app) as world:
        jobs = await app.submit_many(task.bind(float(n)) for n in (1, 3, 2))
        await gather(jobs)
        assert (await app.job(jobs[0].id)).result() == 1
        assert [job.id for job in await app.jobs(state=FINISHED, task="sleeper", limit=2)] == [jobs[2].id, jobs[1].id]
        assert [job.result() for job in await app.slowest(2)] == [3, 2]
        assert "sleeper" in await app.dump()
        assert [j.id for j in await app.jobs(since=world.now - timedelta(seconds=1))] == []
        with pytest.raises(JobGone, match="nobody"):
            await app.job("nobody")


async def test_retry_and_cancel_by_filter_tell_how_many() -> None:
    """An operator repairs a bad hour with one call, and sees what it meant."""
    app = Quarterjack()
    fails = True

    @app.task
    async def mended() -> str:
        if fails:
            raise Boom
        return "ok"

    task = sleeper(app)
    async with virtual_time(app) as world:
        jobs = [await app.submit(mended) for _ in range(3)]
        await world.run_for(1)
        fails = False
        assert await app.retry(task="mended", state=JobState.FAILED) == 3
        assert await gather(jobs) == ["ok"] * 3
        assert {job.failures for job in jobs} == {0}
        waiting = [await app.submit(task.options(delay=60), 1) for _ in range(2)]
        running = await app.submit(task, 60)
        await world.run_for(1)
        assert await app.cancel(task=task) == 3
        for job in [*waiting, running]:
            with pytest.raises(JobError):
                await job
            assert job.state is JobState.CANCELLED
