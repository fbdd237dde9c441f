"""Callbacks, listeners and waiters in each other's way: nobody is forgotten, nobody is told what is not so."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from quarterjack import Job, JobCancelled, JobFailed, JobState, NotRunning, Quarterjack, Snooze, gather
from quarterjack.events import Event, JobEvent
from quarterjack.stores import MemoryStore
from quarterjack.testing import faults, virtual_time
from tests.app.kit import Boom, sleeper, spawn


async def test_awaiting_the_job_in_its_own_callback_gives_its_result() -> None:
    """The natural way for a callback to get the result."""
    app = Quarterjack()
    task = sleeper(app)
    got: list[float] = []

    @task.on_done
    async def note(job: Job[float]) -> None:
        got.append(await job.wait(timeout=5))

    async with virtual_time(app):
        assert await (await app.submit(task, 0.5)) == 0.5
    assert got == [0.5]


async def test_retry_from_a_callback_does_not_confuse_who_waits() -> None:
    """`app.retry` in on_error is an ordinary thing to do; who waits hears of the later result."""
    app = Quarterjack()
    runs: list[int] = []

    @app.task
    async def flaky() -> str:
        runs.append(1)
        if len(runs) == 1:
            raise Boom
        return "good"

    @flaky.on_error
    async def again(job: Job[str]) -> None:
        await app.retry(task="flaky", state=JobState.FAILED)

    async with virtual_time(app):
        job = await app.submit(flaky)
        assert await job.wait(timeout=60) == "good"
        assert runs == [1, 1]


async def test_two_waiters_one_of_whom_retries() -> None:
    """Who waits beside the one who repeats the job gets the later result, nothing else."""
    app = Quarterjack()

    @app.task
    async def flaky() -> str:
        await asyncio.sleep(1)
        if len(await app.jobs(state=JobState.DONE)) == 0 and not retried:
            raise Boom
        return "good"

    retried: list[int] = []
    async with virtual_time(app):
        job = await app.submit(flaky)

        async def repeats() -> None:
            with pytest.raises(JobFailed):
                await job
            retried.append(await app.retry(task="flaky", state=JobState.FAILED))

        async def waits() -> str:
            try:
                return await job
            except JobFailed:
                return "failed"

        _, got = await asyncio.gather(repeats(), waits())
        assert got == "good"


async def test_gather_with_a_job_that_is_retried_meanwhile() -> None:
    """`gather(return_exceptions=True)` returns results and JobErrors."""
    app = Quarterjack()
    task = sleeper(app)

    @app.task
    async def fails() -> None:
        raise Boom

    async with virtual_time(app):
        bad, slow = await app.submit(fails), await app.submit(task, 5)
        waiting = spawn(gather([bad, slow], return_exceptions=True))
        await asyncio.sleep(4)

        @app.event_stream.listen
        def again(event: Event) -> None:
            if isinstance(event, JobEvent) and event.job_id == slow.id and event.kind == "done":
                asyncio.get_running_loop().create_task(app.retry(task="fails"))

        got = await waiting
        assert isinstance(got[0], JobFailed)
        assert got[1] == 5


async def test_a_callback_added_while_the_others_run_is_not_dropped() -> None:
    """Callbacks are never dropped: one added to a finished job whose callbacks still run is called too."""
    app = Quarterjack()
    task = sleeper(app)
    calls: list[str] = []

    @task.on_done
    async def slow(job: Job[float]) -> None:
        await asyncio.sleep(2)
        calls.append("first")

    async with virtual_time(app):
        job = await app.submit(task, 1)
        await asyncio.sleep(2)
        assert job.state is JobState.DONE
        job.on_done(lambda _: calls.append("second"))
        await job
        await asyncio.sleep(1)
    assert calls == ["first", "second"]


async def test_on_submit_and_on_start_of_one_job() -> None:
    """What `Job.on_submit` and `on_start` accept, they call: at once if the job has made the move."""
    app = Quarterjack()
    task = sleeper(app)
    calls: list[str] = []
    async with virtual_time(app):
        job = await app.submit(task, 1)
        job.on_submit(lambda _: calls.append("submit"))
        await asyncio.sleep(0.5)
        job.on_start(lambda _: calls.append("start"))
        await job
    assert calls == ["submit", "start"]


async def test_a_callback_that_ends_cancelled_does_not_drop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    """A callback that awaits something cancelled is an error of that callback alone, and logged."""
    app = Quarterjack()
    task = sleeper(app)
    calls: list[str] = []

    @task.on_done
    async def awaits_something_cancelled(job: Job[float]) -> None:
        inner = spawn(asyncio.sleep(100))
        inner.cancel()
        await inner

    @task.on_done
    async def second(job: Job[float]) -> None:
        calls.append("second")

    async with virtual_time(app):
        await (await app.submit(task, 1))
    assert calls == ["second"]
    assert "awaits_something_cancelled of job" in caplog.text


async def test_a_listener_that_raises_cancelled_error_breaks_nothing() -> None:
    """A synchronous listener can never break a job; `future.result()` of a cancelled future raises this."""
    app = Quarterjack()
    task = sleeper(app)
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.cancel()

    def listener(event: Event) -> None:
        if isinstance(event, JobEvent) and event.kind == "done":
            future.result()

    async with virtual_time(app):
        app.event_stream.listen(listener)
        job = await app.submit(task, 0)
        await asyncio.sleep(1)
        app.event_stream.remove(listener)
        assert await job.wait(timeout=5) == 0
        assert await (await app.submit(task, 1)).wait(timeout=5) == 1


async def test_the_submitted_event_comes_first() -> None:
    """Who watches hears of the cause before its effect, in a burst too."""
    app = Quarterjack()
    task = sleeper(app)
    seen: dict[str, list[str]] = {}

    def listener(event: Event) -> None:
        if isinstance(event, JobEvent):
            seen.setdefault(event.job_id, []).append(event.kind)

    async with virtual_time(app):
        app.event_stream.listen(listener)
        jobs = [await app.submit(task, 0) for _ in range(64)]
        await gather(jobs)
    assert len(seen) == 64
    assert {tuple(kinds) for kinds in seen.values()} == {("submitted", "scheduled", "running", "done")}


async def test_on_submit_is_called_before_on_done_in_a_burst() -> None:
    """As a job lives."""
    app = Quarterjack()
    task = sleeper(app)
    order: dict[str, list[str]] = {}
    task.on_submit(lambda job: order.setdefault(job.id, []).append("submit"))
    task.on_done(lambda job: order.setdefault(job.id, []).append("done"))
    async with virtual_time(app):
        await gather([await app.submit(task, 0) for _ in range(64)])
    assert {tuple(calls) for calls in order.values()} == {("submit", "done")}


def test_events_of_an_app_in_a_thread_reach_a_reader_on_another_loop() -> None:
    """`async for event in app.events()` beside `in_thread` hears of events when they happen."""
    app = Quarterjack()
    task = sleeper(app)

    async def read() -> float:
        events = app.events()
        began = time.monotonic()
        timer = threading.Timer(0.2, lambda: app.submit_sync(task, 0.0))
        timer.start()
        try:
            async with asyncio.timeout(3):
                await anext(events)
        finally:
            events.close()
            await asyncio.to_thread(timer.join)
        return time.monotonic() - began

    with app.in_thread():
        assert asyncio.run(read()) < 1


async def test_cancel_between_the_raise_and_its_record_is_told_as_cancelled() -> None:
    """The event's kind and state agree."""
    app = Quarterjack()
    kinds: list[tuple[str, str]] = []

    def listener(event: Event) -> None:
        if isinstance(event, JobEvent):
            kinds.append((event.kind, event.state))

    @app.task
    async def naps() -> None:
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            raise Snooze(5) from None

    async with virtual_time(app):
        app.event_stream.listen(listener)
        job = await app.submit(naps)
        await asyncio.sleep(1)
        assert await job.cancel()
    assert kinds[-1] == ("cancelled", "cancelled"), kinds


async def test_system_exit_in_a_callback_ends_the_app_in_an_orderly_way() -> None:
    """As in a body: what runs may finish, and `serve` raises it."""
    app = Quarterjack()
    task = sleeper(app)

    @app.task
    async def last() -> None: ...

    @last.on_done
    async def leave(job: Job[None]) -> None:
        raise SystemExit(4)

    async def serve() -> int | str | None:
        try:
            await app.serve()
        except SystemExit as end:
            return end.code
        return None

    serving = spawn(serve())
    await asyncio.sleep(0.05)
    job = await app.submit(task, 0.3)
    await app.submit(last)
    assert await serving == 4
    assert job.result() == 0.3


async def test_somebody_who_cancels_every_task_ends_the_app() -> None:
    """Without its recorder an app would look alive and finish nothing."""
    app = Quarterjack()

    async def serve() -> str:
        try:
            await app.serve()
        except RuntimeError as error:
            return str(error)
        return ""

    serving = spawn(serve())
    await asyncio.sleep(0.05)
    for task in asyncio.all_tasks():
        if task.get_name() == "quarterjack-recorder":
            task.cancel()
    assert "somebody cancelled quarterjack-recorder" in await asyncio.wait_for(serving, 5)


def test_a_callback_may_be_added_from_any_thread() -> None:
    """Beside `in_thread` handles are used where no loop runs; the callback runs on the app's loop all the same."""
    app = Quarterjack()
    task = sleeper(app)
    called: list[str] = []

    def note(job: Job[float]) -> None:
        called.append(threading.current_thread().name)

    with app.in_thread():
        first, second = app.submit_sync(task, 0), app.submit_sync(task, 0.2)
        first.wait_sync(5)
        first.on_done(note)
        second.on_done(note)
        second.wait_sync(5)
    assert called == ["quarterjack-app"] * 2
    with pytest.raises(NotRunning, match="has ended"):
        first.on_done(note)


async def test_a_store_that_fails_when_it_is_asked_how_a_job_ended_is_asked_again() -> None:
    """Whoever waits for the job hears of its end nowhere else."""
    app = Quarterjack()
    task = sleeper(app)
    ended: list[str] = []
    async with virtual_time(app):
        with faults(app.store) as broken:
            job = await app.submit(task.options(delay=60), 0)
            job.on_cancel(lambda job: ended.append(job.id))
            broken.fail_next("jobs_get", times=3)
            assert await job.cancel()
            with pytest.raises(JobCancelled):
                await job.wait(10)
    assert ended == [job.id]


async def test_an_end_is_told_although_no_finished_job_is_to_be_kept() -> None:
    """The store tells of what it ended itself by the id, under which the job was not found any more."""
    app = Quarterjack(MemoryStore(keep_finished=0))
    task = sleeper(app)
    async with app:  # the virtual world keeps every job
        job = await app.submit(task.options(delay=60), 0)
        waits = spawn(job.wait(5))
        await asyncio.sleep(0)
        await job.cancel()
        with pytest.raises(JobCancelled):
            await waits
