"""Backfill: which fire times a range holds, and how their jobs are run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import InvalidOption, NotPeriodic
from quarterjack.backfill import MOST, Backfill, backfill_options, backfill_plan
from quarterjack.model import RunOptions, Unique
from quarterjack.triggers import Every, FixedDelay, Forever, Once, Trigger
from tests.unit.rules import DAY, HOUR, NOON, Listed, S, created

HOURLY = Every(hours=1)


def test_range_is_half_open() -> None:
    """Two ranges that meet make each job once, and none is left between them."""
    row = created(HOURLY)
    first = backfill_plan(row, NOON - 2 * HOUR, NOON, limit=10)
    second = backfill_plan(row, NOON, NOON + HOUR, limit=10)
    assert first == Backfill("s", 1, (NOON - 2 * HOUR, NOON - HOUR), "queue_all")
    assert second.nominals == (NOON,)


@given(
    instants=st.sets(st.integers(0, 200)),
    low=st.integers(0, 200),
    length=st.integers(1, 200),
    bounds=st.tuples(st.none() | st.integers(0, 200), st.none() | st.integers(0, 200)),
)
def test_plan_lists_what_the_rule_fires_inside_range_and_bounds(
    instants: set[int], low: int, length: int, bounds: tuple[int | None, int | None]
) -> None:
    """Checked against a list; ``start=`` and ``end=`` of the schedule are inclusive, as ever."""
    start, end = bounds
    row = created(Listed(instants=tuple(sorted(instants))), start_ns=start, end_ns=end)
    expected = [
        at
        for at in sorted(instants)
        if low <= at < low + length and (start is None or at >= start) and (end is None or at <= end)
    ]
    assert list(backfill_plan(row, low, low + length, limit=500).nominals) == expected


def test_limit_is_kept_to_the_last_one_and_the_message_counts() -> None:
    """Nobody wants to learn from a full queue that a period was in seconds."""
    row = created(Every(minutes=1))
    assert len(backfill_plan(row, NOON - HOUR, NOON, limit=60).nominals) == 60
    with pytest.raises(InvalidOption) as raised:
        backfill_plan(row, NOON - HOUR, NOON, limit=59)
    said = str(raised.value)
    assert "backfill of 's' from 2026-02-16T11:00:00+00:00 to 2026-02-16T12:00:00+00:00" in said
    assert said.endswith("would make 60 jobs, and limit is 59; pass limit=60, or a shorter range")


def test_range_that_no_limit_allows_is_to_be_taken_in_parts() -> None:
    """And counting it is bounded."""
    with pytest.raises(InvalidOption, match=f"would make more than {MOST} jobs.*go through the range in parts"):
        backfill_plan(created(Every(seconds=1)), NOON - 365 * DAY, NOON, limit=MOST)


@pytest.mark.parametrize("trigger", [Forever(), FixedDelay(minutes=5)], ids=repr)
def test_rule_that_waits_for_its_runs_has_no_past(trigger: Trigger) -> None:
    """When it would have run nobody knows; the message says what can be done."""
    with pytest.raises(NotPeriodic, match=r"cannot be listed; `await app\.trigger_now"):
        backfill_plan(created(trigger), NOON - HOUR, NOON, limit=10)


def test_run_at_creation_is_no_fire_time_of_the_past() -> None:
    """It belongs to the moment, not to the rule."""
    assert backfill_plan(created(Once()), NOON - DAY, NOON + DAY, limit=10).nominals == ()
    first = created(Every(days=1, first="immediate", phase=S))
    assert NOON not in backfill_plan(first, NOON - HOUR, NOON + HOUR, limit=10).nominals


def test_unique_key_that_lets_one_in_is_told_before_anything_is_made() -> None:
    """All but one would be left out, one by one, as SKIPPED rows."""
    row = created(HOURLY, options=RunOptions(unique=Unique("k")))
    assert len(backfill_plan(row, NOON - HOUR, NOON, limit=10).nominals) == 1
    with pytest.raises(InvalidOption, match=r"unique key 'k'.*all but one of 2.*unique=None"):
        backfill_plan(row, NOON - 2 * HOUR, NOON, limit=10)


@pytest.mark.parametrize(("given_priority", "expected"), [(0, 4), (2, 4), (4, 4), (9, 9)])
def test_jobs_come_last_and_are_never_too_late(given_priority: int, expected: int) -> None:
    """They have waited for days; a deadline of seconds is for the runs of now. A lower rank of their own stays."""
    options: Any = backfill_options(RunOptions(priority=given_priority, start_deadline_s=5, timeout_s=3))
    assert (options.priority, options.start_deadline_s, options.timeout_s) == (expected, None, 3)
