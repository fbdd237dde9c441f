"""The planner: what is due of one schedule, what it costs to know, and what broken rules do to it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, get_args

import pytest

from quarterjack import planner
from quarterjack.errors import InvalidTrigger
from quarterjack.model import Overlap
from quarterjack.policies.jitter import due_ns
from quarterjack.policies.missed import MISSED_CAP, MissedMode
from quarterjack.triggers import At, Every, Forever, Once, Trigger
from tests.unit.rules import DAY, HOUR, NOON, YEAR, Counted, Listed, S, created, fired, planned

MODES: tuple[MissedMode, ...] = get_args(MissedMode)
HOURLY = Every(hours=1)
MINUTE = 60 * S


# -- what is due ----------------------------------------------------------------------------


def test_a_new_schedule_has_missed_nothing() -> None:
    """It did not exist before its creation, and the instant of it is past."""
    row = created(HOURLY)
    assert (row.cursor_ns, row.next_nominal_ns, row.next_due_ns) == (NOON, NOON + HOUR, NOON + HOUR)
    assert planner.plan(row, NOON + HOUR - 1) is None


def test_a_plan_says_what_runs_and_what_comes_next() -> None:
    """And what it rests on, so that a store can refuse it when that has changed."""
    plan = planned(created(HOURLY), NOON + HOUR)
    assert plan == planner.Plan(
        "s", 1, NOON, NOON + HOUR, (NOON + HOUR,), 0, NOON + 2 * HOUR, NOON + 2 * HOUR, NOON + HOUR
    )


@pytest.mark.parametrize("made", ["paused", "parked", "ended"])
def test_what_does_not_fire_has_no_plan(made: str) -> None:
    """However late it is."""
    row = created(HOURLY)
    if made == "ended":
        row.next_nominal_ns = row.next_due_ns = None
    if made == "paused":
        row.paused_at_ns = NOON
    if made == "parked":
        row = planner.parked(row, ValueError("broken"))
    assert planner.plan(row, NOON + YEAR) is None


@pytest.mark.parametrize(
    "trigger",
    [HOURLY, Every(hours=1, first="immediate"), Every(hours=1, anchor="start"), Once(), Forever(), At("12:00")],
    ids=repr,
)
@pytest.mark.parametrize("later", [0, DAY])
def test_every_plan_moves_the_cursor(trigger: Trigger, later: int) -> None:
    """The bug: the run at creation left it in place, so its plan stayed valid and a store could fire it twice."""
    row = created(trigger)
    assert row.next_due_ns is not None
    plan = planned(row, row.next_due_ns + later)
    assert plan.cursor_ns > plan.old_cursor_ns


@pytest.mark.parametrize("trigger", [Once(), Every(hours=1, first="immediate"), Forever()], ids=repr)
def test_the_run_at_creation_waits_for_the_start_and_not_beyond_the_end(trigger: Trigger) -> None:
    """A schedule that begins tomorrow is created today, and one that is over never runs."""
    assert created(trigger).next_due_ns == NOON
    assert created(trigger, start_ns=NOON + DAY).next_due_ns == NOON + DAY
    assert created(trigger, end_ns=NOON).next_due_ns == NOON
    assert created(trigger, end_ns=NOON - 1).next_due_ns is None


def test_a_run_at_creation_that_is_late_hides_no_fire_time() -> None:
    """It runs by itself; what passed meanwhile is decided by the policy as ever."""
    row = created(Every(hours=1, first="immediate"), NOON + 1)
    now = NOON + 3 * HOUR
    plan = planned(row, now)
    assert (plan.nominals, plan.missed, plan.next_nominal_ns) == ((NOON + 1,), 0, NOON + HOUR)
    plan = planned(fired(row, plan), now)
    assert (plan.nominals, plan.missed) == ((now,), 2)


# -- what it costs ----------------------------------------------------------------------------


@pytest.mark.parametrize("missed", ["latest", "earliest", "skip"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"start_ns": NOON, "end_ns": NOON + 2 * YEAR},
        {"jitter_ns": 10 * S},
        {"jitter_ns": S // 2, "max_lateness_ns": HOUR, "max_runs": 3},
    ],
    ids=str,
)
def test_a_year_of_seconds_is_planned_in_a_handful_of_questions(missed: str, options: dict[str, Any]) -> None:
    """A schedule of each second must not stop all others for its 31,536,000 fire times after a year off."""
    rule = Counted(rule=Every(seconds=1))
    row = created(rule, missed=missed, **options)
    rule.asked.clear()
    plan = planned(row, NOON + YEAR)
    assert (len(plan.nominals), plan.missed) == (0 if missed == "skip" else 1, MISSED_CAP)
    assert plan.cursor_ns >= NOON + YEAR - S
    assert sum(rule.asked.values()) <= 13, rule.asked


@pytest.mark.parametrize("max_catchup", [1, 100])
def test_all_costs_as_much_as_it_runs(max_catchup: int) -> None:
    """Its cap bounds the work, too."""
    rule = Counted(rule=Every(seconds=1))
    row = created(rule, missed="all", max_catchup=max_catchup, overlap=Overlap("allow"))
    plan = planned(row, NOON + YEAR)
    assert plan.nominals == tuple(NOON + YEAR - k * S for k in reversed(range(max_catchup)))
    assert plan.missed == MISSED_CAP
    assert sum(rule.asked.values()) <= max_catchup + 7, rule.asked


def test_an_ordinary_turn_asks_once() -> None:
    """Ten thousand schedules a second are due most of the time; each asks its rule for the next, no more."""
    rule = Counted(rule=Every(seconds=1))
    row = created(rule)
    rule.asked.clear()
    planned(row, NOON + S)
    assert rule.asked == {"next": 1}


# -- bounds ----------------------------------------------------------------------------------


def test_start_and_end_are_fire_times_themselves() -> None:
    """Both inclusive: "from the first to the thirty-first" has both days."""
    row = created(HOURLY, start_ns=NOON + 5 * HOUR, end_ns=NOON + 6 * HOUR)
    assert row.next_due_ns == NOON + 5 * HOUR
    plan = planned(row, NOON + 5 * HOUR)
    assert (plan.nominals, plan.next_due_ns) == ((NOON + 5 * HOUR,), NOON + 6 * HOUR)
    plan = planned(fired(row, plan), NOON + 6 * HOUR)
    assert (plan.nominals, plan.next_due_ns) == ((NOON + 6 * HOUR,), None)


@pytest.mark.parametrize("missed", MODES)
def test_nothing_outside_the_bounds_is_missed(missed: str) -> None:
    """Who comes back after the end has missed what lay before it, and the years since not at all."""
    row = created(HOURLY, start_ns=NOON + 5 * HOUR, end_ns=NOON + 8 * HOUR, missed=missed)
    plan = planned(row, NOON + YEAR)
    assert len(plan.nominals) + plan.missed == 4
    assert (plan.cursor_ns, plan.next_nominal_ns) == (NOON + 8 * HOUR, None)


def test_max_runs_ends_the_schedule() -> None:
    """The run that is the last one has no next."""
    row = created(HOURLY, max_runs=2)
    plan = planned(row, NOON + HOUR)
    assert plan.next_due_ns == NOON + 2 * HOUR
    row = fired(row, plan)
    plan = planned(row, NOON + 2 * HOUR)
    assert (plan.nominals, plan.next_due_ns) == ((NOON + 2 * HOUR,), None)
    assert planner.plan(fired(row, plan), NOON + YEAR) is None


def test_a_skipped_run_counts_for_no_max_runs() -> None:
    """The store says what it admitted, and the schedule goes on where it was cut off.

    The bug: of five fire times to catch up two were planned and one was
    admitted; the cursor stood behind all five, so three were never heard of.
    """
    row = created(HOURLY, missed="all", max_runs=2, overlap=Overlap("queue_one"))
    now = NOON + 5 * HOUR
    plan = planned(row, now)
    assert plan.nominals == (NOON + HOUR, NOON + 2 * HOUR)
    row = fired(row, plan, admitted=1)
    assert (row.cursor_ns, row.next_due_ns) == (NOON + 2 * HOUR, NOON + 3 * HOUR)
    plan = planned(row, now)
    assert (plan.nominals, plan.missed, plan.next_due_ns) == ((NOON + 3 * HOUR,), 0, None)


def test_max_runs_that_is_lowered_below_the_runs_ends_the_schedule_at_once() -> None:
    """The bug: what passed after that change was recorded as missed, though nothing was to run."""
    row = created(HOURLY)
    row.runs = 3
    row = planner.upserted(row, created(HOURLY, max_runs=3), NOON)
    assert (row.next_due_ns, planner.plan(row, NOON + DAY)) == (None, None)
    row = planner.upserted(row, created(HOURLY, max_runs=4), NOON + DAY)
    assert row.next_due_ns == NOON + DAY + HOUR, "and raising it lets the schedule go on"


# -- lateness and jitter -----------------------------------------------------------------------


@pytest.mark.parametrize(("late", "runs"), [(0, 1), (10 * MINUTE, 1), (10 * MINUTE + 1, 0)])
@pytest.mark.parametrize("jitter_ns", [0, 50 * MINUTE])
def test_max_lateness_counts_from_when_the_run_was_due(late: int, runs: int, jitter_ns: int) -> None:
    """The bug: with a jitter wider than ``max_lateness`` a run that came exactly when due was dropped as too late."""
    row = created(HOURLY, jitter_ns=jitter_ns, max_lateness_ns=10 * MINUTE)
    assert row.next_nominal_ns is not None
    assert row.next_due_ns is not None
    assert row.next_due_ns - row.next_nominal_ns > 10 * MINUTE or not jitter_ns, "else this shows nothing"
    plan = planned(row, row.next_due_ns + late)
    assert (len(plan.nominals), plan.missed) == (runs, 1 - runs)


def test_max_lateness_of_several_counts_from_their_own_due_times() -> None:
    """Fire times an hour apart: the jitter of the one at the limit decides, and no other's."""
    row = created(HOURLY, jitter_ns=HOUR, missed="all", max_lateness_ns=90 * MINUTE, overlap=Overlap("allow"))
    fire_times = [NOON + k * HOUR for k in range(1, 12)]
    dues = {n: due_ns("s", n, HOUR, below=n + HOUR) for n in fire_times}
    for now in range(NOON + 3 * HOUR, NOON + 11 * HOUR, 7 * MINUTE):
        runs = [n for n in fire_times if now - 90 * MINUTE <= dues[n] <= now]
        plan = planned(row, now)
        assert list(plan.nominals) == runs
        assert plan.missed == sum(due <= now for due in dues.values()) - len(runs)


def test_a_fire_time_whose_jitter_has_not_run_out_is_not_overdue() -> None:
    """Catching up on the past must not start the present early."""
    row = created(HOURLY, jitter_ns=HOUR)
    newest = NOON + 5 * HOUR
    due = due_ns("s", newest, HOUR, below=newest + HOUR)
    assert due > newest
    plan = planned(row, due - 1)
    assert (plan.nominals, plan.missed) == ((newest - HOUR,), 3)
    assert (plan.next_nominal_ns, plan.next_due_ns) == (newest, due)
    assert planned(row, due).nominals == (newest,)


def test_jitter_never_carries_a_run_past_the_end() -> None:
    """The last run of a campaign starts before it is over."""
    for n in range(50):
        row = created(HOURLY, id=f"s{n}", jitter_ns=HOUR, end_ns=NOON + HOUR + S)
        assert row.next_due_ns is not None
        assert NOON + HOUR <= row.next_due_ns <= NOON + HOUR + S


def test_a_plan_is_not_before_its_jittered_time() -> None:
    """A store whose clock is behind refuses it until then."""
    row = created(HOURLY, jitter_ns=HOUR)
    assert row.next_due_ns is not None
    plan = planned(row, row.next_due_ns)
    assert plan.not_before_ns == row.next_due_ns > plan.nominals[0]


# -- rules that break, end, or are far ahead -----------------------------------------------------


class Broken(Trigger):
    """Each minute until *fails_at*; from then on it does *how*."""

    fails_at: datetime
    how: str

    def next(self, after: datetime) -> datetime | None:
        if after < self.fails_at:
            return after.replace(second=0, microsecond=0) + timedelta(minutes=1)
        if self.how == "raises":
            raise RuntimeError("no more")
        answers: dict[str, Any] = {
            "past": after - timedelta(hours=1),
            "same": after,
            "naive": (after + timedelta(minutes=1)).replace(tzinfo=None),
            "text": "tomorrow",
        }
        return answers.get(self.how)


ANSWERS = pytest.mark.parametrize(
    ("how", "error"),
    [
        ("raises", RuntimeError),
        ("past", InvalidTrigger),
        ("same", InvalidTrigger),
        ("naive", InvalidTrigger),
        ("text", InvalidTrigger),
    ],
)
NOON_AT = datetime.fromtimestamp(NOON // S, UTC)


@ANSWERS
def test_a_rule_that_breaks_is_told_and_never_fires_the_past(how: str, error: type[Exception]) -> None:
    """It ends in one error for the caller, which parks that schedule; it never loops on an instant that is gone."""
    with pytest.raises(error):
        created(Broken(fails_at=NOON_AT, how=how))
    row = created(Broken(fails_at=NOON_AT + timedelta(seconds=30), how=how))
    assert row.next_due_ns == NOON + MINUTE
    with pytest.raises(error):
        planner.plan(row, NOON + MINUTE)
    with pytest.raises(error):
        planner.plan(row, NOON + DAY)


@ANSWERS
def test_a_failed_decision_leaves_the_row_as_it_was(how: str, error: type[Exception]) -> None:
    """A decision has no effect but its answer, not even a half one."""
    row = created(Broken(fails_at=NOON_AT + timedelta(seconds=30), how=how))
    before = {name: getattr(row, name) for name in row.__slots__}
    for decide in (
        lambda: planner.plan(row, NOON + DAY),
        lambda: planner.resumed(row, NOON + DAY, catch_up=False),
    ):
        with pytest.raises(error):
            decide()
    assert {name: getattr(row, name) for name in row.__slots__} == before


def test_a_rule_that_ends_leads_to_its_last_run_and_no_further() -> None:
    """The end is no error."""
    row = created(Broken(fails_at=NOON_AT + timedelta(seconds=30), how="ends"))
    plan = planned(row, NOON + YEAR)
    assert (plan.nominals, plan.missed, plan.next_nominal_ns, plan.next_due_ns) == ((NOON + MINUTE,), 0, None, None)
    assert planner.plan(fired(row, plan), NOON + 2 * YEAR) is None


@pytest.mark.parametrize("ahead", [200 * YEAR, 30 * YEAR, 1])
@pytest.mark.parametrize("jitter_ns", [0, HOUR])
def test_a_first_fire_time_far_ahead_is_waited_for(ahead: int, jitter_ns: int) -> None:
    """A schedule for the next century sits still till then, and fires then."""
    row = created(Listed(instants=(NOON + ahead,)), jitter_ns=jitter_ns)
    assert row.next_nominal_ns == NOON + ahead
    assert row.next_due_ns is not None
    assert planner.plan(row, row.next_due_ns - 1) is None
    assert planned(row, row.next_due_ns).nominals == (NOON + ahead,)


def test_the_last_instant_of_the_calendar_is_one() -> None:
    """``Once`` at the end of the year 9999, which users write for "never", is neither an error nor due."""
    row = created(Once(datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)), jitter_ns=HOUR)
    assert row.next_nominal_ns is not None
    assert planner.plan(row, NOON + 500 * YEAR) is None


def test_a_rule_that_never_fires_is_quiet() -> None:
    """No fire times is a schedule, too."""
    row = created(Listed(instants=()), jitter_ns=HOUR, missed="all", max_runs=3)
    assert (row.next_nominal_ns, row.next_due_ns, planner.plan(row, NOON + YEAR)) == (None, None, None)


def test_a_parked_schedule_keeps_the_reason() -> None:
    """Who looks why it does not fire finds the exception."""
    row = created(HOURLY)
    parked = planner.parked(row, ValueError("day 32"))
    assert parked.parked_reason == "its trigger raised ValueError: day 32"
    assert (parked.next_due_ns, planner.plan(parked, NOON + DAY)) == (None, None)
    assert row.next_due_ns == NOON + HOUR, "the row that was asked about stays"


def test_an_error_that_cannot_be_printed_parks_as_well() -> None:
    """The bug: its ``__str__`` raised where the schedule was to be parked, and took the others with it."""

    class Unprintable(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    assert planner.parked(created(HOURLY), Unprintable()).parked_reason == "its trigger raised Unprintable"
