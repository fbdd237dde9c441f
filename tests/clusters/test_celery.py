"""Celery as a pair of hands: the executors' contract over a real worker, and what a cluster does beyond it."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("celery")

from celery.app import trace

from quarterjack import JobCancelled, JobFailed, JobTimedOut, Quarterjack
from quarterjack.executors import Executor, _celery_results
from quarterjack.executors._celery_message import Message
from quarterjack.executors.celery import CeleryExecutor, CeleryTask
from quarterjack.testing.executor_contract import ExecutorContract
from tests.clusters.kit import ROOT, end
from tests.real_time import LONG_S, is_alive, until
from tests.servers.running import OwnServer

pytestmark = [pytest.mark.slow, pytest.mark.needs_redis]


class TestContract(ExecutorContract):
    """Our bodies inside Celery workers."""

    bursts = 20

    @pytest.fixture(autouse=True)
    def _celery(self, celery: Any, at_work: None) -> None:
        self.celery = celery

    def make(self, slots: int) -> Executor:
        return CeleryExecutor(self.celery, slots=slots)


# ---------------------------------------------------------------- tasks of theirs


async def test_task_of_theirs_runs_by_its_name(celery: Any, at_work: None) -> None:
    """Whoever has Celery tasks already gives them our schedules without touching a worker."""
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.add", celery))
    def add(x: int, y: int) -> int:
        raise AssertionError("this says what the task takes, and is never run")

    @app.task(executor=CeleryTask("shop.moment", celery))
    def moment(day: int) -> datetime: ...  # type: ignore[empty-body]  # it is theirs

    @app.task(executor=CeleryTask("shop.fail", celery))
    def fail() -> None: ...

    async with app:
        assert await (await app.submit(moment, 4)) == datetime(2026, 3, 4, tzinfo=UTC)
        assert await (await app.submit(add, 20, y=22)) == 42
        with pytest.raises(JobFailed, match=r"LookupError: no such thing"):
            await (await app.submit(fail))


@pytest.mark.skipif(not hasattr(trace, "get_actual_ignore_result"), reason="before 5.6.3 the task alone decides")
async def test_task_of_theirs_that_keeps_no_results_keeps_ours(celery: Any, at_work: None) -> None:
    """Celery's tasks may say that nobody wants to hear of their ends: then the job would wait for ever."""
    app = Quarterjack(shutdown_grace=0)

    @app.task(executor=CeleryTask("shop.quiet", celery))
    def quiet() -> int: ...  # type: ignore[empty-body]  # it is theirs

    async with app:
        async with asyncio.timeout(LONG_S):
            assert await (await app.submit(quiet)) == 5


async def test_task_of_theirs_is_ended_by_a_cancel(celery: Any, at_work: None, tmp_path: Path) -> None:
    """Its process is ended: it asks nobody."""
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.sleep", celery))
    def sleep(seconds: float, note: str) -> None: ...

    async with app:
        job = await app.submit(sleep, 60.0, str(tmp_path / "begun"))
        await until(lambda: (tmp_path / "begun").exists() and (tmp_path / "begun").read_text())
        assert await job.cancel()
        with pytest.raises(JobCancelled):
            await job
        await until(lambda: not is_alive((tmp_path / "begun").read_text()))


async def test_task_of_theirs_is_ended_by_its_timeout(celery: Any, at_work: None, tmp_path: Path) -> None:
    """It counts from the hand-over: nobody says when it begins."""
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.sleep", celery), timeout=1)
    def sleep(seconds: float, note: str) -> None: ...

    async with app:
        with pytest.raises(JobTimedOut):
            await (await app.submit(sleep, 60.0, str(tmp_path / "begun")))


async def test_task_of_theirs_whose_message_expires_first_has_timed_out(
    celery: Any, at_work: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message expires at its timeout, and a worker that meets it then may be quicker than the app's own alarm."""
    monkeypatch.setattr(Message, "arm", lambda *_: None)
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.sleep", celery), timeout=0.001)
    def sleep(seconds: float, note: str) -> None: ...

    async with app:
        with pytest.raises(JobTimedOut, match=r"timeout of 0\.001 s"):
            await (await app.submit(sleep, 0.0, os.devnull))


async def test_progress_of_theirs_is_their_own_business(celery: Any, at_work: None) -> None:
    """Whatever a task of theirs keeps as its state ends nobody's listening."""
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.half", celery))
    def half() -> str:
        raise AssertionError("it is theirs")

    async with app:
        assert await (await app.submit(half)) == "done"


async def test_task_of_theirs_that_tells_its_start_is_not_lost_for_its_silence(
    celery: Any, at_work: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows nothing of our pulses."""
    monkeypatch.setattr(_celery_results, "LOOK_S", 0.1)
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.sleep", celery))
    def sleep(seconds: float, note: str) -> None: ...

    async with app:
        job = await app.submit(sleep, 1.0, str(tmp_path / "begun"))
        await until((tmp_path / "begun").exists)
        await job


async def test_first_program_of_the_guide_runs_as_printed(own_redis: Callable[[], OwnServer], tmp_path: Path) -> None:
    """The bug: the command ``celery`` has the current folder on the path only while it imports its own app."""
    guide = (ROOT / "docs/guides/clusters.md").read_text().replace("127.0.0.1:6379", f"127.0.0.1:{own_redis().port}")
    for name in ("shop_celery", "shop"):
        [code] = re.findall(rf"```python\n(# {name}\.py: .*?)```", guide, re.DOTALL)
        (tmp_path / f"{name}.py").write_text(code)
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}  # and nothing of the folder itself
    more: Any = {"cwd": tmp_path, "env": env, "stdin": subprocess.DEVNULL}
    celery = [str(Path(sys.executable).with_name("celery")), "-A", "shop_celery", "worker", "--concurrency=1"]
    qj = [sys.executable, "-m", "quarterjack"]
    theirs: Any = subprocess.Popen(celery, start_new_session=True, **more)
    ours: Any = subprocess.Popen([*qj, "run", "shop"], start_new_session=True, **more)
    submit = [*qj, "submit", "shop", "render", "3", "--wait"]
    try:
        await until((tmp_path / "shop.db").exists)
        done = await asyncio.to_thread(
            lambda: subprocess.run(submit, check=False, capture_output=True, text=True, timeout=60, **more)
        )
    finally:
        end(ours)
        end(theirs)
    assert done.stdout == "3\n", done.stderr


async def test_cluster_receives_our_ticks(own_redis: Callable[[], OwnServer], tmp_path: Path) -> None:
    """The example, as its first lines say to start it."""
    env = {**os.environ, "REDIS_URL": f"redis://127.0.0.1:{own_redis().port}"}
    more = {"cwd": ROOT / "examples", "env": env, "stdin": subprocess.DEVNULL, "start_new_session": True}
    told = tmp_path / "told"
    with told.open("w") as written:
        celery = [
            sys.executable,
            Path(sys.executable).with_name("celery"),
            "-A",
            "celery_ticks:celery",
            "worker",
            "--concurrency=1",
            "--loglevel=WARNING",
        ]
        theirs = subprocess.Popen(celery, stdout=written, stderr=subprocess.STDOUT, **more)  # type: ignore[call-overload]
        ours = subprocess.Popen([sys.executable, "-m", "quarterjack", "run", "celery_ticks"], **more)  # type: ignore[call-overload]
        try:
            await until(lambda: told.read_text().count(" in process ") >= 2)
        finally:
            end(ours)
            end(theirs)
    ticks = re.findall(r"(\d\d:\d\d:\d\d) in process ", told.read_text())
    assert len(set(ticks)) == len(ticks)
