"""`FixedWindow`: what must hold of it, and variants of it for which that does not hold."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import FixedWindow, InvalidOption, InvalidTrigger, TaskManager, Waiting
from quarterjack.flow.outcome import Ended
from quarterjack.testing import VirtualClock, virtual_loop
from tests.flow.loads import Load, Played, Start, breaks, is_in_order, loads, played

MORE: Final = settings(max_examples=40)
TIMER_S: Final = 1e-5
"""The least that the dispatcher waits, and a little more."""
SECOND_NS: Final = 10**9


# ---------------------------------------------------------------- what must hold


def windows_of(starts: list[Start], anchor: str) -> list[int]:
    """Return the number of the one-second window each start lies in."""
    if anchor == "epoch":
        return [one.wall_ns // SECOND_NS for one in starts]
    numbers: list[int] = []
    began = float("-inf")
    for one in starts:
        if one.at >= began + 1.0:
            began = one.at
            numbers.append(len(numbers))
        else:
            numbers.append(numbers[-1])
    return numbers


def sleeps_past_no_boundary(came: Played, anchor: str, most: int) -> bool:
    """Say whether each start was as soon as its window had room, its own coming and those before it allowing."""
    ahead = {"epoch": 0.0, "first": None}[anchor]
    last, began, used = 0.0, float("-inf"), 0
    for one in came.starts:
        at = max(one.came, last)
        while True:
            start = began if ahead is None and at < began + 1.0 else at if ahead is None else float(int(at))
            taken = used if start == began else 0
            if taken + one.cost <= most:
                break
            at = start + 1.0
        if one.at > at + TIMER_S:
            return False
        # What has begun decides from here on: where the window lies for the next one.
        start = start if ahead is not None or start == began else one.at
        used = one.cost + (used if start == began else 0)
        began, last = start, one.at
    return True


def holds(cls: type[FixedWindow], load: Load, most: int, anchor: str) -> bool:
    """Say whether windows of a second of this class keep their promises under *load*."""
    gate = cls(most, per=1.0, anchor=anchor)
    came = played([gate], load)
    used: Counter[int] = Counter()
    for one, number in zip(came.starts, windows_of(came.starts, anchor), strict=True):
        used[number] += one.cost
    kept = max(used.values(), default=0) <= most and is_in_order(came.starts) and came.is_whole and not gate._reserved
    return kept and (not load.is_undisturbed or sleeps_past_no_boundary(came, anchor, most))


@MORE
@given(load=loads(max_cost=3), most=st.integers(3, 4), anchor=st.sampled_from(["epoch", "first"]))
def test_no_window_holds_more(load: Load, most: int, anchor: str) -> None:
    """The limit of each window, first come first served, through cancels, failures, timeouts and stalls."""
    assert holds(FixedWindow, load, most, anchor)


@MORE
@given(load=loads(max_cost=3, with_stalls=False), anchor=st.sampled_from(["epoch", "first"]))
def test_nobody_waits_past_the_boundary(load: Load, anchor: str) -> None:
    """The next window's first starts come at its first moment."""
    assert holds(FixedWindow, load, 3, anchor)


class StampsAtAdmission(FixedWindow):
    """Counts a start in the window of its grant."""

    def take(self, job: Waiting, now: float) -> None:
        self._count(job, now)

    def started(self, job: Waiting, now: float) -> None: ...

    def give(self, job: Waiting, now: float, ended: Ended) -> None: ...


class KeepsWhatNeverBegan(FixedWindow):
    """Forgets to take back the entry of a job that was cancelled before its body."""

    def give(self, job: Waiting, now: float, ended: Ended) -> None: ...


class SleepsTooLong(FixedWindow):
    """Waits a whole window from now, not to the boundary."""

    def eta(self, job: Waiting, now: float) -> float:
        eta = super().eta(job, now)
        return eta if eta <= now else now + 1.0


@pytest.mark.parametrize("anchor", ["epoch", "first"])
@pytest.mark.parametrize("broken", [StampsAtAdmission, KeepsWhatNeverBegan, SleepsTooLong])
def test_broken_windows_are_found(broken: type[FixedWindow], anchor: str) -> None:
    """A property that no mistake violates says nothing."""
    found = breaks(lambda load: holds(broken, load, 3, anchor), loads(max_cost=3))
    assert found is not None
    assert holds(FixedWindow, found, 3, anchor)


# ---------------------------------------------------------------- by example


async def entries(limit: FixedWindow, clock: VirtualClock, count: int, zone: str = "UTC") -> list[str]:
    """Return the wall-clock times at which *count* passes get through."""
    told: list[str] = []
    for _ in range(count):
        async with limit:
            at = clock.now().astimezone(ZoneInfo(zone)) + timedelta(microseconds=500)
            told.append(at.isoformat(timespec="milliseconds"))
    return told


async def test_windows_stand_on_the_clock() -> None:
    """300 in a quarter of an hour are 300 from :15 to :30; twice as many may start around a boundary."""
    limit = FixedWindow(2, per=900)
    with virtual_loop(start="2026-03-02T09:14:59Z") as clock:
        told = await entries(limit, clock, 5)
    assert [at[11:19] for at in told] == ["09:14:59", "09:14:59", "09:15:00", "09:15:00", "09:30:00"]


async def test_first_windows_begin_with_a_start() -> None:
    """As upstreams do that open a window with the first call."""
    limit = FixedWindow(2, per=10, anchor="first")
    told: list[float] = []
    with virtual_loop() as clock:
        await asyncio.sleep(3.3)
        began = clock.monotonic()
        for pause in (0, 4, 0, 25, 0, 0):
            await asyncio.sleep(pause)
            async with limit:
                told.append(round(clock.monotonic() - began, 4))
        assert limit.stats() == {"max_requests": 2, "used": 1.0, "ends_in": pytest.approx(10)}
    assert told == [0, 4, 10, 35, 35, 45]


async def test_a_zone_s_day_begins_at_its_midnight_on_every_night() -> None:
    """A quota of a day in Los Angeles, over the night of 23 hours and that of 25."""
    for start, told in (
        (
            "2026-03-07T12:00",
            ["2026-03-07T12:00:00.000-08:00", "2026-03-08T00:00:00.000-08:00", "2026-03-09T00:00:00.000-07:00"],
        ),
        (
            "2026-10-31T12:00",
            ["2026-10-31T12:00:00.000-07:00", "2026-11-01T00:00:00.000-07:00", "2026-11-02T00:00:00.000-08:00"],
        ),
    ):
        pers: tuple[Literal["day"], int] = ("day", 86_400)
        for per in pers:
            limit = FixedWindow(1, per=per, anchor="America/Los_Angeles")
            with virtual_loop(start=start, tz="America/Los_Angeles") as clock:
                assert await entries(limit, clock, 3, "America/Los_Angeles") == told


async def test_weeks_and_months_of_the_calendar() -> None:
    """From Monday, and from the first of the month."""
    words: list[Literal["week", "month"]] = ["week", "month"]
    for word, begins in zip(words, (["2026-02-02", "2026-02-09"], ["2026-02-01", "2026-03-01"]), strict=True):
        limit = FixedWindow(1, per=word)
        with virtual_loop(start="2026-01-31T10:00Z") as clock:
            assert [at[:10] for at in await entries(limit, clock, 3)] == ["2026-01-31", *begins]


async def test_a_clock_that_is_set_forward_opens_the_next_window_at_once() -> None:
    """The boundary is the wall clock's; who waits is asked again when that jumps."""
    limit = FixedWindow(1, per=3600)
    with virtual_loop(start="2026-03-02T09:10Z") as clock:
        began = clock.monotonic()
        await entries(limit, clock, 1)
        waiting = asyncio.create_task(limit.__aenter__())
        await asyncio.sleep(60)
        clock.step_clock("1h")
        await waiting
        assert clock.monotonic() - began == pytest.approx(60)


async def test_a_clock_that_is_set_back_gives_nothing_twice() -> None:
    """What has started in a window is remembered for when it comes again."""
    limit = FixedWindow(2, per=60)
    with virtual_loop(start="2026-03-02T09:10:30Z") as clock:
        began = clock.monotonic()
        await entries(limit, clock, 2)
        await asyncio.sleep(60)
        await entries(limit, clock, 1)
        clock.step_clock("-1m")
        told = await entries(limit, clock, 2)
        assert [at[11:19] for at in told] == ["09:11:00", "09:12:00"]
        assert clock.monotonic() - began == pytest.approx(150)


async def test_who_waits_for_a_body_to_begin_is_asked_when_it_has() -> None:
    """Not half a minute later, when wall-clock gates are asked anyway."""
    limit = FixedWindow(1, per=1.0)
    loop = asyncio.get_running_loop()
    loop.set_task_factory(lambda loop, coro, **options: asyncio.Task(coro, loop=loop, **options))

    async def call() -> float:
        return round(clock.monotonic() - began, 4)

    with virtual_loop(start="2026-03-02T09:10:30Z") as clock:
        began = clock.monotonic()
        async with TaskManager(limit) as manager:
            jobs = [manager.submit(call) for _ in range(4)]
        assert [job.result() for job in jobs] == [0, 1, 2, 3]


async def test_update_and_penalty_count_for_those_who_wait() -> None:
    """More requests let them go at once, a penalty holds them beyond the boundary."""
    limit = FixedWindow(1, per=60)
    with virtual_loop(start="2026-03-02T09:10:00Z") as clock:
        await entries(limit, clock, 1)
        limit.update(max_requests=2)
        assert [at[11:19] for at in await entries(limit, clock, 1)] == ["09:10:00"]
        limit.penalise(for_=90)
        assert [at[11:19] for at in await entries(limit, clock, 1)] == ["09:11:30"]
        assert limit.stats() == {"max_requests": 2, "used": 1.0, "ends_in": pytest.approx(30)}


async def test_keys_have_counts_of_their_own() -> None:
    """And an empty window is forgotten."""
    limit = FixedWindow(1, per=1, by="tenant")
    with virtual_loop() as clock:
        began = clock.monotonic()
        async with limit.permit(tenant="a"), limit.permit(tenant="b"):
            assert clock.monotonic() == began
        for n in range(50):
            await asyncio.sleep(2)
            async with limit.permit(tenant=n):
                pass
        assert len(limit.keys()) < 5


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: FixedWindow(0, per=1), "max_requests must be a whole number from 1, got 0"),
        (lambda: FixedWindow(1), "one of per= and window_seconds="),
        (lambda: FixedWindow(1, per=1, window_seconds=1), "one of per= and window_seconds="),
        (lambda: FixedWindow(1, per=0), "per must be more than 0"),
        (lambda: FixedWindow(1, window_seconds=-1), "window_seconds must be more than 0"),
        (
            lambda: FixedWindow(1, per="hour"),  # type: ignore[arg-type]  # refused
            "per must be seconds, a timedelta, or one of 'day', 'week', 'month'",
        ),
        (lambda: FixedWindow(1, per="day", anchor="first"), 'anchor="first" takes seconds'),
        (lambda: FixedWindow(1, per=7 * 3600, anchor="Europe/Rome"), "does not divide a day"),
        (lambda: FixedWindow(1, per=7 * 86400, anchor="Europe/Rome"), "does not divide a day"),
        (
            lambda: FixedWindow(1, per=60, anchor=datetime(2026, 1, 1)),  # type: ignore[arg-type]  # refused
            "anchor must be",
        ),
        (lambda: FixedWindow(1, per=60).update(per=1), "FixedWindow.update takes max_requests, got 'per'"),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], Any], said: str) -> None:
    """The field, the value and the range, where the mistake is made."""
    with pytest.raises(InvalidOption, match=said):
        build()


def test_an_unknown_zone_is_refused() -> None:
    """With the nearest names, as everywhere."""
    with pytest.raises(InvalidTrigger, match="Europe/Rome"):
        FixedWindow(1, per=60, anchor="Europe/Rom")
