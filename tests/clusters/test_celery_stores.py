"""Jobs on Celery over a store: whole programs that are blocked, stopped and killed, and what each of them may do."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("celery")

from quarterjack import Job, JobFailed, Quarterjack, Retry
from quarterjack.executors.celery import CeleryExecutor
from quarterjack.testing import _contract_bodies
from tests.clusters.holder import LEASE_S, application
from tests.clusters.kit import ROOT
from tests.real_time import LONG_S, until
from tests.servers.running import OwnServer
from tests.takeover import is_taken_over_in_time

pytestmark = [pytest.mark.slow, pytest.mark.needs_redis, pytest.mark.timeout(90)]


@contextmanager
def serving(url: str, port: int, told: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker of ours in a process of its own; what it logs goes to a file."""
    env = {**os.environ, "QJ_TEST_CELERY_URL": f"redis://127.0.0.1:{port}"}
    command = [sys.executable, "-m", "tests.clusters.holder", url]
    with (
        told.open("wb") as log,
        subprocess.Popen(command, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stderr=log) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


async def attempt_after(job: Job[Any], number: int) -> None:
    """Wait until an attempt after this one runs."""
    async with asyncio.timeout(LONG_S):
        while (await job.refresh()).attempt <= number or str(job.state) != "running":
            await asyncio.sleep(0.05)


async def play(url: str, port: int, folder: Path) -> None:
    """One job through a blocked loop, a stopped worker of ours and a killed one."""
    client, hold, block = application(url, "thread", role="client")  # where it runs is the workers' business
    notes, logs = folder / "a", [folder / "first", folder / "second"]
    async with client:
        with serving(url, port, logs[0]) as first:
            job = await client.submit(hold, str(notes), str(folder / "go"))
            await until(notes.exists)
            await (await client.submit(block, 1.5 * LEASE_S))
            assert (await job.refresh()).attempt == 1, "its lease was renewed while the loop stood still"
            with serving(url, port, logs[1]) as second, ExitStack() as stack:
                first.send_signal(signal.SIGSTOP)
                await attempt_after(job, 1)  # taken up by the other one
                first.send_signal(signal.SIGCONT)
                await until(lambda: "its body is left to who has it" in logs[0].read_text())
                more = (folder / f"more-{n}" for n in count())
                assert await is_taken_over_in_time(
                    client, [job], second, first, lambda: stack.enter_context(serving(url, port, next(more)))
                )
                (folder / "go").touch()
                assert await job == "let go"
    assert notes.read_text().split() == ["began"], "it went on through all of that"


async def test_body_goes_on_whatever_becomes_of_its_workers_on_sqlite(
    at_work: None, valkey: OwnServer, tmp_path: Path
) -> None:
    """A blocked loop loses nothing, a lost lease leaves the body to the next attempt, a dead worker's is taken up."""
    await play(f"sqlite:///{tmp_path}/jobs.db", valkey.port, tmp_path)


async def test_body_goes_on_whatever_becomes_of_its_workers_on_postgresql(
    at_work: None, valkey: OwnServer, postgres_url: str, tmp_path: Path
) -> None:
    """The same over a server."""
    await play(postgres_url, valkey.port, tmp_path)


async def test_failed_attempt_is_tried_again_and_not_taken_up(celery: Any, at_work: None) -> None:
    """Only an attempt of which nobody has heard the end is one to wait for."""
    app = Quarterjack()
    flaky = app.task(executor=CeleryExecutor(celery), retry=Retry(on=Exception, attempts=3, base=0))(
        _contract_bodies.fail.__wrapped__
    )
    async with app:
        job = await app.submit(flaky, "no luck")
        with pytest.raises(JobFailed, match="no luck"):
            await job
    assert job.attempt == 3


async def test_job_that_is_run_again_by_hand_runs_again(celery: Any, at_work: None, tmp_path: Path) -> None:
    """Its first result was stored, so nothing of it is left to be found."""
    app = Quarterjack(f"sqlite:///{tmp_path}/jobs.db")
    mark = app.task(executor=CeleryExecutor(celery))(_contract_bodies.mark.__wrapped__)
    async with app:
        job = await app.submit(mark, str(tmp_path / "a"))
        await job
        assert await app.retry(ids=[job.id])
        await until(lambda: (tmp_path / "a").read_text().split() == ["ran", "ran"])
        await (await app.job(job.id))
