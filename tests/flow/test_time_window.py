"""`TimeWindow`: what must hold of it, and variants of it for which that does not hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import (
    Between,
    Cron,
    Dates,
    Every,
    Filter,
    FlowRefused,
    Forever,
    InvalidOption,
    JobState,
    TaskManager,
    TimeWindow,
    Trigger,
    Waiting,
    Weekdays,
)
from quarterjack.flow.permit import Pass
from quarterjack.testing import VirtualClock, virtual_loop
from tests.flow.loads import Load, breaks, is_in_order, loads, played

MORE: Final = settings(max_examples=40)
ROME: Final = "Europe/Rome"
LONGEST_STALL_S: Final = 0.25


# ---------------------------------------------------------------- what must hold


def holds(cls: type[TimeWindow], load: Load) -> bool:
    """Say whether a window that is open for half of each of some seconds keeps all starts inside."""
    margin = 3 * LONGEST_STALL_S if load.stalls else 0.0
    gate = cls(
        [Between("08:00", "09:30"), Every(seconds=2, anchor=datetime(2026, 1, 1, tzinfo=UTC))], lasts=1, margin=margin
    )
    came = played([gate], load)
    return is_in_order(came.starts) and came.is_whole and all(one.wall_ns // 10**9 % 2 == 0 for one in came.starts)


@MORE
@given(load=loads())
def test_no_body_begins_outside(load: Load) -> None:
    """Through cancels, failures and timeouts; with a margin through stalls, too."""
    assert holds(TimeWindow, load)


class LooksOnce(TimeWindow):
    """Takes the first verdict for all time."""

    def eta(self, job: Waiting, now: float) -> float:
        if self._known.until:
            return now
        return super().eta(job, now)


class HasNoMargin(TimeWindow):
    """Lets in until the last moment."""

    def __init__(self, window: Any, tz: str | None = None, *, lasts: float = 60.0, margin: float = 0.0) -> None:
        super().__init__(window, tz, lasts=lasts, margin=0.0 * margin)


@pytest.mark.parametrize("broken", [LooksOnce, HasNoMargin])
def test_broken_window_is_found(broken: type[TimeWindow]) -> None:
    """A property that no mistake violates says nothing."""
    found = breaks(lambda load: holds(broken, load), loads())
    assert found is not None
    assert holds(TimeWindow, found)


def filters() -> st.SearchStrategy[Filter]:
    """Times of day and weekdays, in zones whose clocks are set."""
    zones = st.sampled_from(["UTC", ROME, "America/New_York", "Australia/Lord_Howe"])
    times = st.sampled_from(["00:00", "01:30", "02:00", "02:15", "02:45", "03:00", "09:00", "23:59:59"])

    def between(start: str, end: str, tz: str) -> Filter:
        return Between(start, end if end != start else "12:00", tz=tz)

    def weekdays(days: str, tz: str) -> Filter:
        return Weekdays(days, tz=tz)

    return st.builds(between, times, times, zones) | st.builds(
        weekdays, st.sampled_from(["mon-fri", "sun", "sat,sun", "fri-mon"]), zones
    )


# Around the nights in which these zones' clocks are set, most of all.
NIGHTS: Final = [
    datetime(2026, 3, 8, tzinfo=UTC),
    datetime(2026, 3, 29, tzinfo=UTC),
    datetime(2026, 10, 25, tzinfo=UTC),
]
instants = st.builds(
    lambda night, minutes: night + timedelta(minutes=minutes), st.sampled_from(NIGHTS), st.integers(-1500, 1500)
)


def opens_right(cls: type[TimeWindow], windows: list[Filter], at: datetime) -> bool:
    """Say whether the opening that is found is allowed by all filters, and no quarter of an hour before it is."""
    gate = cls(windows)
    found = gate.next_opening(at)
    if found is None:
        found = at + timedelta(days=9)
    elif not all(one.allows(found) for one in windows):
        return False
    quarter = at
    while quarter < min(found, at + timedelta(days=9)):
        if all(one.allows(quarter) for one in windows):
            return False
        quarter += timedelta(minutes=15)
    return True


@settings(max_examples=40)
@given(windows=st.lists(filters(), min_size=1, max_size=3), at=instants)
def test_opening_is_the_first_that_all_filters_allow(windows: list[Filter], at: datetime) -> None:
    """Also on the nights when the clocks change."""
    assert opens_right(TimeWindow, windows, at)


# ---------------------------------------------------------------- by example


async def begins(
    gate: TimeWindow, start: str, tz: str = "UTC", *, then: Callable[[VirtualClock], None] | None = None
) -> str:
    """Return the wall-clock time at which a job that waits since *start* begins."""
    with virtual_loop(start=start, tz=tz) as clock:
        if then is not None:
            asyncio.get_running_loop().call_later(60, then, clock)
        async with gate:
            return (clock.now() + timedelta(microseconds=500)).isoformat(timespec="milliseconds")[:19]


@pytest.mark.parametrize(
    ("window", "tz", "start", "begin"),
    [
        (Between("09:00", "17:00"), None, "2026-03-02T08:00Z", "2026-03-02T09:00:00"),
        (Between("09:00", "17:00"), None, "2026-03-02T12:00Z", "2026-03-02T12:00:00"),
        (Between("09:00", "17:00"), None, "2026-03-02T17:00Z", "2026-03-03T09:00:00"),
        (Between("09:00", "17:00"), ROME, "2026-03-02T06:00Z", "2026-03-02T08:00:00"),
        (Between("09:00", "17:00", tz="UTC"), ROME, "2026-03-02T06:00Z", "2026-03-02T09:00:00"),
        ([Weekdays("mon-fri"), Between("09:00", "17:00")], None, "2026-02-27T18:00Z", "2026-03-02T09:00:00"),
        (Dates("2026-03-05"), ROME, "2026-03-02T08:00Z", "2026-03-04T23:00:00"),
        (Cron("* 9-16 * * mon-fri"), None, "2026-02-27T17:00Z", "2026-03-02T09:00:00"),
        (Cron("* 9-16 * * mon-fri"), None, "2026-02-27T16:59:59Z", "2026-02-27T16:59:59"),
        # 29 March 2026, Rome: 02:00 becomes 03:00. 25 October: 03:00 becomes 02:00.
        (Between("02:15", "02:45"), ROME, "2026-03-28T23:00Z", "2026-03-30T00:15:00"),
        (Between("02:15", "03:15"), ROME, "2026-03-28T23:00Z", "2026-03-29T01:00:00"),
        (Between("02:15", "02:45"), ROME, "2026-10-24T22:00Z", "2026-10-25T00:15:00"),
        (Between("02:15", "02:45"), ROME, "2026-10-25T00:45Z", "2026-10-25T01:15:00"),
        (Between("02:15", "02:45"), ROME, "2026-10-25T01:45Z", "2026-10-26T01:15:00"),
    ],
)
async def test_a_job_begins_at_the_opening(window: Any, tz: str | None, start: str, begin: str) -> None:
    """Times of day in the window's zone, on common days and on those when its clock is set."""
    assert await begins(TimeWindow(window, tz), start) == begin


async def test_a_fire_time_keeps_it_open_for_a_while() -> None:
    """A maintenance window of two hours from 02:00."""

    async def told(start: str) -> str:
        return await begins(TimeWindow(Cron("0 2 * * *"), ROME, lasts=timedelta(hours=2), margin=600), start)

    assert await told("2026-03-02T00:30:00Z") == "2026-03-02T01:00:00"
    assert await told("2026-03-02T02:50:00Z") == "2026-03-03T01:00:00", "it must be open ten minutes on"
    assert await told("2026-03-02T02:49:59Z") == "2026-03-02T02:49:59"


async def test_a_clock_that_is_set_opens_it_at_once() -> None:
    """Who waits is asked again when the wall clock jumps, and when the machine has slept."""

    async def told(start: str, then: Callable[[VirtualClock], None]) -> str:
        return (await begins(TimeWindow(Between("09:00", "17:00")), start, then=then))[11:]

    assert await told("2026-03-02T05:00Z", lambda clock: clock.step_clock("6h")) == "11:01:00"
    assert await told("2026-03-02T05:00Z", lambda clock: clock.suspend("6h")) == "11:01:00"
    assert await told("2026-03-02T08:58Z", lambda clock: clock.step_clock("-6h")) == "09:00:00"


class FirstHalf(Filter):
    """Open in the first half of each hour, and says nothing of how long."""

    def allows(self, at: datetime) -> bool:
        return at.minute < 30


async def test_a_filter_that_does_not_say_how_long_is_asked_each_minute() -> None:
    """A predicate alone is enough."""
    assert await begins(TimeWindow(FirstHalf()), "2026-03-02T08:40:20Z") == "2026-03-02T09:00:00"
    assert await begins(TimeWindow(FirstHalf()), "2026-03-02T08:20:20Z") == "2026-03-02T08:20:20"
    assert await begins(TimeWindow(FirstHalf(), margin=60), "2026-03-02T08:29:20Z") == "2026-03-02T09:00:00"


async def test_a_window_that_does_not_open_any_more_rejects() -> None:
    """A job that could never start must not wait for ever."""
    gone = TimeWindow(Dates("2020-01-01"))

    async def call() -> None: ...

    with virtual_loop(start="2026-03-02T09:00Z"):
        async with TaskManager(gone) as manager:
            job = manager.submit(call)
            await asyncio.wait([asyncio.ensure_future(job.wait())])
            assert job.state is JobState.FAILED
            assert "does not open any more" in (job.reason or "")
        with pytest.raises(FlowRefused):
            async with gone:
                pass
        assert gone.stats() == {"is_open": False, "opens_in": None}


async def test_it_says_when_it_opens() -> None:
    """For people: `why_waiting`, `stats`, `next_opening`."""
    gate = TimeWindow(Between("09:00", "17:00"), name="office hours")

    async def call() -> None: ...

    with virtual_loop(start="2026-03-02T08:59:20Z"):
        async with TaskManager(gate) as manager:
            job = manager.submit(call)
            await asyncio.sleep(1)
            assert manager.why_waiting(job) == "office hours lets it start in 39 seconds"
            assert gate.stats() == {"is_open": False, "opens_in": pytest.approx(39)}
    with virtual_loop(start="2026-03-02T07:23:59Z"):
        async with TaskManager(TimeWindow(Between("09:00", "17:00"), name="office hours")) as manager:
            job = manager.submit(call)
            await asyncio.sleep(1)
            words = manager.why_waiting(job)
            assert words == "office hours lets it start in 1 hour and 36 minutes"
            await manager.stop(drain=False)
    opening = gate.next_opening(datetime(2026, 3, 2, 18, tzinfo=UTC))
    assert opening == datetime(2026, 3, 3, 9, tzinfo=UTC)


def test_within_one_opening_nothing_is_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The question is asked for every job: it must be cheap."""
    gate, asked = TimeWindow(Between("00:00", "23:59:59")), 0
    look = gate._openings.look

    def counted(at: int) -> Any:
        nonlocal asked
        asked += 1
        return look(at)

    monkeypatch.setattr(gate._openings, "look", counted)
    for _ in range(100):
        gate.eta(Pass(), 0.0)
    assert asked <= 2  # it may be midnight


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: TimeWindow([]), "window must be a filter"),
        (lambda: TimeWindow("09:00"), "window must be a filter"),  # type: ignore[arg-type]  # refused
        (lambda: TimeWindow(["mon"]), "window must be a filter"),  # type: ignore[list-item]  # refused
        (lambda: TimeWindow(Forever()), "has no fire times of its own"),
        (lambda: TimeWindow(Cron("H 2 * * *")), "has no fire times of its own"),
        (lambda: TimeWindow(Cron("0 2 * * *"), lasts=0), "lasts must be more than 0"),
        (lambda: TimeWindow(Between("09:00", "10:00"), margin=-1), "margin must be 0 or more"),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], Any], said: str) -> None:
    """The field, the value and what is allowed, where the mistake is made."""
    with pytest.raises(InvalidOption, match=said):
        build()


def test_a_trigger_of_ones_own_opens_it() -> None:
    """A rule with ``next`` alone is enough."""

    class Hourly(Trigger):
        def next(self, after: datetime) -> datetime | None:
            return after.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)

    gate = TimeWindow(Hourly())
    assert gate.next_opening(datetime(2026, 3, 2, 9, 0, 30, tzinfo=UTC)) == datetime(2026, 3, 2, 9, 0, 30, tzinfo=UTC)
    assert gate.next_opening(datetime(2026, 3, 2, 9, 1, tzinfo=UTC)) == datetime(2026, 3, 2, 10, tzinfo=UTC)
