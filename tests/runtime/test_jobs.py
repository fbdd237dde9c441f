"""Jobs from submit to their end, on virtual time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from quarterjack import (
    Discard,
    InvalidArguments,
    Job,
    JobCancelled,
    JobFailed,
    JobState,
    JobTimedOut,
    LoopThread,
    NoCurrentJob,
    NotRunning,
    Quarterjack,
    RetryLater,
    Snooze,
    Unique,
    UniqueConflict,
    UnknownTask,
    current_job,
    gather,
)
from quarterjack.testing._clock import VirtualClock
from quarterjack.testing._loop import virtual_loop


@asynccontextmanager
async def running(app: Quarterjack, start: str = "2026-03-01T00:00:00+00:00") -> AsyncIterator[VirtualClock]:
    clock = VirtualClock(start)
    app.clock = clock
    with virtual_loop(clock):
        async with app:
            yield clock


async def test_awaiting_a_job_returns_what_the_body_returned() -> None:
    """The plainest use there is."""
    app = Quarterjack()

    @app.task
    async def add(a: int, b: int = 1) -> int:
        return a + b

    async with running(app):
        job = await app.submit(add, 1, b=2)
        assert await job == 3
        assert job.state is JobState.DONE
        assert await (await app.submit(add.bind(5))) == 6


async def test_the_stamps_of_a_job_are_in_order_and_exact() -> None:
    """A delayed job starts at its due time, and its duration is the body's."""
    app = Quarterjack()

    @app.task
    async def nap() -> None:
        await asyncio.sleep(3)

    async with running(app) as clock:
        begin = clock.now()
        job = await app.submit(nap.options(delay=10))
        await job
    stamps = job.timestamps
    assert stamps.submitted_at == begin
    assert stamps.scheduled_at == stamps.running_at == begin + timedelta(seconds=10)
    assert stamps.done_at == begin + timedelta(seconds=13)
    assert job.duration == 3.0
    assert job.lag == 0.0


async def test_a_failed_job_carries_its_exception() -> None:
    """The waiter sees type, message, traceback and, in this process, the exception itself."""
    app = Quarterjack()

    @app.task
    async def bad() -> None:
        raise ValueError("no good")

    async with running(app):
        job = await app.submit(bad)
        with pytest.raises(JobFailed) as caught:
            await job
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.error_type == "ValueError"
    assert "no good" in caught.value.traceback_text
    assert job.failures == 1


async def test_retry_waits_without_a_slot_and_counts_failures() -> None:
    """``retry=3`` is three attempts; between them the job is SUBMITTED and holds nothing."""
    app = Quarterjack(concurrency=1)
    attempts: list[int] = []

    @app.task(retry=3)
    async def flaky() -> str:
        attempts.append(current_job().attempt)
        if len(attempts) < 3:
            raise RetryLater(after=60)
        return "done"

    @app.task
    async def other() -> str:
        return "other"

    async with running(app) as clock:
        job = await app.submit(flaky)
        await clock.run_for(1)
        assert job.state is JobState.SUBMITTED
        assert await (await app.submit(other)) == "other"
        assert await job == "done"
    assert attempts == [1, 2, 3]
    assert job.failures == 2


async def test_discard_is_final_and_snooze_counts_nothing() -> None:
    """A body may end its job for good, or put it off."""
    app = Quarterjack()
    seen: list[int] = []

    @app.task(retry=5)
    async def discarded() -> None:
        raise Discard("nothing to say")

    @app.task
    async def snoozer() -> int:
        seen.append(current_job().attempt)
        if len(seen) == 1:
            raise Snooze(timedelta(minutes=1))
        return 7

    async with running(app):
        with pytest.raises(JobFailed, match="nothing to say"):
            await (await app.submit(discarded))
        job = await app.submit(snoozer)
        assert await job == 7
    assert job.failures == 0
    assert seen == [1, 2]


async def test_a_timeout_interrupts_the_body_and_frees_its_slot() -> None:
    """TIMED_OUT is a state of its own, and a TimeoutError to whoever waits."""
    app = Quarterjack(concurrency=1)
    cleaned: list[str] = []

    @app.task(timeout=2.0)
    async def slow() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            cleaned.append("cleaned")

    async with running(app):
        job = await app.submit(slow)
        with pytest.raises(JobTimedOut):
            await job
        assert job.duration == 2.0
        with pytest.raises(TimeoutError):
            await (await app.submit(slow))
    assert cleaned == ["cleaned", "cleaned"]


@pytest.mark.parametrize("delay", [0, 50])
async def test_cancel_ends_a_job_wherever_it_stands(delay: int) -> None:
    """Waiting or running: CANCELLED, and the answer is True."""
    app = Quarterjack()

    @app.task
    async def sleeper() -> None:
        await asyncio.sleep(1000)

    async with running(app) as clock:
        job = await app.submit(sleeper.options(delay=delay))
        await clock.run_for(10)
        assert await job.cancel()
        assert job.state is JobState.CANCELLED
        with pytest.raises(JobCancelled):
            await job
        assert await job.cancel()


async def test_a_body_that_swallows_its_cancellation_and_returns_is_done() -> None:
    """The body has the last word while its grace lasts."""
    app = Quarterjack()

    @app.task
    async def stubborn() -> str:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            return "still here"
        return "unreached"

    async with running(app) as clock:
        job = await app.submit(stubborn)
        await clock.run_for(1)
        assert not await job.cancel()
        assert await job == "still here"


async def test_a_body_that_ignores_its_cancellation_is_reported_and_keeps_its_slot() -> None:
    """After ``cancel_grace`` the job is CANCELLED, but the slot is only free when the body has ended."""
    app = Quarterjack(concurrency=1)

    @app.task(cancel_grace=2)
    async def deaf() -> None:
        for _ in range(10):
            try:
                await asyncio.sleep(5)
            except asyncio.CancelledError:
                pass

    @app.task
    async def quick() -> None: ...

    async with running(app) as clock:
        events = app.events()
        job = await app.submit(deaf)
        await clock.run_for(1)
        begin = clock.now()
        assert await job.cancel(wait=30)
        assert clock.now() - begin == timedelta(seconds=2)
        waiting = await app.submit(quick)
        await clock.run_for(10)
        assert waiting.state is JobState.SUBMITTED
        await waiting
        kinds = [type(await anext(events)).__name__ for _ in range(8)]
    assert "CancelIgnored" in kinds


async def test_jobs_in_threads_report_state_and_progress() -> None:
    """Plain functions run in a named thread and see their job."""
    app = Quarterjack()

    @app.task
    def work() -> str:
        current_job().progress(1, 3, "calling")
        return threading.current_thread().name

    async with running(app):
        job = await app.submit(work)
        assert (await job).startswith("qj-thread")
        assert job.progress is not None
        assert job.progress.text == "calling"


async def test_a_thread_sees_that_it_should_end() -> None:
    """A thread cannot be stopped: it is TIMED_OUT at once and told by ``cancel_requested``."""
    app = Quarterjack()
    ended = threading.Event()

    @app.task(timeout=0.05)
    def loop() -> None:
        me = current_job()
        while not me.cancel_requested:
            ended.wait(0.001)
        ended.set()

    async with app:
        job = await app.submit(loop)
        with pytest.raises(JobTimedOut):
            await job
        await asyncio.to_thread(ended.wait, 5)
    assert ended.is_set()


async def test_own_loop_thread_runs_beside_a_blocked_loop() -> None:
    """A LoopThread has a loop of its own; its jobs can be awaited from the app's."""
    urgent = LoopThread("urgent")
    app = Quarterjack()

    @app.task(executor=urgent)
    async def alarm(text: str) -> tuple[str, str]:
        await asyncio.sleep(0.001)
        return text, threading.current_thread().name

    async with app:
        jobs = [await app.submit(alarm, f"{n}") for n in range(20)]
        found = await gather(jobs)
    assert [text for text, _ in found] == [f"{n}" for n in range(20)]
    assert all("urgent" in name for _, name in found)


async def test_a_body_in_another_loop_submits_and_awaits() -> None:
    """From a LoopThread, ``app.submit`` and ``await job`` are carried to the app's loop."""
    app = Quarterjack()

    @app.task
    async def child(n: int) -> int:
        return n * 2

    @app.task(executor=LoopThread("side"))
    async def parent() -> tuple[int, str | None]:
        job = await app.submit(child, 21)
        return await job, job.submitted_by.parent

    async with app:
        job = await app.submit(parent)
        assert await job == (42, job.id)


async def test_a_body_that_awaits_a_job_lends_its_slot() -> None:
    """With one slot, a parent that waits for its child does not deadlock."""
    app = Quarterjack(concurrency=1)

    @app.task
    async def child(n: int) -> int:
        await asyncio.sleep(1)
        return n

    @app.task
    async def parent() -> list[int]:
        return await gather([await app.submit(child, n) for n in range(3)]) + [await (await app.submit(child, 3))]

    async with running(app):
        assert await (await app.submit(parent)) == [0, 1, 2, 3]


async def test_unique_answers_with_the_job_that_holds_the_key() -> None:
    """One unfinished job per key and task; other reactions on request."""
    app = Quarterjack()

    @app.task
    async def once(n: int) -> int:
        await asyncio.sleep(5)
        return n

    async with running(app) as clock:
        first = await app.submit(once.options(unique="x"), 1)
        second = await app.submit(once.options(unique="x"), 2)
        assert second.is_duplicate
        assert second.id == first.id
        with pytest.raises(UniqueConflict):
            await app.submit(once.options(unique=Unique("x", on_conflict="raise")), 3)
        assert await second == 1
        third = await app.submit(once.options(unique="x"), 4)
        assert not third.is_duplicate
        waiting = await app.submit(once.options(unique="y", delay=60), 5)
        replacing = await app.submit(once.options(unique=Unique("y", on_conflict="replace"), delay=60), 6)
        assert waiting.state is JobState.CANCELLED
        assert await replacing == 6
        held = Unique("z", scope=timedelta(minutes=5))
        await (await app.submit(once.options(unique=held), 7))
        assert (await app.submit(once.options(unique=held), 8)).is_duplicate
        await clock.run_for(300)
        assert not (await app.submit(once.options(unique=held), 9)).is_duplicate


async def test_urgent_jobs_go_first_and_old_ones_are_not_starved() -> None:
    """Order is due time plus priority times aging: ten seconds of waiting outweigh a level."""
    app = Quarterjack(concurrency=1)
    order: list[str] = []

    @app.task
    async def note(name: str) -> None:
        order.append(name)
        await asyncio.sleep(30)

    async with running(app) as clock:
        jobs = [await app.submit(note, "first")]
        await clock.run_for(1)
        jobs.append(await app.submit(note.options(priority=4), "background"))
        jobs.append(await app.submit(note, "ordinary"))
        jobs.append(await app.submit(note.options(priority=0), "urgent"))
        await clock.run_for(25)
        jobs.append(await app.submit(note.options(priority=3), "late"))
        await gather(jobs)
    assert order == ["first", "urgent", "ordinary", "background", "late"]


async def test_callbacks_run_once_before_the_waiter_goes_on() -> None:
    """On the task and on one job, plain and coroutine functions; what they raise changes nothing."""
    app = Quarterjack()
    calls: list[str] = []

    @app.task
    async def work(fail: bool) -> None:
        if fail:
            raise ValueError

    @work.on_submit
    def submitted(job: Job[Any]) -> None:
        calls.append("submit")

    @work.on_start
    def started(job: Job[Any]) -> None:
        calls.append("start")

    @work.on_done
    async def done(job: Job[None]) -> None:
        await asyncio.sleep(5)
        calls.append("done")

    @work.on_error
    def failed(job: Job[Any]) -> None:
        calls.append("error")
        raise RuntimeError("a broken callback")

    async with running(app):
        job = await app.submit(work, False)
        job.on_done(lambda j: calls.append("own"))
        await job
        assert calls == ["submit", "start", "done", "own"]
        calls.clear()
        job = await app.submit(work, True)
        with pytest.raises(JobFailed):
            await job
        assert calls == ["submit", "start", "error"]


async def test_arguments_and_tasks_are_checked_at_the_door() -> None:
    """Nothing that cannot run is stored."""
    app, other = Quarterjack(), Quarterjack()

    @app.task
    async def one(a: int) -> None: ...

    @other.task
    async def foreign() -> None: ...

    async with running(app):
        untyped: Any = app
        with pytest.raises(InvalidArguments, match="one"):
            await untyped.submit(one)
        with pytest.raises(InvalidArguments):
            await untyped.submit(one, 1, 2)
        with pytest.raises(UnknownTask):
            await app.submit(foreign)
        assert await app.jobs() == []
    with pytest.raises(NotRunning):
        await app.submit(one, 1)
    with pytest.raises(NoCurrentJob):
        current_job()


async def test_strict_apps_see_what_a_durable_store_would_do() -> None:
    """Arguments are validated and JSON-round-tripped, results checked."""
    app = Quarterjack(strict=True)

    @app.task
    async def typed(items: tuple[int, ...], when: timedelta) -> tuple[tuple[int, ...], timedelta]:
        return items, when

    @app.task
    async def unserialisable() -> Any:
        return object()

    async with running(app):
        untyped: Any = app
        assert await (await untyped.submit(typed, [1, 2], timedelta(seconds=5))) == ((1, 2), timedelta(seconds=5))
        with pytest.raises(InvalidArguments, match="items"):
            await untyped.submit(typed, ("x",), timedelta(0))
        job = await app.submit(unserialisable)
        with pytest.raises(Exception, match="not JSON"):
            await job
        assert job.state is JobState.DONE


async def test_views_and_bulk_actions() -> None:
    """jobs, job, slowest, dump, retry and cancel by filter."""
    app = Quarterjack()
    broken = True

    @app.task
    async def nap(seconds: float) -> None:
        if broken and seconds == 0:
            raise ValueError
        await asyncio.sleep(seconds)

    async with running(app) as clock:
        jobs = [await app.submit(nap, n) for n in (3, 0, 1, 100)]
        await clock.run_for(10)
        assert [job.id for job in await app.jobs(task=nap, state=JobState.DONE)] == [jobs[2].id, jobs[0].id]
        assert (await app.job(jobs[1].id)).state is JobState.FAILED
        assert [job.id for job in await app.slowest(2)] == [jobs[3].id, jobs[0].id]
        assert jobs[0].id in await app.dump()
        broken = False
        assert await app.retry(task="nap", state=JobState.FAILED) == 1
        await jobs[1]
        assert await app.cancel(task=nap) == 1
        await clock.run_for(1)
        assert jobs[3].state is JobState.CANCELLED


async def test_shutdown_cancels_what_is_left_and_counts_it() -> None:
    """Running jobs get ``shutdown_grace``, waiting ones end as CANCELLED."""
    app = Quarterjack(concurrency=1, shutdown_grace=10)

    @app.task
    async def nap(seconds: float) -> str:
        await asyncio.sleep(seconds)
        return "slept"

    async with running(app) as clock:
        short, waiting = await app.submit(nap, 5), await app.submit(nap, 1)
        await clock.run_for(1)
    assert (short.state, waiting.state) == (JobState.DONE, JobState.CANCELLED)
    assert waiting.reason == "shutdown"
    async with running(app) as clock:
        long = await app.submit(nap, 100)
        await clock.run_for(1)
    assert long.state is JobState.CANCELLED
    assert long.duration == 11


async def test_cancelling_more_jobs_than_the_store_keeps_tells_every_waiter() -> None:
    """The memory store purges old finished rows; whoever waits for one is told all the same."""
    app = Quarterjack(concurrency=1)

    @app.task
    async def nap() -> None:
        await asyncio.sleep(1000)

    async with running(app):
        jobs = await app.submit_many(nap.options(delay=60).bind() for _ in range(1500))
        waiting = asyncio.gather(*(job.wait() for job in jobs), return_exceptions=True)
        await asyncio.sleep(1)
        assert await app.cancel(task=nap) == 1500
        errors = await waiting
    assert all(isinstance(error, JobCancelled) for error in errors)


async def test_callbacks_of_a_job_cancelled_while_it_waited_run_before_the_waiter_goes_on() -> None:
    """Also where the store itself ended the job."""
    app = Quarterjack()
    calls: list[str] = []

    @app.task
    async def later() -> None: ...

    @later.on_cancel
    async def told(job: Job[Any]) -> None:
        await asyncio.sleep(5)
        calls.append("cancel")

    async with running(app):
        job = await app.submit(later.options(delay=60))
        assert await job.cancel(wait=60)
        assert calls == ["cancel"]


async def test_a_blocked_loop_does_not_stretch_what_runs_elsewhere() -> None:
    """The stamps of a thread's body are taken in the thread."""
    app = Quarterjack()
    began, ended = threading.Event(), threading.Event()

    @app.task
    def quick() -> None:
        began.set()
        ended.wait(0.02)

    async with app:
        job = await app.submit(quick)
        await asyncio.to_thread(began.wait)
        ended.wait(0.3)  # the loop stands still here
        await job
    assert job.duration is not None
    assert job.duration < 0.2
