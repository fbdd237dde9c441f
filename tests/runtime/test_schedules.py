"""Schedules from a trigger to their runs, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quarterjack import (
    At,
    Cron,
    DuplicateName,
    Every,
    Forever,
    Group,
    InvalidOption,
    JobState,
    Once,
    OnShutdown,
    OnStartup,
    Quarterjack,
    StartupFailed,
    Trigger,
    UnknownSchedule,
    current_job,
)
from quarterjack.policies.missed import MissedMode
from quarterjack.policies.overlap import OverlapMode
from quarterjack.testing._clock import VirtualClock
from quarterjack.testing._loop import virtual_loop


@asynccontextmanager
async def running(app: Quarterjack, start: str = "2026-03-01T00:00:00+00:00") -> AsyncIterator[VirtualClock]:
    clock = VirtualClock(start)
    app.clock = clock
    with virtual_loop(clock):
        async with app:
            yield clock


def minute(at: datetime | None) -> str:
    assert at is not None
    return at.strftime("%H:%M")


async def test_a_task_fires_on_every_clock_top_and_never_drifts() -> None:
    """However long its body takes."""
    app = Quarterjack()
    starts: list[datetime] = []

    @app.task(Every(seconds=10))
    async def tick() -> None:
        starts.append(app.clock.now())
        await asyncio.sleep(3.7)

    async with running(app) as clock:
        await clock.run_for(60)
    assert [at.second for at in starts] == [10, 20, 30, 40, 50, 0]
    assert all(at.microsecond == 0 for at in starts)


async def test_a_slow_body_is_skipped_visibly() -> None:
    """``overlap="skip"`` leaves a row that names the job in the way."""
    app = Quarterjack()

    @app.task(Every(minutes=1))
    async def slow() -> None:
        await asyncio.sleep(90)

    async with running(app) as clock:
        await clock.run_until("2026-03-01T00:06:00+00:00")
        jobs = await app.jobs(task="slow")
        states = [(minute(job.nominal), job.state) for job in reversed(jobs)]
    assert states == [
        ("00:01", JobState.DONE),
        ("00:02", JobState.SKIPPED),
        ("00:03", JobState.DONE),
        ("00:04", JobState.SKIPPED),
        ("00:05", JobState.RUNNING),
        ("00:06", JobState.SKIPPED),
    ] or states[4][1] in {JobState.DONE, JobState.CANCELLED, JobState.RUNNING}
    skipped = [job for job in jobs if job.state is JobState.SKIPPED]
    assert all(job.reason and "still" in job.reason for job in skipped)


@pytest.mark.parametrize(
    ("overlap", "expected"),
    [
        ("queue_one", [60, 150, 240, 330]),
        ("allow", [60, 120, 180, 240, 300]),
        ("cancel_previous", [60, 120, 180, 240, 300]),
    ],
)
async def test_overlap_modes(overlap: OverlapMode, expected: list[int]) -> None:
    """Waiting for the one before, running beside it, or taking its place."""
    app = Quarterjack()
    starts: list[int] = []
    begin = datetime(2026, 3, 1, tzinfo=UTC)

    @app.task(Every(minutes=1), overlap=overlap)
    async def slow() -> None:
        starts.append(round((app.clock.now() - begin).total_seconds()))
        await asyncio.sleep(90)

    async with running(app) as clock:
        await clock.run_for(335)
    assert starts == expected


@pytest.mark.parametrize(
    ("missed", "nominals", "count"),
    [
        ("latest", ["02:00"], 119),
        ("earliest", ["00:01"], 119),
        ("skip", [], 120),
        ("all", [f"01:{n:02}" for n in range(51, 60)] + ["02:00"], 110),
    ],
)
async def test_missed_runs_after_a_suspend(missed: MissedMode, nominals: list[str], count: int) -> None:
    """The machine slept for two hours: each fire time ran or is counted as missed."""
    app = Quarterjack()
    ran: list[str] = []

    @app.task(Every(minutes=1), missed=missed, max_catchup=10, overlap="queue_all")
    async def tick() -> None:
        ran.append(minute(current_job().nominal))

    async with running(app) as clock:
        clock.suspend(timedelta(hours=2))
        await clock.run_for(1)
        jobs = await app.jobs(task="tick")
    assert ran == nominals
    assert sum(job.missed_count for job in jobs if job.state is JobState.MISSED) == count


async def test_a_clock_set_back_an_hour_neither_doubles_nor_stalls() -> None:
    """A rule of elapsed time goes on at once; a time of day does not run twice."""
    app = Quarterjack()
    ticks: list[str] = []
    daily: list[str] = []

    @app.task(Every(minutes=10))
    async def tick() -> None:
        ticks.append(minute(current_job().nominal))

    @app.task(At("12:05"))
    async def noon() -> None:
        daily.append(minute(current_job().nominal))

    async with running(app, "2026-03-01T11:45:00+00:00") as clock:
        await clock.run_for(timedelta(minutes=30))
        clock.step_clock(-timedelta(hours=1))
        await clock.run_for(timedelta(hours=2))
    assert daily == ["12:05"]
    assert ticks[:3] == ["11:50", "12:00", "12:10"]
    assert ticks[3] == "11:20"
    assert len(ticks) == 3 + 12


async def test_a_clock_set_forward_a_day_runs_what_it_passed_once() -> None:
    """``missed="latest"``: one run that knows how many it stands for."""
    app = Quarterjack()
    seen: list[int] = []

    @app.task(Every(hours=1))
    async def tick() -> None:
        seen.append(current_job().missed_count)

    async with running(app) as clock:
        clock.step_clock(timedelta(days=1))
        await clock.run_for(1)
    assert seen == [23]


async def test_a_delay_is_not_stretched_by_a_clock_step() -> None:
    """``delay=60`` is a minute of elapsed time on the memory store."""
    app = Quarterjack()

    @app.task
    async def later() -> None: ...

    async with running(app) as clock:
        job = await app.submit(later.options(delay=60))
        await clock.run_for(10)
        clock.step_clock(-timedelta(hours=1))
        before = clock.monotonic()
        await job
        assert clock.monotonic() - before == pytest.approx(50)


async def test_forever_runs_again_after_each_end_and_once_runs_once() -> None:
    """Rules that follow the schedule's own life."""
    app = Quarterjack()
    starts: list[int] = []
    shots: list[str] = []
    begin = datetime(2026, 3, 1, tzinfo=UTC)

    @app.task(Forever(pause=5), timeout=60)
    async def loop() -> None:
        starts.append(round((app.clock.now() - begin).total_seconds()))
        await asyncio.sleep(10)
        if len(starts) == 2:
            raise ValueError("a failure does not end the chain")

    @app.task(Once())
    async def shot() -> None:
        shots.append(minute(current_job().nominal))

    async with running(app) as clock:
        await clock.run_for(50)
    assert starts == [0, 15, 30, 45]
    assert shots == ["00:00"]


async def test_control_at_run_time() -> None:
    """Put, change, pause, resume, trigger, remove: each takes effect at once."""
    app = Quarterjack()
    ran: list[tuple[str, str]] = []

    @app.task
    async def fetch(url: str) -> None:
        ran.append((url, minute(current_job().nominal)))

    async with running(app) as clock:
        await app.schedule(fetch.bind("a"), Every(minutes=5), id="poll", jitter=0)
        await clock.run_for(timedelta(minutes=6))
        await app.pause("poll", note="migration")
        (view,) = await app.schedules()
        assert view.is_paused
        assert view.next is None
        assert "migration" in view.explain()
        await clock.run_for(timedelta(minutes=10))
        await app.resume("poll")
        (view,) = await app.schedules()
        assert minute(view.next) == "00:20"
        assert minute(view.last) == "00:05"
        job = await app.trigger_now("poll")
        await job
        await app.update_schedule("poll", trigger=Every(minutes=10))
        await clock.run_for(timedelta(minutes=20))
        await app.unschedule("poll")
        await clock.run_for(timedelta(minutes=30))
        with pytest.raises(UnknownSchedule):
            await app.pause("poll")
    assert ran == [("a", "00:05"), ("a", "00:16"), ("a", "00:20"), ("a", "00:30")]


async def test_a_pause_may_end_by_itself() -> None:
    """``until=`` resumes from then on."""
    app = Quarterjack()
    ran: list[str] = []

    @app.task(Every(minutes=1))
    async def tick() -> None:
        ran.append(minute(current_job().nominal))

    async with running(app) as clock:
        await app.pause("tick", until=datetime(2026, 3, 1, 0, 5, 30, tzinfo=UTC))
        await clock.run_for(timedelta(minutes=7, seconds=30))
    assert ran == ["00:06", "00:07"]


async def test_bounds_and_runs() -> None:
    """``start``, ``end`` and ``max_runs`` bound a schedule."""
    app = Quarterjack()
    bounded: list[str] = []
    limited: list[str] = []

    @app.task(
        Every(minutes=1), start=datetime(2026, 3, 1, 0, 3, tzinfo=UTC), end=datetime(2026, 3, 1, 0, 5, tzinfo=UTC)
    )
    async def window() -> None:
        bounded.append(minute(current_job().nominal))

    @app.task(Every(minutes=1), max_runs=2)
    async def twice() -> None:
        limited.append(minute(current_job().nominal))

    async with running(app) as clock:
        await clock.run_for(timedelta(minutes=10))
        assert all(view.next is None for view in await app.schedules())
    assert bounded == ["00:03", "00:04", "00:05"]
    assert limited == ["00:01", "00:02"]


async def test_jitter_spreads_but_never_reorders() -> None:
    """Runs start within the jitter after their fire time, and repeatably."""
    app = Quarterjack()
    lags: list[float] = []

    @app.task(Every(seconds=10), jitter=8)
    async def tick() -> None:
        nominal = current_job().nominal
        assert nominal is not None
        lags.append((app.clock.now() - nominal).total_seconds())

    async with running(app) as clock:
        await clock.run_for(200)
    assert len(lags) >= 19
    assert all(0 <= lag <= 8 for lag in lags)
    assert len(set(lags)) > 10


async def test_pause_on_failure_and_start_deadline() -> None:
    """A schedule that fails repeatedly pauses itself; a job that waited too long is MISSED."""
    app = Quarterjack(concurrency=1)

    @app.task(Every(minutes=1), pause_on_failure=2)
    async def broken() -> None:
        raise ValueError("again")

    @app.task(start_deadline=5)
    async def urgent() -> None: ...

    @app.task
    async def hog() -> None:
        await asyncio.sleep(20)

    async with running(app) as clock:
        await clock.run_for(timedelta(minutes=5))
        (view,) = await app.schedules()
        assert view.is_paused
        assert view.pause_note is not None
        assert "2 failures" in view.pause_note
        await app.submit(hog)
        late = await app.submit(urgent)
        await clock.run_for(30)
        assert late.state is JobState.MISSED


class Broken(Trigger):
    """Raises at its third question."""

    def next(self, after: datetime) -> datetime | None:
        if after >= datetime(2026, 3, 1, 0, 2, tzinfo=UTC):
            raise RuntimeError("a broken rule")
        return after + timedelta(minutes=1)


async def test_a_trigger_that_raises_parks_its_own_schedule_only() -> None:
    """The reason is kept; the others go on."""
    app = Quarterjack()
    ran: list[str] = []

    @app.task(Broken())
    async def bad() -> None:
        ran.append("bad")

    @app.task(Every(minutes=1))
    async def good() -> None:
        ran.append("good")

    async with running(app) as clock:
        await clock.run_for(timedelta(minutes=5))
        views = {view.id: view for view in await app.schedules()}
    assert ran.count("good") == 5
    assert ran.count("bad") >= 1
    assert views["bad"].parked_reason is not None
    assert "broken rule" in views["bad"].parked_reason


async def test_hooks_run_around_the_work_and_a_failing_start_undoes_everything() -> None:
    """Lifespan, start-up hooks in order, work, shutdown hooks in reverse, lifespan."""
    order: list[str] = []

    @asynccontextmanager
    async def lifespan(app: Quarterjack) -> AsyncIterator[None]:
        order.append("enter")
        try:
            yield
        finally:
            order.append("leave")

    app = Quarterjack(lifespan=lifespan)

    @app.task(OnStartup())
    async def first() -> None:
        order.append("first")

    @app.task(OnStartup())
    def second() -> None:
        order.append("second")

    @app.task(OnShutdown())
    async def last() -> None:
        order.append("last")

    @app.task(Once())
    async def work() -> None:
        order.append("work")

    async with running(app) as clock:
        await clock.run_for(1)
    assert order == ["enter", "first", "second", "work", "last", "leave"]

    order.clear()
    failing = Quarterjack(lifespan=lifespan)

    @failing.task(OnStartup())
    async def boom() -> None:
        raise RuntimeError("no")

    with pytest.raises(StartupFailed) as caught:
        async with running(failing):
            pass
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert order == ["enter", "leave"]


async def test_groups_name_their_tasks_and_give_defaults() -> None:
    """The nearest option wins; names are prefixed; a duplicate is refused."""
    outer, inner = Group("reports", timeout=30, priority=1), Group("daily", timeout=5)
    outer.include_group(inner)

    @inner.task(Cron("0 9 * * *"), timeout=7)
    async def nine() -> None: ...

    @inner.task
    async def ten() -> None: ...

    app = Quarterjack()
    app.include_group(outer)
    async with running(app):
        assert [view.id for view in await app.schedules()] == ["reports.daily.nine"]
        assert (nine.run_options.timeout_s, ten.run_options.timeout_s, ten.run_options.priority) == (7, 5, 1)
        assert ten.name == "reports.daily.ten"

    with pytest.raises(DuplicateName):

        @inner.task(name="ten")
        async def again() -> None: ...

    untyped: Any = app
    with pytest.raises(InvalidOption, match="overlap"):
        untyped.task(Every(seconds=1), overlap="sometimes")(min)


async def test_a_year_of_hourly_runs_is_complete() -> None:
    """8,760 fire times, each served once, without a lag."""
    app = Quarterjack()
    seen: list[datetime] = []

    @app.task(Every(hours=1))
    async def hourly() -> None:
        nominal = current_job().nominal
        assert nominal is not None
        seen.append(nominal)

    async with running(app, "2026-01-01T00:00:00+00:00") as clock:
        await clock.run_until("2027-01-01T00:00:00+00:00")
    assert len(seen) == 8760
    assert seen == [datetime(2026, 1, 1, tzinfo=UTC) + timedelta(hours=n + 1) for n in range(8760)]
