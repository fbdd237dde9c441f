"""Other threads and other loops: submitting from them, running in them, waiting across them."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from quarterjack import (
    InvalidOption,
    JobFailed,
    JobState,
    LoopThread,
    Quarterjack,
    StartupFailed,
    WrongLoop,
    current_job,
    gather,
)
from tests.app.kit import Boom, sleeper


async def test_submit_from_another_loop_and_wait_there() -> None:
    """A handle may be awaited from any loop: what belongs to the app's is carried there."""
    app = Quarterjack()
    task = sleeper(app)

    async def elsewhere() -> list[Any]:
        job = await app.submit(task, 0.01)
        many = await app.submit_many(task.bind(0.0) for _ in range(3))
        return [await job, await gather(many), (await app.job(job.id)).state, await job.cancel(), len(await app.jobs())]

    async with app:
        got = await asyncio.to_thread(lambda: asyncio.run(elsewhere()))
    assert got == [0.01, [0, 0, 0], JobState.DONE, False, 4]


async def test_submit_sync_from_many_threads_stores_every_job_once() -> None:
    """Threads of a web server submit at the same time."""
    app = Quarterjack()
    task = sleeper(app)
    ids: list[str] = []

    def submit() -> None:
        ids.extend(app.submit_sync(task, 0.0).id for _ in range(50))

    async with app:
        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        await app.drain()
        assert len(set(ids)) == 200
        assert {job.state for job in await app.jobs(limit=1000)} == {JobState.DONE}


async def test_submit_sync_on_the_apps_own_thread_is_refused() -> None:
    """It would wait for itself."""
    app = Quarterjack()
    task = sleeper(app)
    async with app:
        with pytest.raises(WrongLoop, match=r"await app\.submit"):
            app.submit_sync(task, 0.0)


def test_in_thread_serves_a_program_without_a_loop() -> None:
    """A script or a WSGI server uses the app as it is; leaving the block drains."""
    app = Quarterjack()
    said: list[str] = []

    @app.task
    async def work(n: int) -> int:
        await asyncio.sleep(0.02)
        said.append(f"{n} in {threading.current_thread().name}")
        return n

    with app.in_thread():
        jobs = [app.submit_sync(work, n) for n in range(3)]
    assert [job.result() for job in jobs] == [0, 1, 2]
    assert {word.split(" in ")[1] for word in said} == {"quarterjack-app"}
    with app.in_thread():
        app.submit_sync(work, 9)
    assert said[-1].startswith("9")


def test_in_thread_raises_what_kept_the_app_from_starting() -> None:
    """A failure in another thread must not be a silent one."""

    def lifespan(app: Quarterjack) -> Any:
        raise Boom("no database")

    with pytest.raises(StartupFailed, match="no database"), Quarterjack(lifespan=lifespan).in_thread():
        pytest.fail("not reached")


def test_in_thread_raises_what_ended_the_app() -> None:
    """SystemExit in a body is meant for the program."""
    app = Quarterjack()

    @app.task
    async def stop() -> None:
        raise SystemExit(3)

    ended = threading.Event()

    def main() -> None:
        with app.in_thread():
            app.submit_sync(stop)
            while app.is_running and not ended.wait(0.01):
                pass

    with pytest.raises(SystemExit):
        main()


async def test_body_on_a_loop_thread_runs_there_and_is_awaited_here() -> None:
    """Urgent work has a loop of its own, which nobody can block."""
    app = Quarterjack()
    urgent = LoopThread("urgent")

    @app.task(executor=urgent)
    async def where() -> str:
        await asyncio.sleep(0)
        assert current_job().attempt == 1
        return threading.current_thread().name

    @app.task
    async def local() -> str:
        return threading.current_thread().name

    async with app:
        there = await (await app.submit(where))
        here = await (await app.submit(local))
        moved = await (await app.submit(local.options(executor=urgent)))
    assert there == moved != here == threading.current_thread().name
    assert "urgent" in there


async def test_bodies_submit_and_wait_across_loops() -> None:
    """A job on one loop may wait for a job on another, either way."""
    app = Quarterjack()
    urgent = LoopThread("urgent")

    @app.task
    async def leaf(n: int) -> int:
        return n + 1

    @app.task(executor=urgent)
    async def there(n: int) -> int:
        return await (await app.submit(leaf, n)) * 10

    @app.task
    async def here(n: int) -> int:
        return await (await app.submit(there, n))

    async with app:
        job = await app.submit(here, 1)
        assert await job == 20
        (middle,) = await app.jobs(task="there")
        assert middle.submitted_by.parent == job.id


async def test_cancel_and_timeout_reach_a_body_on_a_loop_thread() -> None:
    """It is a coroutine, wherever its loop is."""
    app = Quarterjack()
    urgent = LoopThread("urgent")
    task = sleeper(app, executor=urgent)
    async with app:
        job = await app.submit(task, 60)
        while job.state is not JobState.RUNNING:
            await asyncio.sleep(0.001)
        assert await job.cancel()
        late = await app.submit(task.options(timeout=0.02), 60)
        with pytest.raises(TimeoutError):
            await late


async def test_plain_function_runs_in_a_named_thread_and_its_error_comes_back() -> None:
    """Blocking code does not block the loop."""
    app = Quarterjack()

    @app.task
    def blocking(n: int) -> str:
        if n < 0:
            raise Boom
        return threading.current_thread().name

    async with app:
        assert (await (await app.submit(blocking, 1))).startswith("qj-thread")
        with pytest.raises(JobFailed) as caught:
            await (await app.submit(blocking, -1))
        assert isinstance(caught.value.__cause__, Boom)


async def test_fastapi_runs_the_app_in_its_lifespan() -> None:
    """One line puts jobs into a web application."""
    app = Quarterjack()
    task = sleeper(app)
    web = FastAPI(lifespan=app.as_lifespan())

    @web.post("/jobs")
    async def create(seconds: float) -> dict[str, Any]:
        job = await app.submit(task, seconds)
        return {"id": job.id, "result": await job}

    async with web.router.lifespan_context(web):
        assert app.is_running
        transport = httpx.ASGITransport(app=web)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.post("/jobs", params={"seconds": 0.01})
        assert answer.json()["result"] == 0.01
    assert not app.is_running


def test_code_without_a_loop_waits_for_its_job() -> None:
    """`submit_sync` would be half a thing without it."""
    app = Quarterjack()
    task = sleeper(app)

    @app.task
    async def blocks(seconds: float) -> None:
        (await app.submit(task, seconds)).wait_sync()

    with app.in_thread():
        assert app.submit_sync(task, 0.05).wait_sync() == 0.05
        with pytest.raises(TimeoutError, match="it goes on"):
            app.submit_sync(task, 5.0).wait_sync(timeout=0.05)
        with pytest.raises(JobFailed, match="wait_sync would block"):
            app.submit_sync(blocks, 1.0).wait_sync(timeout=5)


async def test_the_switch_interval_is_set_only_if_asked_for_and_put_back() -> None:
    """It is the whole process's, so nobody may find it changed behind his back."""
    before = sys.getswitchinterval()
    async with Quarterjack():
        assert sys.getswitchinterval() == before
    async with Quarterjack(switch_interval=before / 10):
        assert sys.getswitchinterval() == pytest.approx(before / 10)
    assert sys.getswitchinterval() == before
    with pytest.raises(InvalidOption, match="switch_interval"):
        Quarterjack(switch_interval=0)
