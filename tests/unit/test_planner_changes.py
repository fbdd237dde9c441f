"""A schedule that is changed: what was accounted for stays so, whatever is changed when."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import planner
from quarterjack.model import Schedule
from quarterjack.triggers import Every, Once, Trigger
from quarterjack.triggers.base import from_ns
from tests.unit.rules import DAY, HOUR, NOON, Listed, S, created, declared, fired, planned

TEN: Every = Every(minutes=10)
MINUTE = 60 * S


def ran_at(row: Schedule, now_ns: int) -> Schedule:
    """Return the row after what is due at *now_ns* ran, as a store keeps it."""
    plan = planned(row, now_ns)
    row = fired(row, plan)
    if plan.nominals:
        row.last_nominal_ns = plan.nominals[-1]
    return row


def ran_until(row: Schedule, now_ns: int) -> Schedule:
    while planner.plan(row, now_ns) is not None:
        row = ran_at(row, now_ns)
    return row


def of(ns: int) -> Once:
    return Once(from_ns(ns))


# -- ends in the past --------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0, S, 2 * S, HOUR])
@pytest.mark.parametrize("rule", [TEN, Every(minutes=20), Every(minutes=7)], ids=repr)
def test_change_that_ends_a_schedule_in_the_past_brings_nothing(rule: Trigger, late: int) -> None:
    """The bug: the run of a second ago came again, and one of an hour ago that was done was told as missed."""
    row = ran_until(created(TEN), NOON + HOUR)
    changed = planner.upserted(row, declared(rule, end_ns=NOON + HOUR), NOON + HOUR + late)
    assert (changed.next_nominal_ns, changed.next_due_ns, changed.is_passed) == (None, None, False)
    assert planner.plan(changed, NOON + DAY) is None
    assert planner.never_fires(changed) is None, "it has run, and is over"


def test_another_rule_on_a_schedule_that_is_over_brings_nothing() -> None:
    """Its end stands; what the new rule had before it was never wanted."""
    row = ran_until(created(TEN, end_ns=NOON + HOUR), NOON + DAY)
    changed = planner.upserted(row, declared(Listed(instants=(NOON + 1, NOON + 2)), end_ns=NOON + HOUR), NOON + DAY)
    assert planner.plan(changed, NOON + DAY) is None


# -- an instant by name ------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0, S, 2 * S])
def test_instant_that_a_change_names_runs_though_it_has_just_passed(late: int) -> None:
    """``update_schedule(id, trigger=Once(now))`` is how a schedule is moved to now."""
    row = ran_until(created(Every(hours=1)), NOON + HOUR)
    asked = NOON + HOUR + MINUTE
    plan = planned(planner.upserted(row, declared(of(asked)), asked + late), asked + late)
    assert (plan.nominals, plan.missed, plan.next_nominal_ns) == ((asked,), 0, None)


def test_instant_that_was_served_does_not_come_again_by_name() -> None:
    """Neither the last one nor the one before it, where runs are seconds apart."""
    row = ran_until(created(Every(seconds=1)), NOON + HOUR)
    assert row.last_nominal_ns == NOON + HOUR
    row.last_nominal_ns = row.cursor_ns = NOON + HOUR + S
    for asked in NOON + HOUR, NOON + HOUR + S:
        changed = planner.upserted(row, declared(of(asked)), NOON + HOUR + 2 * S)
        assert planner.plan(changed, NOON + DAY) is None
    changed = planner.upserted(row, declared(of(NOON + HOUR + S)), NOON + 2 * HOUR)
    assert planner.plan(changed, NOON + DAY) is None, "nor is it told as missed later on"


@pytest.mark.parametrize("asked", [NOON - DAY, NOON + 30 * MINUTE, NOON + HOUR + S])
def test_instant_that_a_change_names_too_late_is_one_missed_row(asked: int) -> None:
    """A schedule moved to an instant that is over says so, as a new one does."""
    row = ran_until(created(Every(hours=1)), NOON + HOUR)
    changed = planner.upserted(row, declared(of(asked)), NOON + HOUR + MINUTE)
    assert changed.is_passed
    assert planner.never_fires(changed) is not None
    plan = planned(changed, NOON + HOUR + MINUTE)
    assert (plan.nominals, plan.missed) == ((), 1)
    assert planner.unserved(changed, plan)[0] == asked


@pytest.mark.parametrize("late", [S, HOUR])
def test_other_bounds_do_not_name_the_instant_anew(late: int) -> None:
    """It fell into a pause and was dropped; an end that is moved brings it back neither as a run nor as missed."""
    row = created(of(NOON + HOUR))
    row.paused_at_ns = NOON
    row = planner.resumed(row, NOON + HOUR, catch_up=False)
    changed = planner.upserted(row, declared(of(NOON + HOUR), end_ns=NOON + DAY), NOON + HOUR + late)
    assert planner.plan(changed, NOON + DAY) is None


def test_clock_that_was_set_back_does_not_make_now_a_served_instant() -> None:
    """The newest run may lie ahead of the clock; what is asked for now is another one all the same."""
    row = planner.rebased(ran_until(created(TEN), NOON + DAY), NOON + HOUR, 23 * HOUR)
    assert row is not None
    row.last_nominal_ns = NOON + DAY
    asked = NOON + HOUR + MINUTE
    assert planned(planner.upserted(row, declared(of(asked)), asked + S), asked + S).nominals == (asked,)


@pytest.mark.parametrize("rule", [Once(), Every(hours=1, first="immediate")], ids=repr)
def test_run_at_the_change_is_not_the_run_of_that_very_moment(rule: Trigger) -> None:
    """The bug: changed from within the body, on the fire time itself, both runs were for one instant."""
    row = ran_until(created(TEN), NOON + HOUR)
    plan = planned(planner.upserted(row, declared(rule), NOON + HOUR), NOON + HOUR + S)
    assert plan.nominals == (NOON + HOUR + 1,)


# -- whatever is changed when ------------------------------------------------------------------

SECONDS = st.integers(0, 30)
instants = SECONDS.map(lambda at: NOON + at * S)
rules = st.one_of(
    st.sampled_from([Every(seconds=1), Every(seconds=3), Every(seconds=5, first="immediate"), Once()]),
    st.lists(instants, unique=True).map(lambda found: Listed(instants=tuple(sorted(found)))),
    instants.map(of),
)
changes = st.tuples(rules, st.none() | instants, st.none() | instants)
steps = st.tuples(st.integers(0, 4 * S) | st.integers(0, 4).map(lambda n: n * S), st.booleans(), st.none() | changes)


@settings(max_examples=400)
@given(first=changes, moves=st.lists(steps, max_size=12))
def test_no_change_brings_back_what_was_accounted_for(first: Any, moves: list[Any]) -> None:
    """No instant runs twice, and nothing at or before the old cursor is planned but an instant asked for by name."""
    now, ran = NOON, set[int]()
    rule, start, end = first
    row = created(rule, now, start_ns=start, end_ns=end, missed="all")
    floor = row.cursor_ns if not isinstance(rule, Once) else -1
    for ns, looks, change in moves:
        now += ns
        while looks and (plan := planner.plan(row, now)) is not None:
            if floor >= 0 and plan.missed:
                assert planner.unserved(row, plan)[0] > floor
            for nominal in plan.nominals:
                assert nominal not in ran, "a second time"
                assert nominal > floor
                ran.add(nominal)
            row = ran_at(row, now)
        if change is None:
            continue
        rule, start, end = change
        changed = planner.upserted(row, declared(rule, start_ns=start, end_ns=end, missed="all"), now)
        if changed.generation != row.generation:
            names = isinstance(rule, Once) and rule != row.timing.trigger
            floor = -1 if names else row.cursor_ns
        row = changed
