"""What people, ends of runs and the clock do to a schedule's row: upsert, resume, re-arm, re-base."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from quarterjack import planner
from quarterjack.model import Overlap, Schedule
from quarterjack.planner import Plan
from quarterjack.triggers import At, Every, Forever, Once, Trigger
from tests.unit.rules import DAY, HOUR, NOON, S, created, declared, fired, planned

HOURLY = Every(hours=1)
MINUTE = 60 * S


def facts(row: Schedule) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}


def paused(row: Schedule) -> Schedule:
    """Return the row as a store pauses it."""
    row = row.copy()
    row.paused_at_ns, row.pause_note, row.failures_in_a_row = NOON, "for the holidays", 3
    return row


# -- upsert ---------------------------------------------------------------------------------


@pytest.mark.parametrize("trigger", [HOURLY, Every(hours=1, anchor="start"), Once(), Forever(), At("14:00")], ids=repr)
def test_an_equal_declaration_changes_nothing(trigger: Trigger) -> None:
    """A restart with the same code is no change: nothing runs again, nothing is skipped."""
    row = created(trigger)
    assert facts(planner.upserted(row, declared(trigger), NOON + DAY)) == facts(row)


def test_other_arguments_are_a_new_revision_that_fires_on() -> None:
    """What it does is not when: the next run keeps its time, and its cursor."""
    row = created(HOURLY)
    changed = planner.upserted(row, declared(HOURLY, args=(1,), overlap=Overlap("allow")), NOON + MINUTE)
    assert (changed.revision, changed.generation) == (2, 1)
    assert (changed.cursor_ns, changed.next_due_ns) == (NOON, NOON + HOUR)
    assert changed.payload.args == (1,)
    assert row.payload.args == (), "the stored row is untouched"


@pytest.mark.parametrize("options", [{"jitter_ns": S}, {"start_ns": NOON}, {"end_ns": NOON + 2 * DAY}], ids=str)
def test_another_timing_is_a_new_generation_from_now_on(options: dict[str, Any]) -> None:
    """What the old rule had still to run is not owed by the new one."""
    changed = planner.upserted(created(HOURLY), declared(HOURLY, **options), NOON + DAY)
    assert (changed.generation, changed.revision) == (2, 1)
    assert (changed.cursor_ns, changed.next_nominal_ns) == (NOON + DAY, NOON + DAY + HOUR)


def test_another_timing_never_moves_the_cursor_back() -> None:
    """On a clock that is behind the cursor, the new rule begins at the cursor."""
    row = fired(created(HOURLY), planned(created(HOURLY), NOON + 2 * HOUR))
    changed = planner.upserted(row, declared(Every(minutes=10)), NOON)
    assert (changed.cursor_ns, changed.next_due_ns) == (NOON + 2 * HOUR, NOON + 2 * HOUR + 10 * MINUTE)


class Bug(Trigger):
    """Raises, whatever it is asked."""

    def next(self, after: datetime) -> datetime | None:
        raise RuntimeError("a bug")


@pytest.mark.parametrize("payload", [{}, {"args": (1,)}], ids=["timing", "timing and payload"])
def test_a_new_rule_frees_a_schedule_that_its_old_one_had_parked(payload: dict[str, Any]) -> None:
    """The bug: deployed together with new arguments, the fix asked the broken rule once more, and stayed parked."""
    parked = planner.parked(declared(Bug()), RuntimeError("a bug"))
    row = planner.upserted(parked, declared(HOURLY, **payload), NOON)
    assert (row.parked_reason, row.next_due_ns) == (None, NOON + HOUR)


def test_the_plain_rows_are_those_that_their_rule_alone_decides() -> None:
    """The short way through the planner is for them only."""
    assert created(HOURLY).is_plain
    others: list[dict[str, Any]] = [
        {"jitter_ns": 1},
        {"start_ns": NOON},
        {"end_ns": NOON + DAY},
        {"max_runs": 5},
        {"max_lateness_ns": HOUR},
    ]
    for options in others:
        assert not created(HOURLY, **options).is_plain, options
        assert not planner.upserted(created(HOURLY), declared(HOURLY, **options), NOON).is_plain, options
    assert not any(created(trigger).is_plain for trigger in (Forever(), Once(), Every(hours=1, first="immediate")))


# -- pause and resume -------------------------------------------------------------------------


@pytest.mark.parametrize("missed", ["latest", "earliest", "all", "skip"])
def test_resume_forgets_what_passed_meanwhile(missed: str) -> None:
    """A pause is no outage: what fell into it was not to run, so it is not missed."""
    row = planner.resumed(paused(created(HOURLY, missed=missed)), NOON + DAY + MINUTE, catch_up=False)
    assert (row.paused_at_ns, row.pause_note, row.failures_in_a_row) == (None, None, 0)
    assert (row.cursor_ns, row.next_due_ns) == (NOON + DAY + MINUTE, NOON + DAY + HOUR)
    plan = planned(row, NOON + DAY + HOUR)
    assert (len(plan.nominals), plan.missed) == (1, 0)


def test_resume_that_catches_up_leaves_it_to_the_policy() -> None:
    """It is an outage if its owner says so."""
    row = planner.resumed(paused(created(HOURLY)), NOON + DAY, catch_up=True)
    plan = planned(row, NOON + DAY)
    assert (plan.nominals, plan.missed) == ((NOON + DAY,), 23)


@pytest.mark.parametrize("late", [0, S, 3 * HOUR])
def test_pause_that_ends_by_itself_ends_at_its_instant(late: int) -> None:
    """A fire time at that instant runs, and what the scheduler saw too late is an outage, not a pause."""
    row = paused(created(HOURLY, missed="all"))
    row.paused_until_ns = NOON + 2 * HOUR
    row = planner.resumed(row, NOON + 2 * HOUR + late, catch_up=False)
    plan = planned(row, NOON + 2 * HOUR + late)
    assert plan.nominals == tuple(NOON + hour * HOUR for hour in range(2, 3 + late // HOUR))
    assert (plan.missed, row.paused_until_ns) == (0, None)


def test_resume_before_the_end_of_a_pause_counts_from_then() -> None:
    """Somebody was earlier than the end that was set."""
    row = paused(created(HOURLY))
    row.paused_until_ns = NOON + DAY
    assert planner.resumed(row, NOON + 2 * HOUR, catch_up=False).next_due_ns == NOON + 3 * HOUR


@pytest.mark.parametrize("trigger", [Once(), Forever(), Every(hours=1, first="immediate")], ids=repr)
def test_a_run_at_creation_that_was_paused_comes_on_resume(trigger: Trigger) -> None:
    """It has no other time; it runs once, and brings no missed ones with it.

    The bug: the fire times of the pause were counted as missed beside it.
    """
    row = planner.resumed(paused(created(trigger)), NOON + DAY + MINUTE, catch_up=False)
    assert row.next_due_ns == NOON + DAY + MINUTE
    plan = planned(row, NOON + DAY + 3 * HOUR)
    assert (plan.nominals, plan.missed, plan.cursor_ns) == ((NOON + DAY + MINUTE,), 0, NOON + DAY + MINUTE)
    if plan.next_nominal_ns is not None:
        plan = planned(fired(row, plan), NOON + DAY + 3 * HOUR)
        assert (plan.nominals, plan.missed) == ((NOON + DAY + 3 * HOUR,), 2)


@pytest.mark.parametrize("trigger", [Once(), Forever(), HOURLY], ids=repr)
def test_resume_after_the_end_brings_nothing(trigger: Trigger) -> None:
    """The bug: what runs at creation came on resume even where the schedule was long over."""
    row = paused(created(trigger, end_ns=NOON + HOUR))
    assert planner.resumed(row, NOON + DAY, catch_up=False).next_due_ns is None


def test_resume_of_a_pause_between_runs_keeps_to_the_bounds() -> None:
    """What was left of `Forever`'s pause is over by then, and so may be its schedule."""
    row = paused(running(end_ns=NOON + HOUR))
    row.next_nominal_ns = row.next_due_ns = NOON + 10 * S
    assert planner.resumed(row, NOON + 5 * S, catch_up=False).next_due_ns == NOON + 10 * S
    assert planner.resumed(row, NOON + HOUR, catch_up=False).next_due_ns == NOON + HOUR
    assert planner.resumed(row, NOON + HOUR + 1, catch_up=False).next_due_ns is None


def test_resume_leaves_a_schedule_that_waits_for_its_run_alone() -> None:
    """`Forever` is armed by the end of its run; a second chain would double it."""
    row = created(Forever())
    row = paused(fired(row, planned(row, NOON)))
    assert planner.resumed(row, NOON + DAY, catch_up=False).next_due_ns is None


# -- after a run's end -----------------------------------------------------------------------------


def running(**options: Any) -> Schedule:
    """Return a chain whose first run has begun."""
    row = created(Forever(pause=10), **options)
    return fired(row, planned(row, NOON))


def test_forever_comes_again_its_pause_after_the_end() -> None:
    """After the final outcome, whenever that is; a rule with fire times is not armed by ends."""
    assert planner.rearmed(running(), NOON + HOUR) == NOON + HOUR + 10 * S
    assert planner.rearmed(created(HOURLY), NOON + HOUR) is None


def test_forever_ends_with_its_bounds() -> None:
    """`end` includes its instant, and the last of ``max_runs`` is the last."""
    assert planner.rearmed(running(end_ns=NOON + 30 * S), NOON + 20 * S) == NOON + 30 * S
    assert planner.rearmed(running(end_ns=NOON + 30 * S), NOON + 20 * S + 1) is None
    assert planner.rearmed(running(max_runs=1), NOON + HOUR) is None
    assert planner.rearmed(running(max_runs=2), NOON + HOUR) is not None


def test_two_runs_never_share_a_fire_time() -> None:
    """The fire time is the run's name in the store.

    The bug: without a pause, a run that took no time by a coarse clock was
    followed by one of the same name, which a store refuses: the chain ended.
    """
    row = created(Forever())
    seen: list[int] = []
    for _ in range(3):
        plan = planned(row, NOON + 2)
        seen += plan.nominals
        row = fired(row, plan)
        row.next_nominal_ns = row.next_due_ns = planner.rearmed(row, row.cursor_ns)
    assert len(set(seen)) == 3


# -- the clock is set back ---------------------------------------------------------------------------


def after_run(trigger: Trigger, **options: Any) -> tuple[Schedule, Plan]:
    row = created(trigger, **options)
    assert row.next_due_ns is not None
    plan = planned(row, row.next_due_ns)
    return fired(row, plan), plan


def test_elapsed_time_goes_on_at_once_as_a_new_generation() -> None:
    """What runs every ten minutes must not pause for an hour because the clock was corrected."""
    row, plan = after_run(Every(minutes=10))
    now = plan.cursor_ns - HOUR
    moved = planner.rebased(row, now, HOUR)
    assert moved is not None
    assert (moved.generation, moved.cursor_ns, moved.next_due_ns) == (2, now, now + 10 * MINUTE)


@pytest.mark.parametrize("step", [HOUR, DAY])
def test_a_grid_that_stands_on_the_creation_goes_on_as_well(step: int) -> None:
    """The bug: on the corrected clock its creation lay ahead, and nothing ran until that had come again."""
    row, plan = after_run(Every(minutes=10, anchor="start"))
    now = plan.cursor_ns - step
    moved = planner.rebased(row, now, step)
    assert moved is not None
    assert moved.next_due_ns == now + 10 * MINUTE


def test_times_of_day_wait_until_the_clock_has_passed_them_again() -> None:
    """The nightly report goes out once, also in the night when the clock was corrected by an hour."""
    row, plan = after_run(At("13:00"))
    assert planner.rebased(row, plan.cursor_ns - HOUR, HOUR) is None


def test_from_three_hours_on_every_rule_starts_anew() -> None:
    """A clock that was a day ahead was wrong, and nobody wants to wait a day for it."""
    row, plan = after_run(At("13:00"))
    assert planner.rebased(row, plan.cursor_ns - 3 * HOUR + 1, 3 * HOUR - 1) is None
    moved = planner.rebased(row, plan.cursor_ns - DAY, DAY)
    assert moved is not None
    assert (moved.generation, moved.next_due_ns) == (2, plan.cursor_ns)


@pytest.mark.parametrize("trigger", [HOURLY, At("13:00")], ids=repr)
def test_a_clock_set_back_to_after_the_cursor_changes_nothing(trigger: Trigger) -> None:
    """What is accounted for is past, as ever."""
    row, plan = after_run(trigger)
    assert planner.rebased(row, plan.cursor_ns, HOUR) is None
    assert planner.rebased(row, plan.cursor_ns + 1, DAY) is None


@pytest.mark.parametrize("trigger", [Once(), Every(hours=1, first="immediate")], ids=repr)
@pytest.mark.parametrize("step", [MINUTE, HOUR, DAY])
def test_a_run_at_creation_survives_the_step(trigger: Trigger, step: int) -> None:
    """The bug: a run that was to come first of all was forgotten, or waited for the clock to come round."""
    moved = planner.rebased(created(trigger), NOON - step, step)
    assert moved is not None
    assert planned(moved, NOON - step).nominals == (NOON - step,)


def test_a_run_that_waits_for_its_start_goes_on_waiting_for_it() -> None:
    """`start` is an instant of the calendar: the corrected clock reaches it when it does."""
    moved = planner.rebased(created(Once(), start_ns=NOON + HOUR), NOON - DAY, DAY)
    assert moved is not None
    assert moved.next_due_ns == NOON + HOUR


def test_a_run_of_once_that_has_been_comes_no_second_time() -> None:
    """Once per schedule, whatever is done to the clock."""
    row, _ = after_run(Once())
    moved = planner.rebased(row, NOON - DAY, DAY)
    assert moved is None or moved.next_due_ns is None


def test_a_pause_between_runs_is_as_long_on_the_corrected_clock() -> None:
    """`Forever(pause=60)` waits for what was left of its minute."""
    row = running()
    assert planner.rebased(row, NOON - HOUR, HOUR) is None, "its run has not ended"
    row.next_nominal_ns = row.next_due_ns = NOON + 60 * S
    moved = planner.rebased(row, NOON + 20 * S - HOUR, HOUR)
    assert moved is not None
    assert moved.next_due_ns == NOON + 60 * S - HOUR


def test_a_parked_schedule_stays_parked() -> None:
    """A clock that was set mends no broken rule."""
    row, plan = after_run(HOURLY)
    assert planner.rebased(planner.parked(row, ValueError("broken")), plan.cursor_ns - DAY, DAY) is None


def test_a_clock_set_back_while_paused_leaves_the_pause() -> None:
    """It resumes when its owner says so, and not by a step of the clock."""
    row, plan = after_run(Every(minutes=10))
    moved = planner.rebased(paused(row), plan.cursor_ns - HOUR, HOUR)
    assert moved is not None
    assert moved.paused_at_ns is not None
    assert planner.plan(moved, NOON + DAY) is None


def test_an_instant_of_the_calendar_is_not_moved() -> None:
    """``Once(at)`` that has not come yet keeps its instant."""
    at = datetime.fromtimestamp(NOON // S, UTC) + timedelta(days=2)
    moved = planner.rebased(created(Once(at)), NOON - DAY, DAY)
    assert moved is not None
    assert moved.next_due_ns == NOON + 2 * DAY
