"""Custom triggers that break their promise: each parks its own schedule, with a reason, and the others go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, ClassVar

import pytest

from quarterjack import Every, Filter, Quarterjack, Trigger
from quarterjack.testing import World, virtual_time
from tests.app.kit import START, Boom

MINUTE = timedelta(minutes=1)


class Told(Trigger):
    """Answers every minute, until it is told to answer otherwise."""

    name: str = ""
    wrong: ClassVar[Callable[[datetime], Any] | None] = None
    is_wrong: ClassVar[bool] = False

    def next(self, after: datetime) -> datetime | None:
        if Told.is_wrong and Told.wrong is not None:
            answer: datetime | None = Told.wrong(after)
            return answer
        return after.replace(second=0, microsecond=0) + MINUTE


def explode(after: datetime) -> datetime:
    raise Boom(f"after {after:%H:%M}")


def recurse(after: datetime) -> datetime:
    return recurse(after)


async def tomorrow(after: datetime) -> datetime:
    return after + timedelta(days=1)


WRONG: dict[str, tuple[Callable[[datetime], Any], str]] = {
    "raises": (explode, "Boom: after"),
    "recurses": (recurse, "RecursionError"),
    "the past": (lambda after: after - MINUTE, "which is not after its argument"),
    "the same instant": (lambda after: after, "which is not after its argument"),
    "naive": (lambda after: (after + MINUTE).replace(tzinfo=None), "must return an aware datetime or None"),
    "text": (lambda after: "tomorrow", "must return an aware datetime or None"),
    "a number": (lambda after: after.timestamp() + 60, "must return an aware datetime or None"),
    "a date": (lambda after: date(2030, 1, 1), "must return an aware datetime or None"),
    "True": (lambda after: True, "must return an aware datetime or None"),
    "its own class": (lambda after: datetime, "must return an aware datetime or None"),
    "a list": (lambda after: [after + MINUTE], "must return an aware datetime or None"),
    "a coroutine": (tomorrow, "next is async; a rule only computes, so write def next"),
}


@pytest.fixture(params=list(WRONG.values()), ids=list(WRONG))
def words(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set one wrong answer; return what the reason must say."""
    answer, reason = request.param
    monkeypatch.setattr(Told, "wrong", staticmethod(answer))
    monkeypatch.setattr(Told, "is_wrong", False)
    return str(reason)


def app_with_neighbours() -> Quarterjack:
    app = Quarterjack()

    @app.task(Every(minutes=1))
    async def before() -> None: ...

    @app.task(Told())
    async def doomed() -> None: ...

    @app.task(Every(minutes=1), jitter=30)
    async def behind() -> None: ...

    return app


async def reason_of(world: World, schedule_id: str = "doomed") -> str:
    view = next(view for view in await world.app.schedules() if view.id == schedule_id)
    assert view.next is None
    return view.parked_reason or ""


async def test_wrong_answer_from_the_start_parks_the_schedule_alone(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app starts, the reason says what is wrong, and the neighbours run as if it were not there."""
    monkeypatch.setattr(Told, "is_wrong", True)
    async with virtual_time(app_with_neighbours(), start=START) as world:
        await world.run_for("10m30s")
        assert words in await reason_of(world)
        assert world.runs("doomed") == []
        assert [len(world.runs(name)) for name in ("before", "behind")] == [10, 10]


async def test_wrong_answer_later_parks_the_schedule_after_the_run_that_was_due(
    words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it had promised takes place; then it is asked no more, whatever happens to the clock or the pause."""
    async with virtual_time(app_with_neighbours(), start=START) as world:
        await world.run_for("3m30s")
        monkeypatch.setattr(Told, "is_wrong", True)
        await world.run_for("1m")
        assert words in await reason_of(world)
        await world.step_clock(-300)
        await world.suspend("10m")
        await world.app.pause("doomed")
        await world.app.resume("doomed", catch_up=True)
        await world.run_for("1m")
        assert words in await reason_of(world)
        assert [run[11:16] for run in world.runs("doomed")] == ["09:01", "09:02", "09:03", "09:04"]
        assert len(world.runs("before")) == 6, "four, the last of the ten that were slept through, and one more"


async def test_mended_trigger_fires_again(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rule under the same id is all it takes."""
    monkeypatch.setattr(Told, "is_wrong", True)
    async with virtual_time(app_with_neighbours(), start=START) as world:
        assert words in await reason_of(world)
        monkeypatch.setattr(Told, "is_wrong", False)
        await world.app.update_schedule("doomed", trigger=Told(name="mended"))
        await world.run_for("3m")
        assert len(world.runs("doomed")) == 3


class Sided(Trigger):
    """Knows its next fire time, and says of the past what it likes."""

    prev_is: Any = None
    count_is: Any = None

    def next(self, after: datetime) -> datetime | None:
        return after.replace(second=0, microsecond=0) + MINUTE

    def prev(self, before: datetime) -> datetime | None:
        answer: datetime | None = before.replace(second=0, microsecond=0) if self.prev_is is None else self.prev_is
        return answer

    def count(self, after: datetime, until: datetime, cap: int | None = None) -> int:
        answer: int = 5 if self.count_is is None else self.count_is
        return answer


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"prev_is": "yesterday"}, "must return an aware datetime or None"),
        ({"prev_is": datetime(2026, 3, 2)}, "must return an aware datetime or None"),  # naive on purpose
        ({"prev_is": datetime(2030, 1, 1, tzinfo=UTC)}, "which is after its argument"),
        ({"count_is": "many"}, "TypeError"),
    ],
    ids=str,
)
async def test_wrong_answer_about_the_past_parks_when_it_is_asked(wrong: dict[str, Any], words: str) -> None:
    """Prev and count are asked only after an outage, which is the worst moment to stop the others."""
    app = app_with_neighbours()

    @app.task(Sided(**wrong))
    async def sided() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("2m")
        assert len(world.runs("sided")) == 2
        await world.suspend("10m")
        await world.run_for("2m")
        assert words in await reason_of(world, "sided")
        assert len(world.runs("before")) >= 5


@pytest.mark.parametrize("count_is", [0, -7, 10**30])
async def test_count_that_is_wrong_by_any_number_only_changes_the_number(count_is: int) -> None:
    """The fire times come from next and prev; a miscounted row must not cost a run."""
    app = Quarterjack()

    @app.task(Sided(count_is=count_is))
    async def sided() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("2m")
        await world.suspend("10m")
        await world.run_for("1m")
        assert len(world.runs("sided")) == 4
        assert all(0 < job.missed_count <= 1_000 for job in world.jobs("sided") if job.state == "missed")


class Broken(Filter):
    """Answers whatever it was told to."""

    answer: Any = None

    def allows(self, at: datetime) -> bool:
        if self.answer == "raise":
            raise Boom("filter")
        allowed: bool = self.answer
        return allowed


async def test_filter_that_raises_or_never_allows_parks_the_schedule_alone() -> None:
    """A search through a predicate ends, however the predicate behaves."""
    app = app_with_neighbours()

    @app.task(Every(minutes=1) & Broken(answer="raise"))
    async def raises() -> None: ...

    @app.task(Every(minutes=1) & Broken(answer=0))
    async def never() -> None: ...

    @app.task(Every(minutes=1) - Broken(answer=1))
    async def dropped() -> None: ...

    async with virtual_time(app, start=START) as world:
        await world.run_for("5m")
        assert "Boom: filter" in await reason_of(world, "raises")
        assert "let nothing through" in await reason_of(world, "never")
        assert "10,000 steps" in await reason_of(world, "dropped")
        assert len(world.runs("before")) == 5


class Dense(Trigger):
    """As many fire times as there are microseconds: it never comes to an end of what is due."""

    def next(self, after: datetime) -> datetime | None:
        return after + timedelta(microseconds=1)


async def test_rule_without_any_distance_does_not_starve_the_others() -> None:
    """It is always due, so all the others must get their turns between its own."""
    app = Quarterjack()
    enough, runs = asyncio.Event(), 0

    @app.task(Dense())
    async def dense() -> None: ...

    @app.task(Every(milliseconds=20))
    async def other() -> None:
        nonlocal runs
        runs += 1
        if runs == 3:
            enough.set()

    async with app:
        await asyncio.wait_for(enough.wait(), 10)
        await app.unschedule("dense")


class Slow(Trigger):
    """Blocks the loop while it thinks."""

    def next(self, after: datetime) -> datetime | None:
        time.sleep(0.5)
        return after.replace(microsecond=0) + timedelta(seconds=3600)


async def test_rule_that_blocks_is_named_by_the_watchdog(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing can take the loop back from it, so the line that has it must be told."""
    app = Quarterjack(watchdog=0.05)

    @app.task
    async def late() -> None: ...

    async with app:
        await app.schedule(late, Slow(), id="slow")
        await asyncio.sleep(0.05)
    assert "in next" in caplog.text
