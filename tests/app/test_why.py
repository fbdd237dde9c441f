"""Why a schedule runs or does not, what became of an instant, why a job waits."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from pydantic import AwareDatetime

from quarterjack import (
    At,
    Cron,
    Dates,
    Every,
    FixedDelay,
    JobState,
    JobTimedOut,
    NaiveDatetime,
    Quarterjack,
    RetryLater,
    ThreadExecutor,
    Trigger,
    UnknownSchedule,
    Weekdays,
)
from quarterjack.policies.overlap import OverlapMode
from quarterjack.testing import World, virtual_time
from quarterjack.why import why_at

ROME = ZoneInfo("Europe/Rome")
START = "2027-03-26T12:00+01:00"


async def quick() -> None: ...


async def slow() -> None:
    await asyncio.sleep(5_400)


class BreaksAt(Trigger):
    """Each full hour, until it raises."""

    when: AwareDatetime

    def next(self, after: datetime) -> datetime:
        if after >= self.when:
            raise ValueError("no more")
        return after.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)

    def prev(self, before: datetime) -> datetime:
        return before.replace(minute=0, second=0, microsecond=0)


def app_with(trigger: Trigger, body: object = quick, **policies: object) -> Quarterjack:
    app = Quarterjack()
    app.task(trigger, name="job", **policies)(body)  # type: ignore[call-overload]  # options are drawn by tests
    return app


async def said(world: World, at: datetime | None = None) -> tuple[str, str]:
    found = await world.app.why("job", at)
    assert str(found) == found.words
    return found.kind, found.words


# -- will it run next ------------------------------------------------------------------------


async def test_next_run_is_told_with_its_rule() -> None:
    """The most common question: when, how long is that, and by which rule."""
    async with virtual_time(app_with(At("02:30", tz="Europe/Rome")), start=START) as world:
        kind, words = await said(world)
        when, _, rule = words.partition("minutes: ")
        assert (kind, rule) == ("due", "at 02:30 every day, Rome time")
        assert when == "its next run is on Saturday 27 March 2027 at 02:30 CET, in 14 hours and 30 "


async def test_pause_is_told_with_its_note_and_its_end() -> None:
    """Who paused it wrote down why, and that is the answer."""
    async with virtual_time(app_with(At("02:30", tz="Europe/Rome")), start=START) as world:
        await world.app.pause("job", note="migration", until=datetime(2027, 4, 1, tzinfo=UTC))
        found = await world.app.why("job")
        assert (found.kind, found.reason, found.until) == ("paused", "migration", datetime(2027, 4, 1, tzinfo=UTC))
        assert found.words.endswith("(migration), until Thursday 1 April 2027 at 02:00 CEST")
        await world.app.pause("job")
        assert (await world.app.why("job")).words.endswith(", until it is resumed")


async def test_parked_schedule_tells_what_its_trigger_raised() -> None:
    """It looks as if it had been forgotten; the reason is in its row."""
    app = app_with(Cron("30 2 * * *", tz="Europe/Rome", gap="error"))
    async with virtual_time(app, start=START) as world:
        await world.run_for("2d")
        kind, words = await said(world)
        assert kind == "parked"
        assert "does not exist: the clocks go forward over it" in words


async def test_end_of_a_schedule_is_told() -> None:
    """max_runs, end and a rule that is over are three different reasons to run no more."""
    over = datetime(2027, 3, 26, 13, tzinfo=UTC)
    async with virtual_time(app_with(Every(hours=1), max_runs=2), start=START) as world:
        await world.run_for("3h")
        assert await said(world) == ("ended", "it runs no more: it has had its 2 runs (max_runs=2)")
    async with virtual_time(app_with(Every(hours=1), end=over), start=START) as world:
        await world.run_for("3h")
        assert "no fire time is left before its end, Friday 26 March 2027 at 13:00 UTC" in (await said(world))[1]
    async with virtual_time(app_with(Cron("0 0 14 26 3 * 2027")), start=START) as world:
        await world.run_for("4h")
        assert (await said(world))[1].startswith("it runs no more: its rule has no further fire time")


async def test_chain_waits_for_its_own_job() -> None:
    """FixedDelay has no next run while its last one goes on."""
    async with virtual_time(app_with(FixedDelay(minutes=5), slow), start=START) as world:
        await world.run_for("10m")
        found = await world.app.why("job")
        assert found.kind == "chained"
        assert found.job == world.jobs("job")[0].id
        assert "which is still running" in found.words


@pytest.mark.parametrize(
    ("mode", "then"),
    [("skip", "is left out"), ("queue_all", "waits for its end"), ("cancel_previous", "cancels it"), ("allow", None)],
)
async def test_open_job_in_the_way_is_named(mode: OverlapMode, then: str | None) -> None:
    """The run that is to come depends on a job that does not end, and by the policy something becomes of it."""
    async with virtual_time(app_with(Every(hours=1), slow, overlap=mode), start=START) as world:
        await world.run_for("1h10m")
        kind, words = await said(world)
        assert kind == ("due" if then is None else "blocked")
        if then is not None:
            assert f"the run {then} (overlap={mode!r})" in words
            assert world.jobs("job")[-1].id in words or world.jobs("job")[0].id in words


async def test_chain_that_was_left_out_is_not_said_to_be_over() -> None:
    """It goes on as soon as it may: whoever reads that it "runs no more" would make a second one."""
    app = Quarterjack()
    job = app.task(FixedDelay(minutes=1), name="job", unique="one")(slow)
    app.task(FixedDelay(minutes=1), name="beside", overlap_key="shared")(quick)
    app.task(Every(hours=9), name="rival", overlap_key="shared")(slow)
    async with virtual_time(app, start=START) as world:
        rival = await app.trigger_now("rival")
        await app.submit(job)  # it holds the key
        await world.run_for("5m")
        assert world.outcomes("beside") == ["skipped"]
        found = await app.why("beside")
        assert (found.kind, found.job) == ("blocked", rival.id)
        found = await app.why("job")
        assert (found.kind, "the job that holds its unique key 'one' has ended" in found.words) == ("blocked", True)


async def test_chain_beside_a_manual_run_waits_for_its_own_job() -> None:
    """The end of what an operator ran beside it makes no next run."""
    async with virtual_time(app_with(FixedDelay(minutes=1), slow, overlap="allow"), start=START) as world:
        await world.app.trigger_now("job")
        await world.run_for("5m")
        assert (await world.app.why("job")).job == world.jobs("job")[1].id


async def test_chain_tells_of_an_instant_no_more_than_is_known() -> None:
    """Its fire times cannot be computed; only its jobs say what was, and nothing says what will be."""
    async with virtual_time(app_with(FixedDelay(minutes=1)), start=START) as world:
        await world.run_for("5m")
        past, future = (datetime(2027, 3, 26, hour, tzinfo=UTC) for hour in (9, 15))
        assert (await said(world, past))[0] == "no_fire_time"
        kind, words = await said(world, future)
        assert (kind, "depends on how its runs end" in words) == ("unknown", True)
        row = await world.app.store.schedules_get("job")
        assert row is not None
        assert why_at(row, past, await world.app.store.now_ns(), None).kind == "unknown"


async def test_chain_beyond_its_end_is_over() -> None:
    """A run that would come after ``end=`` is waited for in vain, though others have the key."""
    end = datetime(2027, 3, 26, 11, 2, tzinfo=UTC)
    app = app_with(FixedDelay(minutes=1), quick, overlap_key="shared", end=end)
    app.task(Every(hours=9), name="rival", overlap_key="shared")(slow)
    async with virtual_time(app, start=START) as world:
        await world.run_for("5m")
        await app.trigger_now("rival")
        assert (await app.why("job")).kind == "ended"


async def test_body_that_outlived_its_timeout_is_told_as_what_stands_in_the_way() -> None:
    """Its job is over and shows up nowhere as running; only this answer says why nothing runs."""
    app, go_on = Quarterjack(), threading.Event()

    def stuck() -> None:
        go_on.wait(60)

    app.task(Every(hours=1), name="job", timeout=0.01)(stuck)
    app.task(FixedDelay(milliseconds=1), name="chain", timeout=0.01)(stuck)
    async with app:
        job = await app.trigger_now("job")
        with pytest.raises(JobTimedOut):
            await job
        next_one = await app.trigger_now("job", overlap="queue_all")
        while not any(one.state is JobState.TIMED_OUT for one in await app.jobs(schedule="chain")):
            await asyncio.sleep(0.005)
        try:
            blocked, chained = await app.why("job"), await app.why("chain")
            waits = await app.why_waiting(next_one)
        finally:
            go_on.set()
    assert (blocked.kind, blocked.job) == ("blocked", job.id)
    assert "timed out, but its body still runs" in blocked.words
    assert chained.kind == "chained"
    assert (waits.kind, waits.job) == ("serial", job.id)


async def test_schedule_that_nobody_fires_or_runs_says_so() -> None:
    """Roles and queues are settings of processes, and nothing in the schedule shows that they do not fit."""
    worker = Quarterjack(role="worker")

    @worker.task
    async def job() -> None: ...

    async with virtual_time(worker, start=START) as world:
        await world.app.schedule(job, Every(hours=1))
        assert (await world.app.why("job")).kind == "unserved"
    app = Quarterjack(queues=["default"])
    app.task(Every(hours=1), name="job", queue="far")(quick)
    async with virtual_time(app, start=START) as world:
        kind, words = await said(world)
        assert kind == "unserved"
        assert words.partition(", but ")[2].startswith("nobody at work serves its queue 'far': give it to a worker")


async def test_unknown_schedule_and_naive_moment_are_refused() -> None:
    """As by every other question about schedules."""
    async with virtual_time(app_with(Every(hours=1)), start=START) as world:
        with pytest.raises(UnknownSchedule, match="nope"):
            await world.app.why("nope")
        with pytest.raises(NaiveDatetime):
            await world.app.why("job", datetime(2027, 1, 1))


# -- what became of an instant ------------------------------------------------------------------


async def test_what_became_of_each_fire_time_is_told() -> None:
    """Ran, running, left out, missed, still to come, before it existed: each of them with its job and its reason."""
    async with virtual_time(app_with(Every(hours=1), slow), start=START) as world:
        await world.run_for("3h10m")
        noon = datetime(2027, 3, 26, 11, tzinfo=UTC)
        kinds = [(await world.app.why("job", noon + timedelta(hours=n))).kind for n in range(-1, 5)]
        assert kinds == ["before", "before", "ran", "skipped", "open", "to_come"]
        skipped = await world.app.why("job", noon + timedelta(hours=2))
        assert "was left out: job " in skipped.words
        assert (skipped.job, skipped.at) == (world.jobs("job")[1].id, noon + timedelta(hours=2))
        await world.suspend("5h")
        await world.settle()
        missed = await world.app.why("job", noon + timedelta(hours=6))
        assert missed.kind == "missed"
        assert "passed unserved (missed='latest')" in missed.words


async def test_fire_times_beside_missed_ones_are_not_taken_for_missed() -> None:
    """One row stands for several missed fire times; how far it goes back is its count."""
    async with virtual_time(app_with(Every(hours=1)), start=START) as world:
        await world.run_for("2h30m")
        await world.suspend("4h")
        await world.run_for("1h")
        noon = datetime(2027, 3, 26, 11, tzinfo=UTC)
        kinds = [(await world.app.why("job", noon + timedelta(hours=n))).kind for n in range(1, 9)]
        assert kinds == ["ran", "ran", "missed", "missed", "missed", "ran", "ran", "to_come"]


async def test_missed_row_stands_for_no_more_fire_times_than_it_counts() -> None:
    """What lies before them ran once, and its row was deleted: that is not known, and not missed."""
    async with virtual_time(app_with(Every(hours=1)), start=START) as world:
        await world.run_for("2h30m")
        await world.suspend("4h")
        await world.settle()
        (row,) = [one._row for one in await world.app.schedules()]
        kept = [job._record for job in world.jobs("job")][2:]
        noon, now = datetime(2027, 3, 26, 11, tzinfo=UTC), world.clock.now_ns()
        kinds = [why_at(row, noon + timedelta(hours=n), now, kept).kind for n in range(1, 6)]
        assert kinds == ["unknown", "unknown", "missed", "missed", "missed"]


async def test_fire_time_that_passed_and_was_not_served_is_told_with_what_keeps_it() -> None:
    """Nothing was deleted and nothing was paused: its jitter goes on, or the schedule fires no more."""
    hour = datetime(2027, 3, 26, 12, tzinfo=UTC)
    async with virtual_time(app_with(Every(hours=1), jitter=3_500), start=START) as world:
        (row,) = await world.app.schedules()
        await world.run_until(hour + timedelta(seconds=1))
        found = await world.app.why("job", hour)
        assert (found.kind, row.next) == ("to_come", hour)
        assert "later by its jitter" in found.words
    async with virtual_time(app_with(Every(hours=1), max_runs=1), start=START) as world:
        await world.run_until(hour + timedelta(hours=1, minutes=1))
        kind, words = await said(world, hour + timedelta(hours=1))
        assert (kind, words.partition(", but ")[2]) == ("ended", "it runs no more: it has had its 1 run (max_runs=1)")
    async with virtual_time(app_with(BreaksAt(when=hour)), start=START) as world:
        await world.run_until(hour + timedelta(hours=3))
        kind, words = await said(world, hour + timedelta(hours=1))
        assert (kind, "but it fires no more: its trigger raised" in words) == ("parked", True)


async def test_fire_time_that_nobody_served_says_so() -> None:
    """A worker alone runs jobs and fires nothing; that is no deleted job."""
    worker = Quarterjack(role="worker")

    @worker.task
    async def job() -> None: ...

    async with virtual_time(worker, start=START) as world:
        await world.app.schedule(job, Every(hours=1))
        await world.run_for("90m")
        kind, words = await said(world, datetime(2027, 3, 26, 12, tzinfo=UTC))
        assert kind == "unserved"
        assert words.startswith(
            "Friday 26 March 2027 at 12:00 UTC is a fire time of it, but no process fires schedules"
        )
        kind, words = await said(world)
        assert (kind, words.partition(", but ")[0]) == (
            "unserved",
            "its run of Friday 26 March 2027 at 12:00 UTC is due",
        )


async def test_fire_time_in_a_pause_is_told_as_such() -> None:
    """It neither ran nor was missed."""
    async with virtual_time(app_with(Every(hours=1)), start=START) as world:
        await world.app.pause("job", note="migration")
        await world.run_for("2h30m")
        found = await world.app.why("job", datetime(2027, 3, 26, 12, tzinfo=UTC))
        assert (found.kind, found.reason) == ("paused", "migration")
        await world.app.resume("job")
        assert (await world.app.why("job", datetime(2027, 3, 26, 12, tzinfo=UTC))).kind == "unknown"


@pytest.mark.parametrize(
    ("trigger", "at", "because"),
    [
        (At("02:30", tz="Europe/Rome"), datetime(2027, 3, 27, 2, 31, tzinfo=ROME), "its time is 02:30"),
        (
            At("02:30", on="mon-fri", tz="Europe/Rome"),
            datetime(2027, 3, 27, 2, 30, tzinfo=ROME),
            "it runs Monday to Friday, and this was a Saturday",
        ),
        (
            At("02:30", tz="Europe/Rome"),
            datetime(2027, 3, 28, 2, 30, tzinfo=ROME),
            "02:30 does not exist, it runs at 03:00 CEST",
        ),
        (
            At("12:00", tz="Europe/Rome"),
            datetime(2027, 3, 28, 2, 30, tzinfo=ROME),
            "02:30 on 28 March 2027 does not exist",
        ),
        (
            At("02:30", tz="Europe/Rome"),
            datetime(2027, 10, 31, 2, 30, tzinfo=ROME, fold=1),
            "02:30 came twice that night; this was the second, and it runs the first time only",
        ),
        (Cron("*/5 9-17 * * *"), datetime(2027, 3, 27, 8, 30, tzinfo=UTC), "the hour is 08, and the field says '9-17'"),
        (
            Cron("*/5 9-17 * * *"),
            datetime(2027, 3, 27, 9, 31, tzinfo=UTC),
            "the minute is 31, and the field says '*/5'",
        ),
        (Cron("0 9 L * *"), datetime(2027, 3, 30, 9, tzinfo=UTC), "the day of the month is 30, and the field says 'L'"),
        (
            Cron("0 9 * * fri#2"),
            datetime(2027, 3, 26, 9, tzinfo=UTC),
            "the day is a Friday, the fourth of its month, and the field says 'fri#2'",
        ),
        (Cron("0 9 * 4 *"), datetime(2027, 3, 26, 9, tzinfo=UTC), "the month is March, and the field says '4'"),
        (
            Every(hours=1) & Weekdays("mon-fri", tz="Europe/Rome"),
            datetime(2027, 3, 27, 9, tzinfo=UTC),
            "its filter drops it: only Monday to Friday, Rome time",
        ),
        (
            Every(hours=1) - Dates("2027-03-27"),
            datetime(2027, 3, 27, 9, tzinfo=UTC),
            "its filter drops it: not on 27 March 2027, UTC",
        ),
        (
            (Every(hours=1) & Weekdays("mon-fri")) | At("09:30"),
            datetime(2027, 3, 27, 9, tzinfo=UTC),
            "is no fire time of it",
        ),
    ],
    ids=str,
)
async def test_instant_that_is_no_fire_time_is_told_why(trigger: Trigger, at: datetime, because: str) -> None:
    """The filter, the clock or the field that is the cause, and the fire times beside it."""
    async with virtual_time(app_with(trigger), start=START) as world:
        found = await world.app.why("job", at)
        assert found.kind == "no_fire_time"
        assert because in found.words
        assert found.before is not None
        assert found.after is not None
        assert found.before.astimezone(UTC) < found.after.astimezone(UTC)


async def test_nearest_fire_times_around_a_skipped_time_are_those_around_the_gap() -> None:
    """The time in the gap is no instant; what stands for it comes after, the day before's before."""
    async with virtual_time(app_with(At("02:30", tz="Europe/Rome")), start=START) as world:
        found = await world.app.why("job", datetime(2027, 3, 28, 2, 30, tzinfo=ROME))
        assert found.before == datetime(2027, 3, 27, 2, 30, tzinfo=ROME)
        assert found.after == datetime(2027, 3, 28, 3, tzinfo=ROME)


async def test_fire_time_outside_of_start_and_end_is_told() -> None:
    """The rule matches, the schedule's bounds do not."""
    start, end = datetime(2027, 3, 27, tzinfo=UTC), datetime(2027, 3, 28, tzinfo=UTC)
    async with virtual_time(app_with(Every(hours=1), start=start, end=end), start=START) as world:
        for at, why in ((start, "start"), (end, "end")):
            step = timedelta(hours=1 if why == "end" else -1)
            assert f"matches its rule, but its {why} is" in (await said(world, at + step))[1]


# -- why a job waits ------------------------------------------------------------------------------


async def test_each_reason_to_wait_is_told() -> None:
    """A job that waits says nothing by itself: its time, its retry, its queue, its turn, the slots."""
    app = Quarterjack(concurrency=1, queues=["default"])

    @app.task
    async def work(fails: bool = False) -> None:
        if fails:
            raise RetryLater(after=60)
        await asyncio.sleep(600)

    async with virtual_time(app, start=START) as world:
        later = await app.submit(work.options(delay=3_600))
        far = await app.submit(work.options(queue="far"))
        retried = await app.submit(work.options(retry=2), fails=True)
        await world.settle()
        running = await app.submit(work)
        await world.settle()
        waiting = await app.submit(work)
        await world.settle()
        answers = [await app.why_waiting(job) for job in (later, far, retried, running, waiting)]
        assert [one.kind for one in answers] == ["not_due", "unserved", "retry", "running", "no_slot"]
        assert answers[0].words == "its time has not come: it is due Friday 26 March 2027 at 12:00 UTC, in 1 hour"
        assert answers[2].at == datetime(2027, 3, 26, 11, 1, tzinfo=UTC)
        assert answers[4].words == "the one slot of executor 'loop' is taken"
        await waiting.cancel()
        assert (await app.why_waiting(waiting)).kind == "finished"


async def test_slot_of_a_body_that_does_not_stop_is_told() -> None:
    """The log knows why a thread's slot never comes free; who waits for it asks here."""
    app, let_go = Quarterjack(), threading.Event()

    @app.task(executor=ThreadExecutor(1, name="one"), timeout=0.01)
    def deaf() -> None:
        let_go.wait()

    async with app:
        with pytest.raises(JobTimedOut):
            await (await app.submit(deaf))
        waiting = await app.submit(deaf)
        told = (await app.why_waiting(waiting)).words
        let_go.set()
        with suppress(JobTimedOut):
            await waiting
    assert told == "the one slot of executor 'one' is taken by a body that was told to stop and still runs"


async def test_job_whose_turn_it_is_not_names_the_one_whose_it_is() -> None:
    """Runs of queue_all wait although every slot is free."""
    async with virtual_time(app_with(Every(hours=1), slow, overlap="queue_all"), start=START) as world:
        await world.run_for("2h10m")
        first, second = world.jobs("job")
        assert second.state is JobState.SUBMITTED
        found = await world.app.why_waiting(second)
        assert (found.kind, found.job) == ("serial", first.id)
