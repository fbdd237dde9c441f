"""Parts of an outage: some calls of a store fail, and others work."""

from __future__ import annotations

import asyncio
import logging

import pytest

from quarterjack import Every, JobState, Quarterjack, gather
from quarterjack.errors import StoreUnavailable
from quarterjack.testing._clock import VirtualClock
from tests.runtime.fleet import Connection, Fault, Server, fleet

CALLS = tuple(name for name in dir(Connection) if name.startswith(("jobs_", "schedules_", "workers_", "now_")))


def is_renewal(name: str) -> bool:
    """Say whether a call comes over the connection that renews leases."""
    task = asyncio.current_task()
    return name in {"jobs_renew", "workers_put"} and task is not None and task.get_name() == "quarterjack-leases"


def failing(*names: str) -> Fault:
    """Return the fault of a store that does everything but *names*."""

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        del by
        if not is_after and name in names:
            raise StoreUnavailable("away")

    return fault


async def test_a_purge_that_fails_is_no_reason_to_send_work_elsewhere(caplog: pytest.LogCaptureFixture) -> None:
    """Else a lock on the history takes all pods out of service at once, and the heaviest call is repeated the most."""
    caplog.set_level(logging.INFO, "quarterjack")
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())
    server.fault = failing("jobs_purge")
    async with fleet(server, app) as clock:
        await clock.run_for(600)
        assert app.health().is_ready
        tried = [name for _, name in server.calls].count("jobs_purge")
        assert 5 <= tried <= 10
        server.fault = None
        await clock.run_for(120)
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert told == ["old jobs cannot be deleted: away; it is tried again each minute", "old jobs are deleted again"]


async def test_leases_that_nobody_renews_are_no_health() -> None:
    """The jobs of such a process are about to be taken from it, though it claims and records as if all were well."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=30)
    async with fleet(server, app) as clock:

        async def fault(by: Connection, name: str, is_after: bool) -> None:
            del by, is_after
            if is_renewal(name):
                raise StoreUnavailable("away")

        server.fault = fault
        await clock.run_for(30)
        health = app.health()
        assert (health.is_ready, health.why.split(" for ")[0]) == (False, "no lease has been renewed")
        server.fault = None
        await clock.run_for(30)
        assert app.health().is_ready


@pytest.mark.parametrize("lease_s", [3, 30])
async def test_leases_that_nobody_renews_are_kept_by_who_claims(lease_s: float) -> None:
    """Where the connection that renews them fails alone, the next claim must not rescue from its own process."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=lease_s)
    began: list[int] = []

    @app.task(max_rescues=0)
    async def body() -> str:
        began.append(1)
        await asyncio.sleep(5 * lease_s)
        return "done"

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        del by, is_after
        if is_renewal(name):
            raise StoreUnavailable("away")

    server.fault = fault
    async with fleet(server, app):
        assert await (await app.submit(body)) == "done"
    assert len(began) == 1


@pytest.mark.parametrize("outage_s", [2, 20, 50, 300])
async def test_after_an_outage_nobody_takes_what_runs_elsewhere(outage_s: float) -> None:
    """All are cut off alike: who is through first leaves the others a moment to say that they live."""
    server = Server(VirtualClock())
    busy = [Quarterjack(server.connect(f"busy{n}"), concurrency=1) for n in range(5)]
    idle = [Quarterjack(server.connect(f"idle{n}")) for n in range(2)]
    began: list[str] = []

    async def body(name: str) -> str:
        began.append(name)
        await asyncio.sleep(1.5 * outage_s)
        return name

    task, *_ = (app.task(max_rescues=0)(body) for app in (*busy, *idle))
    async with fleet(server, *busy) as clock:
        jobs = [await busy[0].submit(task, str(n)) for n in range(5)]
        await clock.run_for(1)
        for app in idle:
            app.clock = clock
        async with idle[0], idle[1]:
            server.fault = failing(*CALLS)
            await clock.run_for(outage_s)
            server.fault = None
            assert await gather(jobs) == [str(n) for n in range(5)]
    assert sorted(began) == [str(n) for n in range(5)]


async def test_a_dead_workers_jobs_are_taken_soon_after_an_outage() -> None:
    """The moment that is left to the others is short: nobody waits for who does not come back."""
    server = Server(VirtualClock())
    first, second = Quarterjack(server.connect("first")), Quarterjack(server.connect("second"))
    began: list[float] = []

    async def body() -> None:
        began.append(server.clock.monotonic())
        if len(began) == 1:
            await asyncio.Event().wait()

    tasks = [app.task(body) for app in (first, second)]
    back = float("inf")

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        del name, is_after
        if began and (by.label == "first" or server.clock.monotonic() < back):
            raise StoreUnavailable("away")

    server.fault = fault
    async with fleet(server, first) as clock:
        job = await first.submit(tasks[0])
        await clock.run_for(1)
        second.clock = clock
        server.fault = None
        async with second:
            server.fault, back = fault, clock.monotonic() + 50
            await clock.run_for(65)
            row = server.store._jobs[job.id]
            assert (row.state, row.rescues, len(began)) == (JobState.DONE, 1, 2)


async def test_jobs_on_their_way_back_keep_their_leases() -> None:
    """A release may fail alone for longer than a lease: nobody is to rescue, and lose, what never ran."""
    server = Server(VirtualClock())
    new, old, other = (Quarterjack(server.connect(), role=role, lease=2) for role in ("client", "both", "both"))

    async def two(a: int, b: int) -> None: ...
    async def one(a: int) -> None: ...

    task = new.task(name="f", max_rescues=0)(two)
    old.task(name="f", max_rescues=0)(one)
    other.task(name="f", max_rescues=0)(one)
    server.fault = failing("jobs_release")
    async with fleet(server, new, old, other) as clock:
        job = await new.submit(task, 1, 2)
        await clock.run_for(30)
        row = server.store._jobs[job.id]
        assert (row.state, row.rescues, row.attempt) == (JobState.SCHEDULED, 0, 1)
        server.fault = None
        await clock.run_for(10)
        assert (row.owner, row.rescues) == (None, 0)


@pytest.mark.parametrize("call", ["jobs_claim", "schedules_fire"])
async def test_jobs_leased_by_a_call_that_was_not_answered_go_back(call: str) -> None:
    """The store did what it was asked for and the answer was lost: no worker died of it."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=30, concurrency=2)
    began: list[float] = []

    async def body() -> None:
        began.append(server.clock.monotonic())

    trigger = [Every(minutes=10)] if call == "schedules_fire" else []
    task = app.task(*trigger, max_rescues=0)(body)
    lost: list[float] = []

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        del by
        if is_after and name == call and not lost and any(row.state.is_held for row in server.store._jobs.values()):
            lost.append(server.clock.monotonic())
            raise StoreUnavailable("connection reset")

    server.fault = fault
    async with fleet(server, app) as clock:
        if not trigger:
            await app.submit(task)
        await clock.run_for(610)
    (row,) = server.store._jobs.values()
    assert (row.state, row.rescues, len(began)) == (JobState.DONE, 0, 1)
    assert began[0] - lost[0] < 2


async def test_a_claim_that_is_not_answered_at_a_stop_leaves_nothing_behind() -> None:
    """The next process begins at once what this one was given and never heard of."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=30)
    claimed = asyncio.Event()

    @app.task(max_rescues=0)
    async def body() -> None:
        raise AssertionError("it was not answered")

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        del by
        if is_after and name == "jobs_claim" and any(row.state.is_held for row in server.store._jobs.values()):
            claimed.set()
            await asyncio.sleep(0.1)
            raise StoreUnavailable("connection reset")

    server.fault = fault
    async with fleet(server, app):
        job = await app.submit(body)
        await claimed.wait()
    row = server.store._jobs[job.id]
    assert (row.state, row.owner, row.rescues) == (JobState.SUBMITTED, None, 0)


async def test_a_command_whose_answer_is_lost_is_obeyed_all_the_same() -> None:
    """An operator was told that the word was left: it must not vanish with a connection."""
    server = Server(VirtualClock())
    boss, worker = Quarterjack(server.connect("boss"), role="client"), Quarterjack(server.connect("worker"), lease=6)
    lost: list[str] = []

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        if is_after and by.label == "worker" and name == "workers_put" and server.store._commands and not lost:
            lost.append(name)
            raise StoreUnavailable("connection reset")

    async with fleet(server, boss, worker) as clock:
        server.fault = fault
        (info,) = await boss.workers()
        assert await boss.order(info.id, "drain")
        await clock.run_for(10)
        assert lost
        assert "takes no more work" in worker.health().why
        assert await boss.order(info.id, "resume")
        await clock.run_for(10)
        assert worker.health().is_ready
        assert not server.store._commands


async def test_a_schedule_that_pauses_itself_in_an_outage_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """Its silence would look like health."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())

    @app.task(Every(seconds=10), pause_on_failure=1)
    async def breaks() -> None:
        server.fault = failing("schedules_get")
        raise ValueError("no good")

    async with fleet(server, app) as clock:
        await clock.run_for(15)
        assert "schedule breaks is paused" not in caplog.text
        server.fault = None
        await clock.run_for(10)
        assert "schedule breaks is paused" in caplog.text


async def test_who_awaits_a_job_hears_of_a_store_that_breaks() -> None:
    """What looks how jobs ended must not end in silence: who waits for it would hang."""
    server = Server(VirtualClock())
    client = Quarterjack(server.connect(), role="client")

    @client.task
    async def body() -> None: ...

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        del by, is_after
        if name == "jobs_get":
            raise ZeroDivisionError("a bug in a store")

    server.fault = fault
    with pytest.raises(ZeroDivisionError, match="a bug in a store"):
        async with fleet(server, client):
            await (await client.submit(body))
