"""What every trigger promises, and what a custom one is helped with and held to."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import (
    Aligned,
    At,
    Cron,
    Every,
    Forever,
    InvalidTrigger,
    NaiveDatetime,
    NotPeriodic,
    Once,
    OnStartup,
    Trigger,
)
from quarterjack.triggers import Filtered, Union, Weekdays
from quarterjack.triggers.base import from_ns, instant_ns

START = datetime(2026, 1, 1, tzinfo=UTC)
START_NS = instant_ns(START)
SECOND_NS = 10**9


class Primes(Trigger):
    """A rule of which only ``next`` is known: seconds since the start of 2026 that are prime."""

    most: int = 10**6

    def next(self, after: datetime) -> datetime | None:
        n = max((after - START) // timedelta(seconds=1) + 1, 2)
        while any(n % k == 0 for k in range(2, int(n**0.5) + 1)):
            n += 1
        return START + timedelta(seconds=n) if n <= self.most else None


class Dense(Trigger):
    """One fire time per microsecond."""

    def next(self, after: datetime) -> datetime | None:
        return after + timedelta(microseconds=1)


# -- rules of one's own ----------------------------------------------------------------------


@given(st.integers(-5, 2000))
def test_prev_of_a_rule_that_knows_only_next_is_the_last_one(second: int) -> None:
    """A late scheduler asks for prev, and a custom rule should not have to know how to look back."""
    primes = [n for n in range(2, 2001) if all(n % k for k in range(2, int(n**0.5) + 1))]
    expected = max((n for n in primes if n <= second), default=None)
    found = Primes().prev(START + timedelta(seconds=second))
    assert found == (None if expected is None else START + timedelta(seconds=expected))


def test_prev_of_a_dense_rule_takes_few_questions() -> None:
    """A search that walked would look at a million fire times for each second of its window."""
    asked = 0

    class Counted(Dense):
        def next(self, after: datetime) -> datetime | None:
            nonlocal asked
            asked += 1
            return super().next(after)

    assert Counted().prev(START) == START
    assert asked < 100


def test_prev_of_a_rule_that_has_ended_reaches_far_back() -> None:
    """The last fire time may lie years ago; the search still finds it, and exactly."""
    rule = Primes(most=13)
    assert rule.prev(START + timedelta(days=365 * 50)) == START + timedelta(seconds=13)


def test_count_of_a_rule_that_knows_only_next_is_bounded_unless_a_cap_bounds_it() -> None:
    """Counting a dense rule one by one would hang whoever asked, so it says what to define instead."""
    with pytest.raises(InvalidTrigger, match=r"Dense: over 10,000 fire times.*define count"):
        Dense().count(START, START + timedelta(seconds=1))
    assert Dense().count(START, START + timedelta(seconds=1), cap=12_000) == 12_000
    assert Dense().count_ns(START_NS, START_NS + SECOND_NS, 7) == 7
    assert Dense().count_ns(START_NS, START_NS + SECOND_NS, 0) == 0


def test_prev_and_count_of_ones_own_are_asked_by_the_engine() -> None:
    """Who knows a short way defines it once, publicly, and the scheduler takes it."""

    class Short(Dense):
        def prev(self, before: datetime) -> datetime | None:
            return before - timedelta(seconds=5)

        def count(self, after: datetime, until: datetime, cap: int | None = None) -> int:
            return 42

    assert Short().prev_ns(START_NS) == START_NS - 5 * SECOND_NS
    assert Short().count_ns(START_NS, START_NS + SECOND_NS, 1000) == 42
    assert Short().count_ns(START_NS, START_NS + SECOND_NS, 10) == 10


def test_a_custom_prev_in_the_future_is_refused() -> None:
    """It would plan a run that is not due, and the run would be told as late."""

    class Wrong(Dense):
        def prev(self, before: datetime) -> datetime | None:
            return before + timedelta(seconds=1)

    with pytest.raises(InvalidTrigger, match=r"Wrong\.prev\(.*which is after its argument"):
        Wrong().prev_ns(START_NS)


@pytest.mark.parametrize("offset_ns", [0, 1, 999, 1_000, 1_001])
def test_the_engine_moves_on_whatever_the_nanosecond(offset_ns: int) -> None:
    """Datetimes hold microseconds; an instant rounded the wrong way would be found again for ever."""
    after = START_NS + offset_ns
    found = Dense().next_ns(after)
    assert found is not None
    assert after < found <= after + 1_000


def test_what_a_custom_rule_raises_passes_through() -> None:
    """The scheduler parks the schedule with the user's own error, not one of ours in its place."""

    class Broken(Trigger):
        def next(self, after: datetime) -> datetime | None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Broken().next_ns(START_NS)
    with pytest.raises(ZeroDivisionError):
        Broken().prev_ns(START_NS)


def test_a_custom_rule_shows_its_fields_and_survives_json_and_pickling() -> None:
    """Fields of any type pydantic reads back are as good as our own."""
    rule = Timed(pause=timedelta(seconds=90), names=("a", "b"))
    assert Trigger.from_json(rule.to_json()) == rule
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert hash(rule) == hash(Timed(pause=timedelta(seconds=90), names=("a", "b")))
    assert "Timed(" in rule.explain()


class Timed(Trigger):
    pause: timedelta
    names: tuple[str, ...] = ()

    def next(self, after: datetime) -> datetime | None:
        return after + self.pause


def test_a_custom_rule_cannot_take_a_built_in_name() -> None:
    """JSON names a rule by its class; a second Every would turn stored schedules into something else."""
    with pytest.raises(InvalidTrigger, match="Every is the name of a built-in rule"):
        type("Every", (Dense,), {"__module__": "users"})
    assert Trigger.from_dict({"type": "Every", "seconds": 3}) == Every(seconds=3)


def test_a_rule_without_next_cannot_be_built() -> None:
    """The one method a rule needs is asked for when it is built, not when it is due."""

    class Nothing(Trigger):
        pass

    with pytest.raises(TypeError, match="next"):
        Nothing()  # type: ignore[abstract]  # the case


# -- promises of all -------------------------------------------------------------------------

RULES: list[Trigger] = [
    Every(seconds=10),
    Every(milliseconds=1.0005),
    Every(hours=7, phase=0.25, anchor=datetime(2020, 2, 29, 12, tzinfo=ZoneInfo("Asia/Tokyo"))),
    Every(seconds=7).resolved(START_NS + 123, "x"),
    Every(seconds=7, anchor="start").resolved(START_NS + 123, "x"),
    Aligned(minutes=15, tz="Europe/Rome"),
    Aligned(seconds=0.7),
    At("14:30", on="mon-fri", tz="America/New_York"),
    Cron("*/7 3-9 * * fri-mon", tz="Australia/Lord_Howe"),
    Cron("H H * * *").resolved(START_NS, "nightly"),
    Once(START + timedelta(days=3)),
    Every(hours=5) | At("06:00"),
    Every(minutes=20) & Weekdays("sat,sun", tz="Europe/Rome"),
    Every(minutes=20) - Weekdays("sat,sun", tz="Europe/Rome"),
]


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_next_of_a_datetime_is_always_later(rule: Trigger) -> None:
    """A loop over next must end up somewhere; periods of fractional microseconds once stood still here."""
    at = START
    for _ in range(200):
        following = rule.next(at)
        if following is None:
            break
        assert following.astimezone(UTC) > at.astimezone(UTC)
        assert rule.prev(following) == following
        at = following


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_rules_are_values(rule: Trigger) -> None:
    """Equal rules are one rule: a restart with the same code must not look like a change."""
    again = Trigger.from_json(rule.to_json())
    rule.next(START)  # what it remembers of its own working must not count
    assert again == rule
    assert hash(again) == hash(rule)
    assert again.to_json() == rule.to_json()
    assert pickle.loads(pickle.dumps(rule)) == rule
    with pytest.raises(ValueError, match="frozen"):
        rule.anything = 1  # type: ignore[attr-defined]  # the case


@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_the_ends_of_time_are_no_trap(rule: Trigger) -> None:
    """Datetimes end in the years 1 and 9999, and a rule asked there answers instead of overflowing."""
    last, first = datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)
    assert rule.next(last) is None
    assert rule.prev(first) is None
    for at in (first, last):
        rule.next(at)
        rule.prev(at)
        rule.next_ns(instant_ns(at))
        rule.prev_ns(instant_ns(at))


def test_answers_come_in_the_rules_zone_or_else_the_callers() -> None:
    """A calendar rule speaks its own local time; elapsed time has none, so it answers as it was asked."""
    tokyo = ZoneInfo("Asia/Tokyo")
    at = START.astimezone(tokyo)
    assert [one.tzinfo for one in Every(hours=1).preview(1, after=at)] == [tokyo]
    assert [str(one.tzinfo) for one in At("09:00", tz="Europe/Rome").preview(1, after=at)] == ["Europe/Rome"]


@pytest.mark.parametrize("ask", ["next", "prev"])
def test_naive_datetimes_are_refused_with_the_fix(ask: str) -> None:
    """Guessing a zone is how jobs run an hour off."""
    with pytest.raises(NaiveDatetime, match=r"has no zone.*tzinfo=UTC"):
        getattr(Every(seconds=1), ask)(datetime(2026, 1, 1))
    with pytest.raises(InvalidTrigger, match="must be a datetime"):
        getattr(Every(seconds=1), ask)("2026-01-01")


def test_instants_become_the_microsecond_at_or_after_them() -> None:
    """Rounded down, an instant would lie before itself."""
    assert from_ns(1) == datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    assert from_ns(-1) == datetime(1970, 1, 1, tzinfo=UTC)
    assert from_ns(1_000) == datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)


@pytest.mark.parametrize("rule", [Forever(), OnStartup()])
def test_rules_that_follow_their_runs_have_no_list_of_fire_times(rule: Trigger) -> None:
    """Nobody can say when a body will end, and the error says so instead of a made-up time."""
    assert not rule.is_periodic
    for ask in (rule.next, rule.prev):
        with pytest.raises(NotPeriodic):
            ask(START)
    with pytest.raises(NotPeriodic):
        rule.count(START, START + timedelta(days=1))


# -- the rules' own --------------------------------------------------------------------------


def test_a_grid_from_the_schedules_creation_begins_one_period_later() -> None:
    """``anchor="start"`` waits its period first, and does so again after a restart, from the stored instant."""
    rule = Every(minutes=5, anchor="start")
    assert rule.needs_resolution
    with pytest.raises(InvalidTrigger, match="does not know yet"):
        rule.next_ns(START_NS)
    grid = rule.resolved(START_NS, "poll")
    assert grid.next_ns(START_NS - 1) == grid.next_ns(START_NS) == START_NS + 300 * SECOND_NS
    assert grid.prev_ns(START_NS + 299 * SECOND_NS) is None
    assert grid.count_ns(START_NS - SECOND_NS, START_NS + 900 * SECOND_NS, 100) == 3
    assert rule.preview(1, after=START) == [START + timedelta(minutes=5)]


def test_once_at_creation_is_over_when_it_has_run() -> None:
    """A clock set back afterwards must not bring the instant of creation a second time."""
    assert Once().fires_at_creation
    assert Once().resolved(START_NS, "x").next_ns(START_NS - 10 * SECOND_NS) is None


def test_once_refuses_a_local_time_that_does_not_exist() -> None:
    """Half past two on the short night is a slip of the pen; in the long night ``fold`` decides."""
    rome = ZoneInfo("Europe/Rome")
    with pytest.raises(InvalidTrigger, match=r"does not exist in Europe/Rome.*03:30:00\+02:00"):
        Once(datetime(2026, 3, 29, 2, 30, tzinfo=rome))
    first, second = (Once(datetime(2026, 10, 25, 2, 30, tzinfo=rome, fold=fold)) for fold in (0, 1))
    assert second.next_ns(0) == (first.next_ns(0) or 0) + 3600 * SECOND_NS


def test_forever_takes_a_pause_in_seconds_or_as_a_timedelta() -> None:
    """Durations are written one way everywhere."""
    assert Forever(timedelta(seconds=2)) == Forever(pause=2)
    assert Forever(1.5).after_finish_ns == 1_500_000_000
    assert Forever().fires_at_creation


# Called wrongly on purpose, which mypy and pyright would see.
every: Any = Every
aligned: Any = Aligned
at: Any = At
once: Any = Once
forever: Any = Forever
cron: Any = Cron
union: Any = Union
filtered: Any = Filtered


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: every(seconds=True), "seconds must be a number, got True"),
        (lambda: every(seconds="10"), "seconds must be a number, got '10'"),
        (lambda: every(10), "takes its options by name, got 10; write for example Every(seconds=10)"),
        (lambda: every(seconds=1, anchor="noon"), "anchor must be 'epoch', 'start' or an aware datetime, got 'noon'"),
        (lambda: every(seconds=1, anchor=datetime(2026, 1, 1)), "has no zone"),
        (lambda: every(seconds=1, first="now"), "first must be 'immediate', got 'now'"),
        (lambda: aligned(minute=15), "did you mean 'minutes'?"),
        (at, "At needs a time; write for example At('14:30'"),
        (lambda: at("14:30", hour=3), "the time is given twice, as '14:30' and by hour"),
        (lambda: at("14:30", time="15:00"), "time is given twice, as '14:30' and '15:00'"),
        (lambda: at(hour=24), "hour must be less than or equal to 23, got 24"),
        (lambda: at(hour=3.5), "hour must be a whole number"),
        (lambda: once(5), "at must be an aware datetime, got 5"),
        (lambda: once("soon"), "at must be an aware datetime, got 'soon'"),
        (lambda: forever(-1), "pause must be 0 or more"),
        (lambda: cron(5), "expression must be text, got 5"),
        (lambda: Trigger.from_json("["), "this is no JSON"),
        (lambda: Trigger.from_json("[1]"), "got [1]"),
        (lambda: Trigger.from_dict({"type": "Evry"}), "did you mean 'Every'?"),
        (lambda: Trigger.from_dict({"type": "Weekdays", "days": "mon"}), "Weekdays is no Trigger"),
        (lambda: every(seconds=1) | 3, "joins two triggers, got 3"),
        (lambda: every(seconds=1) - every(seconds=2), "takes a filter such as Weekdays('mon-fri')"),
        (lambda: union(()), "at least one member"),
        (lambda: filtered(trigger=Forever(), filter=Weekdays("mon")), "cannot be combined"),
    ],
)
def test_wrong_values_are_told_in_one_line(build: Any, words: str) -> None:
    """The message is what the user reads at import time, mostly late at night."""
    with pytest.raises(InvalidTrigger) as caught:
        build()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).startswith("Value error")
