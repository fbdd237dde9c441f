"""Slots: who holds one, who lends one, who waits for one, and that ticks and other executors wait for none."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest

from quarterjack import (
    Every,
    JobState,
    LoopThread,
    Quarterjack,
    current_job,
    gather,
)
from quarterjack.testing import faults, virtual_time
from tests.app.kit import sleeper, spawn


async def test_a_body_that_awaits_three_jobs_lends_one_slot() -> None:
    """It holds one slot and gives back that one: concurrency=1 never runs three children at once."""
    app = Quarterjack(concurrency=1)
    now, most = 0, 0

    @app.task
    async def child() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1

    @app.task
    async def parent() -> None:
        jobs = await app.submit_many(child.bind() for _ in range(3))
        await asyncio.gather(*(job.wait() for job in jobs))

    async with virtual_time(app):
        await (await app.submit(parent))
    assert most == 1


async def test_a_watcher_that_outlives_its_body_lends_no_slot() -> None:
    """A task the body leaves behind holds no slot, so it has none to lend."""
    app = Quarterjack(concurrency=1)
    now, most = 0, 0
    left: list[asyncio.Task[Any]] = []

    @app.task
    async def child() -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(1)
        now -= 1

    @app.task
    async def parent() -> None:
        job = await app.submit(child.options(delay=100))
        left.append(spawn(job.wait()))
        await asyncio.sleep(0)

    async with virtual_time(app):
        await (await app.submit(parent))
        await gather(await app.submit_many(child.bind() for _ in range(3)))
        await asyncio.gather(*left)
    assert most == 1


async def test_a_body_that_awaits_another_apps_job_wakes_its_own_app() -> None:
    """The slot a body lends while it awaits a job of an app in another thread is used at once."""
    mine, other = Quarterjack(concurrency=1), Quarterjack()
    there = sleeper(other)
    began: list[float] = []

    @mine.task
    async def waits() -> None:
        job = await other.submit(there, 1.5)
        await job

    @mine.task
    async def quick() -> None:
        began.append(time.monotonic())

    with other.in_thread():
        async with mine:
            first = await mine.submit(waits)
            second = await mine.submit(quick)
            t0 = time.monotonic()
            await asyncio.gather(first.wait(), second.wait())
    assert began[0] - t0 < 1


async def test_body_first_run_is_attempt_one_when_its_executor_was_full() -> None:
    """`if me.attempt == 1` means the first try, also when the job waited for a thread."""
    app = Quarterjack()
    seen: list[int] = []

    @app.task
    async def work() -> None:
        seen.append(current_job().attempt)
        await asyncio.sleep(0.3)

    async with app:
        jobs = [await app.submit(work.options(executor="thread")) for _ in range(30)]
        await gather(jobs)
    assert set(seen) == {1}, sorted(seen)


async def test_lag_of_a_job_that_waited_for_a_thread() -> None:
    """`lag`: from the due time to the start, however long it waited for its executor."""
    app = Quarterjack()

    @app.task
    async def work() -> None:
        await asyncio.sleep(0.3)

    async with app:
        submitted = time.monotonic()
        jobs = [await app.submit(work.options(executor="thread")) for _ in range(30)]
        await gather(jobs)
        took = time.monotonic() - submitted
    assert max(job.lag or 0 for job in jobs) > took / 2


async def test_a_loop_that_is_full_holds_up_no_job_that_names_another_executor() -> None:
    """`executor="thread"` of one submit runs in a thread, and needs no slot of the loop."""
    app = Quarterjack(concurrency=1)
    task = sleeper(app)
    async with app:
        slow = await app.submit(task, 2)
        await asyncio.sleep(0.05)
        quick = await app.submit(task.options(executor="thread"), 0)
        try:
            await quick.wait(timeout=1)
        finally:
            await slow.cancel()


async def test_start_deadline_of_a_job_that_waits_for_a_thread() -> None:
    """`start_deadline`: too late is MISSED, whatever it waited for."""
    app = Quarterjack()

    @app.task
    async def work(seconds: float) -> None:
        await asyncio.sleep(seconds)

    threads = 40
    async with app:
        busy = [await app.submit(work.options(executor="thread"), 0.2) for _ in range(threads)]
        late = await app.submit(work.options(executor="thread", start_deadline=0.1), 0.0)
        await gather([*busy, late], return_exceptions=True)
    assert late.state is JobState.MISSED, (late.state, late.lag)


async def test_drain_waits_for_jobs_that_wait_for_a_thread() -> None:
    """`drain`: until none that is due waits."""
    app = Quarterjack()

    @app.task
    async def work() -> None:
        await asyncio.sleep(0.2)

    async with app:
        jobs = [await app.submit(work.options(executor="thread")) for _ in range(30)]
        await app.drain()
        open_ = [job for job in jobs if not job.state.is_finished]
    assert not open_, len(open_)


async def test_ticks_beyond_the_kept_slots_do_not_queue_behind_a_flood() -> None:
    """The slots kept for ticks serve every tick, not only those that find one free at their instant."""
    app = Quarterjack(concurrency=20)  # two are kept
    task = sleeper(app)
    lags: list[float] = []

    async def body() -> None:
        lags.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.5)

    for n in range(6):
        app.task(Every(seconds=100), name=f"tick{n}")(body)

    async with virtual_time(app) as world:
        await world.run_for(95)
        lags.clear()
        await app.submit_many(task.bind(1.0) for _ in range(18 * 60))  # a minute of work for 18 slots
        await world.run_for(70)
        found = [job.lag for n in range(6) for job in await app.jobs(task=f"tick{n}", limit=1)]
    # two at a time, half a second each: the last of six would begin after a second
    assert all(lag is not None and lag <= 3 for lag in found), found


async def test_kept_slots_are_used_while_ticks_wait() -> None:
    """No slot kept for ticks is free while a tick that is due waits."""
    app = Quarterjack(concurrency=20)
    task = sleeper(app)

    async def body() -> None:
        await asyncio.sleep(0.5)

    for n in range(6):
        app.task(Every(seconds=100), name=f"tick{n}")(body)
    async with virtual_time(app) as world:
        await world.run_for(95)
        await app.submit_many(task.bind(1.0) for _ in range(18 * 60))
        await world.run_for(30.25)
        service = app._service
        assert service is not None
        waiting = [j.task for n in range(6) for j in await app.jobs(task=f"tick{n}", state=JobState.SUBMITTED)]
        free = service.places.own["loop"].free
        assert not (waiting and free), (waiting, free)


async def test_a_schedule_made_at_run_time_may_name_an_executor() -> None:
    """`executor=` of `app.schedule` is one of its documented policies."""
    app = Quarterjack()
    ran: list[str] = []

    @app.task
    async def tick() -> None:
        ran.append(threading.current_thread().name)

    async with app:
        await app.schedule(tick, Every(seconds=0.1), executor=LoopThread("urgent"))
        await asyncio.sleep(0.6)
        jobs = [(job.state.value, job.attempt, job.reason) for job in await app.jobs(limit=3)]
    assert ran, jobs


async def test_a_failing_executor_start_is_told() -> None:
    """An executor that could not start is an error of each submit that names it, not of the first only."""

    def no_loop() -> asyncio.AbstractEventLoop:
        raise OSError("no loop")

    broken = LoopThread("broken", loop_factory=no_loop)
    app = Quarterjack(shutdown_grace=0.1)
    task = sleeper(app)
    async with app:
        for _ in range(2):
            with pytest.raises(OSError, match="no loop"):
                await app.submit(task.options(executor=broken), 0)


async def test_a_lent_slot_of_a_shared_loop_thread_serves_another_app() -> None:
    """The child may be another app's: its worker has to hear that the slot it waits for is lent now."""
    shared = LoopThread("shared", slots=1)
    ours, theirs = Quarterjack(), Quarterjack()

    @theirs.task(executor=shared)
    async def child() -> str:
        return "child"

    @ours.task(executor=shared)
    async def parent() -> str:
        job = await theirs.submit(child)
        await asyncio.sleep(0.05)  # their worker looks, and finds no slot
        return await job

    async with ours, theirs:
        assert await (await ours.submit(parent)).wait(5) == "child"


async def test_every_slot_that_is_freed_while_the_recorder_is_at_the_store_is_used() -> None:
    """Of several outcomes that waited for a slow store, only the first one's slot was taken again."""
    app = Quarterjack(concurrency=1)
    nap = sleeper(app)
    async with virtual_time(app):
        with faults(app.store) as broken:
            broken.delay_next("jobs_finish", 5)
            jobs = await app.submit_many(nap.bind(0.1) for _ in range(6))
            await asyncio.sleep(4)
            begun = [job.timestamps.running_at is not None for job in jobs]
        await gather(jobs)
    assert begun == [True] * 6


async def test_a_pool_that_can_start_no_thread_is_not_asked_again_and_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It has slots, but the system gives it no threads: 45,000 claims per second gave it none either."""

    def no_thread(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    app = Quarterjack()

    @app.task
    def work() -> str:
        return "done"

    async with virtual_time(app) as world:
        with monkeypatch.context() as patched:
            patched.setattr("quarterjack.executors.thread._Thread.start", no_thread)
            job = await app.submit(work)
            await world.run_for(3.5)
            assert job.attempt == 4
            assert "no thread could be started" in (job.reason or "")
        assert await job == "done"
    assert "has free slots and refused job" in caplog.text
