"""Celery as a pair of hands: the executors' contract over a real worker, and what a cluster does beyond it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("celery")

from celery import Celery

from quarterjack import InvalidOption, JobCancelled, JobFailed, JobTimedOut, Quarterjack, Retry
from quarterjack.executors import Executor, _celery_results, _celery_worker
from quarterjack.executors.celery import CeleryExecutor, CeleryTask
from quarterjack.model import OutcomeKind
from quarterjack.testing import _contract_bodies
from quarterjack.testing._executor_bench import until
from quarterjack.testing.executor_contract import ExecutorBench, ExecutorContract
from tests.clusters.conftest import ROOT, end, worker
from tests.clusters.holder import application
from tests.servers.running import VALKEY, OwnServer, own

pytestmark = [pytest.mark.slow, pytest.mark.needs_redis]


class TestContract(ExecutorContract):
    """Our bodies inside Celery workers."""

    bursts = 20

    @pytest.fixture(autouse=True)
    def _celery(self, celery: Any, at_work: None) -> None:
        self.celery = celery

    def make(self, slots: int) -> Executor:
        return CeleryExecutor(self.celery, slots=slots)


@pytest.fixture
def bench(tmp_path: Path) -> ExecutorBench:
    """Return what submits the contract's bodies."""
    return ExecutorBench(lambda slots: pytest.fail(f"{slots}"), "plain", tmp_path)


@asynccontextmanager
async def started(celery: Any, bench: ExecutorBench) -> AsyncIterator[CeleryExecutor]:
    """Start an executor of one slot."""
    executor = CeleryExecutor(celery, slots=1)
    await executor.start(bench.home())
    try:
        yield executor
    finally:
        await executor.stop(10)


# ---------------------------------------------------------------- tasks of theirs


async def test_task_of_theirs_runs_by_its_name(celery: Any, at_work: None) -> None:
    """Whoever has Celery tasks already gives them our schedules without touching a worker."""
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.add", celery))
    def add(x: int, y: int) -> int:
        raise AssertionError("this says what the task takes, and is never run")

    @app.task(executor=CeleryTask("shop.fail", celery))
    def fail() -> None: ...

    async with app:
        assert await (await app.submit(add, 20, y=22)) == 42
        with pytest.raises(JobFailed, match=r"LookupError: no such thing"):
            await (await app.submit(fail))


async def test_task_of_theirs_is_ended_by_a_cancel(celery: Any, at_work: None, tmp_path: Path) -> None:
    """Its process is ended: it asks nobody."""
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.sleep", celery))
    def sleep(seconds: float, note: str) -> None: ...

    async with app:
        job = await app.submit(sleep, 60.0, str(tmp_path / "begun"))
        await until((tmp_path / "begun").exists)
        assert await job.cancel()
        with pytest.raises(JobCancelled):
            await job


async def test_task_of_theirs_is_ended_by_its_timeout(celery: Any, at_work: None, tmp_path: Path) -> None:
    """It counts from the hand-over: nobody says when it begins."""
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.sleep", celery), timeout=1)
    def sleep(seconds: float, note: str) -> None: ...

    async with app:
        with pytest.raises(JobTimedOut):
            await (await app.submit(sleep, 60.0, str(tmp_path / "begun")))


async def test_progress_of_theirs_is_their_own_business(celery: Any, at_work: None) -> None:
    """Whatever a task of theirs keeps as its state ends nobody's listening."""
    app = Quarterjack()

    @app.task(executor=CeleryTask("shop.half", celery))
    def half() -> str:
        raise AssertionError("it is theirs")

    async with app:
        assert await (await app.submit(half)) == "done"


async def test_results_that_were_emptied_make_a_waiting_body_lost(
    celery: Any, bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fence would let no worker begin it any more: nobody may wait for it for ever."""
    monkeypatch.setattr(_celery_results, "LOOK_S", 0.1)
    apart: Any = Celery("apart", broker=celery.conf.broker_url.replace("/0", "/4"), backend=celery.conf.result_backend)
    async with started(apart, bench) as executor:
        _, track = bench.begin(executor, "double", 1)
        await track.heard("accepted")
        await executor._results._client.flushdb()
        assert (await track.end()).kind is OutcomeKind.LOST


# ---------------------------------------------------------------- what goes wrong on a cluster


async def test_message_that_is_delivered_twice_runs_once(celery: Any, at_work: None, bench: ExecutorBench) -> None:
    """Brokers deliver again what was not acknowledged in time; the body asks before it begins."""
    async with started(celery, bench) as executor:
        _, track = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
        await until(lambda: bool(bench.notes("a")))
        [[message]] = executor._out.values()
        task, args, kwargs = executor._letter(message.call)
        await executor._client.publish(task, message.ref, args, kwargs)
        await executor._client.publish("shop.sleep", "after-it", [0, bench.file("after")], {})
        await until(Path(bench.file("after")).exists)  # two slots: the one that is free has met both
        bench.let_go("go")
        assert (await track.end()).result == "let go"
    assert bench.notes("a") == ["began"]


async def test_killed_child_is_told_as_died(celery: Any, at_work: None, bench: ExecutorBench) -> None:
    """Celery says so at once, so the retry policy decides at once."""
    async with started(celery, bench) as executor:
        _, track = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
        await track.heard("began")
        [[message]] = executor._out.values()
        told = celery.backend.get_task_meta(message.ref)
        celery.backend.client.connection_pool.disconnect()
        os.kill(told["result"]["pid"], signal.SIGKILL)
        assert (await track.end()).kind is OutcomeKind.DIED


async def test_worker_group_that_is_killed_is_noticed_by_its_silence(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody says it: the body's process has stopped saying that it is there, so the lease decides."""
    monkeypatch.setattr(_celery_results, "LOOK_S", 0.5)
    with own(VALKEY) as server:
        url = f"redis://127.0.0.1:{server.port}"
        celery: Any = Celery("contract", broker=f"{url}/0", backend=f"{url}/1")
        with worker(url, QJ_TEST_CELERY_ALIVE="2") as process:
            async with started(celery, bench) as executor:
                _, track = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
                await track.heard("began")
                end(process)
                assert (await track.end()).kind is OutcomeKind.LOST


async def test_outcome_is_found_after_the_server_was_away(
    celery: Any, at_work: None, valkey: OwnServer, bench: ExecutorBench
) -> None:
    """A result that came while the connections were cut is read after the reconnect."""
    async with started(celery, bench) as executor:
        _, track = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
        await track.heard("began")
        await executor._results._client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
        bench.let_go("go")
        assert (await track.end()).result == "let go"


@pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning")  # Celery's
def test_pulse_ends_with_its_body(celery: Any, valkey: OwnServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waited on for orders held a connection for seconds: a hundred quick bodies, and there was none left."""
    monkeypatch.setattr(_celery_worker, "PULSE_S", 60.0)
    fence = _celery_worker.Fence(celery.backend, "job-1.1")
    with _celery_worker.Pulse(celery.backend, fence, "job-1.1") as pulse:
        pass
    pulse._thread.join(20.0)
    assert not pulse._thread.is_alive()
    celery.backend.client.connection_pool.disconnect()


def test_results_that_are_kept_nowhere_are_refused() -> None:
    """Without a result backend nobody would ever hear of an end."""
    with pytest.raises(InvalidOption, match="must be in Redis or Valkey"):
        CeleryExecutor(Celery("x", broker="memory://"))


# ---------------------------------------------------------------- over a store


async def test_job_whose_app_was_killed_is_taken_up_by_the_next(
    celery: Any, at_work: None, tmp_path: Path, valkey: OwnServer
) -> None:
    """The body goes on in its Celery worker; the next process waits for that one, and runs no second."""
    url = f"sqlite:///{tmp_path}/jobs.db"
    first = subprocess.Popen(
        [sys.executable, "-m", "tests.clusters.holder", url, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "QJ_TEST_CELERY_URL": f"redis://127.0.0.1:{valkey.port}"},
    )
    try:
        await until((tmp_path / "a").exists)
    finally:
        first.kill()
        first.wait()
    app, hold = application(url, CeleryExecutor(celery))
    async with app:
        [job] = await app.jobs(task=hold)
        while job.attempt < 2:  # the lease of the killed process runs out first
            await asyncio.sleep(0.05)
            await job.refresh()
        (tmp_path / "go").touch()
        assert await job == "let go"
    assert (tmp_path / "a").read_text().split() == ["began"]


async def test_failed_attempt_is_tried_again_and_not_taken_up(celery: Any, at_work: None, tmp_path: Path) -> None:
    """Only an attempt of which nobody has heard the end is one to wait for."""
    app = Quarterjack()
    flaky = app.task(executor=CeleryExecutor(celery), retry=Retry(on=Exception, attempts=2, base=0.01))(
        _contract_bodies.fail.__wrapped__
    )
    async with app:
        job = await app.submit(flaky, "no luck")
        with pytest.raises(JobFailed, match="no luck"):
            await job
    assert job.attempt == 2


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


async def test_stop_answers_what_was_not_handed_over_yet(bench: ExecutorBench) -> None:
    """The broker is away, and the app ends: no job may wait for ever."""
    celery: Any = Celery("away", broker="redis://127.0.0.1:1/0", backend="redis://127.0.0.1:1/1")
    executor = CeleryExecutor(celery, slots=1)
    await executor.start(bench.home())
    _, track = bench.begin(executor, "double", 1)
    await asyncio.sleep(0)
    await executor.stop(0.2)
    assert (await track.end()).kind is OutcomeKind.CANCELLED


async def test_cluster_receives_our_ticks(own_redis: Callable[[], OwnServer], tmp_path: Path) -> None:
    """The example, as its first lines say to start it."""
    env = {**os.environ, "REDIS_URL": f"redis://127.0.0.1:{own_redis().port}"}
    more = {"cwd": ROOT / "examples", "env": env, "stdin": subprocess.DEVNULL, "start_new_session": True}
    told = tmp_path / "told"
    with told.open("w") as written:
        celery = [
            sys.executable,
            "-m",
            "celery",
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
