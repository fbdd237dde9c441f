"""Several apps on one shared store: what one process does, the others see."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta

import pytest

from quarterjack import (
    ConcurrencyLimit,
    Every,
    InvalidOption,
    JobFailed,
    JobGone,
    JobState,
    Quarterjack,
    current_job,
    gather,
)
from quarterjack.errors import ResultUnavailable, StoreError, StoreUnavailable
from quarterjack.testing._clock import VirtualClock
from tests.runtime.fleet import Connection, Server, SkewedClock, fleet


@dataclass
class Sum:
    """What a task returns that is more than JSON."""

    of: int


async def add(x: int) -> Sum:
    return Sum(x + 1)


async def fail() -> None:
    raise ValueError("no good")


async def nap(seconds: float) -> str:
    job = current_job()
    for part in range(10):
        await asyncio.sleep(seconds / 10)
        job.progress(part + 1, 10, "napping")
    return "rested"


# -- results, errors, cancels, progress ---------------------------------------------------------


async def test_a_client_awaits_what_a_worker_returns() -> None:
    """The plainest use of two processes: one submits, the other runs; the result has its declared type."""
    server = Server(VirtualClock())
    client, worker = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    task = client.task(add)
    worker.task(add)
    async with fleet(server, client, worker):
        job = await client.submit(task, 1)
        assert await job == Sum(2)
        assert job.state is JobState.DONE
        assert (await client.job(job.id)).result() == Sum(2)


@pytest.mark.parametrize("has_hints", [True, False])
async def test_an_end_elsewhere_is_known_within_a_second_or_so(has_hints: bool) -> None:
    """A hint makes it quick; without any, looking once a second is what counts."""
    server = Server(VirtualClock(), has_hints=has_hints)
    client, worker = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    task = client.task(nap)
    worker.task(nap)
    async with fleet(server, client, worker) as clock:
        await clock.run_for(10)
        began = clock.monotonic()
        assert await (await client.submit(task, 5.0)) == "rested"
        late = clock.monotonic() - began - 5.0
        assert late < (0.1 if has_hints else 3.0), late


async def test_a_failure_elsewhere_is_told_in_words() -> None:
    """Exceptions stay in their process; type, message and traceback travel."""
    server = Server(VirtualClock())
    client, worker = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    task = client.task(fail)
    worker.task(fail)
    async with fleet(server, client, worker):
        job = await client.submit(task)
        with pytest.raises(JobFailed) as caught:
            await job
    assert (caught.value.error_type, caught.value.message) == ("ValueError", "no good")
    assert "no good" in caught.value.traceback_text
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("has_hints", [True, False])
async def test_a_client_cancels_what_runs_elsewhere(has_hints: bool) -> None:
    """With a hint at once, else with the next renewal."""
    server = Server(VirtualClock(), has_hints=has_hints)
    client, worker = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect(), lease=6)
    task = client.task(nap)
    worker.task(nap)
    async with fleet(server, client, worker) as clock:
        job = await client.submit(task, 1000.0)
        await clock.run_for(5)
        assert await job.cancel() is True
        assert (job.state, job.reason) == (JobState.CANCELLED, "cancelled by request")
        assert worker._running().worker is not None
        assert (await client.submit(task, 0.1)).id != job.id


async def test_a_body_is_cancelled_though_nobody_can_say_why() -> None:
    """The store has the reason; if it does not answer just then, the body ends without one."""
    server = Server(VirtualClock())
    client, worker = Quarterjack(server.connect("client"), role="client"), Quarterjack(server.connect("w"), lease=6)
    task = client.task(nap)
    worker.task(nap)

    async def fail_to_say(by: Connection, call: str, is_after: bool) -> None:
        if (by.label, call) == ("w", "jobs_get"):
            raise StoreUnavailable("gone for a moment")

    async with fleet(server, client, worker) as clock:
        job = await client.submit(task, 1000.0)
        await clock.run_for(5)
        server.fault = fail_to_say
        assert await job.cancel() is True
        assert (job.state, job.reason) == (JobState.CANCELLED, "cancelled")


async def test_a_waiting_job_is_cancelled_from_anywhere() -> None:
    """It needs no worker for that."""
    server = Server(VirtualClock())
    client, other = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect(), role="client")
    task = client.task(nap)
    async with fleet(server, client, other):
        job = await client.submit(task, 1.0)
        assert await (await other.job(job.id)).cancel() is True
        await job.refresh()
        assert job.state is JobState.CANCELLED


async def test_progress_and_the_running_state_are_seen_elsewhere() -> None:
    """A dashboard in another process shows what runs and how far it is."""
    server = Server(VirtualClock())
    client, worker = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    task = client.task(nap)
    worker.task(nap)
    async with fleet(server, client, worker) as clock:
        job = await client.submit(task, 100.0)
        await clock.run_for(55)
        await job.refresh()
        assert job.state is JobState.RUNNING
        assert job.progress == (5, 10, "napping")
        assert [one.id for one in await client.jobs(state=JobState.RUNNING)] == [job.id]


async def test_a_purged_job_is_gone_for_who_waits() -> None:
    """A waiter must not wait for ever for a row that nobody has any more."""
    server = Server(VirtualClock())
    client = Quarterjack(server.connect(), role="client")
    task = client.task(nap)
    async with fleet(server, client) as clock:
        job = await client.submit(task, 1.0)
        waiter = asyncio.ensure_future(job.wait())
        await clock.run_for(3)
        del server.store._jobs[job.id]
        with pytest.raises(JobGone):
            await waiter
        with pytest.raises(JobGone):
            await job


async def test_callbacks_run_once_where_the_job_ran_and_those_of_a_handle_where_it_is() -> None:
    """A task's callbacks are the worker's; a handle's belong to whoever asked for them."""
    server = Server(VirtualClock())
    client, worker = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    task, theirs = client.task(add), worker.task(add)
    told: list[str] = []
    task.on_done(lambda _: told.append("task, in the client"))
    theirs.on_done(lambda _: told.append("task, in the worker"))
    async with fleet(server, client, worker) as clock:
        job = await client.submit(task, 1)
        job.on_done(lambda done: told.append(f"handle: {done.result()}"))
        await clock.run_for(5)
    assert told == ["task, in the worker", "handle: Sum(of=2)"]


async def test_many_are_gathered_from_several_workers() -> None:
    """Nothing is lost and nothing runs twice while two workers share the load."""
    server = Server(VirtualClock(), has_hints=False)
    client = Quarterjack(server.connect(), role="client")
    workers = [Quarterjack(server.connect(), concurrency=5) for _ in range(2)]
    ran: Counter[int] = Counter()

    async def count(x: int) -> int:
        ran[x] += 1
        await asyncio.sleep(0.3)
        return x

    task = client.task(count)
    for worker in workers:
        worker.task(count)
    async with fleet(server, client, *workers):
        jobs = await client.submit_many(task.bind(x) for x in range(50))
        assert await gather(jobs) == list(range(50))
    assert ran == Counter(range(50))


# -- unknown tasks, other versions ----------------------------------------------------------------


async def test_an_unknown_task_waits_for_a_worker_that_knows_it() -> None:
    """In a rolling deploy a new task's jobs wait; they do not fail on the old workers."""
    server = Server(VirtualClock())
    client, old, new = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect()), None
    task = client.task(add)
    async with fleet(server, client, old) as clock:
        job = await client.submit(task, 1)
        await clock.run_for(60)
        await job.refresh()
        assert (job.state, job.attempt) == (JobState.SUBMITTED, 0)
        assert (await old.why_waiting(job)).kind == "orphaned"
        new = Quarterjack(server.connect(), clock=clock)
        new.task(add)
        async with new:
            assert await job == Sum(2)


async def test_arguments_that_no_longer_fit_wait_for_a_worker_they_fit() -> None:
    """A changed signature is a deploy under way, no failure of the job."""
    server = Server(VirtualClock())
    client, old = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    task = client.task(add)

    async def takes_text(text: str, more: int) -> None:
        raise AssertionError("it does not fit")

    old.task(name="add")(takes_text)
    async with fleet(server, client, old) as clock:
        job = await client.submit(task, 1)
        await clock.run_for(3)
        await job.refresh()
        assert job.state is JobState.SUBMITTED
        assert (job.reason or "").startswith("ORPHANED: ")
        assert job.failures == 0
        why = await old.why_waiting(job)
        assert (why.kind, "ORPHANED" in why.words) == ("orphaned", True)
        new = Quarterjack(server.connect(), clock=clock)
        new.task(add)
        async with new:
            assert await job == Sum(2)


# -- leases -------------------------------------------------------------------------------------------


async def test_a_long_job_keeps_its_lease() -> None:
    """Rescue goes by signs of life, not by how long a job has run."""
    server = Server(VirtualClock())
    client = Quarterjack(server.connect(), role="client")
    workers = [Quarterjack(server.connect(), lease=2) for _ in range(2)]
    task = client.task(nap)
    for worker in workers:
        worker.task(nap)
    async with fleet(server, client, *workers):
        job = await client.submit(task, 60.0)
        assert await job == "rested"
        assert (job.attempt, job.rescues) == (1, 0)


async def test_a_worker_cut_off_loses_its_jobs_and_they_run_once_more() -> None:
    """The lease runs out, another worker takes the job, and what the first one did is refused."""
    server = Server(VirtualClock())
    client = Quarterjack(server.connect(), role="client")
    first, second = Quarterjack(server.connect("first"), lease=3), Quarterjack(server.connect("second"), lease=3)
    ran: list[tuple[str, int]] = []

    def register(app: Quarterjack, name: str) -> None:
        @app.task(name="body")
        async def body() -> str:
            ran.append((name, current_job().attempt))
            await asyncio.sleep(8)
            return name

    register(first, "first")
    register(second, "second")
    task = client.task(name="body")(nap_as)
    is_cut = False

    async def fault(by: Connection, call: str, is_after: bool) -> None:
        if is_cut and by.label == "first":
            raise StoreUnavailable("cut off")

    server.fault = fault
    async with fleet(server, client, first) as clock:
        job = await client.submit(task)
        await clock.run_for(1)
        second.clock = clock
        async with second:
            is_cut = True
            await clock.run_for(5)
            assert ran == [("first", 1), ("second", 2)]
            await clock.run_for(5)
            is_cut = False
            assert await job == "second"
            assert (job.attempt, job.rescues) == (2, 1)


async def nap_as() -> str:
    return ""


async def test_a_checkpoint_reaches_the_next_attempt() -> None:
    """Also where the attempt ended before any renewal could carry it."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())
    seen: list[object] = []

    @app.task(retry=2)
    async def steps() -> None:
        seen.append(current_job().last_checkpoint)
        current_job().checkpoint({"at": len(seen)})
        if len(seen) == 1:
            raise ValueError("once")

    async with fleet(server, app):
        await (await app.submit(steps))
    assert seen == [None, {"at": 1}]


async def test_a_checkpoint_may_be_taken_back() -> None:
    """As on the memory store, where the record is the row: the next attempt begins from nothing."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())
    seen: list[object] = []

    @app.task(retry=2)
    async def steps() -> None:
        seen.append(current_job().last_checkpoint)
        current_job().checkpoint("half-way")
        if len(seen) == 1:
            await asyncio.sleep(5)  # the store hears of it
            current_job().checkpoint(None)
            raise ValueError("once")

    async with fleet(server, app):
        await (await app.submit(steps))
    assert seen == [None, None]


async def test_a_checkpoint_survives_a_stop() -> None:
    """A deploy interrupts bodies: the next worker goes on from their last word, and no retry or rescue is counted."""
    server = Server(VirtualClock())
    first, second = (Quarterjack(server.connect(), shutdown_grace=0) for _ in range(2))
    seen: list[object] = []

    async def steps() -> str:
        job = current_job()
        seen.append(job.last_checkpoint)
        for n in range(5):
            if job.attempt == 1:
                job.checkpoint(n)
            await asyncio.sleep(0.1)
        return "done"

    task = first.task(steps)
    second.task(steps)
    async with fleet(server) as clock:
        first.clock = second.clock = clock
        async with first:
            job = await first.submit(task)
            await clock.run_for(0.35)
        async with second:
            again = await second.job(job.id)
            assert await again == "done"
            assert (again.attempt, again.rescues, again.failures) == (2, 0, 0)
    assert seen == [None, 3]


async def test_the_registry_shows_who_lives_and_obeys_commands() -> None:
    """An operator drains a worker from another process, and lets it go on."""
    server = Server(VirtualClock())
    client, worker = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect(), lease=3)
    task = client.task(add)
    worker.task(add)
    async with fleet(server, client, worker) as clock:
        await clock.run_for(20)
        (info,) = await server.store.workers_list()
        assert clock.now_ns() - info.seen_at_ns < 2e9
        await server.store.workers_command(info.id, "drain")
        await clock.run_for(2)
        assert not worker.health().is_ready
        job = await client.submit(task, 1)
        await clock.run_for(10)
        await job.refresh()
        assert job.state is JobState.SUBMITTED
        await server.store.workers_command(info.id, "resume")
        assert await job == Sum(2)


async def test_a_drained_worker_gives_back_what_waits_in_its_flows() -> None:
    """It begins nothing more, so what was claimed ahead for a limit must not stay with it, renewed for ever."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=3)
    task = app.task(flow=ConcurrencyLimit(1))(nap)
    async with fleet(server, app) as clock:
        jobs = [await app.submit(task, 20.0) for _ in range(3)]
        await clock.run_for(1)
        (info,) = await server.store.workers_list()
        await server.store.workers_command(info.id, "drain")
        await clock.run_for(4)
        for job in jobs:
            await job.refresh()
        assert [job.state for job in jobs] == [JobState.RUNNING, JobState.SUBMITTED, JobState.SUBMITTED]
        await server.store.workers_command(info.id, "resume")
        assert await gather(jobs) == ["rested"] * 3


# -- outages --------------------------------------------------------------------------------------------


async def test_an_outage_loses_nothing_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """What ends meanwhile is recorded when the store is back; readiness says no as long as it lasts."""
    caplog.set_level(logging.INFO, "quarterjack")
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), lease=60)
    task = app.task(nap)
    is_down = False

    async def fault(by: Connection, call: str, is_after: bool) -> None:
        if is_down:
            raise StoreUnavailable("no route to host")

    server.fault = fault
    async with fleet(server, app) as clock:
        jobs = [await app.submit(task, 5.0) for _ in range(20)]
        await clock.run_for(1)
        is_down = True
        await clock.run_for(30)
        health = app.health()
        assert (health.is_ready, health.unrecorded) == (False, 20)
        is_down = False
        assert await gather(jobs) == ["rested"] * 20
        assert [job.attempt for job in jobs] == [1] * 20
        await clock.run_for(10)
        assert app.health().is_ready
    told = [record.getMessage() for record in caplog.records if "no route" in record.getMessage()]
    back = [record.getMessage() for record in caplog.records if "works again" in record.getMessage()]
    assert sorted(line.split(" failed")[0] for line in told) == ["the connection that renews leases", "the store"]
    assert len(back) == 2


async def test_a_store_that_keeps_silent_is_no_health_either() -> None:
    """Health is progress: a call that neither works nor fails, as on a half-open connection, is told too."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect())

    async def fault(by: Connection, call: str, is_after: bool) -> None:
        if call == "jobs_claim":
            await asyncio.sleep(20)

    async with fleet(server, app) as clock:
        await clock.run_for(10)
        assert app.health().is_ready
        server.fault = fault
        await clock.run_for(10)
        assert (app.health().is_ready, app.health().outage_s > 5) == (False, True)
        server.fault = None
        await clock.run_for(40)
        assert app.health().is_ready


async def test_a_full_buffer_stops_claiming_and_drops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes that cannot be recorded are bounded, by beginning no more."""
    monkeypatch.setattr("quarterjack.runtime.recording.OUTCOMES_MOST", 30)
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), concurrency=10, lease=600)
    task = app.task(add)
    is_down = False

    async def fault(by: Connection, call: str, is_after: bool) -> None:
        if is_down and call == "jobs_finish":
            raise StoreUnavailable("disk full")

    server.fault = fault
    async with fleet(server, app) as clock:
        is_down = True
        jobs = await app.submit_many(task.bind(n) for n in range(100))
        await clock.run_for(20)
        assert 30 <= app.health().unrecorded <= 40
        assert "wait to be recorded" in app.health().why
        is_down = False
        assert await gather(jobs) == [Sum(n + 1) for n in range(100)]
        assert {job.attempt for job in jobs} == {1}


async def test_an_outcome_whose_answer_was_lost_is_told_all_the_same() -> None:
    """The store recorded it, the connection broke: who waits must not be told of a lost lease."""
    server = Server(VirtualClock(), has_hints=False)
    app = Quarterjack(server.connect())
    task = app.task(add)
    done: list[str] = []
    task.on_done(lambda job: done.append(job.id))
    lost = 0

    async def fault(by: Connection, call: str, is_after: bool) -> None:
        nonlocal lost
        if call == "jobs_finish" and is_after and not lost:
            lost += 1
            raise StoreUnavailable("connection reset")

    server.fault = fault
    async with fleet(server, app):
        job = await app.submit(task, 1)
        assert await job == Sum(2)
    assert (lost, done) == (1, [job.id])


async def test_a_stop_during_an_outage_says_what_is_left_to_the_leases(caplog: pytest.LogCaptureFixture) -> None:
    """It tries its best and does not wait for ever; another worker runs the job again."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect("first"), lease=5)
    task = app.task(add)

    async def fault(by: Connection, call: str, is_after: bool) -> None:
        if by.label == "first" and call == "jobs_finish":
            raise StoreUnavailable("gone")

    server.fault = fault
    async with fleet(server) as clock:
        app.clock = clock
        async with app:
            job = await app.submit(task, 1)
            await clock.run_for(1)
        assert "1 outcomes could not be recorded" in caplog.text
        other = Quarterjack(server.connect("second"), clock=clock)
        other.task(add)
        async with other:
            assert await (await other.job(job.id)) == Sum(2)


async def test_an_outcome_that_cannot_be_stored_holds_up_no_other() -> None:
    """A result that a store or a codec refuses ends its own job, without its result, and nobody else's."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), concurrency=20, lease=600)
    task = app.task(add)

    async def fault(by: Connection, call: str, is_after: bool) -> None:
        if call == "jobs_finish" and any(one.result == Sum(14) for one in server.asked[0]):
            raise StoreError("the codec raised")

    server.fault = fault
    async with fleet(server, app) as clock:
        jobs = await app.submit_many(task.bind(n) for n in range(40))
        done = await gather(jobs, return_exceptions=True)
        assert [n for n, one in enumerate(done) if one != Sum(n + 1)] == [13]
        assert (jobs[13].state, isinstance(done[13], ResultUnavailable)) == (JobState.DONE, True)
        await clock.run_for(10)
        assert app.health().is_ready


async def test_a_disk_that_is_full_takes_no_result_away() -> None:
    """An outage by another name: all fail alike, and all are recorded in full when it is over."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), concurrency=20)
    task = app.task(add)
    is_full = True

    async def fault(by: Connection, call: str, is_after: bool) -> None:
        if is_full and call == "jobs_finish":
            raise StoreError("no space left on device")

    server.fault = fault
    async with fleet(server, app) as clock:
        jobs = await app.submit_many(task.bind(n) for n in range(40))
        await clock.run_for(1000)
        is_full = False
        assert await gather(jobs) == [Sum(n + 1) for n in range(40)]


# -- time -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("skew_s", [5.0, -5.0])
async def test_a_clock_that_is_wrong_fires_on_time_by_the_stores(skew_s: float) -> None:
    """A machine whose clock is 5 s off starts jobs within milliseconds of their instant, and never before."""
    clock = VirtualClock()
    server = Server(clock)
    app = Quarterjack(server.connect(), clock=SkewedClock(clock, skew_s))
    began: list[int] = []

    @app.task(Every(seconds=10))
    async def tick() -> None:
        began.append(clock.now_ns())

    @app.task
    async def later() -> None:
        began.append(clock.now_ns())

    async with fleet(server, app):
        await clock.run_for(35)
        assert app.health().skew_s == pytest.approx(skew_s, abs=0.01)
        rows = [row for row in server.store._jobs.values() if row.running_at_ns]
        assert len(began) >= 3
        for row in rows:
            lag = (row.running_at_ns or 0) - row.run_at_ns
            assert 0 <= lag < 10e6, lag
        began.clear()
        now = clock.now_ns()
        await (await app.submit(later.options(delay=3)))
        assert 3e9 <= began[-1] - now < 3.02e9


@pytest.mark.parametrize("has_hints", [True, False])
async def test_two_schedulers_fire_each_tick_once_and_on_time(has_hints: bool) -> None:
    """There is no leader: whoever is first moves the cursor, and the other one sees it."""
    server = Server(VirtualClock(), has_hints=has_hints)
    apps = [Quarterjack(server.connect()) for _ in range(3)]
    ran: list[str] = []

    async def tick() -> None:
        nominal = current_job().nominal
        assert nominal is not None
        ran.append(f"{nominal:%M:%S}")

    for app in apps:
        app.task(Every(seconds=10))(tick)
    async with fleet(server, *apps) as clock:
        await clock.run_for(125)
    assert ran == [f"{s // 60:02}:{s % 60:02}" for s in range(10, 130, 10)]


async def test_a_schedule_made_elsewhere_fires_in_time_without_a_hint() -> None:
    """Looking once a second at what falls due soon is enough."""
    server = Server(VirtualClock(), has_hints=False)
    client, app = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    ran: list[int] = []

    async def tick() -> None:
        ran.append(1)

    task = client.task(tick)
    app.task(tick)
    async with fleet(server, client, app) as clock:
        await clock.run_for(7)
        await client.schedule(task, Every(seconds=3), id="new")
        await clock.run_for(10)
        assert len(ran) == 3
        await client.pause("new")
        await clock.run_for(10)
        assert len(ran) == 3
        await client.resume("new")
        await clock.run_for(9.5)
        assert len(ran) == 6
        await client.unschedule("new")
        await clock.run_for(20)
    assert len(ran) == 6


async def test_roles_share_the_work() -> None:
    """One process fires, another runs what was fired."""
    server = Server(VirtualClock())
    scheduler, worker = Quarterjack(server.connect(), role="scheduler"), Quarterjack(server.connect(), role="worker")
    ran: list[int] = []

    async def tick() -> None:
        ran.append(1)

    scheduler.task(Every(seconds=1))(tick)
    worker.task(Every(seconds=1))(tick)
    async with fleet(server, scheduler, worker) as clock:
        await clock.run_for(10.5)
        assert {one.role for one in await server.store.workers_list()} == {"scheduler", "worker"}
    assert len(ran) == 10


# -- upkeep -----------------------------------------------------------------------------------------------


async def test_finished_jobs_are_deleted_in_time_and_in_number() -> None:
    """History is bounded without anybody asking for it, and so is the registry."""
    server = Server(VirtualClock())
    app = Quarterjack(server.connect(), retention=timedelta(hours=1), keep_finished=5)
    task = app.task(add)
    async with fleet(server, app) as clock:
        await gather([await app.submit(task, n) for n in range(9)])
        await clock.run_for(180)
        assert len(server.store._jobs) == 5
        await clock.run_for("1h10m")
        assert len(server.store._jobs) == 0


async def test_wake_makes_workers_look_at_once() -> None:
    """Rows stored past the app, as in somebody's transaction, need not wait for the next poll."""
    server = Server(VirtualClock())
    client, worker = Quarterjack(server.connect(), role="client"), Quarterjack(server.connect())
    task = client.task(add)
    worker.task(add)
    async with fleet(server, client, worker) as clock:
        server.has_hints = False
        await clock.run_for(10)
        job = await client.submit(task, 1)
        server.has_hints = True
        began = clock.monotonic()
        await client.wake()
        await job
        assert clock.monotonic() - began < 0.2


@pytest.mark.parametrize("option", [{"lease": 1.9}, {"retention": -1}, {"keep_finished": -1}, {"role": "boss"}])
def test_wrong_options_are_refused(option: dict[str, object]) -> None:
    """A lease too short to be renewed would lose every job."""
    with pytest.raises(InvalidOption):
        Quarterjack(**option)  # type: ignore[arg-type]


# -- rolling deploys ------------------------------------------------------------------------------------------


async def test_two_versions_at_once_fire_each_tick_once_and_do_not_flip() -> None:
    """The newer declaration counts whichever process starts last; the old one fires it no more."""
    server = Server(VirtualClock())
    ran: list[tuple[str, str]] = []

    def version(number: str, every_s: int) -> Quarterjack:
        app = Quarterjack(server.connect(number), version=number)

        @app.task(Every(seconds=every_s))
        async def tick() -> None:
            nominal = current_job().nominal
            assert nominal is not None
            ran.append((number, f"{nominal:%M:%S}"))

        return app

    async with fleet(server, version("1", 4)) as clock:
        await clock.run_for(13)
        assert [at for _, at in ran] == ["00:04", "00:08", "00:12"]
        new = version("2", 5)
        new.clock = clock
        async with new:
            assert new.is_running
            await clock.run_for(1)
            old = version("1", 4)
            old.clock = clock
            async with old:  # an old process that is started once more
                await clock.run_for(21)
                rows = await old.schedules()
                assert [row.not_fired_reason is None for row in rows] == [False]
            assert [at for _, at in ran[3:]] == ["00:15", "00:20", "00:25", "00:30", "00:35"]
            row = server.store._schedules["tick"]
            assert (row.version, row.generation) == ("2", 2)


@pytest.mark.parametrize("is_rolling", [True, False])
async def test_a_deploy_that_is_taken_back_fires_by_the_older_code_again(is_rolling: bool) -> None:
    """The newer version is gone for good: its schedules must not be fired by nobody until somebody notices."""
    server = Server(VirtualClock())
    ran: list[str] = []

    def version(number: str, every_s: int) -> Quarterjack:
        app = Quarterjack(server.connect(number), version=number, clock=server.clock)

        @app.task(Every(seconds=every_s))
        async def tick() -> None:
            ran.append(number)

        return app

    async with fleet(server) as clock, AsyncExitStack() as stack:
        async with version("1.0", 4):
            await clock.run_for(9)
        async with version("1.1", 5):
            await clock.run_for(11)
            if is_rolling:  # the first of the old pods is up before the last of the new ones is gone
                await stack.enter_async_context(version("1.0", 4))
            await clock.run_for(40)
        if not is_rolling:
            await stack.enter_async_context(version("1.0", 4))
        assert Counter(ran) == {"1.0": 2, "1.1": ran.count("1.1")}
        ran.clear()
        await clock.run_for(60)
        assert set(ran) == {"1.0"}
        assert len(ran) >= (5 if is_rolling else 15)
        row = server.store._schedules["tick"]
        assert (row.version, row.in_code) == ("1.0", True)
        ran.clear()
        async with version("1.1", 5):
            await clock.run_for(51)
            assert set(ran) == {"1.1"}
            assert (server.store._schedules["tick"].version, len(ran) >= 10) == ("1.1", True)


async def test_a_newer_process_keeps_the_last_word_whoever_wrote_last() -> None:
    """Two processes may judge the registry in the same moment: the newer one puts right what an older one put back."""
    server = Server(VirtualClock())

    def version(number: str, every_s: int) -> Quarterjack:
        app = Quarterjack(server.connect(number), version=number, clock=server.clock)

        @app.task(Every(seconds=every_s))
        async def tick() -> None: ...

        return app

    async with fleet(server) as clock:
        new, old = version("2", 5), version("1", 4)
        async with old, new:
            await clock.run_for(1)
            declarations = old._running().declarations
            await declarations._take_back([server.store._schedules["tick"]])
            assert server.store._schedules["tick"].version == "1"
            await clock.run_for(60)
            assert server.store._schedules["tick"].version == "2"
