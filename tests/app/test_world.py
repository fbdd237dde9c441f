"""The testing kit itself: what a world tells, and what it refuses."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings

from quarterjack import Every, InvalidOption, JobState, MemoryStore, Quarterjack, StoreError, Trigger, UsageError
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.errors import StoreUnavailable
from quarterjack.stores.sqlite import SQLiteStore
from quarterjack.testing import Runs, faults, virtual_time
from quarterjack.testing.plugin import pytest_assertrepr_compare
from quarterjack.testing.strategies import instants, triggers
from tests.app.kit import START, sleeper
from tests.stores.reference import ReferenceStore


async def test_clock_and_strictness_are_the_worlds_and_come_back() -> None:
    """An app is as it was before: a test must not change the program."""
    app = Quarterjack()
    async with virtual_time(app) as world:
        assert (app.clock, app.strict) == (world.clock, True)
    assert (app.clock, app.strict) == (SYSTEM_CLOCK, False)


async def test_world_without_an_app_is_a_clock() -> None:
    """Other code that waits is tested the same way."""
    async with virtual_time(start=START) as world:
        sleeping = asyncio.ensure_future(asyncio.sleep(3600))
        await world.run_for("59m")
        assert not sleeping.done()
        await world.run_for(timedelta(minutes=1))
        assert sleeping.done()
        with pytest.raises(UsageError, match="no app"):
            world.runs("x")


async def test_naive_instants_are_local_to_the_world() -> None:
    """A test speaks of its own zone's midnight."""
    async with virtual_time(start="2026-03-29T00:30", tz="Europe/Rome") as world:
        await world.run_until("2026-03-29T03:30")
        assert world.now.isoformat() == "2026-03-29T03:30:00+02:00"
        assert world.clock.now().isoformat() == "2026-03-29T01:30:00+00:00"
        with pytest.raises(InvalidOption, match="past"):
            await world.run_until("2026-03-29T00:30")


async def test_unknown_name_is_refused() -> None:
    """A misspelt name would pass for "it never ran"."""
    app = Quarterjack()
    sleeper(app)
    async with virtual_time(app) as world:
        assert world.runs("sleeper") == []
        with pytest.raises(UsageError, match="this app has sleeper"):
            world.runs("sleper")
        with pytest.raises(UsageError, match="this app has sleeper"):
            world.jobs("sleper")
        with pytest.raises(UsageError, match="this app has sleeper"):
            world.outcomes("sleper")


async def test_what_happened_is_known_after_the_end_too() -> None:
    """Assertions may stand below the block."""
    app = Quarterjack(MemoryStore(keep_finished=2))

    @app.task(Every(minutes=1))
    async def tick() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("5m")
    assert world.runs(tick) == [f"2026-03-02T09:0{n}+00:00" for n in range(1, 6)]
    async with virtual_time(app, start=START) as again:
        assert again.runs(tick) == []


async def test_app_on_a_file_lives_in_a_world_too(tmp_path: Path) -> None:
    """Its store goes by the app's clock; what a restart finds is tested in the time that it takes to say so."""
    app = Quarterjack(SQLiteStore(tmp_path / "jobs.db", synchronous="off"), retention=1)
    retention = app.retention

    @app.task(Every(seconds=30))
    async def tick() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("2m")
        ticks = world.runs("tick")
        assert len(ticks) == 4
        assert world.outcomes("tick") == ["done"] * 4, "all are kept meanwhile"
        later = await app.submit(tick.options(delay=45))
    assert world.outcomes("tick") == ["done"] * 4 + ["submitted"]
    assert app.retention == retention
    async with virtual_time(app, start=world.now) as again:
        assert again.jobs() == [], "what was there before is none of this world"
        await again.run_for("1m")
        assert len(again.runs("tick")) == 2
        assert (await later.refresh()).state is JobState.DONE
    with pytest.raises(UsageError, match="this app has tick"):
        again.runs("tack")


async def test_running_app_and_foreign_store_are_refused() -> None:
    """Half of such an app would be on real time."""
    app = Quarterjack()
    async with app:
        with pytest.raises(UsageError, match="runs already"):
            await virtual_time(app).__aenter__()
    with pytest.raises(UsageError, match="its clock runs"):
        await virtual_time(Quarterjack(ReferenceStore())).__aenter__()


async def test_failing_test_does_not_wait_for_what_hangs() -> None:
    """The assertion that failed is what one wants to read."""
    app = Quarterjack()
    task = sleeper(app)

    async def fails() -> None:
        async with virtual_time(app):
            await app.submit(task, 10**6)
            raise AssertionError("this")

    with pytest.raises(AssertionError, match="this"):
        await fails()


def test_difference_of_runs_is_short_and_tells_both_ways() -> None:
    """Of 8,760 hours one wants to see the one that is wrong."""
    expected = [f"2026-01-01T{n:02}:00+00:00" for n in range(24)]
    abroad = [f"2026-01-01T0{hour}:00-05:00" for hour in range(2)]
    here = Runs([f"2026-01-01T0{hour + 6}:00+01:00" for hour in range(2)])
    assert here.are_same_instants(abroad)
    assert not here.are_same_instants(abroad[:1])
    assert not here.are_same_instants(["morning", "noon"])
    runs = Runs([*expected[:5], *expected[6:], "2026-01-02T00:00+00:00"])
    assert runs.difference(expected) == [
        "  5 equal, 2026-01-01T00:00+00:00 to 2026-01-01T04:00+00:00",
        "- 2026-01-01T05:00+00:00",
        "  18 equal, 2026-01-01T06:00+00:00 to 2026-01-01T23:00+00:00",
        "+ 2026-01-02T00:00+00:00",
    ]
    assert runs.difference(list(runs)) == []
    explained = pytest_assertrepr_compare("==", runs, expected)
    assert explained is not None
    assert explained[0] == "24 runs, 24 expected"
    assert pytest_assertrepr_compare("==", [1], [2]) is None


async def test_faults_strike_the_named_call_and_are_forgotten_with_the_block() -> None:
    """A test says what breaks, and nothing else does."""
    store = MemoryStore()
    with faults(store) as broken:
        broken.fail_next("purge", error=StoreUnavailable("mine"))
        with pytest.raises(StoreError, match="mine"):
            await store.jobs_purge(timedelta(0))
        assert await store.jobs_purge(timedelta(0)) == 0
        assert broken.calls == ["jobs_purge", "jobs_purge"]
        with pytest.raises(InvalidOption, match="several calls"):
            broken.fail_next("put")
        with pytest.raises(InvalidOption, match="no call"):
            broken.fail_next("explode")
        broken.fail_next("purge")
    assert await store.jobs_purge(timedelta(0)) == 0
    assert store.never_suspends


@settings(max_examples=50)
@given(trigger=triggers(), at=instants())
def test_drawn_triggers_go_forward(trigger: Trigger, at: datetime) -> None:
    """The strategies draw triggers that work."""
    following = trigger.next(at)
    assert following is None or following > at
