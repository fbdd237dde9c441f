"""The planner at both ends of a schedule: put too late, over, broken, and what is said about it."""

from __future__ import annotations

import pytest

from quarterjack import planner
from quarterjack.triggers import At, Every, Once, Trigger
from quarterjack.triggers.base import from_ns
from tests.unit.rules import DAY, HOUR, NOON, Listed, S, created, declared, planned

RAISED = ValueError("broken")


# -- put too late ----------------------------------------------------------------------------


@pytest.mark.parametrize("late", [0, S, 2 * S])
def test_fire_time_that_has_just_passed_runs(late: int) -> None:
    """``Once(now)`` is always in the past by the time it is put."""
    row = created(Once(from_ns(NOON)), NOON + late)
    assert not row.is_passed
    plan = planned(row, NOON + late)
    assert (plan.nominals, plan.missed, plan.next_nominal_ns) == ((NOON,), 0, None)


@pytest.mark.parametrize("trigger", [Once(from_ns(NOON)), Listed(instants=(NOON - HOUR, NOON))], ids=["once", "listed"])
def test_fire_time_that_has_passed_is_one_missed_row(trigger: Trigger) -> None:
    """It never runs, but whoever put it is told for when it was."""
    row = created(trigger, NOON + 2 * S + 1)
    assert row.is_passed
    plan = planned(row, NOON + DAY)
    assert (plan.nominals, plan.missed, plan.next_nominal_ns) == ((), 1, None)
    assert plan.cursor_ns > plan.old_cursor_ns, "or the plan would stay valid and be told again"
    nominal, reason = planner.unserved(row, plan)
    assert nominal == NOON
    assert reason == (
        f"its last fire time ({from_ns(NOON).isoformat()}) was 0:00:02 before the schedule was put; no other follows"
    )


def test_schedule_that_will_not_fire_says_why_and_all_others_say_nothing() -> None:
    """The warning in the log comes from here, so it must be silent where all is well."""
    assert planner.never_fires(created(Every(hours=1))) is None
    assert "was 1 day, 0:00:00 before" in (planner.never_fires(created(Once(from_ns(NOON - DAY)))) or "")
    assert planner.never_fires(created(Listed(instants=()))) == "it has no fire time to come"
    assert planner.never_fires(planner.parked(created(Listed(instants=())), RAISED)) is None
    has_run = created(Once(from_ns(NOON + S)))
    has_run.next_nominal_ns = has_run.next_due_ns = None
    has_run.runs = 1
    assert planner.never_fires(has_run) is None


# -- left out --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hours", "words"),
    [(2, "1 fire time passed"), (3, "2 fire times passed"), (1_001, "1000+ fire times"), (1_000, "999 fire times")],
)
def test_number_that_was_left_out_is_told_as_far_as_it_was_counted(hours: int, words: str) -> None:
    """One is one, several are several, and a thousand is where counting stops."""
    row = created(Every(hours=1))
    plan = planned(row, NOON + hours * HOUR)
    nominal, reason = planner.unserved(row, plan)
    assert nominal == NOON + hours * HOUR
    assert reason.startswith(words)
    assert reason.endswith("passed unserved (missed='latest')")


# -- broken ----------------------------------------------------------------------------------


def test_run_that_is_due_takes_place_where_the_rule_breaks() -> None:
    """It was promised before the rule broke; nothing follows it."""
    row = created(Every(hours=1), jitter_ns=60 * S)
    plan = planner.last_plan(row)
    nominal, due = NOON + HOUR, row.next_due_ns
    assert due is not None
    assert plan == planner.Plan("s", 1, NOON, nominal, (nominal,), 0, None, None, due)


def test_there_is_no_last_run_where_none_is_left() -> None:
    """Neither of one that is over, nor of one whose runs are counted out."""
    over = created(Every(hours=1))
    over.next_nominal_ns = over.next_due_ns = None
    assert planner.last_plan(over) is None
    counted_out = created(Every(hours=1), max_runs=1)
    counted_out.runs = 1
    assert planner.last_plan(counted_out) is None


def test_new_schedule_that_breaks_at_once_is_a_parked_row_of_now() -> None:
    """It is there to be looked at, and accounts for nothing before it."""
    row = planner.upserted_parked(None, declared(Every(hours=1)), NOON, RAISED)
    assert (row.created_at_ns, row.cursor_ns, row.next_nominal_ns, row.generation) == (NOON, NOON, None, 1)
    assert row.parked_reason == "its trigger raised ValueError: broken"


def test_change_that_breaks_keeps_the_history_and_counts_as_a_change() -> None:
    """What it was changed to is what the row shows, or the same change would look like none the next time."""
    old = created(Every(hours=1))
    old.runs, old.cursor_ns = 7, NOON + 3 * HOUR
    changed = declared(At("09:00"), max_runs=9)
    row = planner.upserted_parked(old, changed, NOON + DAY, RAISED)
    assert (row.timing, row.payload) == (changed.timing, changed.payload)
    assert (row.generation, row.revision) == (old.generation + 1, old.revision + 1)
    assert (row.runs, row.cursor_ns, row.created_at_ns) == (7, NOON + 3 * HOUR, NOON)
    assert row.parked_reason is not None
    assert old.parked_reason is None
    again = planner.upserted_parked(row, changed, NOON + DAY, RAISED)
    assert (again.generation, again.revision) == (row.generation, row.revision)


# -- changed before its first run -----------------------------------------------------------------


def test_run_at_creation_that_has_not_come_is_gone_with_the_rule_that_wanted_it() -> None:
    """The new rule has its own first run, and jitter and limits hold for it as for every other."""
    old = created(Every(hours=1, first="immediate"))
    assert old.immediate_ns == NOON
    row = planner.upserted(old, declared(Every(hours=2)), NOON + S)
    assert row.immediate_ns is None
    assert row.next_nominal_ns == NOON + 2 * HOUR
    assert row.is_plain


@pytest.mark.parametrize("step", [3 * HOUR - 1, 3 * HOUR])
def test_three_hours_back_are_where_times_of_day_begin_anew(step: int) -> None:
    """A nanosecond less, and they wait until the clock has passed them again."""
    row = created(At("13:00"))
    row.cursor_ns = NOON + HOUR
    row.next_nominal_ns = row.next_due_ns = NOON + HOUR + DAY
    rebased = planner.rebased(row, NOON + HOUR - step, step)
    assert (rebased is not None) == (step == 3 * HOUR)
    assert rebased is None or rebased.next_nominal_ns == NOON + HOUR


def test_run_at_creation_that_is_done_does_not_come_again_with_the_clock() -> None:
    """Set back, a schedule goes on with its rule; it was created only once."""
    row = created(Every(hours=1, first="immediate"))
    plan = planned(row, NOON)
    row.cursor_ns, row.next_nominal_ns, row.next_due_ns = plan.cursor_ns, plan.next_nominal_ns, plan.next_due_ns
    rebased = planner.rebased(row, NOON - 2 * HOUR, 2 * HOUR)
    assert rebased is not None
    assert (rebased.immediate_ns, rebased.next_nominal_ns) == (None, NOON - HOUR)
