"""Missed runs: which of the fire times that passed run, how many are left out, and what it costs to find out."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import JobState, Quarterjack
from quarterjack.model import as_datetime
from quarterjack.policies.missed import MISSED_CAP, Due, MissedMode, fold_missed
from quarterjack.testing import virtual_time
from quarterjack.triggers import Every, Trigger
from tests.unit.rules import NOON, YEAR, Counted, Custom, Listed, S

MODES: tuple[MissedMode, ...] = get_args(MissedMode)
modes = pytest.mark.parametrize("mode", MODES)
EACH_SECOND = Every(seconds=1)


def expected(
    trigger: Listed, after: int, now: int, mode: MissedMode, oldest: int | None, max_catchup: int
) -> tuple[list[int], int]:
    """Return runs and misses as the specification has them, by looking at each fire time."""
    overdue = trigger.between(after, now)
    fresh = [n for n in overdue if oldest is None or n >= oldest]
    if len(overdue) <= 1 or mode == "all":
        runs = fresh[-max_catchup:]
    elif mode == "skip":
        runs = []
    else:
        runs = fresh[-1:] if mode == "latest" else fresh[:1]
    return runs, min(len(overdue) - len(runs), MISSED_CAP)


# -- which run --------------------------------------------------------------------------


@given(
    instants=st.lists(st.integers(0, 300), max_size=40, unique=True).map(sorted),
    after=st.integers(-10, 310),
    passed=st.integers(0, 310),
    mode=st.sampled_from(MODES),
    lateness=st.none() | st.integers(0, 310),
    max_catchup=st.integers(1, 8),
)
def test_every_overdue_fire_time_runs_or_is_counted(
    instants: list[int], after: int, passed: int, mode: MissedMode, lateness: int | None, max_catchup: int
) -> None:
    """The whole decision against a list: a fire time that is in neither column was dropped in silence."""
    trigger, now = Listed(instants=tuple(instants)), after + passed
    oldest = None if lateness is None else now - lateness
    due = fold_missed(trigger, after, now, mode=mode, oldest_ns=oldest, max_catchup=max_catchup)
    runs, missed = expected(trigger, after, now, mode, oldest, max_catchup)
    assert (list(due.nominals), due.missed) == (runs, missed)
    overdue = trigger.between(after, now)
    assert due.cursor == (overdue[-1] if overdue else after)
    assert due.following == trigger.next_ns(due.cursor)


@pytest.mark.parametrize(
    ("mode", "runs", "missed"),
    [("latest", [30], 2), ("earliest", [10], 2), ("all", [10, 20, 30], 0), ("skip", [], 3)],
)
def test_three_overdue_fire_times_by_mode(mode: MissedMode, runs: list[int], missed: int) -> None:
    """The table at the head of the module, which is what users read."""
    due = fold_missed(Listed(instants=(10, 20, 30, 40)), 0, 35, mode=mode)
    assert due == Due(tuple(runs), missed, 30, 40)


@modes
def test_a_single_late_fire_time_always_runs(mode: MissedMode) -> None:
    """One is late, not missed: a process that restarts at 10:00:01 must not skip its ten o'clock."""
    assert fold_missed(Listed(instants=(10, 999)), 0, 900, mode=mode) == Due((10,), 0, 10, 999)


@modes
def test_nothing_is_due_before_its_instant(mode: MissedMode) -> None:
    """A nanosecond early is early."""
    rule = Listed(instants=(10, 20))
    assert fold_missed(rule, 0, 9, mode=mode) == Due((), 0, 0, 10)
    assert fold_missed(rule, 0, 10, mode=mode) == Due((10,), 0, 10, 20)


@modes
def test_a_rule_that_has_ended_has_nothing_due(mode: MissedMode) -> None:
    """The last fire time leads to none, and none to nothing, however long one waits."""
    rule = Listed(instants=(10, 20))
    assert fold_missed(rule, 10, YEAR, mode=mode) == Due((20,), 0, 20, None)
    assert fold_missed(rule, 20, YEAR, mode=mode) == Due((), 0, 20, None)


# -- too old ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "runs", "missed"),
    [("latest", [30], 2), ("earliest", [20], 2), ("all", [20, 30], 1), ("skip", [], 3)],
)
def test_what_is_too_old_is_dropped_before_the_mode_is_asked(mode: MissedMode, runs: list[int], missed: int) -> None:
    """`earliest` after a long outage runs the first that still counts, and not nothing at all."""
    due = fold_missed(Listed(instants=(10, 20, 30, 40)), 0, 35, mode=mode, oldest_ns=20)
    assert due == Due(tuple(runs), missed, 30, 40)


@modes
@pytest.mark.parametrize("instants", [(10,), (10, 20, 30)])
def test_when_all_are_too_old_all_are_missed(mode: MissedMode, instants: tuple[int, ...]) -> None:
    """A report about last week that nobody wants any more is counted, not sent."""
    due = fold_missed(Listed(instants=instants), 0, 900, mode=mode, oldest_ns=31)
    assert due == Due((), len(instants), instants[-1], None)


def test_a_fire_time_exactly_at_the_limit_still_runs() -> None:
    """The limit is the oldest that may run, not the youngest that may not."""
    rule = Listed(instants=(10,))
    assert fold_missed(rule, 0, 50, oldest_ns=10).nominals == (10,)
    assert fold_missed(rule, 0, 50, oldest_ns=11).nominals == ()


# -- what it costs ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["latest", "earliest", "skip"])
@pytest.mark.parametrize("oldest_ns", [None, NOON + YEAR - 60 * S])
def test_a_year_of_seconds_is_folded_in_a_handful_of_questions(mode: MissedMode, oldest_ns: int | None) -> None:
    """A server that was off for a year must not walk 31,536,000 fire times when it comes back."""
    rule = Counted(rule=EACH_SECOND)
    due = fold_missed(rule, NOON, NOON + YEAR, mode=mode, oldest_ns=oldest_ns)
    assert (due.missed, due.cursor, due.following) == (MISSED_CAP, NOON + YEAR, NOON + YEAR + S)
    assert sum(rule.asked.values()) <= 6, rule.asked


@pytest.mark.parametrize("max_catchup", [1, 7, 100])
def test_all_costs_as_much_as_it_runs(max_catchup: int) -> None:
    """The cap bounds the work too: the newest are found backwards, not by walking up to them."""
    rule = Counted(rule=EACH_SECOND)
    due = fold_missed(rule, NOON, NOON + YEAR, mode="all", max_catchup=max_catchup)
    assert due.nominals == tuple(NOON + YEAR - k * S for k in reversed(range(max_catchup)))
    assert due.missed == MISSED_CAP
    assert sum(rule.asked.values()) <= max_catchup + 6, rule.asked


def test_all_looks_no_further_back_than_what_may_still_run() -> None:
    """With a short ``max_lateness`` a generous cap costs nothing."""
    rule = Counted(rule=EACH_SECOND)
    due = fold_missed(rule, NOON, NOON + YEAR, mode="all", max_catchup=10_000, oldest_ns=NOON + YEAR - 2 * S)
    assert len(due.nominals) == 3
    assert sum(rule.asked.values()) <= 9, rule.asked


@modes
def test_one_late_fire_time_costs_one_question(mode: MissedMode) -> None:
    """The ordinary turn of the scheduler: the first is known, the next is asked for."""
    rule = Counted(rule=EACH_SECOND)
    assert fold_missed(rule, NOON, NOON + S, mode=mode, first_ns=NOON + S).nominals == (NOON + S,)
    assert rule.asked == {"next": 1}


def test_a_rule_of_ones_own_is_walked_no_further_than_the_count_goes() -> None:
    """A user's rule knows only ``next``; a year of its seconds still costs a bounded number of calls."""

    class Ticking(Trigger):
        def next(self, after: datetime) -> datetime:
            calls.append(after)
            return after.replace(microsecond=0) + timedelta(seconds=1)

    calls: list[datetime] = []
    due = fold_missed(Ticking(), NOON, NOON + YEAR)
    assert due == Due((NOON + YEAR,), MISSED_CAP, NOON + YEAR, NOON + YEAR + S)
    assert len(calls) <= MISSED_CAP + 100


@pytest.mark.parametrize(("overdue", "missed"), [(999, 998), (1_001, 1_000), (1_002, MISSED_CAP), (9_999, MISSED_CAP)])
def test_the_count_of_missed_stops_at_its_cap(overdue: int, missed: int) -> None:
    """Up to a thousand the number is exact; a row that reads 1000 means that or more."""
    assert fold_missed(EACH_SECOND, NOON, NOON + overdue * S).missed == missed


# -- rules of users -------------------------------------------------------------------------


@given(
    instants=st.lists(st.integers(0, 200), max_size=20, unique=True).map(sorted),
    now=st.integers(0, 210),
    mode=st.sampled_from(MODES),
)
def test_a_rule_known_by_next_alone_is_folded_alike(instants: list[int], now: int, mode: MissedMode) -> None:
    """``prev`` and ``count`` are conveniences: leaving them out must not change which runs happen."""
    at = [NOON + n * S for n in instants]
    moments = tuple(moment for n in at if (moment := as_datetime(n)) is not None)
    window = (NOON - S, NOON + now * S)
    assert fold_missed(Custom(instants=moments), *window, mode=mode) == fold_missed(
        Listed(instants=tuple(at)), *window, mode=mode
    )


class Contradicting(Listed):
    """Its ``prev`` has one answer whatever it is asked, and it counts nothing."""

    past: int | None

    def prev_ns(self, before: int, /) -> int | None:
        return self.past

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        return 0


@modes
@pytest.mark.parametrize("past", [None, -50, 0, 9])
def test_a_rule_that_contradicts_itself_makes_progress(mode: MissedMode, past: int | None) -> None:
    """A wrong ``prev`` or ``count`` of a user's own may miscount, but not run backwards nor miss less than nothing."""
    due = fold_missed(Contradicting(instants=(10, 20, 30), past=past), 0, 35, mode=mode)
    assert due == Due(() if mode == "skip" else (10,), 0, 10, 20)


# -- start_deadline ---------------------------------------------------------------------------


@pytest.mark.parametrize(("busy_s", "state"), [(5.0, JobState.DONE), (5.001, JobState.MISSED)])
async def test_start_deadline_counts_from_when_the_job_should_have_run(busy_s: float, state: JobState) -> None:
    """A queued job is not old by its fire time's policy but by its own limit, to the point."""
    app = Quarterjack(concurrency=1)

    @app.task
    async def body() -> None: ...

    @app.task
    async def busy() -> None:
        await asyncio.sleep(busy_s)

    async with virtual_time(app) as world:
        await app.submit(busy)
        job = await app.submit(body.options(start_deadline=5))
        await world.run_for(10)
        assert job.state is state
        assert ("start_deadline is 5 s" in (job.reason or "")) is (state is JobState.MISSED)
