"""How apps end: whoever cancels, raises, hangs or submits meanwhile, every job gets its end and nothing is left."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from quarterjack import (
    Every,
    Job,
    JobState,
    JobTimedOut,
    LoopThread,
    NotRunning,
    OnShutdown,
    OnStartup,
    Quarterjack,
    StartupFailed,
    UsageError,
)
from quarterjack.errors import Conflict
from quarterjack.model import JobFilter
from quarterjack.stores import MemoryStore
from quarterjack.testing import faults, virtual_time
from tests.app.kit import sleeper, spawn, stubborn


def own_tasks() -> list[str]:
    """Return the tasks of apps that still run."""
    return sorted(t.get_name() for t in asyncio.all_tasks() if t.get_name().startswith("quarterjack"))


async def test_cancelling_the_host_while_it_drains_still_ends_the_work() -> None:
    """`asyncio.run` cancels its main task at Ctrl-C; that may come in the middle of the drain."""
    app = Quarterjack(shutdown_grace=30)
    task = sleeper(app)
    jobs: list[Job[Any]] = []

    async def host() -> None:
        async with app:
            jobs.append(await app.submit(task, 20))
            await asyncio.sleep(0.05)

    running = spawn(host())
    await asyncio.sleep(0.2)  # it drains
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert jobs[0].state is JobState.CANCELLED
    assert own_tasks() == []


async def test_cancelling_the_host_while_bodies_are_cancelled_still_ends_the_work() -> None:
    """An end takes several steps, and somebody impatient may come in each; the others take place all the same."""
    app = Quarterjack(shutdown_grace=0.1)
    task = stubborn(app, 1.5, cancel_grace=3)
    jobs: list[Job[Any]] = []

    async def host() -> None:
        async with app:
            jobs.append(await app.submit(task))
            await asyncio.sleep(0.05)

    running = spawn(host())
    await asyncio.sleep(0.4)  # the drain is over, the body is told to stop
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert own_tasks() == []
    assert jobs[0].state is JobState.CANCELLED
    await asyncio.gather(*(left for left in asyncio.all_tasks() if left.get_name() == jobs[0].id))


async def test_system_exit_during_the_drain_is_raised_by_serve() -> None:
    """The documented way for a body to end the app works while it drains, and the others finish."""
    app = Quarterjack(shutdown_grace=5)

    @app.task
    async def leaves() -> None:
        await asyncio.sleep(0.1)
        raise SystemExit(3)

    other = sleeper(app)

    async def serve() -> int | str | None:
        try:
            await app.serve()
        except SystemExit as end:  # asyncio would end its loop by it
            return end.code
        return None

    serving = spawn(serve())
    await asyncio.sleep(0.05)
    await app.submit(leaves)
    job = await app.submit(other, 0.2)
    await asyncio.sleep(0.05)
    app.stop()
    assert await serving == 3
    assert job.result() == 0.2
    assert own_tasks() == []


async def test_submit_after_the_last_job_has_ended_is_refused() -> None:
    """A job that is accepted has an end: nothing is dropped in silence."""
    app = Quarterjack()
    task = sleeper(app)
    asked: list[bool] = []

    @app.task(OnShutdown())
    async def down() -> None:
        with pytest.raises(NotRunning, match="sleeper was not submitted"):
            await app.submit(task, 0)
        asked.append(True)

    async with virtual_time(app):
        pass
    assert asked


async def test_nothing_is_run_once_more_after_the_last_job_has_ended() -> None:
    """A repeated job, or an extra run of a schedule, would wait for ever, and with it whoever awaits it."""
    app = Quarterjack()
    task = sleeper(app)
    asked: list[bool] = []

    @app.task(Every(hours=1))
    async def hourly() -> None: ...

    @app.task(OnShutdown())
    async def down() -> None:
        with pytest.raises(NotRunning, match="schedule hourly was not run"):
            await app.trigger_now("hourly")
        with pytest.raises(NotRunning, match="nothing was repeated"):
            await app.retry(task="sleeper")
        asked.append(True)

    async with virtual_time(app):
        job = await app.submit(task, 0)
        await job
    assert asked
    assert job.state is JobState.DONE


async def test_many_jobs_that_are_submitted_beside_the_end_have_an_end() -> None:
    """They are stored in batches, and the end may come between two of them."""
    app = Quarterjack()
    task = sleeper(app)
    async with app:
        many = spawn(app.submit_many(task.options(delay=60).bind(0) for _ in range(20_000)))
        await asyncio.sleep(0)
    with pytest.raises(NotRunning, match="jobs were not submitted"):
        await many
    stored = (await app.store.jobs_list(JobFilter(), limit=20_000)).jobs
    assert {row.state for row in stored} == {JobState.CANCELLED}


async def test_what_a_callback_of_the_last_job_submits_has_an_end() -> None:
    """A chain of jobs (on_done submits the next) does not end in a job nobody ends."""
    app = Quarterjack()
    task = sleeper(app)
    jobs: list[Job[Any]] = []

    @app.task
    async def first() -> None:
        await asyncio.sleep(1)

    @first.on_done
    async def following(job: Job[None]) -> None:
        await asyncio.sleep(1)
        jobs.append(await app.submit(task, 0))

    async with virtual_time(app):
        await app.submit(first)
        await asyncio.sleep(0.5)
    assert jobs
    assert jobs[0].state is JobState.CANCELLED


async def test_jobs_submitted_before_a_start_that_fails_have_an_end() -> None:
    """Who awaits a job of a start that failed must not wait for ever."""
    app = Quarterjack()
    task = sleeper(app)
    jobs: list[Job[Any]] = []

    @app.task(OnStartup())
    async def submits() -> None:
        jobs.append(await app.submit(task, 0))

    @app.task(OnStartup())
    async def fails() -> None:
        raise ValueError("no")

    with pytest.raises(StartupFailed):
        async with app:
            pass
    assert jobs[0].state is JobState.CANCELLED


async def test_a_second_app_on_the_same_store_does_not_wipe_the_first() -> None:
    """The refusal of the second app leaves the first one's schedules alone."""
    store = MemoryStore()
    first, second = Quarterjack(store), Quarterjack(store)
    ran: list[float] = []

    @first.task(Every(seconds=1))
    async def tick() -> None:
        ran.append(asyncio.get_running_loop().time())

    async with virtual_time(first) as world:
        await world.run_for(2)
        before = len(ran)
        with pytest.raises(Conflict):
            async with second:
                pass
        assert [s.id for s in await first.schedules()] == ["tick"]
        await world.run_for(5)
        assert len(ran) == before + 5


async def test_two_apps_share_a_loop_thread_and_one_of_them_ends() -> None:
    """The end of one app cancels no body of the other."""
    urgent = LoopThread("urgent")
    one, two = Quarterjack(), Quarterjack()
    sleeper(one, executor=urgent)
    task = sleeper(two, executor=urgent)
    async with two:
        async with one:
            job = await two.submit(task, 0.5)
            await asyncio.sleep(0.1)
        assert await job == 0.5


async def test_a_slot_of_a_shared_loop_thread_that_another_app_frees_is_used() -> None:
    """A job waits no longer than for a slot, whoever had it."""
    urgent = LoopThread("urgent", slots=1)
    one, two = Quarterjack(), Quarterjack()
    first, second = sleeper(one, executor=urgent), sleeper(two, executor=urgent)
    async with one, two:
        await one.submit(first, 0.2)
        await asyncio.sleep(0.05)
        job = await two.submit(second, 0.0)
        assert await job.wait(timeout=2) == 0.0


def test_a_second_in_thread_does_not_stop_the_first() -> None:
    """A clear error for the second, and the first goes on."""
    app = Quarterjack()
    task = sleeper(app)
    with app.in_thread():
        for _ in range(20):
            with pytest.raises(UsageError), app.in_thread():
                pass
            time.sleep(0.01)
            assert app.is_running
            app.submit_sync(task, 0.0)


async def test_callback_that_hangs_does_not_outlive_the_second_stop() -> None:
    """The second stop means now, also when a callback hangs."""
    app = Quarterjack(shutdown_grace=0.2)
    task = sleeper(app)
    never = asyncio.Event()

    @task.on_done
    async def hangs(job: Job[float]) -> None:
        await never.wait()

    serving = spawn(app.serve())
    await asyncio.sleep(0.05)
    await app.submit(task, 0.0)
    await asyncio.sleep(0.05)
    app.stop()
    await asyncio.sleep(0.3)
    app.stop()
    done, _ = await asyncio.wait({serving}, timeout=3)
    never.set()
    await serving
    assert done, "serve did not end 3 s after the second stop"


async def test_zombie_that_waits_for_its_retry_is_ended_at_shutdown(monkeypatch: pytest.MonkeyPatch) -> None:
    """At shutdown every job gets its final state, those whose retry waits for a stubborn body too."""
    monkeypatch.setattr("quarterjack._app_life.LAST_GRACE_S", 0.3)  # five seconds in earnest
    app = Quarterjack(shutdown_grace=0.1)
    release = threading.Event()

    @app.task(timeout=0.1, retry=3)
    def stuck() -> None:
        release.wait(8)

    async with app:
        job = await app.submit(stuck)
        await asyncio.sleep(0.3)
        waiter = spawn(job.wait())
        await asyncio.sleep(0)
    done, _ = await asyncio.wait({waiter}, timeout=0.5)
    release.set()
    waiter.cancel()
    await asyncio.gather(waiter, return_exceptions=True)
    assert done
    assert (job.state, job.reason) == (JobState.CANCELLED, "shutdown")


async def test_cancel_of_a_job_whose_retry_waits_for_its_body() -> None:
    """A thread that is cancelled is CANCELLED at once."""
    app = Quarterjack()
    release = threading.Event()

    @app.task(timeout=0.1, retry=3)
    def stuck() -> None:
        release.wait(3)

    async with app:
        job = await app.submit(stuck)
        await asyncio.sleep(0.3)
        cancelled = await job.cancel(wait=0.5)
        release.set()
        await asyncio.sleep(0.2)
        state = job.state
    assert cancelled, f"not within half a second; it ended as {state}"
    assert state is JobState.CANCELLED


async def test_restarted_app_is_not_blocked_by_a_body_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a body of the last run kept is free when it has ended."""
    monkeypatch.setattr("quarterjack._app_life.LAST_GRACE_S", 0.3)  # five seconds in earnest
    app = Quarterjack(shutdown_grace=0)
    release = threading.Event()
    ran: list[int] = []

    @app.task(Every(seconds=0.2))
    def tick() -> None:
        ran.append(1)
        if len(ran) == 1:
            release.wait(7)

    async with app:
        await asyncio.sleep(0.5)
    release.set()
    await asyncio.sleep(0.1)
    async with app:
        await asyncio.sleep(1.1)
        assert len(ran) > 1, [(j.state, j.reason) for j in await app.jobs(limit=3)]


async def test_shutdown_hook_that_hangs_does_not_outlive_the_second_stop() -> None:
    """The hooks after it still get their turn."""
    app = Quarterjack()
    said: list[str] = []

    @app.task(OnShutdown())
    async def last() -> None:
        said.append("last")

    @app.task(OnShutdown())
    async def hangs() -> None:
        await asyncio.Event().wait()

    serving = spawn(app.serve())
    await asyncio.sleep(0.05)
    app.stop()
    await asyncio.sleep(0.1)
    assert not said
    app.stop()
    await asyncio.wait_for(serving, 3)
    assert said == ["last"]


async def test_body_that_ends_before_its_outcome_is_recorded_keeps_no_key() -> None:
    """A slow store must not leave the schedule of such a body skipped for ever."""
    app = Quarterjack()
    release = threading.Event()

    @app.task(Every(seconds=60), timeout=0.1, overlap="skip")
    def tick() -> None:
        release.wait(5)

    async with app:
        with faults(app.store) as slow:
            slow.delay_next("jobs_finish", 0.3)
            first = await app.trigger_now("tick")
            await asyncio.sleep(0.2)
            release.set()
            with pytest.raises(JobTimedOut):
                await first
        await asyncio.sleep(0.05)
        assert await (await app.trigger_now("tick")) is None


async def test_an_end_for_which_every_task_is_cancelled_costs_no_grace() -> None:
    """`sys.exit()` in a task beside the app makes asyncio cancel all tasks, ours too; the bodies' ends are recorded.

    The bug: nobody recorded them any more, and the drain waited its whole grace for bodies that had ended.
    """
    app = Quarterjack(shutdown_grace=30)
    task = sleeper(app)
    jobs: list[Job[Any]] = []

    async def host() -> None:
        async with app:
            jobs.append(await app.submit(task, 60))
            await asyncio.sleep(60)

    running = spawn(host())
    await asyncio.sleep(0.05)
    for other in asyncio.all_tasks() - {asyncio.current_task()}:
        other.cancel()
    began = time.monotonic()
    await asyncio.gather(running, return_exceptions=True)  # cancelled, or what that broke: whichever came first
    assert time.monotonic() - began < 10
    assert jobs[0].state is JobState.CANCELLED
    assert own_tasks() == []


async def test_the_last_outcomes_get_all_their_tries_however_long_the_store_was_away() -> None:
    """The tries before the stop are not counted: an outage that ends just after it costs no outcome."""
    app = Quarterjack(shutdown_grace=0)
    task = sleeper(app)
    with faults(app.store) as broken:
        async with virtual_time(app) as world:
            broken.fail_next("jobs_finish", times=8)
            job = await app.submit(task, 0)
            await world.run_for(6.5)
    assert job.state is JobState.DONE
