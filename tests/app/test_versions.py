"""Several codes on one store: whose schedule it is, who fires it, and who is told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from quarterjack import Every, MemoryStore, Quarterjack, Trigger
from quarterjack.clock import Clock
from quarterjack.events import ScheduleConflict, ScheduleEvent
from quarterjack.model import JobIds
from quarterjack.stores._rows import Encoding
from quarterjack.testing import World, virtual_time
from tests.app.kit import START

HOURLY, HALF_HOURLY = Every(hours=1), Every(minutes=30)


class Shared(MemoryStore):
    """A store that several apps of this process have open at once, and that keeps its rows from one to the next."""

    def __init__(self) -> None:
        super().__init__()
        self.users = 0

    async def open(self, clock: Clock, ids: JobIds, encoding: Encoding | None = None) -> None:
        if not self._schedules and not self.users:
            await super().open(clock, ids, encoding)
        self.users += 1

    async def close(self) -> None:
        self.users -= 1


def app_of(store: MemoryStore, version: str | None = None, **rules: Trigger) -> Quarterjack:
    """Return an app whose code declares a schedule for each of *rules*."""
    app = Quarterjack(store, version=version)
    for name, rule in rules.items():

        async def body() -> None: ...

        app.task(rule, name=name)(body)
    return app


@asynccontextmanager
async def started(app: Quarterjack, world: World) -> AsyncIterator[Quarterjack]:
    """Run one more app in the world."""
    app.clock = world.clock
    async with app:
        yield app


async def reasons(app: Quarterjack) -> dict[str, str | None]:
    return {schedule.id: schedule.not_fired_reason for schedule in await app.schedules()}


def times(world: World) -> list[str]:
    return [run[11:16] for run in world.runs("poll")]


@pytest.mark.parametrize("is_new_first", [True, False])
async def test_newer_code_fires_its_schedule_whichever_starts_last(is_new_first: bool) -> None:
    """In a rolling deploy both run at once; the rule is the new one's from the first moment it is there, and once."""
    store = Shared()
    old, new = app_of(store, "1.9", poll=HOURLY), app_of(store, "1.10", poll=HALF_HOURLY)
    async with virtual_time(*((new, old) if is_new_first else (old, new)), start=START) as world:
        await world.run_for("2h")
        assert times(world) == ["09:30", "10:00", "10:30", "11:00"]
        assert await reasons(new) == {"poll": None}
        why = "it was declared otherwise by version 1.10 than by the code here"
        assert await reasons(old) == {"poll": why}
        assert [schedule.version for schedule in await old.schedules()] == ["1.10"]


async def test_old_code_alone_fires_by_its_own_declaration(caplog: pytest.LogCaptureFixture) -> None:
    """A deploy was taken back: what the newer code declared would be fired by nobody, and nobody would notice."""
    store = Shared()
    new, old = app_of(store, "2", poll=HALF_HOURLY), app_of(store, "1", poll=HOURLY)
    async with virtual_time(start=START) as world:
        async with started(new, world):
            await world.run_for("1h")
        caplog.clear()
        async with started(old, world):
            (said,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
            assert said == (
                "schedule poll was declared otherwise by version 2, and no process of a version newer than the one "
                "here is at work: the declaration of version 1 counts again"
            )
            await world.run_for("3h")
            assert len(await old.jobs(schedule="poll")) == 2 + 3
        async with started(new, world):
            await world.run_for("1h")
            states = [job.state.value for job in await new.jobs(schedule="poll")]
            assert states == ["done"] * 7


async def test_schedule_whose_code_is_gone_is_kept_told_and_not_fired(caplog: pytest.LogCaptureFixture) -> None:
    """A renamed function must not delete an order, nor run one that nobody can."""
    store = Shared()
    async with virtual_time(start=START) as world:
        async with started(app_of(store, poll=HOURLY, report=HOURLY), world):
            pass
        later = app_of(store, poll=HOURLY)
        async with started(later, world):
            gone = "it was declared in code, and the code here does not declare it"
            assert await reasons(later) == {"poll": None, "report": gone}
            assert f"schedules of the store that this process does not fire: report ({gone});" in caplog.text
            await world.run_for("2h")
            assert {job.schedule for job in await later.jobs()} == {"poll"}
            assert f"not fired here: {gone}" in (await later.schedules())[1].explain()
            await later.unschedule("report")
            assert await reasons(later) == {"poll": None}


async def test_process_that_runs_says_when_newer_code_takes_a_schedule_over(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads the old process's log sees why it is silent."""
    caplog.set_level(logging.INFO)
    store = Shared()
    async with virtual_time(app_of(store, "1", poll=HOURLY), start=START) as world:
        await world.run_for("1h")
        async with started(app_of(store, "2", poll=HALF_HOURLY), world):
            await world.settle()
            said = (
                "this process fires schedule poll no more: it was declared otherwise by version 2 than by the code here"
            )
            assert said in caplog.text


async def test_two_codes_by_turns_are_told_with_what_to_do(caplog: pytest.LogCaptureFixture) -> None:
    """A-B-A: each restart takes the schedule back, and neither would ever know why its runs come and go."""
    store = Shared()
    one, other = app_of(store, poll=HOURLY), app_of(store, poll=HALF_HOURLY)
    told: list[ScheduleConflict] = []
    one.event_stream.listen(lambda event: told.append(event) if isinstance(event, ScheduleConflict) else None)
    async with virtual_time(start=START) as world:
        for app in (one, other):
            async with started(app, world):
                pass
        assert told == []
        assert not [record for record in caplog.records if record.levelno == logging.WARNING]
        async with started(one, world):
            assert await reasons(one) == {"poll": None}, "the last starter wins"
    (event,) = told
    assert (event.schedule_id, event.task) == ("poll", "poll")
    assert "Quarterjack(version=…)" in event.reason
    assert f"schedule poll: {event.reason}" in caplog.text


async def test_change_at_run_time_is_fired_and_outlives_a_restart() -> None:
    """An operator's word is not taken back by the next restart of the same code."""
    store = Shared()
    async with virtual_time(start=START) as world:
        async with started(app_of(store, poll=HOURLY), world) as app:
            await app.update_schedule("poll", trigger=HALF_HOURLY)
            await world.run_for("30m")
            assert len(await app.jobs(schedule="poll")) == 1
        again = app_of(store, poll=HOURLY)
        puts: list[str] = []
        again.event_stream.listen(lambda event: puts.append(event.kind) if isinstance(event, ScheduleEvent) else None)
        async with started(again, world):
            await world.run_for("30m")
            assert len(await again.jobs(schedule="poll")) == 2
            assert puts == ["put", "fired"]
