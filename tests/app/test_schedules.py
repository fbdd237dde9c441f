"""Schedules on the clock: when they fire, what overlaps, what is missed, and how they are steered."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quarterjack import (
    Aligned,
    At,
    Cron,
    DuplicateName,
    Every,
    Forever,
    Job,
    JobState,
    Once,
    Overlap,
    Quarterjack,
    Retry,
    UnknownSchedule,
    current_job,
)
from quarterjack.events import ScheduleEvent
from quarterjack.stores import MemoryStore
from quarterjack.stores.base import Claim, Claimed
from quarterjack.testing import World, virtual_time
from tests.app.kit import START, Boom, sleeper
from tests.real_time import until


def hours(world: World, of: Any) -> list[str]:
    """Return the runs as times of day."""
    return [run[11:16] for run in world.runs(of)]


def app_with(body_takes: float, trigger: Any, **policies: Any) -> Quarterjack:
    app = Quarterjack()

    async def job() -> None:
        await asyncio.sleep(body_takes)

    app.task(trigger, **policies)(job)
    return app


# -- firing -------------------------------------------------------------------------


async def test_slow_job_stays_on_the_hour() -> None:
    """Fire times keep to the clock face although each run takes 90 minutes."""
    async with virtual_time(app_with(90 * 60, Every(hours=1)), start=START) as world:
        await world.run_until("2026-03-02T15:00")
        assert hours(world, "job") == ["10:00", "12:00", "14:00"]
        assert world.outcomes("job") == ["done", "skipped", "done", "skipped", "running", "skipped"]
        assert {job.lag for job in world.jobs(state=JobState.DONE)} == {0.0}


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        (Every(minutes=20), ["09:20", "09:40", "10:00"]),
        (Aligned(minutes=25), ["09:10", "09:35", "10:00"]),
        (Cron("*/30 9 * * *"), ["09:30"]),
        (At("09:45") | At("09:15"), ["09:15", "09:45"]),
        (Once(), ["09:00"]),
        (Once(at=datetime(2026, 3, 2, 9, 50, tzinfo=UTC)), ["09:50"]),
        (Every(minutes=30, first="immediate"), ["09:00", "09:30", "10:00"]),
        (Every(minutes=25, anchor="start"), ["09:25", "09:50"]),
    ],
    ids=str,
)
async def test_each_trigger_fires_at_its_times(trigger: Any, expected: list[str]) -> None:
    """A trigger in an app does what its preview says."""
    async with virtual_time(app_with(0, trigger), start=START) as world:
        await world.run_for("1h")
        assert hours(world, "job") == expected


async def test_forever_runs_again_when_it_has_ended() -> None:
    """`Forever` is a loop that survives its errors."""
    app = Quarterjack()
    began: list[float] = []

    @app.task(Forever(pause=5))
    async def loop() -> None:
        began.append(asyncio.get_running_loop().time())
        await asyncio.sleep(10)
        raise Boom

    async with virtual_time(app, start=START) as world:
        await world.run_for(50)
    assert [round(b - began[0]) for b in began] == [0, 15, 30, 45]


async def test_forever_of_an_empty_body_lets_others_run() -> None:
    """A body that never waits must not stop the world."""
    app = Quarterjack()
    turns: list[int] = []

    @app.task(Forever())
    async def spin() -> None:
        turns.append(1)

    async with app:
        await until(lambda: len(turns) > 10)


async def test_second_trigger_on_a_task_is_a_schedule_of_its_own() -> None:
    """One task may have many standing orders, told apart by id."""
    app = Quarterjack()

    @app.task(Every(minutes=10), id="often", overlap="skip")
    @app.task(Every(minutes=30))
    async def job() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("30m")
        assert hours(world, "often") == ["09:10", "09:20", "09:30"]
        assert len(world.runs(job)) == 4


async def test_start_and_end_bound_fire_times_inclusively() -> None:
    """The first and the last day of a campaign belong to it."""
    day = datetime(2026, 3, 2, tzinfo=UTC)
    app = app_with(0, Every(hours=1), start=day.replace(hour=11), end=day.replace(hour=13))
    async with virtual_time(app, start=START) as world:
        await world.run_for("1d")
        assert hours(world, "job") == ["11:00", "12:00", "13:00"]
        (view,) = await app.schedules()
        assert view.next is None


async def test_max_runs_counts_admitted_runs_only() -> None:
    """Three runs means three bodies; what was skipped was none."""
    async with virtual_time(app_with(90 * 60, Every(hours=1), max_runs=3), start=START) as world:
        await world.run_for("1d")
        assert hours(world, "job") == ["10:00", "12:00", "14:00"]
        assert (await world.app.schedules())[0].runs == 3


def delay_of(job: Job[Any]) -> float:
    """Return how long after its fire time a body began, in seconds."""
    assert job.nominal is not None
    assert job.timestamps.running_at is not None
    return (job.timestamps.running_at - job.nominal).total_seconds()


async def test_jitter_spreads_starts_but_never_moves_a_fire_time() -> None:
    """A thousand processes must not knock at once, and still each hour has its run."""
    async with virtual_time(app_with(0, Every(hours=1), jitter=600.0), start=START) as world:
        await world.run_for("25h")
        jobs = world.jobs(state=JobState.DONE)
        delays = [delay_of(job) for job in jobs]
        assert hours(world, "job")[:4] == ["10:00", "11:00", "12:00", "13:00"]
        assert len(jobs) in {24, 25}
        assert all(0 <= delay <= 600 for delay in delays)
        assert len({round(delay) for delay in delays}) > 15
        assert {round(job.lag or 0, 6) for job in jobs} == {0.0}, "lag is against the jittered time"
        first = delays
    async with virtual_time(app_with(0, Every(hours=1), jitter=600.0), start=START) as world:
        await world.run_for("25h")
        again = [delay_of(job) for job in world.jobs(state=JobState.DONE)]
    assert again == first, "a second replica computes the same"


async def test_start_deadline_bounds_how_late_a_run_may_begin() -> None:
    """A report that is two hours late is not wanted any more."""
    app = Quarterjack(concurrency=1)
    blocker = sleeper(app)

    @app.task(At("10:00"), start_deadline=600)
    async def report() -> None: ...

    async with virtual_time(app, start=START) as world:
        await app.submit(blocker, 2 * 3600)
        await world.run_for("3h")
        (job,) = world.jobs(report)
        assert (job.state, job.lag) == (JobState.MISSED, None)
        assert "start_deadline is 600 s" in (job.reason or "")


async def test_failing_again_and_again_pauses_a_schedule_that_asks_for_it(caplog: pytest.LogCaptureFixture) -> None:
    """A broken job should stop knocking, and say why: silence would look like health."""
    app = Quarterjack()
    ok = {2}

    @app.task(Every(hours=1), pause_on_failure=3)
    async def job() -> None:
        if current_job().nominal.hour - 9 not in ok:  # type: ignore[union-attr]
            raise Boom

    async with virtual_time(app, start=START) as world:
        await world.run_for("10h")
        assert world.outcomes(job) == ["failed", "done", "failed", "failed", "failed"]
        (view,) = await app.schedules()
        assert view.is_paused
        assert "3 failures in a row" in (view.pause_note or "")
        assert view.explain().count("paused") == 1
        (line,) = [record for record in caplog.records if record.levelname == "WARNING"]
        assert line.getMessage().startswith("schedule job is paused: 3 failures in a row; the last one: ")
        assert "`await app.resume('job')`" in line.getMessage()
        await app.resume("job")
        await world.run_for("2h")
        assert len(world.jobs(job)) == 7, "resuming starts the count anew"


# -- overlap ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overlap", "starts", "outcomes"),
    [
        # each run takes 24 minutes, one fire time every 10; seen a little after an hour
        ("skip", [0, 30, 60], "done skipped skipped done skipped skipped running"),
        ("queue_one", [0, 24, 48], "done done skipped running skipped submitted skipped"),
        ("queue_latest", [0, 24, 48], "done skipped done skipped running skipped submitted"),
        ("queue_all", [0, 24, 48], "done done running submitted submitted submitted submitted"),
        (Overlap("queue_all", 1), [0, 24, 48], "done done skipped running skipped submitted skipped"),
        ("cancel_previous", [0, 10, 20, 30, 40, 50, 60], "cancelled " * 6 + "running"),
        ("allow", [0, 10, 20, 30, 40, 50, 60], "done done done done running running running"),
        (Overlap("allow", 2), [0, 10, 30, 40, 60], "done done skipped done running skipped running"),
    ],
    ids=str,
)
async def test_overlap_mode_decides_who_runs(overlap: Any, starts: list[int], outcomes: str) -> None:
    """What happens when a run takes longer than its period is the user's choice, and exactly that."""
    async with virtual_time(app_with(24 * 60, Every(minutes=10), overlap=overlap), start="2026-03-02T08:50") as world:
        await world.run_until("2026-03-02T10:02")
        base = datetime(2026, 3, 2, 9, tzinfo=UTC)
        began = sorted(job.timestamps.running_at for job in world.jobs() if job.timestamps.running_at)
        assert [round((at - base).total_seconds() / 60) for at in began] == starts
        assert world.outcomes() == outcomes.split()


async def test_serial_modes_never_run_two_bodies_at_once() -> None:
    """One at a time: that holds through cancel, timeout and clean-up."""
    app = Quarterjack()
    running = most = 0

    @app.task(Every(minutes=10), overlap="cancel_previous", timeout=700)
    async def job() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(3)
            running -= 1

    async with virtual_time(app) as world:
        await world.run_for("5h")
        assert most == 1
        assert len(world.runs(job)) == 29, "the thirtieth waits for the clean-up before it"


async def test_queue_latest_keeps_the_newest_fire_time() -> None:
    """When only the latest state matters, the older waiting run gives way."""
    async with virtual_time(
        app_with(24 * 60, Every(minutes=10), overlap="queue_latest"), start="2026-03-02T08:50"
    ) as w:
        await w.run_until("2026-03-02T10:02")
        assert hours(w, "job") == ["09:00", "09:20", "09:40"]


async def test_schedules_that_share_an_overlap_key_take_turns() -> None:
    """Two jobs on one database, never together."""
    app = Quarterjack()
    for name in ("one", "two"):

        @app.task(Every(minutes=10), name=name, overlap="queue_all", overlap_key="db")
        async def job() -> None:
            await asyncio.sleep(60)

    async with virtual_time(app, start=START) as world:
        await world.run_for("12m")
        jobs = world.jobs()
        assert sorted(job.lag for job in jobs if job.lag is not None) == [0.0, 60.0]


async def test_waiting_retry_counts_as_open_for_overlap() -> None:
    """A run that will be tried again is not over."""
    app = Quarterjack()

    @app.task(
        Every(minutes=10), overlap="skip", retry=Retry(on=Exception, attempts=2, base=900, cap=900, jitter="none")
    )
    async def job() -> None:
        if current_job().attempt == 1:
            raise Boom

    async with virtual_time(app, start=START) as world:
        await world.run_for("30m")
        assert world.outcomes(job) == ["done", "skipped", "submitted"]


# -- missed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policies", "ran", "missed"),
    [
        ({"missed": "latest"}, ["10:00", "14:00", "15:00"], 3),
        ({"missed": "earliest"}, ["10:00", "11:00", "15:00"], 3),
        ({"missed": "skip"}, ["10:00", "15:00"], 4),
        ({"missed": "all", "overlap": "allow"}, ["10:00", "11:00", "12:00", "13:00", "14:00", "15:00"], 0),
        ({"missed": "all", "overlap": "queue_all", "max_catchup": 2}, ["10:00", "13:00", "14:00", "15:00"], 2),
        ({"missed": "latest", "max_lateness": 600}, ["10:00", "15:00"], 4),
        ({"missed": "all", "overlap": "allow", "max_lateness": 5400}, ["10:00", "13:00", "14:00", "15:00"], 2),
    ],
    ids=str,
)
async def test_fire_times_missed_in_a_suspend_go_by_their_mode(
    policies: dict[str, Any], ran: list[str], missed: int
) -> None:
    """A laptop that slept from 10:05 to 14:20: each mode runs what it says, and the rest is on record."""
    async with virtual_time(app_with(1, Every(hours=1), **policies), start=START) as world:
        await world.run_until("2026-03-02T10:05")
        await world.suspend(4 * 3600 + 15 * 60)
        await world.run_until("2026-03-02T15:30")
        assert hours(world, "job") == ran
        rows = world.jobs(state=JobState.MISSED)
        assert sum(job.missed_count for job in rows) == missed
        assert len(rows) == (missed > 0)


async def test_body_is_told_how_many_fire_times_it_stands_for() -> None:
    """A run after an outage may have more to do."""
    app = Quarterjack()
    counts: list[int] = []

    @app.task(Every(hours=1))
    async def job() -> None:
        counts.append(current_job().missed_count)

    async with virtual_time(app, start=START) as world:
        await world.run_until("2026-03-02T10:05")
        await world.suspend("4h15m")
        await world.run_until("2026-03-02T15:30")
    assert counts == [0, 3, 0]


async def test_one_late_fire_time_runs_in_every_mode() -> None:
    """Late is not missed: a loop that was busy for a moment loses nothing."""
    for mode in ("latest", "earliest", "skip"):
        async with virtual_time(app_with(0, Every(hours=1), missed=mode), start=START) as world:
            await world.run_until("2026-03-02T09:59")
            await world.suspend("30m")
            assert hours(world, "job") == ["10:00"], mode


# -- steering -----------------------------------------------------------------------


async def test_schedule_at_run_time_fires_and_ends() -> None:
    """Standing orders come and go while the app runs."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app, start=START) as world:
        await app.schedule(task.bind(0.0), Every(minutes=5), id="poll")
        await world.run_for("10m")
        await app.unschedule("poll")
        await world.run_for("1h")
        assert hours(world, "poll") == ["09:05", "09:10"]
        assert await app.schedules() == []


async def test_same_schedule_again_changes_nothing_and_another_trigger_starts_anew() -> None:
    """A restart with the same code must not shift anything; a change counts from now."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app, start=START) as world:
        await app.schedule(task.bind(0.0), Every(minutes=30), id="poll")
        await world.run_for("10m")
        await app.schedule(task.bind(0.0), Every(minutes=30), id="poll")
        (view,) = await app.schedules()
        assert (view.generation, view.revision) == (1, 1)
        await app.schedule(task.bind(1.0), Every(minutes=30), id="poll")
        (view,) = await app.schedules()
        assert (view.generation, view.revision) == (1, 2)
        await app.update_schedule("poll", trigger=Every(minutes=20))
        (view,) = await app.schedules()
        assert (view.generation, view.args) == (2, (1.0,))
        await world.run_for("50m")
        assert hours(world, "poll") == ["09:20", "09:40", "10:00"]


async def test_update_keeps_what_it_does_not_name() -> None:
    """Changing the period must not lose the overlap policy, the call or the options."""
    app = Quarterjack()
    task = sleeper(app)
    async with virtual_time(app, start=START) as world:
        call = task.options(timeout=7, priority=0).bind(60.0)
        await app.schedule(call, Every(minutes=5), id="poll", overlap="allow", jitter=1.0, max_runs=9)
        await app.update_schedule("poll", trigger=Every(minutes=10))
        row = await app.store.schedules_get("poll")
        assert row is not None
        assert (row.payload.overlap.mode, row.payload.max_runs, row.timing.jitter_ns) == ("allow", 9, 10**9)
        assert (row.payload.options.timeout_s, row.payload.options.priority) == (7, 0)
        assert row.payload.args == (60.0,)
        await app.update_schedule("poll", overlap="skip", timeout=90)
        row = await app.store.schedules_get("poll")
        assert row is not None
        assert (row.payload.overlap.mode, row.payload.options.timeout_s, row.payload.options.priority) == (
            "skip",
            90,
            0,
        )
        assert row.generation == 2
        del world


async def test_pause_and_resume_leave_out_what_passed() -> None:
    """A pause is no outage: what it covered is not caught up."""
    async with virtual_time(app_with(0, Every(hours=1)), start=START) as world:
        app = world.app
        await world.run_until("2026-03-02T10:30")
        await app.pause("job", note="migration")
        (view,) = await app.schedules()
        assert (view.is_paused, view.pause_note, view.next) == (True, "migration", None)
        await world.run_until("2026-03-02T14:30")
        await app.resume("job")
        await world.run_until("2026-03-02T15:30")
        assert hours(world, "job") == ["10:00", "15:00"]
        assert world.jobs(state=JobState.MISSED) == []


async def test_resume_with_catch_up_goes_by_the_missed_policy() -> None:
    """Sometimes what passed is wanted after all."""
    async with virtual_time(app_with(0, Every(hours=1), missed="all", overlap="allow"), start=START) as world:
        await world.run_until("2026-03-02T10:30")
        await world.app.pause("job")
        await world.run_until("2026-03-02T13:30")
        await world.app.resume("job", catch_up=True)
        await world.run_until("2026-03-02T14:30")
        assert hours(world, "job") == ["10:00", "11:00", "12:00", "13:00", "14:00"]


async def test_pause_with_an_end_resumes_by_itself() -> None:
    """Nobody has to remember to switch it on again; a fire time at that very instant is no part of the pause."""
    async with virtual_time(app_with(0, Every(hours=1)), start=START) as world:
        await world.app.pause("job", until=world.now + timedelta(hours=3))
        await world.run_for("5h")
        assert hours(world, "job") == ["12:00", "13:00", "14:00"]
        assert not (await world.app.schedules())[0].is_paused


@pytest.mark.parametrize("change", [{}, {"trigger": Every(minutes=20)}], ids=["end", "end and trigger"])
@pytest.mark.parametrize("late_s", [0, 1, 1800])
async def test_schedule_that_is_ended_after_a_run_is_over(change: dict[str, Any], late_s: int) -> None:
    """The bug: within two seconds the run came a second time, and later it was told as missed."""
    async with virtual_time(app_with(0, Every(minutes=10)), start=START) as world:
        await world.run_until("2026-03-02T09:20")
        await world.app.pause("job")
        await world.run_for(late_s)
        await world.app.resume("job")
        end = datetime(2026, 3, 2, 9, 20, tzinfo=UTC)
        await world.app.update_schedule("job", end=end, **change)
        assert (await world.app.why("job")).kind == "ended"
        assert (await world.app.schedules())[0].next is None
        await world.run_for("1h")
        assert hours(world, "job") == ["09:10", "09:20"]
        assert world.jobs(state=JobState.MISSED) == []
        assert (await world.app.why("job", end)).kind == "ran"


async def test_schedule_that_is_put_again_with_an_end_of_now_is_over() -> None:
    """`app.schedule` on an id that exists is a change, as `update_schedule` is."""
    app = Quarterjack()
    task = app.task(ring)
    async with virtual_time(app, start=START) as world:
        await app.schedule(task, Every(minutes=10), id="job")
        await world.run_for("20m1s")
        await app.schedule(task, Every(minutes=10), id="job", end=world.now)
        await app.schedule(task, Every(minutes=20), id="job", end=world.now)
        await world.run_for("1h")
        assert hours(world, "ring") == ["09:10", "09:20"]


async def test_schedule_that_is_moved_to_now_runs_once() -> None:
    """`Once(now)` asks for a run by name; one that was served a second ago is not repeated for it."""
    async with virtual_time(app_with(0, Every(minutes=10)), start=START) as world:
        await world.run_for("10m1s")
        await world.app.update_schedule("job", trigger=Once(world.now - timedelta(seconds=1)))
        await world.run_for("1m")
        assert hours(world, "job") == ["09:10"]
        await world.app.update_schedule("job", trigger=Once(world.now - timedelta(seconds=1)))
        await world.run_for("1h")
        assert hours(world, "job") == ["09:10", "09:11"]


async def test_pause_until_a_fire_time_lets_it_run_as_why_says() -> None:
    """People write round hours; the bug: it was said to come, and did not."""
    async with virtual_time(app_with(0, Every(hours=1)), start=START) as world:
        until = datetime(2026, 3, 2, 11, tzinfo=UTC)
        await world.app.pause("job", until=until)
        found = await world.app.why("job", until)
        assert found.kind == "to_come"
        assert "paused" not in found.words
        assert "paused" in (await world.app.why("job", until - timedelta(hours=1))).words
        await world.run_for("2h30m")
        assert hours(world, "job") == ["11:00"]
        assert (await world.app.why("job", until)).kind == "ran"


async def test_fire_times_slept_through_after_the_end_of_a_pause_are_missed() -> None:
    """The pause is over then, and who sleeps on is asked what became of them."""
    async with virtual_time(app_with(0, Every(hours=1)), start=START) as world:
        await world.app.pause("job", until=datetime(2026, 3, 2, 11, tzinfo=UTC))
        await world.suspend("4h30m")
        await world.run_for("10m")
        assert hours(world, "job") == ["13:00"]
        (missed,) = world.jobs(state=JobState.MISSED)
        assert missed.missed_count == 2


async def test_trigger_now_runs_once_more_and_moves_nothing() -> None:
    """Running it now is for trying out; the plan stays."""
    async with virtual_time(app_with(60, Every(hours=1)), start=START) as world:
        await world.run_for("10m")
        job = await world.app.trigger_now("job")
        await job
        assert job.submitted_by.schedule == "job"
        (view,) = await world.app.schedules()
        assert view.next == datetime(2026, 3, 2, 10, tzinfo=UTC)
        await world.run_for("1h")
        assert hours(world, "job") == ["09:10", "10:00"]


async def test_trigger_now_obeys_the_overlap_policy_unless_told() -> None:
    """A second body is a second body, whoever asked for it."""
    async with virtual_time(app_with(3600, Every(hours=1)), start=START) as world:
        first = await world.app.trigger_now("job")
        await world.settle()
        second = await world.app.trigger_now("job")
        assert second.state is JobState.SKIPPED
        third = await world.app.trigger_now("job", overlap="allow")
        await world.settle()
        assert (first.state, third.state) == (JobState.RUNNING, JobState.RUNNING)


@pytest.mark.parametrize("verb", ["pause", "resume", "unschedule", "trigger_now", "update_schedule"])
async def test_unknown_schedule_is_told_with_what_to_do(verb: str) -> None:
    """A misspelt id must not pass for success."""
    app = Quarterjack()
    async with virtual_time(app):
        with pytest.raises(UnknownSchedule, match="no schedule 'nope'"):
            await getattr(app, verb)("nope")


async def test_schedule_events_tell_what_became_of_each_fire_time() -> None:
    """Metrics and the dashboard live from these."""
    async with virtual_time(app_with(90 * 60, Every(hours=1)), start=START) as world:
        await world.run_until("2026-03-02T11:30")
        await world.app.pause("job")
        await world.app.resume("job")
        await world.app.unschedule("job")
        kinds = [event.kind for event in world.events if isinstance(event, ScheduleEvent)]
        assert kinds == ["put", "fired", "skipped", "paused", "resumed", "removed"]


async def test_many_schedules_of_one_queue_are_claimed_for_as_one() -> None:
    """Each claim walks its queues: named once per schedule, 10,000 schedules would make it 10,000 times dearer."""
    claims: list[Claim] = []

    class Watched(MemoryStore):
        async def jobs_claim(self, claim: Claim) -> Claimed:
            claims.append(claim)
            return await super().jobs_claim(claim)

    app = Quarterjack(store=Watched())

    @app.task
    async def work() -> None: ...

    async with app:
        for n in range(20):
            await app.schedule(work.bind(), Every(hours=1), id=f"s{n}")
            await app.schedule(work.bind(), Every(hours=1), id=f"t{n}", queue="other")
        await app.submit(work)
        await app.drain()
    assert all(sorted(want.queues) in (["default"], ["default", "other"]) for claim in claims for want in claim.wants)
    assert claims


async def test_schedule_without_an_id_never_replaces_another_one() -> None:
    """A loop over customers would leave one schedule of all; a declared one would be gone in silence."""
    app = Quarterjack()

    @app.task
    async def fetch(url: str) -> None: ...

    @app.task(Every(hours=1))
    async def tick() -> None: ...

    async with virtual_time(app):
        assert await app.schedule(fetch.bind("a"), Every(minutes=5)) == "fetch"
        with pytest.raises(DuplicateName, match=r"has other arguments: give this one an id="):
            await app.schedule(fetch.bind("b"), Every(minutes=5))
        with pytest.raises(DuplicateName, match=r"declared in code.*update_schedule\('tick'"):
            await app.schedule(tick, Every(minutes=5))
        await app.schedule(fetch.bind("a"), Every(minutes=7))
        await app.schedule(fetch.bind(url="a"), Every(minutes=6))
        assert await app.schedule(fetch.bind("b"), Every(minutes=5), id="b") == "b"
        assert [view.id for view in await app.schedules()] == ["b", "fetch", "tick"]


async def test_updated_call_keeps_the_options_that_are_not_named() -> None:
    """Other arguments are no reason to lose a timeout; what the new call names itself counts."""
    app = Quarterjack()

    @app.task
    async def fetch(url: str) -> None:
        await asyncio.sleep(60)

    async with virtual_time(app) as world:
        await app.schedule(fetch.bind("a"), Every(minutes=5), id="poll", timeout=5, priority=1)
        await app.update_schedule("poll", call=fetch.bind("b"))
        await world.run_for("5m 10s")
        (job,) = await app.jobs(schedule="poll")
        assert (job.args, job.state, job.priority) == (("b",), JobState.TIMED_OUT, 1)
        await app.update_schedule("poll", call=fetch.bind("c").options(priority=0), timeout=20)
        await world.run_for("5m")
        (job,) = await app.jobs(schedule="poll", limit=1)
        assert (job.args, job.state, job.priority) == (("c",), JobState.RUNNING, 0)


# -- what had passed before it was put -------------------------------------------------

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "policies",
    [
        {"trigger": Once(NOON - timedelta(minutes=5))},
        {"trigger": Once(NOON - timedelta(minutes=5)), "missed": "all", "overlap": "queue_all"},
        {"trigger": Every(minutes=1), "end": NOON - timedelta(minutes=5)},
        {"trigger": Cron("0 55 11 2 3 * 2026")},
    ],
)
async def test_schedule_that_is_over_when_it_is_put_is_one_missed_row_and_a_warning(
    policies: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """A reminder read from a table too late used to vanish: no run, no row, no line."""
    app = Quarterjack()
    task = app.task(ring)
    policies = dict(policies)
    trigger = policies.pop("trigger")
    async with virtual_time(app, start=NOON) as world:
        assert await app.schedule(task, trigger, id="o", **policies) == "o"
        await world.run_for("2h")
        (job,) = world.jobs()
        assert (job.state, job.nominal) == (JobState.MISSED, NOON - timedelta(minutes=5))
        assert "(2026-03-02T11:55:00+00:00) was 0:05:00 before the schedule was put" in (job.reason or "")
        (view,) = await app.schedules()
        assert (view.next, view.runs) == (None, 0)
        assert view.explain().endswith("; never fires again")
        await app.schedule(task, trigger, id="o", **policies)
        await world.run_for("1h")
        assert len(world.jobs()) == 1
    (line,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert line.getMessage().startswith("schedule o will not run: its last fire time")
    assert "trigger_now('o')" in line.getMessage()


@pytest.mark.parametrize("late_s", [0, 0.9, 2])
async def test_once_now_runs(late_s: float) -> None:
    """`Once(datetime.now(UTC))` is the plain way to say now, and has always passed when it is put."""
    app = Quarterjack()
    app.task(Once(NOON - timedelta(seconds=late_s)))(ring)
    async with virtual_time(app, start=NOON) as world:
        await world.run_for("1h")
        (job,) = world.jobs()
        assert (job.state, job.nominal) == (JobState.DONE, NOON - timedelta(seconds=late_s))


async def test_once_just_past_keeps_to_its_max_lateness() -> None:
    """Who says how late it may be means that."""
    app = Quarterjack()
    app.task(Once(NOON - timedelta(seconds=1)), max_lateness=0.5)(ring)
    async with virtual_time(app, start=NOON) as world:
        await world.run_for("1h")
        assert world.outcomes("ring") == ["missed"]


async def test_trigger_that_is_over_is_missed_on_an_update_too() -> None:
    """A schedule moved to an instant that has passed says so, as a new one does."""
    app = Quarterjack()
    task = app.task(ring)
    async with virtual_time(app, start=NOON) as world:
        await app.schedule(task, Once(NOON + timedelta(hours=5)), id="o")
        await world.run_for("1h")
        await app.update_schedule("o", trigger=Once(NOON))
        await world.run_for("1h")
        assert [job.state for job in world.jobs()] == [JobState.MISSED]


async def test_schedule_with_no_fire_time_at_all_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """There is no fire time to record as missed; a line in the log is left."""
    app = Quarterjack()
    app.task(Every(days=1, anchor="start"), end=NOON)(ring)
    async with virtual_time(app, start=NOON) as world:
        await world.run_for("1h")
        assert world.jobs() == []
    assert "schedule ring will not run: it has no fire time to come" in caplog.text


async def test_passed_fire_time_of_a_paused_schedule_is_recorded_on_its_resume() -> None:
    """A pause stands between the schedule and its row, and must not swallow it."""
    app = Quarterjack()
    task = app.task(ring)
    async with virtual_time(app, start=NOON) as world:
        await app.schedule(task, Once(NOON - timedelta(days=1)), id="o")
        await app.pause("o")
        await world.run_for("1h")
        assert world.jobs() == []
        await app.resume("o")
        await world.run_for("1h")
        assert [job.state for job in world.jobs()] == [JobState.MISSED]


async def ring() -> None:
    """Do nothing."""
