"""Ray as a pair of hands: the executors' contract over a real cluster, and what a cluster does beyond it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import sleep
from typing import Any

import pytest

from quarterjack import JobFailed
from quarterjack.executors import Executor, Home
from quarterjack.executors.ray import RayExecutor
from quarterjack.model import OutcomeKind
from quarterjack.testing._executor_bench import TestCall, Track, until
from quarterjack.testing.executor_contract import ExecutorBench, ExecutorContract
from tests.clusters import ray_bodies
from tests.clusters.kit import ROOT, end
from tests.servers.keeper import free_port

BEGINS_S = 60.0
"""How long Ray may take to begin, on a busy machine."""
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(180),
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed, which is 285 MB: pip install ray"),
]


@contextmanager
def head(port: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a cluster of one node with two processors."""
    with tempfile.TemporaryDirectory(prefix="qj-ray-") as folder:
        words = ["--head", f"--port={port}", "--num-cpus=2", "--include-dashboard=false", f"--temp-dir={folder}/ray"]
        with ray_start(*words) as process:
            yield process


@contextmanager
def ray_start(*options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a node, in a group of its own; end all of it."""
    with tempfile.TemporaryDirectory(prefix="qj-ray-") as folder, Path(folder, "told").open("wb") as told:
        words = ["start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats", *options]
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", *words]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=told, start_new_session=True)
        try:
            while b"Ray runtime started" not in Path(told.name).read_bytes():
                assert process.poll() is None, Path(told.name).read_text()
                sleep(0.05)
            yield process
        finally:
            end(process)


@pytest.fixture(scope="module", autouse=True)
def _settings() -> Iterator[None]:
    """Have Ray keep to itself, and find our modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token into the home folder
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv(
            "PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT / "src"), str(ROOT), os.getenv("PYTHONPATH")]))
        )
        yield


@pytest.fixture(scope="module")
def address(_settings: None) -> Iterator[str]:
    """Start a cluster."""
    port = free_port()
    with head(port):
        yield f"127.0.0.1:{port}"


class Connected(RayExecutor):
    """Begins with a connection, so that a case meets Ray and not the wait for it."""

    async def start(self, home: Home) -> None:
        await super().start(home)
        await self.warm()
        await until(lambda: self._link is not None and self._link.is_ready, BEGINS_S)


class TestContract(ExecutorContract):
    """Our bodies inside Ray's workers."""

    bursts = 20

    @pytest.fixture(autouse=True)
    def _address(self, address: str) -> None:
        self.address = address

    def make(self, slots: int) -> Executor:
        return Connected(self.address, slots=slots)


@pytest.fixture
def bench(tmp_path: Path) -> ExecutorBench:
    """Return what submits the contract's bodies."""
    return ExecutorBench(lambda slots: pytest.fail(f"{slots}"), "plain", tmp_path)


@asynccontextmanager
async def started(address: str, bench: ExecutorBench, slots: int = 1) -> AsyncIterator[RayExecutor]:
    """Start an executor, and have it connect."""
    executor = Connected(address, slots=slots)
    await executor.start(bench.home())
    try:
        yield executor
    finally:
        await executor.stop(10)


def is_there(pid: int) -> bool:
    """Say whether a process runs."""
    return Path(f"/proc/{pid}").exists()


async def pid_in(file: Path) -> int:
    """Wait for a body's first note, and return the process it is in."""
    await until(lambda: file.exists() and file.read_text().count("\n") > 0)
    return int(file.read_text().split()[1])


# ---------------------------------------------------------------- bodies, as an app has them


@pytest.mark.parametrize("task", [ray_bodies.nap, ray_bodies.nap_later], ids=["plain", "coroutine"])
async def test_body_that_sleeps_is_interrupted_where_it_stands(address: str, task: Any, tmp_path: Path) -> None:
    """Ray's own cancel is a flag that a sleeping thread does not see: its process would be killed after the grace."""
    async with ray_bodies.app as app:
        job = await app.submit(task.options(executor=RayExecutor(address)), str(tmp_path / "a"))
        pid = await pid_in(tmp_path / "a")
        assert await job.cancel(wait=20)
        await until(lambda: "interrupted" in (tmp_path / "a").read_text())
        assert is_there(pid)


async def test_bodies_end_as_their_app_is_told(address: str, tmp_path: Path) -> None:
    """A process that ends itself or is killed, SystemExit, 20 MB there and back, what an attempt keeps for the next."""
    on_ray = RayExecutor(address)
    async with ray_bodies.app as app:
        died = await app.submit(ray_bodies.vanish.options(executor=on_ray))
        left = await app.submit(ray_bodies.leave.options(executor=on_ray))
        large = await app.submit(ray_bodies.echo.options(executor=on_ray), "x" * 20_000_000)
        again = await app.submit(ray_bodies.twice.options(executor=on_ray))
        killed = await app.submit(ray_bodies.nap.options(executor=on_ray), str(tmp_path / "a"))
        os.kill(await pid_in(tmp_path / "a"), signal.SIGKILL)
        for job in (died, killed):
            with pytest.raises(JobFailed, match="its process died"):
                await job
        with pytest.raises(JobFailed, match="SystemExit: 4"):
            await left
        assert len(await large) == 20_000_000
        assert await again == {"page": 7}


async def test_bodies_end_with_an_app_that_is_killed(address: str, tmp_path: Path) -> None:
    """Nobody is there to stop them: the process that speaks to Ray goes with the app, and Ray ends what it had."""
    program = [sys.executable, "-m", "tests.clusters.ray_bodies", address, str(tmp_path / "a")]
    with subprocess.Popen(program, cwd=ROOT, stdin=subprocess.DEVNULL) as process:
        pid = await pid_in(tmp_path / "a")
        process.kill()
        await until(lambda: not is_there(pid))


# ---------------------------------------------------------------- what a cluster does


async def test_body_in_the_clusters_queue_is_withdrawn(address: str, bench: ExecutorBench) -> None:
    """Two processors are taken: the third body waits with Ray, and never begins."""
    async with started(address, bench, 3) as executor:
        held = [bench.begin(executor, "hold", bench.file(name), bench.file("go"))[1] for name in "ab"]
        for track in held:
            await track.heard("began")
        handle, third = bench.begin(executor, "mark", bench.file("c"))
        await third.heard("accepted")
        handle.cancel("not wanted")
        outcome = await third.end()
        bench.let_go("go")
        assert [(await track.end()).result for track in held] == ["let go"] * 2
    assert (outcome.kind, outcome.reason, third.log) == (OutcomeKind.CANCELLED, "not wanted", ["accepted", "finished"])
    assert bench.notes("c") == []


async def test_body_that_comes_too_late_does_not_begin(address: str, bench: ExecutorBench) -> None:
    """It waited in Ray's queue past its start deadline."""
    async with started(address, bench) as executor:
        track = Track()
        call = TestCall("mark", (bench.file("a"),), {}, track)
        call.deadline_ns = 1
        executor.submit(call, track)
        assert (await track.end()).kind is OutcomeKind.MISSED
    assert bench.notes("a") == []


async def test_cluster_that_dies_loses_what_it_had_and_the_next_one_serves(
    bench: ExecutorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray ends the process that speaks to it when its head stays away; the app goes on, and connects again."""
    monkeypatch.setenv("RAY_gcs_rpc_server_reconnect_timeout_s", "2")
    port = free_port()
    with head(port):
        executor = Connected(f"127.0.0.1:{port}", slots=2)
        await executor.start(bench.home())
        _, track = await bench.begun(executor, "hold")
        await track.heard("began")
    try:
        assert (await track.end()).kind is OutcomeKind.LOST
        await until(lambda: executor._link is None, BEGINS_S)
        _, track = bench.begin(executor, "double", 4)
        with head(port):
            await until(lambda: track.outcome is not None, BEGINS_S)
        assert (await track.end()).result == 8
    finally:
        await executor.stop(10)


async def test_body_that_no_node_has_room_for_waits_for_one_and_is_lost_with_it(
    address: str, bench: ExecutorBench
) -> None:
    """A node that comes takes what waited for it; of one that dies nobody knows what it had done."""
    executor = Connected(address, resources={"second": 1}, slots=2)
    await executor.start(bench.home())
    try:
        _, runs = bench.begin(executor, "hold", bench.file("a"), bench.file("go"))
        handle, waits = bench.begin(executor, "mark", bench.file("b"))
        for track in (runs, waits):
            await track.heard("accepted")
        with ray_start(f"--address={address}", "--num-cpus=1", '--resources={"second": 1}'):
            await runs.heard("began")
        outcome = await runs.end()
        assert (outcome.kind, "NodeDied" in (outcome.reason or "")) == (OutcomeKind.LOST, True)
        assert waits.log == ["accepted"]
        handle.cancel("not wanted")
        assert (await waits.end()).kind is OutcomeKind.CANCELLED
        assert bench.notes("b") == []
    finally:
        await executor.stop(10)


# ---------------------------------------------------------------- without a cluster


async def test_body_waits_for_a_cluster_that_is_away_and_can_be_withdrawn(bench: ExecutorBench) -> None:
    """The app starts all the same; a cancel, or a stop, answers what was never handed over."""
    executor = RayExecutor("127.0.0.1:1", slots=2)
    await executor.start(bench.home())
    handle, first = bench.begin(executor, "double", 1)
    _, second = bench.begin(executor, "double", 2)
    handle.cancel("not wanted")
    assert (await first.end()).reason == "not wanted"
    await executor.stop(0.2)
    assert (await second.end()).kind is OutcomeKind.CANCELLED
    assert first.log == second.log == ["finished"]
