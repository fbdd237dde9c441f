"""`SlidingWindow`: what must hold of it, and variants of it for which that does not hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import InvalidOption, NaiveDatetime, SlidingWindow, TaskManager, Waiting
from quarterjack.flow.permit import Pass
from quarterjack.testing import virtual_loop
from tests.flow.loads import Load, Played, Start, Work, breaks, is_in_order, loads, played, stall

MORE: Final = settings(max_examples=40)
TIMER_S: Final = 1e-5
"""The least that the dispatcher waits, and a little more."""


# ---------------------------------------------------------------- what must hold


def is_exact(starts: list[Start], most: int, per: float) -> bool:
    """Say whether no stretch of *per* seconds holds starts of more than *most*, wherever it begins."""
    instants = [one.at for one in starts]
    for n, first in enumerate(starts):
        total = sum(one.cost for one, at in zip(starts[n:], instants[n:], strict=True) if at < first.at + per)
        if total > most:
            return False
    return True


def loses_nothing(came: Played, most: int, per: float) -> bool:
    """Say whether each start is as early as the window, those before it and its own coming allow."""
    earliest: list[Start] = []
    for one in came.starts:
        at = max([one.came, *(other.at for other in earliest[-1:])])
        while sum(other.cost for other in earliest if other.at + per > at) + one.cost > most:
            at = min(other.at + per for other in earliest if other.at + per > at)
        if one.at > at + TIMER_S:
            return False
        earliest.append(one)
    return True


def holds(cls: type[SlidingWindow], load: Load, most: int, *, smooth: bool = False) -> bool:
    """Say whether a window of this class keeps its promises under *load*."""
    gate = cls(most, per=1.0, smooth=smooth)
    came = played([gate], load)
    kept = is_exact(came.starts, most, 1.0) and is_in_order(came.starts) and came.is_whole and not gate._reserved
    return kept and (not load.is_undisturbed or smooth or loses_nothing(came, most, 1.0))


@MORE
@given(load=loads(max_cost=3), most=st.integers(3, 5), smooth=st.booleans())
def test_no_stretch_of_the_window_ever_holds_more(load: Load, most: int, smooth: bool) -> None:
    """The exact limit, first come first served, through cancels, failures, timeouts and stalls; all jobs end."""
    assert holds(SlidingWindow, load, most, smooth=smooth)


@MORE
@given(load=loads(max_cost=3, with_stalls=False), most=st.integers(3, 5))
def test_no_capacity_is_lost(load: Load, most: int) -> None:
    """Each job starts at the first instant that the window allows."""
    assert holds(SlidingWindow, load, most)


class StampsAtAdmission(SlidingWindow):
    """Counts a start when it is granted, as most limiters do."""

    def take(self, job: Waiting, now: float) -> None:
        self._count(job, now)

    def started(self, job: Waiting, now: float) -> None: ...

    def give(self, job: Waiting, now: float, ended: Any) -> None: ...


class KeepsWhatNeverBegan(SlidingWindow):
    """Forgets to take back the entry of a job that was cancelled before its body."""

    def give(self, job: Waiting, now: float, ended: Any) -> None: ...


class CountsJobsNotCost(SlidingWindow):
    """Takes a job of cost 3 for one start."""

    def _count(self, job: Waiting, now: float) -> None:
        super()._count(Pass(), now)


class ForgetsEarly(SlidingWindow):
    """Lets entries leave a little before their time."""

    def _free_at(self, job: Waiting, room: float) -> float:
        return super()._free_at(job, room) - 0.02


class WaitsForTheLast(SlidingWindow):
    """Opens when all have left, not when enough have."""

    def _free_at(self, job: Waiting, room: float) -> float:
        return max(super()._free_at(job, room), self._starts[-1][0] + self.per) if self._starts else 0.0


@pytest.mark.parametrize(
    "broken", [StampsAtAdmission, KeepsWhatNeverBegan, CountsJobsNotCost, ForgetsEarly, WaitsForTheLast]
)
def test_broken_window_is_found(broken: type[SlidingWindow]) -> None:
    """A property that no mistake violates says nothing."""
    found = breaks(lambda load: holds(broken, load, 3), loads(max_cost=3))
    assert found is not None
    assert holds(SlidingWindow, found, 3)


# ---------------------------------------------------------------- the measured case


def a_hundred_a_second(cls: type[SlidingWindow], *, stall_ms: int) -> tuple[Played, float]:
    """Run 1,000 jobs at 100/s on a loop that stands still every 97 ms; return what came of it and how long it took."""
    stalls = tuple((at, stall_ms, 1 + n % 2) for n, at in enumerate(range(0, 9_500, 97)))
    came = played([cls(100, per=1.0)], Load(tuple(Work(comes=0) for _ in range(1000)), stalls, is_eager=False))
    return came, came.starts[-1].at - came.starts[0].at


def test_a_thousand_jobs_at_a_hundred_a_second_through_stalls() -> None:
    """At most 100 in any true second, in the time it must take, without an inversion."""
    came, took = a_hundred_a_second(SlidingWindow, stall_ms=30)
    assert len(came.starts) == 1000
    assert is_exact(came.starts, 100, 1.0)
    assert is_in_order(came.starts)
    assert took == pytest.approx(9.0, abs=0.1)
    assert took >= 9.0


def test_a_thousand_jobs_stamped_at_their_grant_break_the_limit() -> None:
    """What the stamp at the start of the body is for."""
    came, _ = a_hundred_a_second(StampsAtAdmission, stall_ms=30)
    assert not is_exact(came.starts, 100, 1.0)


# ---------------------------------------------------------------- by example


async def test_the_window_slides() -> None:
    """Who started at 0.0 and 0.6 makes room at 1.0 and 1.6, not at the next full second."""
    limit = SlidingWindow(2, per=1.0)
    told: list[float] = []
    with virtual_loop() as clock:
        began = clock.monotonic()
        for pause in (0.0, 0.6, 0.0, 0.0):
            await asyncio.sleep(pause)
            async with limit:
                told.append(round(clock.monotonic() - began, 4))
    assert told == [0.0, 0.6, 1.0, 1.6]


async def test_smooth_spaces_starts_evenly_and_catches_up_a_little() -> None:
    """Four a second are one each quarter; a stall of 30 ms moves no later start."""
    told: list[float] = []
    limit = SlidingWindow(4, per=1.0, smooth=True)
    with virtual_loop() as clock:
        began = clock.monotonic()
        asyncio.get_running_loop().call_at(began + 0.24, stall, clock, 0.04)
        for _ in range(5):
            async with limit:
                told.append(round(clock.monotonic() - began, 4))
        await asyncio.sleep(10)
        for _ in range(2):  # after a pause the even spacing begins anew
            async with limit:
                told.append(round(clock.monotonic() - began - 11.0, 4))
    assert told == [0.0, 0.28, 0.5, 0.75, 1.0, 0.0, 0.25]


async def test_keys_have_windows_of_their_own_and_are_forgotten() -> None:
    """One tenant's crowd is not another's, and ten thousand that have gone cost nothing."""
    limit = SlidingWindow(1, per=1.0, by="tenant")

    async def call(tenant: str) -> float:
        return clock.monotonic()

    with virtual_loop() as clock:
        async with TaskManager(limit) as manager:
            began = clock.monotonic()
            jobs = [manager.submit(call, tenant) for tenant in ("acme", "blue", "acme")]
            assert [await job - began for job in jobs] == pytest.approx([0, 0, 1])
            for n in range(100):
                await asyncio.sleep(2)
                await manager.submit(call, f"tenant {n}")
        assert len(limit.keys()) < 5


async def test_penalty_holds_everybody_up_until_it_is_over() -> None:
    """HTTP 429 says when to come again; the later of two penalties counts."""
    limit = SlidingWindow(100, per=1.0)
    with virtual_loop() as clock:
        began = clock.monotonic()
        async with limit:
            limit.penalise(for_=30)
            limit.penalise(for_=5)
        async with limit:
            assert clock.monotonic() - began == pytest.approx(30)
        limit.penalise(until=clock.now() + timedelta(seconds=7))
        async with limit:
            assert clock.monotonic() - began == pytest.approx(37)
        limit.penalise(until=datetime(2020, 1, 1, tzinfo=UTC))
        async with limit:
            assert clock.monotonic() - began == pytest.approx(37)


async def test_penalty_of_one_key_or_of_all() -> None:
    """One tenant's 429 is its own, unless the gate is told that it is everybody's; also those to come."""
    limit = SlidingWindow(100, per=1.0, by="tenant")

    async def waited(tenant: str) -> float:
        began = clock.monotonic()
        async with limit.permit(tenant=tenant):
            return round(clock.monotonic() - began, 4)

    with virtual_loop() as clock:
        limit.penalise(for_=10, tenant="acme")
        assert [await waited("blue"), await waited("acme")] == [0, 10]
        limit.penalise(for_=10)
        assert [*await asyncio.gather(waited("blue"), waited("new"))] == [10, 10]


async def test_update_counts_at_once_for_those_who_wait() -> None:
    """A limit that is raised lets them go; nothing is forgotten that has started."""
    limit = SlidingWindow(1, per=10.0)

    async def call() -> float:
        return clock.monotonic() - began

    with virtual_loop() as clock:
        async with TaskManager(limit) as manager:
            began = clock.monotonic()
            jobs = [manager.submit(call) for _ in range(5)]
            await asyncio.sleep(3)
            assert manager.why_waiting(jobs[1]) == "SlidingWindow lets it start in 7 seconds"
            limit.update(max_requests=3)
            await asyncio.sleep(1)
            limit.update(per=5)
            assert [round(await job, 4) for job in jobs] == [0, 3, 3, 5, 8]
            assert limit.stats() == {"max_requests": 3, "per": 5.0, "used": 2.0}


async def test_a_limit_that_shrinks_below_a_waiting_job_rejects_it() -> None:
    """It could never start, and must not wait for ever."""
    limit = SlidingWindow(5, per=1.0)

    async def call() -> None: ...

    with virtual_loop():
        async with TaskManager(limit) as manager:
            heavy = manager.options(cost=5)
            first, second = heavy.submit(call), heavy.submit(call)
            await first
            limit.update(max_requests=2)
            await asyncio.wait([asyncio.ensure_future(second.wait())])
            assert "cost=5 is above max_requests=2" in (second.reason or "")


def test_what_started_counts_in_the_next_loop() -> None:
    """Two asyncio.run in a row are one program to the other side; another clock's instants are not."""
    limit = SlidingWindow(1, per=3600)

    async def enter() -> bool:
        try:
            async with asyncio.timeout(0.01), limit:
                return True
        except TimeoutError:
            return False

    async def enter_virtually() -> bool:
        with virtual_loop():
            return await enter()

    assert [asyncio.run(one()) for one in (enter, enter, enter_virtually, enter)] == [True, False, True, True]


async def test_cost_above_the_limit_raises_at_submit() -> None:
    """A job that can never start is an error of whoever submits it."""

    async def call() -> None: ...

    async with TaskManager(SlidingWindow(3, per=1.0)) as manager:
        with pytest.raises(InvalidOption, match="cost=4 is above max_requests=3"):
            manager.options(cost=4).submit(call)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: SlidingWindow(0, per=1), "max_requests must be a whole number from 1, got 0"),
        (lambda: SlidingWindow(1.5, per=1), "max_requests must be a whole number"),  # type: ignore[arg-type]  # it is refused
        (lambda: SlidingWindow(1, per=0), "per must be more than 0"),
        (lambda: SlidingWindow(1, per=-1), "per must be more than 0"),
        (lambda: SlidingWindow(1, per=float("nan")), "per must be more than 0"),
        (lambda: SlidingWindow(1, per=1).update(burst=2), "SlidingWindow.update takes max_requests, per, got 'burst'"),
        (lambda: SlidingWindow(1, per=1).update(per=0), "per must be more than 0"),
        (lambda: SlidingWindow(1, per=1).penalise(), "one of for_=seconds and until=datetime"),
        (lambda: SlidingWindow(1, per=1).penalise(for_=-1), "for_ must be 0 or more"),
        (lambda: SlidingWindow(1, per=1).penalise(for_=1, tenant="x"), "has no by="),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], object], said: str) -> None:
    """The field, the value and the range, where the mistake is made."""
    with pytest.raises(InvalidOption, match=said):
        build()


def test_penalty_until_a_naive_datetime_is_refused() -> None:
    """It names no instant."""
    with pytest.raises(NaiveDatetime):
        SlidingWindow(1, per=1).penalise(until=datetime(2026, 1, 1))
