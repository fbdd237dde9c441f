"""A process that stops while it shares its store: what it took and did not begin goes to others, unharmed."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from quarterjack import Every, Quarterjack, current_job
from quarterjack.errors import StoreUnavailable
from quarterjack.executors._away import Away
from quarterjack.model import JobState
from quarterjack.testing._clock import VirtualClock
from tests.runtime.fleet import Connection, Fault, Server, fleet


def answered(call: str) -> tuple[asyncio.Event, Fault]:
    """Return an event and the fault that sets it once the server has done *call* and its answer is on its way."""
    done = asyncio.Event()

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        del by
        if name == call and is_after and not done.is_set():
            done.set()
            await asyncio.sleep(0.05)

    return done, fault


async def test_a_tick_leased_while_its_process_stops_is_given_back() -> None:
    """Else it waits for its lease, and at most once would mean not at all: its worker did not die."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=30)

    @app.task(Every(seconds=1), max_rescues=0)
    async def tick() -> None: ...

    is_fired, fault = answered("schedules_fire")
    server.fault = fault
    async with fleet(server, app):
        await is_fired.wait()
    (row,) = server.store._jobs.values()
    assert (row.state, row.attempt, row.rescues, row.owner) == (JobState.SUBMITTED, 1, 0, None)


async def test_a_fire_that_is_never_answered_holds_up_no_stop() -> None:
    """A store without a deadline of its own must not keep a process from ending."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=30)

    @app.task(Every(seconds=1))
    async def tick() -> None: ...

    asked = asyncio.Event()

    async def silent(by: Connection, name: str, is_after: bool) -> None:
        del by
        if name == "schedules_fire" and not is_after:
            asked.set()
            await asyncio.Event().wait()

    server.fault = silent
    async with fleet(server, app) as clock:
        await asked.wait()
        began = clock.monotonic()
    assert clock.monotonic() - began < 20


async def test_a_job_is_given_back_once_the_store_answers_however_late() -> None:
    """A process that stays has time; giving up would make a job LOST that never ran."""
    server = Server(VirtualClock())
    new, old = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect(), lease=120)

    async def two(a: int, b: int) -> None: ...
    async def one(a: int) -> None: ...

    task = new.task(name="f", max_rescues=0)(two)
    old.task(name="f", max_rescues=0)(one)
    releases: list[float] = []

    async def refuse(by: Connection, name: str, is_after: bool) -> None:
        del by
        if name == "jobs_release" and not is_after:
            releases.append(server.clock.monotonic())
            if releases[-1] - releases[0] < 60:
                raise StoreUnavailable("away")

    server.fault = refuse
    async with fleet(server, new, old) as clock:
        job = await new.submit(task, 1, 2)
        await clock.run_for(75)
        row = server.store._jobs[job.id]
        assert (row.state.is_finished, row.rescues) == (False, 0)
        assert len(releases) > 5
        assert row.owner is None


@pytest.mark.parametrize(("max_rescues", "state"), [(0, JobState.CANCELLED), (1, JobState.SUBMITTED)])
async def test_at_most_once_holds_at_a_deploy(max_rescues: int, state: JobState) -> None:
    """A body that has begun and is interrupted by the stop must not begin again where once was asked for."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), shutdown_grace=1, concurrency=1)
    began: list[str] = []

    @app.task(max_rescues=max_rescues)
    async def body(name: str) -> None:
        began.append(name)
        await asyncio.sleep(1000)

    async with fleet(server, app) as clock:
        first = await app.submit(body, "first")
        second = await app.submit(body, "second")
        await clock.run_for(1)
    rows = server.store._jobs
    assert began == ["first"]
    assert (rows[first.id].state, rows[second.id].state) == (state, JobState.SUBMITTED)
    assert rows[first.id].reason == ("shutdown" if max_rescues == 0 else "its worker stopped")


async def test_at_most_once_holds_for_a_thread_that_has_just_begun(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its letter may come too late: a stop must not take a body that runs for one that has not begun."""
    monkeypatch.setattr(Away, "began", lambda *_: None)
    app = Quarterjack(f"sqlite:///{tmp_path / 'jobs.db'}", shutdown_grace=0)
    began = threading.Event()

    @app.task(max_rescues=0)
    def body() -> None:
        began.set()
        while not current_job().cancel_requested:
            time.sleep(0.001)

    async with app:
        job = await app.submit(body)
        await asyncio.to_thread(began.wait)
    async with app.as_client():
        found = await app.job(job.id)
    assert (found.state, found.reason) == (JobState.CANCELLED, "shutdown")


@pytest.mark.parametrize(("ends_after_s", "state"), [(3, JobState.SUBMITTED), (100, JobState.RUNNING)])
async def test_a_body_that_does_not_stop_keeps_its_job(ends_after_s: float, state: JobState) -> None:
    """Given back while it runs, its job would run twice side by side; it goes back when it ends, or by its lease."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), shutdown_grace=0)
    end = asyncio.Event()

    @app.task(cancel_grace=1)
    async def body() -> None:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            with suppress(TimeoutError):
                await asyncio.wait_for(end.wait(), ends_after_s)
            raise

    async with fleet(server, app) as clock:
        job = await app.submit(body)
        await clock.run_for(1)
    row = server.store._jobs[job.id]
    assert (row.state, row.rescues) == (state, 0)
    assert (row.lease_until_ns is None) == (state is JobState.SUBMITTED)
    end.set()
    for _ in range(20):  # the body that was left behind ends
        await asyncio.sleep(0)


@pytest.mark.parametrize("is_hurried", [False, True])
async def test_a_store_that_keeps_silent_holds_up_no_exit(is_hurried: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Who waits for the process counts outcomes, errands and farewells together, and kills it if it takes too long."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), shutdown_grace=1)
    began = asyncio.Event()

    @app.task
    async def ends() -> None:
        await asyncio.wait({asyncio.ensure_future(silent.wait())})

    @app.task
    async def runs() -> None:
        began.set()
        await asyncio.sleep(100)

    silent = asyncio.Event()

    async def half_open(by: Connection, name: str, is_after: bool) -> None:
        del by, name, is_after
        if silent.is_set():
            await asyncio.sleep(10)
            raise StoreUnavailable("no answer within 10 s")

    server.fault = half_open
    async with fleet(server, app) as clock:
        await app.submit(ends)
        await app.submit(runs)
        await began.wait()
        silent.set()
        await clock.run_for(0.1)
        began_at = clock.monotonic()
        if is_hurried:
            app.stop()
            asyncio.get_running_loop().call_later(3, app.stop)
    took_s = clock.monotonic() - began_at
    assert took_s < (3 + 2.5 if is_hurried else 15)
    assert "1 outcomes could not be recorded" in caplog.text
    assert "1 jobs could not be given back" in caplog.text
