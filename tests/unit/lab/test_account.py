"""The account: starts against what was promised, by hand and on random runs."""

from __future__ import annotations

from itertools import accumulate
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack.lab.account import Account, count

MS = 1_000_000
S = 1_000 * MS
ORIGIN = 1_800_000_000 * S
Promise = Literal["grid", "interval"]

lags_ms = st.lists(st.integers(0, 400), min_size=12, max_size=80)


def counted(offsets_ms: list[float], promise: Promise = "grid", period_ms: int = 1_000, ticks: int = 0) -> Account:
    """Count starts that are told in milliseconds after the first tick."""
    starts = [ORIGIN + round(at * MS) for at in offsets_ms]
    length = (ticks or len(offsets_ms)) * period_ms * MS
    found = count(starts, origin_ns=ORIGIN, period_ns=period_ms * MS, length_ns=length, promise=promise)
    assert found is not None
    return found


@given(lags_ms)
def test_a_grid_that_is_kept_has_nothing_wrong_however_late_its_starts_are(lags: list[int]) -> None:
    """Late is late, and not missed, doubled or early: the counts must not blame a busy machine's way."""
    found = counted([1_000 * tick + lag for tick, lag in enumerate(lags)])
    assert (found.starts, found.missed, found.doubled, found.early) == (len(lags), 0, 0, 0)
    assert [lag // MS for _, lag in found.points] == lags
    assert found.max_ns == max(lags) * MS
    assert found.p50_ns == sorted(lags)[max(0, round(len(lags) / 2) - 1)] * MS


@given(st.sets(st.integers(1, 58), max_size=20))
def test_ticks_without_a_start_are_missed_and_no_drift(left_out: set[int]) -> None:
    """A grid that leaves ticks out is not late for it: the two faults have different cures."""
    found = counted([1_000 * tick + 1 for tick in range(60) if tick not in left_out], ticks=60)
    assert (found.ticks, found.missed, found.doubled) == (60, len(left_out), 0)
    assert found.drift_ns == 0
    assert found.max_ns == MS


@given(st.sets(st.integers(0, 59), max_size=20))
def test_a_second_start_of_a_tick_is_doubled(twice: set[int]) -> None:
    """Who runs a job twice for one tick is told so, even if all else is in order."""
    found = counted(sorted([1_000 * tick + 1 for tick in range(60)] + [1_000 * tick + 300 for tick in twice]), ticks=60)
    assert (found.starts, found.missed, found.doubled) == (60 + len(twice), 0, len(twice))


def test_a_tick_with_two_starts_makes_up_for_none_without() -> None:
    """Thirty starts for thirty ticks, and yet two faults."""
    found = counted(sorted([1_000.0 * tick + 1 for tick in range(30) if tick != 20] + [5_300.0]), ticks=30)
    assert (found.starts, found.missed, found.doubled) == (30, 1, 1)


def test_a_start_just_before_a_tick_is_late_where_the_tick_before_has_none() -> None:
    """After a stall of most of a period nobody was early."""
    found = counted([0, 1_998, 2_001, 3_000])
    assert (found.early, found.missed, found.max_ns) == (0, 0, 998 * MS)
    alone = counted([0, 1_998, 3_000, 4_000])
    assert (alone.early, alone.missed, alone.max_ns) == (0, 1, 998 * MS)


def test_starts_before_their_tick_are_early_and_belong_to_it() -> None:
    """A loop whose timers round down fires before the time; that must not look like a start of the tick before."""
    found = counted([1_000 * tick + (-2 if tick % 3 == 1 else 1) for tick in range(30)])
    assert (found.early, found.missed, found.doubled) == (10, 0, 0)
    assert min(lag for _, lag in found.points) == -2 * MS


def test_two_starts_in_one_period_after_a_stall_serve_two_ticks() -> None:
    """After a stall the late start comes beside the next one: late by more than a period, not missed and doubled."""
    found = counted([0, 1_000, 3_050, 3_100, 4_000])
    assert (found.missed, found.doubled) == (0, 0)
    assert found.max_ns == 1_050 * MS


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(60, 940)), min_size=3, max_size=40))
def test_ticks_that_wait_for_a_processor_are_late_and_neither_missed_nor_doubled(late: list[tuple[int, int]]) -> None:
    """The bug: of a queue that was behind by more than a period, ticks were told as missed and others as doubled."""
    ticks = len(late)
    late += [(0, 940)] * 6  # it catches up after the end
    offsets: list[float] = sorted(1_000 * (tick + periods) + ms for tick, (periods, ms) in enumerate(late))
    found = counted(offsets, ticks=ticks)
    assert (found.starts, found.missed, found.doubled, found.early) == (ticks, 0, 0, 0)
    assert [lag // MS for _, lag in found.points] == [at - 1_000 * tick for tick, at in enumerate(offsets[:ticks])]


def test_a_punctual_start_ends_the_wait_of_those_before() -> None:
    """Else one tick that is lost and one that is doubled much later would look like minutes of late starts."""
    found = counted([0, 1_000, 3_001, 4_001, 5_001, 5_300, 6_100], ticks=7)
    assert (found.missed, found.doubled, found.max_ns) == (1, 1, 300 * MS)


def test_the_last_tick_may_be_as_late_as_any_other() -> None:
    """Its start comes when the time is over; it is no more missed than one in the middle."""
    found = counted([0, 1_000, 2_000, 4_060, 4_070], ticks=4)
    assert (found.starts, found.missed, found.max_ns) == (4, 0, 1_060 * MS)


@pytest.mark.parametrize("loss_ms", [0.2, 3, 450])
def test_what_each_turn_loses_adds_up_for_who_promises_an_interval(loss_ms: float) -> None:
    """The answer of the laboratory: what a loop loses each second is what it loses an hour."""
    offsets = list(accumulate([1_000 + loss_ms] * 119, initial=5.0))
    found = counted(offsets, "interval", ticks=120)
    kept = sum(at < 120_000 for at in offsets)
    assert (found.starts, found.missed, found.doubled, found.early) == (kept, 120 - kept, 0, 0)
    per_hour_ms = loss_ms / (1_000 + loss_ms) * 3_600_000
    assert found.drift_per_hour_ns == pytest.approx(per_hour_ms * MS, rel=0.01)
    assert found.drift_ns == pytest.approx(per_hour_ms / 30 * MS, rel=0.02)
    assert found.points[0][1] == 0  # its own first start is where its grid begins


def test_doubled_starts_shift_no_interval() -> None:
    """A message that is sent twice is one fault, and must not look like a clock that drifts, either way."""
    twice = [1_000.0 * n + 20 for n in range(15, 30)]
    found = counted(sorted([*(1_000.0 * n for n in range(30)), *twice]), "interval", ticks=30)
    assert (found.starts, found.doubled, found.missed) == (45, 15, 0)
    assert found.drift_ns == 0


@pytest.mark.parametrize("promise", ["grid", "interval"])
@pytest.mark.parametrize("loss_us", [300, -300])
def test_a_steady_loss_is_a_drift_whatever_was_promised(promise: Promise, loss_us: int) -> None:
    """A grid that secretly slides, either way, is found out."""
    found = counted([60 + 1_000 * n + n * loss_us / 1_000 for n in range(100)], promise)
    assert found.drift_per_hour_ns == pytest.approx(loss_us * 1_000 * 3_600, rel=0.01)


@settings(max_examples=200)
@given(st.permutations([1, 2, 3, 4, 5, 6] * 10), st.sampled_from(["grid", "interval"]))
def test_lags_that_differ_are_no_drift(lags: list[int], promise: Promise) -> None:
    """No machine is even, and a page of zeros is worth nothing if chance can spoil it."""
    offsets: list[float] = [1_000 * tick + lag for tick, lag in enumerate(lags)]
    assert counted(offsets, promise).drift_ns == 0


def test_a_machine_that_is_busy_for_a_while_is_no_drift() -> None:
    """Somebody's compiler runs for the last quarter of a minute: every start is late then, and none drifts."""
    lags = [0.2] * 45 + [9.0, 7.0, 12.0] * 5
    assert counted([1_000 * tick + lag for tick, lag in enumerate(lags)]).drift_ns == 0


def test_only_what_was_measured_counts() -> None:
    """Starts before the first tick and after the last are the set-up's and the end's."""
    found = counted([-700, 0.5, 1_000.5, 2_000.5], ticks=2)
    assert (found.ticks, found.starts) == (2, 2)
    assert count([], origin_ns=ORIGIN, period_ns=S, length_ns=S, promise="grid") is None
    assert count([ORIGIN - 1], origin_ns=ORIGIN, period_ns=S, length_ns=S, promise="interval") is None
