"""An app's life: hooks and lifespans in order, what failing ones do, loops, forks, shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from quarterjack import (
    Conflict,
    Depends,
    Every,
    JobState,
    MemoryStore,
    NotRunning,
    OnShutdown,
    OnStartup,
    Quarterjack,
    StartupFailed,
    UsageError,
    WrongLoop,
)
from quarterjack.errors import Forked
from quarterjack.testing import virtual_time
from tests.app.kit import Boom, sleeper


def app_that_says(said: list[str], *, fails: str = "", is_async: bool = True) -> Quarterjack:
    """Return an app with a lifespan and two hooks each way; the one named *fails* raises."""

    def say(word: str) -> None:
        said.append(word)
        if word == fails:
            raise Boom(word)

    @contextlib.asynccontextmanager
    async def asynchronous(app: Quarterjack) -> AsyncIterator[None]:
        say("enter")
        try:
            yield
        finally:
            say("leave")

    @contextlib.contextmanager
    def plain(app: Quarterjack) -> Iterator[None]:
        say("enter")
        try:
            yield
        finally:
            say("leave")

    app = Quarterjack(lifespan=asynchronous if is_async else plain)
    for name in ("up1", "up2"):
        app.task(OnStartup(), name=name)(lambda name=name: say(name))
    for name in ("down1", "down2"):
        app.task(OnShutdown(), name=name)(lambda name=name: say(name))
    return app


@pytest.mark.parametrize("is_async", [True, False])
async def test_start_and_stop_are_mirror_images(is_async: bool) -> None:
    """What is set up first is torn down last, so that each may rely on those before it."""
    said: list[str] = []
    async with app_that_says(said, is_async=is_async):
        said.append("work")
    assert said == ["enter", "up1", "up2", "work", "down2", "down1", "leave"]


@pytest.mark.parametrize(
    ("fails", "expected"),
    [
        ("enter", ["enter"]),
        ("up1", ["enter", "up1", "down2", "down1", "leave"]),
        ("up2", ["enter", "up1", "up2", "down2", "down1", "leave"]),
    ],
)
async def test_failing_start_undoes_what_was_begun(fails: str, expected: list[str]) -> None:
    """A half-started app must not hold on to its connections."""
    said: list[str] = []
    app = app_that_says(said, fails=fails)
    with pytest.raises(StartupFailed, match=f"Boom: {fails}") as caught:
        await app.__aenter__()
    assert isinstance(caught.value.__cause__, Boom)
    assert said == expected or said == [word for word in expected if not word.startswith("down")]
    assert not app.is_running


async def test_app_starts_again_after_a_failed_start() -> None:
    """A server that was not up yet may be up in a second."""
    attempts: list[int] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Quarterjack) -> AsyncIterator[None]:
        attempts.append(1)
        if len(attempts) == 1:
            raise Boom
        yield

    app = Quarterjack(lifespan=lifespan)
    task = sleeper(app)
    with pytest.raises(StartupFailed):
        await app.__aenter__()
    for _ in range(2):
        async with app:
            assert await (await app.submit(task, 0)) == 0


async def test_failing_shutdown_hook_is_logged_and_the_others_run(caplog: pytest.LogCaptureFixture) -> None:
    """One broken clean-up must not cost the others theirs."""
    said: list[str] = []
    async with app_that_says(said, fails="down2"):
        pass
    assert said[-3:] == ["down2", "down1", "leave"]
    assert "shutdown hook down2 raised" in caplog.text


async def test_hooks_have_dependencies_and_never_become_jobs() -> None:
    """They are local functions of the process, run before any work is there."""
    app = Quarterjack()
    got: list[int] = []

    @app.task(OnStartup())
    async def up(value: int = Depends(lambda: 42)) -> None:
        got.append(value)

    async with virtual_time(app) as world:
        assert got == [42]
        assert world.jobs() == []


async def test_lifespan_may_submit_and_is_left_after_the_last_job() -> None:
    """The connection a body needs is there until the last body has ended."""
    said: list[str] = []

    @contextlib.asynccontextmanager
    async def lifespan(app: Quarterjack) -> AsyncIterator[None]:
        await app.submit(work)
        yield
        said.append("leave")

    app = Quarterjack(lifespan=lifespan)

    @app.task
    async def work() -> None:
        await asyncio.sleep(5)
        said.append("worked")

    async with virtual_time(app) as world:
        await world.run_for(1)
    assert said == ["worked", "leave"]


async def test_lifespan_that_returns_no_context_manager_is_told() -> None:
    """Forgetting the decorator is the usual mistake; the message names it."""

    async def lifespan(app: Quarterjack) -> Any:
        return None

    app = Quarterjack(lifespan=lifespan)  # type: ignore[arg-type]
    with pytest.raises(StartupFailed, match="asynccontextmanager"):
        await app.__aenter__()


# -- stop ---------------------------------------------------------------------------


async def test_leaving_waits_for_what_runs_and_cancels_what_waits() -> None:
    """Shutdown loses no work that has begun, and says what it did not begin."""
    app = Quarterjack(concurrency=1, shutdown_grace=30)
    task = sleeper(app)
    async with virtual_time(app) as world:
        running = await app.submit(task, 20)
        waiting = await app.submit(task, 1)
        delayed = await app.submit(task.options(delay=5), 1)
        await world.run_for(1)
    assert (running.state, waiting.state, delayed.state) == (
        JobState.DONE, JobState.CANCELLED, JobState.CANCELLED
    )  # fmt: skip
    assert waiting.reason == "shutdown"


async def test_grace_bounds_how_long_shutdown_waits() -> None:
    """A body that hangs must not hang the deploy."""
    app = Quarterjack(shutdown_grace=10)
    task = sleeper(app)
    async with virtual_time(app) as world:
        job = await app.submit(task, 3600)
        await world.run_for(1)
        before = world.clock.monotonic()
    assert world.clock.monotonic() - before == pytest.approx(10)
    assert (job.state, job.reason) == (JobState.CANCELLED, "shutdown")


async def test_body_that_ignores_shutdown_is_left_behind_after_a_last_grace() -> None:
    """Even then the app ends, and its job has an end on record."""
    app = Quarterjack(shutdown_grace=1)
    free = asyncio.Event()

    @app.task
    async def will_not_stop() -> None:
        while not free.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await free.wait()

    async with virtual_time(app) as world:
        job = await app.submit(will_not_stop)
        await world.run_for(1)
    assert job.state is JobState.CANCELLED
    free.set()
    await asyncio.sleep(0)


async def test_thread_that_never_ends_does_not_keep_the_app_from_stopping(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread cannot be stopped; the app can."""
    monkeypatch.setattr("quarterjack._app_life.LAST_GRACE_S", 0.05)
    app = Quarterjack(shutdown_grace=0.05)
    release, began = threading.Event(), threading.Event()

    @app.task
    def hangs() -> None:
        began.set()
        release.wait()

    try:
        async with asyncio.timeout(20):
            async with app:
                job = await app.submit(hangs)
                await asyncio.to_thread(began.wait, 5)
        assert job.state is JobState.CANCELLED
    finally:
        release.set()


async def test_waiters_of_leftover_jobs_are_told() -> None:
    """Nobody waits for ever for a job that shutdown has cancelled."""
    app = Quarterjack(shutdown_grace=1)
    task = sleeper(app)
    async with virtual_time(app) as world:
        jobs = [await app.submit(task, 3600), await app.submit(task.options(delay=60), 1)]
        waiters = [asyncio.ensure_future(job.wait()) for job in jobs]
        await world.run_for(1)
    errors = await asyncio.gather(*waiters, return_exceptions=True)
    assert [type(error).__name__ for error in errors] == ["JobCancelled", "JobCancelled"]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_submit_outside_the_apps_life_is_refused(moment: str) -> None:
    """A job that nobody will run must not look accepted."""
    app = Quarterjack()
    task = sleeper(app)
    if moment == "after":
        async with app:
            pass
    with pytest.raises(NotRunning, match="async with app"):
        await app.submit(task, 1)
    with pytest.raises(NotRunning):
        await app.submit_many([task.bind(1.0)])
    with pytest.raises(NotRunning):
        app.submit_sync(task, 1)
    with pytest.raises(NotRunning):
        await app.schedule(task.bind(1.0), Every(minutes=1))


async def test_submit_during_shutdown_is_refused_or_ended_never_forgotten() -> None:
    """A body that submits in its last moments gets an answer."""
    app = Quarterjack(shutdown_grace=10)
    task = sleeper(app)
    answers: list[Any] = []

    @app.task
    async def late() -> None:
        await asyncio.sleep(5)
        try:
            answers.append(await app.submit(task, 1))
        except NotRunning as error:
            answers.append(error)

    async with virtual_time(app) as world:
        await app.submit(late)
        await world.run_for(1)
    (answer,) = answers
    assert isinstance(answer, NotRunning) or answer.state is JobState.CANCELLED


async def test_schedules_fire_nothing_during_shutdown() -> None:
    """A tick that begins while the app stops would only be cancelled."""
    app = Quarterjack(shutdown_grace=60)
    task = sleeper(app)

    @app.task(Every(seconds=1))
    async def tick() -> None: ...

    async with virtual_time(app) as world:
        await app.submit(task, 30)
        await world.run_for(5)
        count = len(world.jobs(tick))
    assert len(world.jobs(tick)) == count == 5


# -- loops and processes ------------------------------------------------------------


async def test_two_apps_in_one_loop_do_not_disturb_each_other() -> None:
    """A library may run its app beside the program's."""
    one, two = Quarterjack(), Quarterjack()
    for app in (one, two):

        @app.task(Every(minutes=10 if app is one else 15), name="tick")
        async def tick() -> None: ...

    async with virtual_time(one, two) as world:
        await world.run_for("1h")
        assert (len(world.runs("tick", app=one)), len(world.runs("tick", app=two))) == (6, 4)


async def test_one_app_in_two_loops_is_refused_clearly() -> None:
    """An app belongs to one loop; the message says what to do instead."""
    app = Quarterjack()
    async with app:
        with pytest.raises(WrongLoop, match="one app per loop"):
            await asyncio.to_thread(lambda: asyncio.run(app.__aenter__()))
        with pytest.raises(UsageError, match="started already"):
            await app.__aenter__()


def test_app_runs_again_on_another_loop_after_the_first_has_ended() -> None:
    """Tests and notebooks start the same app again and again."""
    app = Quarterjack()
    task = sleeper(app)

    async def once() -> float:
        async with app:
            return await (await app.submit(task, 0.0))

    assert [asyncio.run(once()) for _ in range(3)] == [0, 0, 0]


async def test_one_store_serves_one_app() -> None:
    """Two apps on one memory store would steal each other's jobs."""
    store = MemoryStore()
    async with Quarterjack(store):
        with pytest.raises(Conflict, match="one store per app"):
            await Quarterjack(store).__aenter__()


async def test_task_registered_after_the_start_is_refused() -> None:
    """It would never be claimed; better to hear of it at once."""
    app = Quarterjack()
    async with app:
        with pytest.raises(UsageError, match="comes too late"):
            sleeper(app)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_forked_child_is_told_and_the_parent_goes_on() -> None:
    """A child has none of the threads and timers: half an app is worse than none."""
    app = Quarterjack()
    task = sleeper(app)
    async with app:
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                app.submit_sync(task, 0)
            except Forked as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(0)
        os.close(write)
        os.waitpid(pid, 0)
        told = os.read(read, 1000).decode()
        os.close(read)
        assert "started in the parent process" in told
        assert await (await app.submit(task, 0)) == 0


# -- what ends an app ---------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_keyboard_interrupt_and_system_exit_in_a_body_end_the_app_cleanly(error: type[BaseException]) -> None:
    """They mean the program, not the job; still everything is left in order."""
    said: list[str] = []
    app = app_that_says(said)

    @app.task
    async def stop() -> None:
        raise error("enough")

    async def main() -> None:
        async with app:
            await app.submit(stop)
            await asyncio.sleep(5)
            said.append("not reached")

    with pytest.raises(error, match="enough"):
        await main()
    assert said[-3:] == ["down2", "down1", "leave"]
    assert "not reached" not in said


async def test_system_exit_ends_serve() -> None:
    """`sys.exit()` in a task ends the process with its code."""
    app = Quarterjack()

    @app.task(OnStartup())
    async def up() -> None:
        await app.submit(stop)

    @app.task
    async def stop() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit) as caught:
        await app.serve()
    assert caught.value.code == 3


async def test_stop_ends_serve() -> None:
    """A program may decide by itself that it is done."""
    app = Quarterjack()
    serving = asyncio.ensure_future(app.serve())
    await asyncio.sleep(0.01)
    app.stop()
    await serving
    assert not app.is_running
