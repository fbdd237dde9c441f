"""Unions are unions of sets, filters are filters of sets, and searches through them are bounded."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from quarterjack import At, Cron, Every, Filter, InvalidTrigger, Trigger, Weekdays
from quarterjack.triggers import Between, Dates, Union
from quarterjack.triggers.base import instant_ns

weekdays: Any = Weekdays  # called wrongly, which the type checkers would see
START = datetime(2026, 3, 20, tzinfo=UTC)
START_NS = instant_ns(START)
DAY_NS = 86_400 * 10**9


class Odd(Filter):
    """A custom filter, which has no zone."""

    def allows(self, at: datetime) -> bool:
        """Allow odd hours."""
        return at.hour % 2 == 1


rules = st.sampled_from(
    [
        Every(hours=5),
        Every(hours=7, phase=60),
        At("02:30", tz="Europe/Rome"),
        Cron("0 */3 * * *", tz="America/New_York"),
        Cron("15 9 * * mon-wed"),
    ]
)
filters = st.sampled_from(
    [
        Weekdays("mon-fri", tz="Europe/Rome"),
        Weekdays("sunday"),
        Between("22:00", "06:00", tz="Europe/Rome"),
        Between("09:00", "17:00", tz="Pacific/Apia"),
        Dates("2026-03-29", "2026-03-25", tz="Europe/Rome"),
    ]
)


def fires(rule: Trigger, start: int, end: int) -> list[int]:
    found: list[int] = []
    at = rule.next_ns(start)
    while at is not None and at <= end:
        found.append(at)
        at = rule.next_ns(at)
    return found


def backwards(rule: Trigger, start: int, end: int) -> list[int]:
    found: list[int] = []
    at = rule.prev_ns(end)
    while at is not None and at > start:
        found.append(at)
        at = rule.prev_ns(at - 1)
    return found[::-1]


@settings(max_examples=60)
@given(rules, rules, rules, st.integers(0, 20))
def test_a_union_is_the_union_of_its_members(a: Trigger, b: Trigger, c: Trigger, days: int) -> None:
    """Every member's fire times are there, equal instants once, in whatever order it was written."""
    start, end = START_NS + days * DAY_NS, START_NS + (days + 3) * DAY_NS
    union = a | b | c
    expected = sorted({one for rule in (a, b, c) for one in fires(rule, start, end)})
    assert fires(union, start, end) == backwards(union, start, end) == expected
    assert union.count_ns(start, end, 10**6) == len(expected)
    other = c | (b | a)
    assert other == union
    assert hash(other) == hash(union)
    assert other.to_json() == union.to_json()


@settings(max_examples=60)
@given(rules, filters, st.integers(0, 20))
def test_keeping_and_dropping_share_out_a_rules_fire_times(rule: Trigger, by: Filter, days: int) -> None:
    """What ``&`` keeps and ``-`` keeps are disjoint, together everything, and decided by the local clock alone."""
    start, end = START_NS + days * DAY_NS, START_NS + (days + 10) * DAY_NS
    everything = fires(rule, start, end)
    kept = [one for one in everything if by.allows(datetime.fromtimestamp(one // 10**9, UTC))]
    dropped = [one for one in everything if one not in kept]
    for combined, expected in ((rule & by, kept), (rule - by, dropped)):
        if not expected:
            continue  # perhaps nothing ever passes, which is an error with a test of its own
        assert fires(combined, start, end) == backwards(combined, start, end) == expected
        assert combined.count_ns(start, end, 10**6) == len(expected)
        assert Trigger.from_json(combined.to_json()) == combined


@settings(max_examples=200)
@given(filters, st.integers(0, 40 * 86_400))
def test_a_filters_verdict_holds_over_its_whole_span(by: Filter, second: int) -> None:
    """A search leaps over the span unseen, so one wrong end of it loses runs."""
    at = START_NS + second * 10**9
    start, end = by.span_ns(at)
    assert start <= at < end
    verdict = by.allows_ns(at, None)
    for one in (start, (start + end) // 2, end - 1):
        assert by.allows_ns(one, None) is verdict


def test_filters_read_the_local_clock() -> None:
    """Friday evening in New York is Saturday in UTC; the zone of the filter decides."""
    friday_evening = datetime(2026, 3, 20, 22, tzinfo=ZoneInfo("America/New_York"))
    assert Weekdays("fri", tz="America/New_York").allows(friday_evening)
    assert not Weekdays("fri").allows(friday_evening)
    assert Between(time(21), "23:00", tz="America/New_York").allows(friday_evening)
    assert Dates(date(2026, 3, 21)).allows(friday_evening)


def test_between_takes_its_first_time_and_not_its_last() -> None:
    """Two shifts that share an end share no run."""
    hours = [one.hour for one in (Every(hours=1) & Between("09:00", "12:00")).preview(4, after=START)]
    assert hours == [9, 10, 11, 9]


def test_searches_leap_over_closed_days_in_both_directions() -> None:
    """Six closed days are half a million seconds; a search that tried each would give up on a healthy rule."""
    mondays = Every(seconds=1) & Weekdays("mon")
    sunday = datetime(2026, 1, 4, 12, tzinfo=UTC)
    assert mondays.next(sunday) == datetime(2026, 1, 5, tzinfo=UTC)
    assert mondays.prev(sunday) == datetime(2025, 12, 29, 23, 59, 59, tzinfo=UTC)
    assert mondays.count(sunday, sunday + timedelta(days=7)) == 86_400


def test_a_filter_that_lets_nothing_through_is_told() -> None:
    """The scheduler parks such a schedule with this text, and the others go on."""
    with pytest.raises(InvalidTrigger, match=r"let nothing through in 10,000 steps"):
        (At("10:00") & Between("11:00", "12:00")).next(START)
    with pytest.raises(InvalidTrigger, match=r"let nothing through in 10,000 steps"):
        (At("10:00") & Between("11:00", "12:00")).prev(START)


def test_a_list_of_dates_comes_to_its_end() -> None:
    """After its last date a rule is over, like any that ends; an error would park it before its last run."""
    rule = At("09:00", tz="Europe/Rome") & Dates("2026-12-25", "2026-12-26", tz="Europe/Rome")
    assert [one.day for one in rule.preview(5, after=START)] == [25, 26]
    assert rule.prev(START) is None
    assert (Every(seconds=1) & Dates("2026-12-25")).next(datetime(2026, 12, 26, tzinfo=UTC)) is None


def test_a_leap_between_dates_lands_before_the_clocks_change_back() -> None:
    """The next date begins at another offset than the one leapt from; an hour's error would lose its first run."""
    winter, summer = datetime(2026, 2, 1, tzinfo=UTC), datetime(2026, 8, 1, tzinfo=UTC)
    in_july = Every(hours=1) & Dates("2026-07-01", tz="Europe/Rome")
    assert in_july.next(winter) == datetime(2026, 6, 30, 22, tzinfo=UTC)
    in_january = Every(hours=1) & Dates("2026-01-10", tz="Europe/Rome")
    assert in_january.prev(summer) == datetime(2026, 1, 10, 22, tzinfo=UTC)


def test_a_custom_predicate_is_enough_for_a_filter() -> None:
    """One method is all that a rule such as "not in leap seconds" should take to write."""

    class EvenDays(Filter):
        def allows(self, at: datetime) -> bool:
            return at.day % 2 == 0

    even = Every(hours=6) & EvenDays()
    assert [one.day for one in even.preview(5, after=START)] == [20, 20, 20, 22, 22]
    assert even.prev(datetime(2026, 3, 21, 12, tzinfo=UTC)) == datetime(2026, 3, 20, 18, tzinfo=UTC)


def test_what_a_schedule_fills_in_reaches_the_members() -> None:
    """An anchor or an H deep inside a combination is decided like one on top."""
    rule = (Every(hours=1, anchor="start") | Cron("H 3 * * *")) & Weekdays("mon-fri")
    assert rule.needs_resolution
    resolved = rule.resolved(START_NS + 7, "x")
    assert not resolved.needs_resolution
    assert resolved.next_ns(START_NS) is not None
    assert (Every(hours=1, first="immediate") | At("10:00")).fires_at_creation


@pytest.mark.parametrize(
    ("rule", "zone"),
    [
        (Every(hours=1) | At("10:00", tz="Europe/Rome"), "Europe/Rome"),
        (At("09:00", tz="Europe/Rome") | Cron("0 17 * * *", tz="Europe/Rome"), "Europe/Rome"),
        (At("09:00", tz="Europe/Rome") | At("09:00", tz="Asia/Tokyo"), "UTC"),
        (Every(hours=1) | Every(hours=5), None),
        (Every(minutes=1) & Weekdays("mon-fri", tz="Europe/Rome"), "Europe/Rome"),
        (Every(minutes=1) - Between("12:00", "13:00", tz="Europe/Rome") & Weekdays("mon-fri"), "Europe/Rome"),
        (At("09:00", tz="Europe/Rome") & Weekdays("mon-fri"), "Europe/Rome"),
        ((Every(hours=1) & Weekdays("sun", tz="Asia/Tokyo")) | At("10:00", tz="Asia/Tokyo"), "Asia/Tokyo"),
        (Every(hours=1) & Odd(), None),
    ],
)
def test_a_combination_is_shown_in_the_one_zone_it_names(rule: Trigger, zone: str | None) -> None:
    """Who wrote Rome and nothing else reads fire times by Rome's clock, not by that of UTC."""
    assert str(rule.zone) == str(zone)
    found = rule.next(START)
    assert found is not None
    assert str(found.tzinfo) == (zone or "UTC")


def test_a_union_of_equals_is_the_rule_itself() -> None:
    """``a | a`` is a, so that writing a rule twice is no new schedule."""
    assert Every(hours=1) | Every(hours=1) == Every(hours=1)
    assert isinstance(Every(hours=1) | Every(hours=2) | Every(hours=1), Union)


class Choices(Trigger):
    """A custom rule with fields that Python cannot hash."""

    days: list[int] = Field(default_factory=lambda: [1])
    names: dict[str, list[str]] = Field(default_factory=lambda: {"a": ["b"]})

    def next(self, after: datetime) -> datetime | None:
        """Return the instant a day later."""
        return after + timedelta(days=self.days[0])


def test_a_rule_with_a_list_joins_a_union_and_has_a_hash() -> None:
    """A list is the plainest way to write a rule's choices; nothing told its author that a union could not hold it."""
    union = Choices() | Every(hours=1) | Choices(days=[1])
    assert isinstance(union, Union)
    assert len(union.members) == 2
    assert hash(Choices()) == hash(Choices(days=[1])) != hash(Choices(days=[2]))
    assert hash(union) == hash(Every(hours=1) | Choices())
    assert Trigger.from_json(union.to_json()) == union


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Weekdays("mon-fry"), "'mon-fry' is no weekday; did you mean 'friday'?"),
        (lambda: weekdays(3), "must name weekdays"),
        (lambda: Weekdays([]), "names no day"),
        (lambda: Between("9", "10:00"), "HH:MM"),
        (lambda: Between("09:00", "09:00"), "nothing lies between them"),
        (Dates, "at least one date"),
        (lambda: Dates("2026-02-30"), "'2026-02-30' is no date"),
        (lambda: Dates("2026-01-01", tz="Rome"), "did you mean Europe/Rome?"),
    ],
)
def test_wrong_filters_are_told_in_one_line(build: object, words: str) -> None:
    """A filter is checked when it is built, as a rule is."""
    with pytest.raises(InvalidTrigger) as caught:
        build()  # type: ignore[operator]  # a lambda, typed loosely so that wrong calls can be written
    assert words in str(caught.value)


@pytest.mark.parametrize("operator", ["&", "|", "-"])
def test_a_filter_before_an_operator_asks_for_parentheses(operator: str) -> None:
    """Python takes - before &, and & before |, which nobody remembers: the message has to say it."""
    names = {"rule": Every(hours=1), "one": Weekdays("mon-fri"), "other": Dates("2026-12-25")}
    with pytest.raises(InvalidTrigger, match="put the rule in parentheses"):
        eval(f"one {operator} other", {}, names)
    with pytest.raises(InvalidTrigger, match="put the rule in parentheses"):
        eval("rule & one - other", {}, names)
