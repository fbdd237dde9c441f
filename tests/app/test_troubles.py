"""Troubles: what users' code, executors, stores, clocks and impatient people may do, and what goes on all the same."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Any, ClassVar

import pytest

from quarterjack import (
    Every,
    JobState,
    OnShutdown,
    Quarterjack,
    Snooze,
    Trigger,
    UsageError,
    current_job,
)
from quarterjack.events import JobEvent
from quarterjack.executors import LoopExecutor
from quarterjack.stores import MemoryStore
from quarterjack.testing import virtual_time
from tests.app.kit import Boom, sleeper, spawn


class Fickle(Trigger):
    """Raises once it is told to."""

    broken: ClassVar[bool] = False

    def next(self, after: datetime) -> datetime | None:
        if Fickle.broken:
            raise Boom("broken")
        return after + timedelta(seconds=1)


async def test_a_trigger_that_raises_when_its_pause_ends_parks_only_itself() -> None:
    """Whatever a trigger does, the other schedules fire on."""
    app = Quarterjack()
    ran: list[int] = []
    Fickle.broken = False

    @app.task(Every(seconds=1))
    async def good() -> None:
        ran.append(1)

    @app.task(Fickle())
    async def bad() -> None: ...

    async with virtual_time(app) as world:
        await app.pause("bad", until=app.clock.now() + timedelta(seconds=3.5))
        Fickle.broken = True
        await world.run_for(10)
    assert len(ran) >= 9, len(ran)


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class RudeTrigger(Trigger):
    """Works for three seconds, then raises what cannot be printed."""

    broken: ClassVar[bool] = False

    def next(self, after: datetime) -> datetime | None:
        if RudeTrigger.broken:
            raise Unprintable
        return after + timedelta(seconds=1)


async def test_a_trigger_that_raises_the_unprintable_parks_only_itself() -> None:
    """As above; `planner.parked` takes care of it, the scheduler's own way must too."""
    app = Quarterjack()
    ran: list[int] = []
    RudeTrigger.broken = False

    @app.task(Every(seconds=1))
    async def good() -> None:
        ran.append(1)

    @app.task(RudeTrigger())
    async def bad() -> None: ...

    async with virtual_time(app) as world:
        await world.run_for(3)
        RudeTrigger.broken = True
        await world.run_for(10)
    assert len(ran) >= 12, len(ran)


class Tomorrow(Snooze):
    """A user's own kind of snooze that forgot to call its parent."""

    def __init__(self) -> None:
        pass


async def test_a_broken_snooze_is_its_jobs_failure() -> None:
    """Whatever a body raises leads to the documented state, never to a job that runs for ever."""
    app = Quarterjack()

    @app.task
    async def naps() -> None:
        raise Tomorrow

    async with virtual_time(app):
        job = await app.submit(naps)
        await asyncio.sleep(5)
        assert job.state is JobState.FAILED, job.state


async def test_a_shutdown_hook_that_is_cancelled_lets_the_others_run() -> None:
    """One that fails is logged and the others still run: also when what it awaited was cancelled."""
    app = Quarterjack()
    ran: list[str] = []

    @app.task(OnShutdown())
    async def first() -> None:
        ran.append("first")

    @app.task(OnShutdown())
    async def last() -> None:
        inner = spawn(asyncio.sleep(100))
        inner.cancel()
        await inner

    try:
        async with app:
            pass
    except asyncio.CancelledError:
        ran.append("cancelled")
    assert ran == ["first"]


class Rude(LoopExecutor):
    """Its stop raises."""

    name = "rude"

    async def stop(self, grace_s: float) -> None:
        await super().stop(grace_s)
        raise OSError("cannot stop")


async def test_an_executor_whose_stop_raises_leaks_nothing() -> None:
    """One part that fails to stop does not keep the others from stopping."""
    app = Quarterjack()
    task = sleeper(app, executor=Rude())
    async with app:
        await (await app.submit(task, 0))
        job = await app.submit(task.options(delay=100), 0)
    left = [t for t in asyncio.all_tasks() if t.get_name().startswith("quarterjack")]
    assert job.state.is_finished, job.state
    assert left == []


async def test_a_body_left_behind_may_still_say_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a thread says after the app is gone goes nowhere; it does not raise in the body."""
    monkeypatch.setattr("quarterjack._app_life.LAST_GRACE_S", 0.3)  # five seconds in earnest
    got: list[BaseException | None] = []
    release, ended = threading.Event(), threading.Event()

    def other_program() -> None:
        app = Quarterjack(shutdown_grace=0)

        @app.task
        def stuck() -> None:
            release.wait(20)
            try:
                current_job().progress(1, 2)
            except BaseException as error:
                got.append(error)
            ended.set()

        async def main() -> None:
            app.event_stream.listen(lambda _: None)
            async with app:
                await app.submit(stuck)
                await asyncio.sleep(0.1)

        asyncio.run(main())

    await asyncio.to_thread(other_program)
    release.set()
    await asyncio.to_thread(ended.wait, 5)
    assert got == []


async def test_clock_set_back_between_plan_and_fire_does_not_stop_the_schedule() -> None:
    """What was planned a moment ahead is forgotten when the clock steps; the rebased row is not."""
    app = Quarterjack()
    ran: list[int] = []

    @app.task(Every(seconds=10))
    async def tick() -> None:
        ran.append(1)

    async with virtual_time(app) as world:
        await world.run_for(15)
        service = app._service
        assert service is not None
        assert service.scheduler is not None
        service.scheduler._plan_ahead()  # what the timer does up to lead_ns before the instant
        await world.step_clock(-3600)
        before = len(ran)
        await world.run_for(60)
        assert len(ran) - before >= 5, len(ran) - before


class Shared(MemoryStore):
    """A memory store that says other processes share it."""

    is_shared: ClassVar[bool] = True
    claims = 0

    async def jobs_claim(self, claim: Any) -> Any:
        self.claims += 1
        return await super().jobs_claim(claim)


async def test_polling_of_a_shared_store_does_not_multiply() -> None:
    """One look a second is the promise, however many jobs have come."""
    store = Shared()
    app = Quarterjack(store)
    task = sleeper(app)
    async with virtual_time(app) as world:
        for _ in range(100):
            await (await app.submit(task, 0))
        await world.run_for(2)
        before = store.claims
        await world.run_for(10)
        assert store.claims - before <= 15, store.claims - before


class Slow(Shared):
    """Its answers take a while, as a network's do."""

    never_suspends: ClassVar[bool] = False
    keeps_objects: ClassVar[bool] = True

    async def jobs_finish(self, finishes: Any) -> Any:
        await asyncio.sleep(0.2)
        return await super().jobs_finish(finishes)


async def test_outcomes_under_way_at_the_stop_are_recorded() -> None:
    """An outcome the recorder has just taken to the store is not dropped by the stop."""
    app = Quarterjack(Slow(), shutdown_grace=0)
    done: list[int] = []
    task = sleeper(app)
    task.on_done(lambda _: done.append(1))
    async with app:
        job = await app.submit(task, 0.0)
        await asyncio.sleep(0.1)
    assert job.state is JobState.DONE, job.state
    assert done == [1]


def test_a_second_in_thread_leaves_the_first_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clear error for the second, and the first goes on: also when the thread of the second ends slowly."""
    app = Quarterjack()
    task = sleeper(app)
    original = threading.Thread.run

    def slow_end(self: threading.Thread) -> None:
        original(self)
        if self.name == "quarterjack-app":
            time.sleep(0.1)

    monkeypatch.setattr(threading.Thread, "run", slow_end)
    with app.in_thread():
        with pytest.raises(UsageError, match="another event loop"), app.in_thread():
            pass
        time.sleep(0.1)
        assert app.is_running
        app.submit_sync(task, 0.0)


async def test_sigint_twice_in_the_middle_of_the_start_returns_quietly() -> None:
    """The first undoes the start, the second hurries; neither is an error of the program."""

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            await asyncio.sleep(5)
            yield
        finally:
            await asyncio.sleep(1)

    app = Quarterjack(lifespan=lifespan)
    serving = spawn(app.serve())
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
    await asyncio.sleep(0.1)
    os.kill(os.getpid(), signal.SIGINT)
    assert await serving == (signal.SIGINT, signal.SIGINT)


async def test_a_shutdown_hook_that_awaits_what_it_submits_does_not_hang() -> None:
    """It is told at once that nothing is accepted any more, or gets its answer."""
    app = Quarterjack(shutdown_grace=0.1)
    task = sleeper(app)

    @app.task(OnShutdown())
    async def down() -> None:
        await (await app.submit(task, 0))

    async def host() -> None:
        async with app:
            pass

    running = spawn(host())
    await asyncio.wait_for(running, 8)


async def test_trigger_now_that_is_skipped_is_no_submitted_job() -> None:
    """An event says what happened: a skipped run was not submitted."""
    app = Quarterjack()
    seen: list[tuple[str, str]] = []
    submitted: list[str] = []

    @app.task(Every(seconds=10))
    async def tick() -> None:
        await asyncio.sleep(8)

    tick.on_submit(lambda job: submitted.append(job.state.value))

    async with virtual_time(app) as world:
        await world.run_for(12)
        app.event_stream.listen(lambda e: seen.append((e.kind, e.state)) if isinstance(e, JobEvent) else None)
        job = await app.trigger_now("tick")
        assert job.state is JobState.SKIPPED
        await world.run_for(1)
    assert ("submitted", "skipped") not in seen, seen
    assert "skipped" not in submitted


async def test_on_submit_of_what_a_schedule_fires() -> None:
    """`on_submit` is called when a job of the task is stored, whoever asked for it."""
    app = Quarterjack()
    submitted: list[str] = []

    @app.task(Every(seconds=10))
    async def tick() -> None: ...

    tick.on_submit(lambda job: submitted.append(job.id))
    async with virtual_time(app) as world:
        await world.run_for(35)
    assert len(submitted) == 3


async def test_a_repeated_job_is_told_to_the_events() -> None:
    """Each move has an event."""
    app = Quarterjack()
    kinds: list[str] = []

    @app.task
    async def fails() -> None:
        raise Boom

    async with virtual_time(app):
        job = await app.submit(fails)
        await asyncio.sleep(1)
        app.event_stream.listen(lambda e: kinds.append(e.kind) if isinstance(e, JobEvent) else None)
        await app.retry(task="fails")
        await asyncio.sleep(1)
        assert job.state is JobState.FAILED
    assert kinds[0] in {"submitted", "repeated"}, kinds
