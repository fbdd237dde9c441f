"""Backfills in a running app: what is made, what is told, and that today goes on meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quarterjack import (
    At,
    Every,
    InvalidOption,
    Job,
    JobState,
    MemoryStore,
    NaiveDatetime,
    NotRunning,
    Quarterjack,
    UnknownSchedule,
    current_job,
    gather,
)
from quarterjack.backfill import Backfill, BackfillOverlap
from quarterjack.events import JobEvent, ScheduleEvent
from quarterjack.model import SubmittedBy
from quarterjack.stores.base import Backfilled
from quarterjack.testing import virtual_time
from tests.app.kit import START, Boom

DAY = datetime(2026, 3, 1, tzinfo=UTC)
"""The day before `START`."""
HOUR = timedelta(hours=1)


def hourly(takes_s: float = 0, served: list[str] | None = None, **policies: Any) -> Quarterjack:
    """Return an app with a report every hour, which notes the fire times it served."""
    app = Quarterjack()

    @app.task(Every(hours=1), **policies)
    async def report() -> str:
        if served is not None:
            served.append(f"{current_job().nominal:%d %H:%M}")
        await asyncio.sleep(takes_s)
        return f"{current_job().nominal:%H:%M}"

    return app


async def test_backfill_runs_the_schedules_job_for_each_fire_time_in_order() -> None:
    """Each body knows the fire time it makes up for, and the results come back in that order."""
    served: list[str] = []
    async with virtual_time(hourly(60, served), start=START) as world:
        jobs = await world.app.backfill("report", DAY, DAY + 3 * HOUR)
        assert await gather(jobs) == ["00:00", "01:00", "02:00"]
        assert served == ["01 00:00", "01 01:00", "01 02:00"]
        assert [(job.schedule, job.nominal, job.priority, job.is_duplicate) for job in jobs] == [
            ("report", DAY + n * HOUR, 4, False) for n in range(3)
        ]
        assert f"{world.now:%H:%M}" == "09:03", "one after the other"


async def test_same_range_again_makes_nothing_twice() -> None:
    """Who is not sure whether it went through asks again."""
    async with virtual_time(hourly(), start=START) as world:
        first = await world.app.backfill("report", DAY, DAY + 3 * HOUR)
        await gather(first)
        again = await world.app.backfill("report", DAY, DAY + 4 * HOUR)
        assert [job.id for job in again[:3]] == [job.id for job in first]
        assert [job.is_duplicate for job in again] == [True, True, True, False]


async def test_what_failed_in_a_backfill_is_repeated_by_retry() -> None:
    """A second backfill would not do it, so something must."""
    app, fails = Quarterjack(), [True]

    @app.task(Every(hours=1), pause_on_failure=1)
    async def report() -> None:
        if fails[0]:
            raise Boom

    async with virtual_time(app, start=START) as world:
        jobs = await app.backfill("report", DAY, DAY + 2 * HOUR)
        await world.drain()
        assert [job.state for job in jobs] == [JobState.FAILED] * 2
        assert not (await app.schedules())[0].is_paused
        fails[0] = False
        assert await app.retry(schedule="report", state=JobState.FAILED) == 2
        await world.drain()
        assert [job.state for job in jobs] == [JobState.DONE] * 2


async def test_fire_time_the_schedule_ran_itself_is_run_again() -> None:
    """A report whose code was mended is to be made anew for the days that have one."""
    async with virtual_time(hourly(), start=START) as world:
        await world.run_for("2h")
        here = world.now.astimezone(UTC)
        await world.app.backfill("report", here - HOUR, here)
        await world.drain()
        assert [run[11:] for run in world.runs("report")] == ["10:00+00:00", "11:00+00:00", "10:00+00:00"]


async def test_callbacks_and_events_are_those_of_submitted_jobs() -> None:
    """Who watches jobs sees these, and who watches schedules sees where they came from."""
    app, heard = hourly(), list[str]()
    (task,) = app._definitions
    assert task.local_name == "report"

    async with virtual_time(app, start=START) as world:
        task.callbacks["submit"] = [lambda job: heard.append(f"submit {job.nominal:%H}")]
        task.callbacks["done"] = [lambda job: heard.append(f"done {job.nominal:%H}")]
        jobs = await app.backfill("report", DAY, DAY + 2 * HOUR)
        assert await app.backfill("report", DAY, DAY + 2 * HOUR)
        await world.drain()
        assert sorted(heard) == ["done 00", "done 01", "submit 00", "submit 01"]
        told = [event for event in world.events if isinstance(event, ScheduleEvent) and event.kind == "backfilled"]
        assert [(event.schedule_id, event.count) for event in told] == [("report", 2)]
        submitted = [e.job_id for e in world.events if isinstance(e, JobEvent) and e.kind == "submitted"]
        assert submitted == [job.id for job in jobs]


async def test_submitter_is_the_job_that_asked() -> None:
    """A backfill made by a task is traced to it."""
    app = hourly()

    @app.task
    async def mend() -> list[Job[Any]]:
        return await app.backfill("report", DAY, DAY + HOUR)

    async with virtual_time(app, start=START, strict=False):
        parent = await app.submit(mend)
        (job,) = await parent
        assert (job.submitted_by.schedule, job.submitted_by.parent) == ("report", parent.id)


async def test_dry_run_says_the_fire_times_in_the_schedules_zone_and_makes_nothing() -> None:
    """Look first: the night the clocks change has a day of 23 hours."""
    app = Quarterjack()

    @app.task(At("00:00", tz="Europe/Rome"))
    async def midnight() -> None: ...

    async with virtual_time(app, start="2026-04-01T00:00", tz="Europe/Rome") as world:
        begin = datetime(2026, 3, 28, 12, tzinfo=UTC)
        times = await app.backfill("midnight", begin, begin + timedelta(days=2), dry_run=True)
        assert [at.isoformat() for at in times] == ["2026-03-29T00:00:00+01:00", "2026-03-30T00:00:00+02:00"]
        assert world.jobs() == []


@pytest.mark.parametrize(
    ("start", "end", "options", "error", "said"),
    [
        (datetime(2026, 3, 1), DAY + HOUR, {}, NaiveDatetime, "start=.* has no zone"),
        (DAY, datetime(2026, 3, 2), {}, NaiveDatetime, "end=.* has no zone"),
        (DAY, DAY, {}, InvalidOption, "from start to a later end, got 2026-03-01 00:00:00"),
        (DAY + HOUR, DAY, {}, InvalidOption, "from start to a later end"),
        (DAY, datetime(2026, 3, 2, 9, 1, tzinfo=UTC), {}, InvalidOption, "end=2026-03-02 09:01.* lies in the future"),
        (DAY, DAY + HOUR, {"limit": 0}, InvalidOption, "limit must be a whole number from 1 to 10000, got 0"),
        (DAY, DAY + HOUR, {"limit": 10_001}, InvalidOption, "limit must be .* got 10001"),
        (DAY, DAY + HOUR, {"limit": True}, InvalidOption, "limit must be .* got True"),
        (DAY, DAY + HOUR, {"overlap": "skip"}, InvalidOption, "'queue_all' .* or 'allow' .* got 'skip'"),
        (DAY, DAY + 9 * HOUR, {"limit": 8}, InvalidOption, "would make 9 jobs, and limit is 8; pass limit=9"),
    ],
)
async def test_what_cannot_be_backfilled_is_told_and_nothing_is_made(
    start: datetime, end: datetime, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    """Half of a backfill would be worse than none."""
    async with virtual_time(hourly(), start=START) as world:
        with pytest.raises(error, match=said):
            await world.app.backfill("report", start, end, **options)
        assert world.jobs() == []


async def test_unknown_schedule_and_app_that_has_stopped_are_told() -> None:
    """As every verb of schedules does."""
    async with virtual_time(hourly(), start=START) as world:
        with pytest.raises(UnknownSchedule, match="no schedule 'reprot'"):
            await world.app.backfill("reprot", DAY, DAY + HOUR)
        world.app._running().is_closed_to_jobs = True
        with pytest.raises(NotRunning, match="report was not backfilled"):
            await world.app.backfill("report", DAY, DAY + HOUR)
        world.app._running().is_closed_to_jobs = False
    with pytest.raises(NotRunning):
        await world.app.backfill("report", DAY, DAY + HOUR)


async def test_empty_range_makes_no_job() -> None:
    """A day without a fire time is a day like any other."""
    async with virtual_time(hourly(), start=START) as world:
        assert await world.app.backfill("report", DAY + HOUR / 4, DAY + HOUR / 2) == []
        assert not [event for event in world.events if isinstance(event, ScheduleEvent) and event.kind == "backfilled"]


async def test_runs_of_today_are_on_time_while_a_backfill_is_under_way() -> None:
    """With ``overlap="skip"`` too: the backfill pauses for them, and two never run at once."""
    at_once: list[int] = []
    app, running = Quarterjack(), [0]

    @app.task(Every(hours=1))
    async def report() -> None:
        running[0] += 1
        at_once.append(running[0])
        await asyncio.sleep(25 * 60)
        running[0] -= 1

    async with virtual_time(app, start="2026-03-02T09:30") as world:
        await app.backfill("report", DAY, DAY + 12 * HOUR)
        await world.run_until("2026-03-02T15:55")
        today = [job for job in world.jobs(report) if (job.nominal or DAY) > DAY + 24 * HOUR]
        assert [job.state for job in today] == [JobState.DONE] * 6
        assert max(job.lag or 0 for job in today) <= 25 * 60
        assert max(at_once) == 1
        assert (await app.schedules())[0].runs == 6


async def test_slots_that_are_kept_for_ticks_are_not_a_backfills() -> None:
    """A hundred jobs of last month side by side, and the tick of this second begins in time."""
    app = Quarterjack(concurrency=2)

    @app.task(Every(hours=1))
    async def slow() -> None:
        await asyncio.sleep(3600)

    @app.task(Every(seconds=10))
    async def tick() -> None: ...

    async with virtual_time(app, start=START) as world:
        await app.backfill("slow", DAY, DAY + 24 * HOUR, overlap="allow")
        await world.run_for("1m")
        assert [job.lag for job in world.jobs(tick)] == [0.0] * 6


async def test_paused_schedule_is_backfilled_and_stays_paused() -> None:
    """To pause, mend the past and go on is the usual order."""
    async with virtual_time(hourly(), start=START) as world:
        await world.app.pause("report")
        (job,) = await world.app.backfill("report", DAY, DAY + HOUR)
        await job
        assert (await world.app.schedules())[0].is_paused


class Changing(MemoryStore):
    """Somebody changes the schedule's rule right before its first backfill comes in."""

    plans: list[Backfill]

    async def schedules_backfill(self, plan: Backfill, by: SubmittedBy | None = None) -> Backfilled | None:
        if not self.plans:
            row = self._schedules["report"]
            row.generation += 1
            row.trigger = Every(minutes=30)
        self.plans.append(plan)
        return await super().schedules_backfill(plan, by)


async def test_rule_that_changes_meanwhile_is_asked_anew() -> None:
    """What is made is by one rule, the one the store has."""
    store = Changing()
    store.plans = []
    app = Quarterjack(store)

    @app.task(Every(hours=1))
    async def report() -> None: ...

    async with virtual_time(app, start=START):
        jobs = await app.backfill("report", DAY, DAY + HOUR)
        assert [job.nominal for job in jobs] == [DAY, DAY + HOUR / 2]
        assert [plan.generation for plan in store.plans] == [1, 2]


async def test_why_names_the_job_of_a_backfill_whose_turn_it_is() -> None:
    """A run that waits for it, and the jobs behind it, are explained by it; nothing is left out for it."""
    async with virtual_time(hourly(5_400), start=START) as world:
        first, second = await world.app.backfill("report", DAY, DAY + 2 * HOUR)
        await world.run_for("1m")
        why = await world.app.why("report")
        assert (why.kind, why.job) == ("blocked", first.id)
        assert "the run waits for its end" in why.words
        waiting = await world.app.why_waiting(second)
        assert (waiting.kind, waiting.job) == ("serial", first.id)


@pytest.mark.parametrize("beside", [True, False])
async def test_run_that_waits_for_a_backfilled_one_is_late_and_no_more(beside: bool) -> None:
    """What the documentation says: only side by side do the schedule's own runs keep their times."""
    app = Quarterjack()

    @app.task(Every(minutes=1), name="work")
    async def work() -> None:
        await asyncio.sleep(40)

    first = datetime(2026, 3, 2, 8, tzinfo=UTC)
    async with virtual_time(app, start="2026-03-02T09:00:30Z") as world:
        overlap: BackfillOverlap = "allow" if beside else "queue_all"
        jobs = await app.backfill("work", first, first + timedelta(minutes=10), overlap=overlap)
        await world.run_until("2026-03-02T09:45:50Z")
        assert {job.state for job in jobs} == {JobState.DONE}
        assert ("skipped" in world.outcomes("work")) is not beside
