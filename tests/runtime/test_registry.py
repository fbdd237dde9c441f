"""What processes say of themselves in the registry, and what becomes of one that is known to be dead."""

from __future__ import annotations

import asyncio
import logging

import pytest

from quarterjack import Every, InvalidOption, JobState, Quarterjack
from quarterjack.errors import BodyDied, StoreUnavailable
from quarterjack.model import FinishKind, Outcome, OutcomeKind, WorkerInfo
from quarterjack.runtime.forgetting import forget
from quarterjack.stores import MemoryStore
from quarterjack.testing._bench import Bench
from quarterjack.testing._clock import VirtualClock
from quarterjack.triggers import Forever
from tests.runtime.fleet import Connection, Server, fleet

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Orders and deaths are meant here."""
    caplog.set_level(logging.CRITICAL, "quarterjack")


async def noop() -> None: ...


async def test_drained_process_is_told_by_all_who_are_asked_why_nothing_happens() -> None:
    """The bug: a drain that somebody forgot to take back was to be seen nowhere."""
    server = Server(VirtualClock())
    boss, app = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    app.task(Every(hours=1), name="tick")(noop)
    task = boss.task(noop)
    app.task(noop)
    async with fleet(server, boss, app) as clock:
        (info,) = await boss.workers()
        await boss.order(info.id, "drain")
        await clock.run_for(11.5)  # a sign of life, and the second after
        assert [one.halt for one in await boss.workers()] == ["drained"]
        job = await boss.submit(task)
        await clock.run_for(5)
        waits, fires = await boss.why_waiting(job), await boss.why("tick")
        assert (waits.kind, fires.kind, job.state) == ("unserved", "unserved", JobState.SUBMITTED)
        assert waits.words.endswith(f"is drained: qj workers resume {info.id} has it go on")
        assert fires.words.endswith(f"is drained: qj workers resume {info.id} has it go on")
        await boss.order(info.id, "resume")
        await clock.run_for(11.5)
        assert [one.halt for one in await boss.workers()] == [""]
        assert (await job.refresh()).state is JobState.DONE


async def test_process_that_ends_says_so_while_its_last_jobs_run() -> None:
    """Who is about to go takes nothing more, and is not drained for good."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), shutdown_grace=30)

    @app.task
    async def long() -> None:
        await asyncio.sleep(20)

    async with fleet(server, app) as clock:
        await app.submit(long)
        await clock.run_for(1)
        ending = asyncio.create_task(app._running().drain(30))
        await clock.run_for(1.5)
        assert [one.halt for one in await server.store.workers_list()] == ["ending"]
        await clock.run_for(20)
        await ending


async def test_parked_task_is_told_to_those_who_ask_why_it_waits() -> None:
    """The bug: only the log of the worker knew; its jobs were said to begin as soon as a slot is free."""
    server = Server(VirtualClock())
    boss, app = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    task = boss.task(noop)
    app.task(noop)
    async with fleet(server, boss, app) as clock:
        worker = app._running().worker
        assert worker is not None
        for _ in range(3):
            worker.deaths.note("noop", Outcome(OutcomeKind.DIED, error=BodyDied(3, "")))
        await clock.run_for(1.5)
        job = await boss.submit(task)
        await clock.run_for(1)
        assert [one.parked for one in await boss.workers()] == [("noop",)]
        assert (await boss.why_waiting(job)).kind == "task_parked"


async def test_jobs_of_a_process_that_is_known_to_be_dead_are_taken_at_once() -> None:
    """Else they wait for their leases, and monitors mourn for an hour. Should it live after all, the fence decides."""
    server = Server(VirtualClock())
    boss = Quarterjack(server.connect("boss"), role="client")
    ran: list[str] = []

    def member(name: str, seconds: float) -> Quarterjack:
        app = Quarterjack(server.connect(name), lease=30, role="worker")

        @app.task
        async def work() -> str:
            ran.append(name)
            await asyncio.sleep(seconds)
            return name

        return app

    async def fault(by: Connection, name: str, is_after: bool) -> None:
        if by.label == "dead":
            raise StoreUnavailable("cut off")

    @boss.task
    async def work() -> str:
        return "boss"

    dead, other = member("dead", 5), member("other", 10)
    async with fleet(server, boss, dead) as clock:
        job = await boss.submit(work)
        await clock.run_for(2)
        (info,) = await boss.workers()
        server.fault = fault
        other.clock = clock
        async with other:
            assert await boss.forget_worker(info.id) == 1
            assert info.id not in [one.id for one in await boss.workers()]
            await clock.run_for(2)
            assert ran == ["dead", "other"]
            server.fault = None
            await clock.run_for(12)
            assert (await job.refresh()).state is JobState.DONE
            assert (job.result(), job.attempt, job.rescues) == ("other", 2, 1)
            assert info.id in [one.id for one in await boss.workers()], "its next sign of life registers it anew"


async def test_body_that_outlived_its_outcome_holds_nothing_up_when_its_process_is_forgotten() -> None:
    """It died with its process; what is to come after it need not wait for the lease."""
    b = Bench(MemoryStore())
    await b.open()
    await b.schedule(trigger=Forever())
    await b.store.schedules_fire([await b.plan()])
    (row,) = await b.claim(lease_s=30)
    await b.finish(row.fence, FinishKind.TIMED_OUT, zombie=True)
    await b.store.workers_put(WorkerInfo("w1", "host", 1, "both", (), 0, 0))
    assert await b.store.schedules_due(10**12) == []
    await b.advance(1)
    assert await forget(b.store, "w1") == 0, "no job was held"
    await b.claim(owner="w2")
    assert len(await b.store.schedules_due(0)) == 1


async def test_nobody_forgets_itself_or_whom_it_does_not_know() -> None:
    """The one lives, the other never was: nothing is done."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())
    async with fleet(server, app):
        (info,) = await app.workers()
        with pytest.raises(InvalidOption, match="this very process"):
            await app.forget_worker(info.id)
        assert await app.forget_worker("nobody") is None
        assert [one.id for one in await app.workers()] == [info.id]
