"""`Delay`: what must hold of it, and variants of it for which that does not hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from typing import Any, Final, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import Delay, InvalidOption, TaskManager, Waiting
from quarterjack.flow.outcome import Ended
from quarterjack.testing import virtual_loop
from tests.flow.loads import Load, breaks, is_in_order, loads, played, stall

MORE: Final = settings(max_examples=40)
CRUMB_S: Final = 1e-9


def holds(cls: type[Delay], load: Load, *, after: Literal["finish", "start"], slack: float | None = None) -> bool:
    """Say whether a delay of 0.1 s of this class keeps its promises under *load*."""
    gate = cls(0.1, after, slack=slack)
    came = played([gate], load)
    starts = [one.at for one in came.starts]
    if not (came.is_whole and is_in_order(came.starts)):
        return False
    if after == "finish":
        return all(later.at >= one.ended + 0.1 - CRUMB_S for one, later in pairwise(came.starts))
    return all(
        later - first >= k * 0.1 - gate.slack - CRUMB_S
        for n, first in enumerate(starts)
        for k, later in enumerate(starts[n + 1 :], 1)
    )


@MORE
@given(load=loads())
def test_after_finish_one_runs_at_a_time_and_the_pause_is_whole(load: Load) -> None:
    """Also when a job raised, hung or was cancelled."""
    assert holds(Delay, load, after="finish")


@MORE
@given(load=loads())
def test_after_start_without_slack_no_two_are_closer(load: Load) -> None:
    """The strict form, through stalls."""
    assert holds(Delay, load, after="start", slack=0)


@MORE
@given(load=loads(), slack=st.sampled_from([None, 0.05, 1.0]))
def test_after_start_any_stretch_is_short_by_the_slack_at_most(load: Load, slack: float | None) -> None:
    """What is caught up of a late start is never more than the slack, however many starts."""
    assert holds(Delay, load, after="start", slack=slack)


class IgnoresTheEnd(Delay):
    """Lets the next one in while the last still runs."""

    def take(self, job: Waiting, now: float) -> None: ...


class PausesAfterSuccessOnly(Delay):
    """Takes a job that raised for one that never was."""

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        super().give(job, now, ended)
        if ended.has_failed:
            self._finish_at = 0.0


class StampsAtAdmission(Delay):
    """Counts from the grant, not from the body."""

    def take(self, job: Waiting, now: float) -> None:
        self._pace.begin(job.enqueued_at, now, self.seconds, self.slack)

    def started(self, job: Waiting, now: float) -> None: ...


class CatchesUpEverything(Delay):
    """A grid that was never left: after a pause all that was not used comes at once."""

    def started(self, job: Waiting, now: float) -> None:
        self._is_taken = False
        self._pace.at = max(self._pace.at + self.seconds, 100_000.0)


@pytest.mark.parametrize("broken", [IgnoresTheEnd, PausesAfterSuccessOnly])
def test_broken_pause_is_found(broken: type[Delay]) -> None:
    """A property that no mistake violates says nothing."""
    found = breaks(lambda load: holds(broken, load, after="finish"), loads())
    assert found is not None
    assert holds(Delay, found, after="finish")


@pytest.mark.parametrize("broken", [StampsAtAdmission, CatchesUpEverything])
def test_broken_pace_is_found(broken: type[Delay]) -> None:
    """A property that no mistake violates says nothing."""
    found = breaks(lambda load: holds(broken, load, after="start"), loads())
    assert found is not None
    assert holds(Delay, found, after="start")


# ---------------------------------------------------------------- by example


async def passes(limit: Delay, count: int, *, stalls: dict[float, float] | None = None) -> list[float]:
    """Return when *count* passes, asked for one after the other, get through."""
    told: list[float] = []
    with virtual_loop() as clock:
        began = clock.monotonic()
        for at, seconds in (stalls or {}).items():
            asyncio.get_running_loop().call_at(began + at, stall, clock, seconds)
        for _ in range(count):
            async with limit:
                told.append(round(clock.monotonic() - began, 4))
    return told


async def test_a_start_that_is_a_little_late_moves_no_other() -> None:
    """The rate is kept: the loop is late by 2 ms each time, and the tenth start is where it belongs."""
    late = {n / 10 - 0.001: 0.003 for n in range(1, 9)}
    assert await passes(Delay(0.1, "start"), 11, stalls=late) == [
        0.0,
        *(round(n / 10 + 0.002, 4) for n in range(1, 9)),
        0.9,
        1.0,
    ]


async def test_without_slack_a_late_start_moves_those_after_it() -> None:
    """Strictly no closer is slower."""
    assert await passes(Delay(0.1, "start", slack=0), 4, stalls={0.099: 0.003}) == [0.0, 0.102, 0.202, 0.302]


async def test_more_than_the_slack_is_not_caught_up() -> None:
    """A loop that stood still for seconds is no reason for a burst."""
    assert await passes(Delay(0.1, "start"), 4, stalls={0.05: 3.0}) == [0.0, 3.05, 3.145, 3.245]


async def test_who_comes_after_a_pause_begins_a_grid_of_its_own() -> None:
    """Time that nobody waited through is not made up for."""
    limit = Delay(0.1, "start")
    told: list[float] = []
    with virtual_loop() as clock:
        for pause in (0, 5.0):
            await asyncio.sleep(pause)
            began = clock.monotonic()
            for _ in range(2):
                async with limit:
                    told.append(round(clock.monotonic() - began, 4))
    assert told == [0.0, 0.1, 0.0, 0.1]


async def test_the_pause_begins_when_the_job_is_over() -> None:
    """One at a time, however long each takes, and keys for themselves."""
    limit = Delay(30, by="table")
    told: list[tuple[str, float]] = []

    async def backup(table: str) -> None:
        told.append((table, round(clock.monotonic() - began, 4)))
        await asyncio.sleep(10)

    with virtual_loop() as clock:
        began = clock.monotonic()
        async with TaskManager(limit) as manager:
            for table in ("a", "a", "b", "a"):
                manager.submit(backup, table)
    assert told == [("a", 0), ("b", 0), ("a", 40), ("a", 80)]


async def test_update_counts_for_those_who_wait() -> None:
    """A shorter delay lets them go earlier."""
    limit = Delay(60, "start")
    with virtual_loop() as clock:
        began = clock.monotonic()
        async with limit:
            pass
        waiting = asyncio.create_task(limit.__aenter__())
        await asyncio.sleep(5)
        limit.update(seconds=10)
        await waiting
        assert clock.monotonic() - began == pytest.approx(10)
        assert limit.stats() == {"seconds": 10.0, "after": "start", "is_closed": False}
        limit.update(slack=1)
        assert limit.slack == 1.0


def test_a_delay_goes_on_in_the_next_loop_and_who_was_cut_off_holds_nobody_up() -> None:
    """Two asyncio.run in a row are one program to the other side."""

    async def cut_off(gate: Delay) -> None:
        await gate.__aenter__()

    async def enters(gate: Delay) -> bool:
        try:
            async with asyncio.timeout(0.01), gate:
                return True
        except TimeoutError:
            return False

    paused, held = Delay(60, "start"), Delay(60)
    assert [asyncio.run(enters(paused)) for _ in range(2)] == [True, False]
    asyncio.run(cut_off(held))
    assert asyncio.run(enters(held))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: Delay(0), "seconds must be more than 0"),
        (lambda: Delay(-1), "seconds must be more than 0"),
        (lambda: Delay(1, "begin"), "after must be 'finish' or 'start', got 'begin'"),  # type: ignore[arg-type]  # refused
        (lambda: Delay(1, slack=0.1), 'slack goes with after="start"'),
        (lambda: Delay(1, "start", slack=-1), "slack must be 0 or more"),
        (lambda: Delay(1).update(slack=1), 'slack goes with after="start"'),
        (lambda: Delay(1).update(after="start"), "Delay.update takes seconds, slack, got 'after'"),
        (lambda: Delay(1).update(seconds=0), "seconds must be more than 0"),
    ],
)
def test_bad_settings_are_refused(build: Callable[[], Any], said: str) -> None:
    """The field, the value and the range, where the mistake is made."""
    with pytest.raises(InvalidOption, match=said):
        build()
