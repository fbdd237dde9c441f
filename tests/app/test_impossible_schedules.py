"""Schedules whose parts contradict each other: refused where they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quarterjack import Aligned, At, Cron, Every, FixedDelay, Group, InvalidOption, Once, Quarterjack, Trigger, Weekdays
from quarterjack.testing import virtual_time
from quarterjack.triggers import Between, Calendar
from tests.app.kit import Boom

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
HOUR = timedelta(hours=1)


def app_of(trigger: Trigger, **policies: Any) -> Quarterjack:
    app = Quarterjack()

    @app.task(trigger, **policies)
    async def job() -> None: ...

    return app


async def refused(trigger: Trigger, **policies: Any) -> str:
    """Return with which words a schedule is refused, in code and at run time alike."""
    with pytest.raises(InvalidOption) as in_code:
        async with virtual_time(app_of(trigger, **policies)):
            pass
    app = Quarterjack()

    @app.task
    async def job() -> None: ...

    async with virtual_time(app):
        with pytest.raises(InvalidOption) as at_run_time:
            await app.schedule(job, trigger, id="job", **policies)
        assert await app.schedules() == []
    assert "job" in str(in_code.value)
    assert str(in_code.value).partition(": ")[2] == str(at_run_time.value).partition(": ")[2]
    return str(at_run_time.value)


@pytest.mark.parametrize(
    ("trigger", "period_s"),
    [(Every(minutes=1), 60), (Aligned(minutes=5, tz="Europe/Rome"), 300), (Every(days=2), 172_800)],
)
async def test_jitter_longer_than_the_period_is_refused(trigger: Trigger, period_s: int) -> None:
    """Most runs would be heaped up just before the next fire time: the opposite of what jitter is for."""
    words = await refused(trigger, jitter=period_s + 0.5)
    assert f"jitter={period_s + 0.5:g} is longer than the period" in words
    assert f"give at most {period_s}" in words
    async with virtual_time(app_of(trigger, jitter=period_s)) as world:
        assert len(await world.app.schedules()) == 1


async def test_jitter_of_a_rule_with_uneven_distances_keeps_to_each() -> None:
    """Minutes of the day and hours of the night: one number must do for both."""
    async with virtual_time(app_of(Cron("0,1 * * * *"), jitter=600), start=NOW) as world:
        await world.run_until("2026-03-02T12:30")
        assert [run[11:16] for run in world.runs("job")] == [
            "09:01",
            *(f"{h}:0{m}" for h in (10, 11, 12) for m in (0, 1)),
        ]


async def test_default_that_does_not_fit_one_schedule_names_that_one() -> None:
    """What a group says holds for all of its tasks, so the message must say which one it breaks."""
    app, group = Quarterjack(), Group("slow", jitter=90)

    @group.task(Every(hours=1))
    async def hourly() -> None: ...

    @group.task(Every(minutes=1))
    async def often() -> None: ...

    app.include_group(group)
    with pytest.raises(InvalidOption, match=r"slow\.often.*jitter=90 is longer"):
        async with virtual_time(app):
            pass


async def test_change_that_makes_the_jitter_too_long_is_refused_and_changes_nothing() -> None:
    """The two halves are checked together, also when only one is changed."""
    async with virtual_time(app_of(Every(minutes=10), jitter=300), start=NOW) as world:
        with pytest.raises(InvalidOption, match="jitter=300 is longer than the period"):
            await world.app.update_schedule("job", trigger=Every(minutes=1))
        await world.run_for("1h")
        assert len(world.runs("job")) >= 5


@pytest.mark.parametrize(
    ("trigger", "start", "end", "words"),
    [
        (At("09:00"), NOW + HOUR, NOW, "lies after end="),
        (At("09:00"), NOW + HOUR, NOW + 2 * HOUR, "the next is 2026-03-03T09:00:00+00:00"),
        (Cron("0 0 29 2 *"), NOW, NOW + 365 * 24 * HOUR, "the next is 2028-02-29"),
        (Cron("0 0 0 1 1 * 2020"), NOW, NOW + HOUR, "it has none after its start"),
        (Every(days=1) & Weekdays("sun"), NOW, NOW + 48 * HOUR, "the next is 2026-03-08"),
        (Once(NOW), NOW + HOUR, NOW + 2 * HOUR, "it has none after its start"),
    ],
    ids=str,
)
async def test_bounds_with_nothing_between_them_are_refused(
    trigger: Trigger, start: datetime, end: datetime, words: str
) -> None:
    """It is mostly a wrong year, and nobody would look for a run that was never planned."""
    told = await refused(trigger, start=start, end=end)
    assert words in told
    assert f"start={start.isoformat()}" in told
    assert f"end={end.isoformat()}" in told


@pytest.mark.parametrize(
    "trigger",
    [
        At("09:00"),
        Once(),
        FixedDelay(minutes=1),
        Every(hours=1, anchor="start"),
        Cron("H 9 * * *"),
        Calendar(days=1, at="09:00"),
    ],
    ids=str,
)
async def test_bounds_are_inclusive_and_judged_only_where_the_rule_is_known(trigger: Trigger) -> None:
    """What only a schedule's creation tells is no contradiction in what was written."""
    async with virtual_time(app_of(trigger, start=NOW, end=NOW + timedelta(minutes=1)), start=NOW - HOUR) as world:
        await world.run_for("3h")
        (view,) = await world.app.schedules()
        assert view.parked_reason is None


class Grenade(Trigger):
    """Raises whenever it is asked."""

    def next(self, after: datetime) -> datetime | None:
        raise Boom("trigger")


async def test_bounds_of_a_rule_that_raises_are_left_to_the_schedule() -> None:
    """Whatever a trigger does, it parks its own schedule and stops no start."""
    async with virtual_time(app_of(Grenade(), start=NOW, end=NOW + HOUR)) as world:
        (view,) = await world.app.schedules()
        assert "Boom: trigger" in (view.parked_reason or "")


async def test_filter_that_lets_nothing_through_parks_its_schedule_at_once() -> None:
    """The search ends, the reason names both sides, and the neighbours run."""
    app = app_of(At("09:00") & Between("10:00", "11:00"))

    @app.task(Every(minutes=1))
    async def neighbour() -> None: ...

    async with virtual_time(app, start=NOW) as world:
        await world.run_for("10m")
        view = next(view for view in await app.schedules() if view.id == "job")
        assert "Between(start=datetime.time(10, 0)" in (view.parked_reason or "")
        assert "let nothing through" in (view.parked_reason or "")
        assert len(world.runs(neighbour)) == 10


async def test_lateness_of_nothing_is_refused() -> None:
    """No run starts at its very nanosecond, so none would ever run."""
    assert "max_lateness must be more than 0" in await refused(Every(hours=1), max_lateness=0)
