"""Apps on a file: what was submitted or planned before a restart is done after it, once, in whichever process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from quarterjack import Every, Forever, JobState, Quarterjack, Task, current_job
from quarterjack.model import JobFilter, JobIds, JobRecord
from quarterjack.stores._rows import Encoding
from quarterjack.stores.base import Claim, Want
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing import VirtualClock
from quarterjack.testing._loop import virtual_loop


@dataclass
class Machine:
    """Starts apps on one file and one virtual clock, as deploys and processes do."""

    path: Path
    clock: VirtualClock
    ran: list[Any] = field(default_factory=list[Any])

    def app(self, **options: Any) -> Quarterjack:
        app = Quarterjack(store=SQLiteStore(self.path, synchronous="off"), **options)
        app.clock = self.clock
        return app

    @asynccontextmanager
    async def process(self, declare: Callable[[Quarterjack], Any], **options: Any) -> AsyncIterator[Any]:
        """Run an app with what *declare* declares, and yield the app and what it returned."""
        app = self.app(**options)
        declared = declare(app)
        async with app:
            yield app, declared

    async def rows(self) -> list[JobRecord]:
        """Return all jobs, the oldest first."""
        store = SQLiteStore(self.path)
        await store.open(self.clock, JobIds(), Encoding())
        try:
            return (await store.jobs_list(JobFilter(), limit=10_000)).jobs[::-1]
        finally:
            await store.close()

    def minute(self, app: Quarterjack) -> Task[[], Any]:
        @app.task(Every(minutes=1))
        async def minute() -> None:
            self.ran.append(current_job().nominal)

        return minute

    def work(self, app: Quarterjack) -> Task[[int], Any]:
        @app.task
        async def work(n: int) -> int:
            self.ran.append(n)
            return n * n

        return work


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "jobs.db", VirtualClock("2026-03-02T09:00Z"))


async def test_job_submitted_before_a_restart_runs_after_it(machine: Machine) -> None:
    """That is what a file is for: the web process is gone, the work is done."""
    with virtual_loop(machine.clock):
        async with machine.process(machine.work, role="client") as (app, work):
            job = await app.submit(work, 3)
            later = await app.submit(work.options(delay=90), 4)
        async with machine.process(machine.work) as (app, _):
            again = await app.job(job.id)
            assert await again == 9
            await machine.clock.run_for("60s")
            assert machine.ran == [3]
        await machine.clock.run_for("60s")
        async with machine.process(machine.work) as (app, _):
            assert await (await app.job(later.id)) == 16
    assert machine.ran == [3, 4]


async def test_ticks_are_neither_lost_nor_doubled_by_restarts(machine: Machine) -> None:
    """A deploy between two ticks, or at the very instant of one, is no event in the life of a schedule."""
    with virtual_loop(machine.clock):
        for seconds in (150, 30, 60, 45, 15, 61, 119, 120):
            async with machine.process(machine.minute):
                await machine.clock.run_for(seconds)
    nominals = [row.origin.nominal_ns for row in await machine.rows() if row.origin is not None]
    assert len(nominals) == 10
    assert {b - a for a, b in pairwise(nominals)} == {60 * 10**9}
    assert len(machine.ran) == len(set(machine.ran)) == 10


async def test_outage_is_one_missed_row_and_the_next_tick_is_on_time(machine: Machine) -> None:
    """What nobody served is on record, with its size, and is not made up for a hundred times."""
    with virtual_loop(machine.clock):
        async with machine.process(machine.minute):
            await machine.clock.run_for("90s")
        await machine.clock.run_for("10m")
        async with machine.process(machine.minute):
            await machine.clock.run_for("60s")
    states = [row.state for row in await machine.rows()]
    assert states.count(JobState.MISSED) == 1
    assert states.count(JobState.DONE) == 3, "one before, the newest of those missed, one after"


async def test_processes_on_one_file_run_each_tick_once(machine: Machine) -> None:
    """All are schedulers, none is the leader."""
    with virtual_loop(machine.clock):
        async with (
            machine.process(machine.minute),
            machine.process(machine.minute),
            machine.process(machine.minute),
        ):
            await machine.clock.run_for("10m")
    assert len(machine.ran) == len(set(machine.ran)) == 10


async def test_client_awaits_what_another_process_runs(machine: Machine) -> None:
    """Result and error cross the file, and neither process knows of the other."""

    def fails(app: Quarterjack) -> Task[[], Any]:
        @app.task
        async def fails() -> None:
            raise LookupError("nothing there")

        return fails

    def both(app: Quarterjack) -> tuple[Any, Any]:
        return machine.work(app), fails(app)

    with virtual_loop(machine.clock):
        async with (
            machine.process(both, role="worker"),
            machine.process(both, role="client") as (client, (work, failing)),
        ):
            assert await (await client.submit(work, 7)) == 49
            with pytest.raises(Exception, match="LookupError: nothing there"):
                await (await client.submit(failing))


async def test_chain_goes_on_after_a_restart(machine: Machine) -> None:
    """A loop of runs is no longer the process's, it is the schedule's."""

    def loop(app: Quarterjack) -> Any:
        @app.task(Forever(pause=10))
        async def loop() -> None:
            machine.ran.append(1)

        return loop

    with virtual_loop(machine.clock):
        for _ in range(3):
            async with machine.process(loop):
                await machine.clock.run_for("25s")
    assert 6 <= len(machine.ran) <= 9


async def test_delay_is_elapsed_time_though_the_clock_is_set_between_two_processes(machine: Machine) -> None:
    """An hour that the clock jumps is no hour waited."""
    with virtual_loop(machine.clock):
        async with machine.process(machine.work, role="client") as (app, work):
            await app.submit(work.options(delay=90), 1)
        machine.clock.step_clock(3600)
        async with machine.process(machine.work):
            await machine.clock.run_for("80s")
            assert machine.ran == []
            await machine.clock.run_for("20s")
            assert machine.ran == [1]


async def test_unknown_task_waits_for_a_version_that_knows_it(machine: Machine) -> None:
    """A rolling deploy must lose nothing of either version."""
    with virtual_loop(machine.clock):
        async with machine.process(machine.work, role="client") as (app, work):
            job = await app.submit(work, 2)
        async with machine.process(lambda app: None):
            await machine.clock.run_for("1m")
        async with machine.process(machine.work) as (app, _):
            assert await (await app.job(job.id)) == 4


async def test_jobs_of_a_worker_that_vanished_are_taken_over_when_their_lease_is_over(machine: Machine) -> None:
    """A process that was killed says nothing: its jobs run elsewhere within a lease, and count a rescue."""
    with virtual_loop(machine.clock):
        async with machine.process(machine.work, role="client") as (app, work):
            job = await app.submit(work, 5)
            (row,) = await machine.rows()
            killed = Claim("killed", [Want(("default",), frozenset({row.lane}), 1)], 30.0)
            assert [held.id for held in (await app.store.jobs_claim(killed)).jobs] == [job.id]
        async with machine.process(machine.work) as (app, _):
            await machine.clock.run_for("29s")
            assert machine.ran == []
            assert await (await app.job(job.id)) == 25
        (row,) = await machine.rows()
        assert (row.attempt, row.rescues) == (2, 1)
