"""`Calendar`: steps counted from one date, against a walk through the calendar day by day."""

from __future__ import annotations

from calendar import monthrange
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import Calendar, InvalidTrigger, Trigger

ROME = ZoneInfo("Europe/Rome")


def dates(step: dict[str, int], start: date, n: int, missing: str) -> list[date]:
    """Return the dates of the first *n* steps, as a person with a paper calendar finds them."""
    found: list[date] = []
    months = step.get("years", 0) * 12 + step.get("months", 0)
    days = step.get("weeks", 0) * 7 + step.get("days", 0)
    for k in range(n):
        year, index = divmod(start.year * 12 + start.month - 1 + k * months, 12)
        length = monthrange(year, index + 1)[1]
        if start.day <= length or missing == "clamp":
            found.append(date(year, index + 1, min(start.day, length)) + timedelta(days=k * days))
    return found


STEPS = st.fixed_dictionaries(
    {}, optional={"years": st.integers(0, 3), "months": st.integers(0, 14), "weeks": st.integers(0, 5),
                  "days": st.integers(0, 40)},
).filter(lambda step: any(step.values()))  # fmt: skip


@settings(max_examples=200)
@given(STEPS, st.dates(date(1970, 1, 1), date(2100, 1, 1)), st.sampled_from(["skip", "clamp"]), st.integers(0, 40))
def test_it_steps_as_a_paper_calendar_does(step: dict[str, Any], start: date, missing: Any, asked: int) -> None:
    """Forwards, backwards and counted; from before the start, from its dates and from between them."""
    rule = Calendar(**step, start=start, at="09:30", missing=missing)
    expected = [datetime.combine(day, time(9, 30), UTC) for day in dates(step, start, 60, missing)]
    first = datetime.combine(start, time(9, 30), UTC)
    assert rule.next(first - timedelta(days=3)) == expected[0]
    assert rule.prev(first - timedelta(seconds=1)) is None
    for at, following in zip(expected[asked % 20 : 30], expected[asked % 20 + 1 :], strict=False):
        assert rule.next(at) == following
        assert rule.next(at + timedelta(seconds=1)) == following
        assert rule.prev(following - timedelta(seconds=1)) == at
        assert rule.prev(at) == at
    n = min(asked, len(expected) - 1)
    assert rule.count(first - timedelta(days=1), expected[n]) == n + 1
    assert rule.count(expected[0], expected[n]) == n


def test_short_months_are_never_a_start_of_their_own() -> None:
    """31 January, 28 February, 31 March: a clamp on a clamp would stay on the 28th for ever."""
    clamped = Calendar(months=1, start="2026-01-31", missing="clamp")
    after = datetime(2026, 1, 1, tzinfo=UTC)
    assert [f"{d:%d.%m.}" for d in clamped.preview(5, after=after)] == [
        "31.01.",
        "28.02.",
        "31.03.",
        "30.04.",
        "31.05.",
    ]
    skipping = Calendar(months=1, start="2026-01-31")
    assert [(d.month, d.day) for d in skipping.preview(4, after=after)] == [(1, 31), (3, 31), (5, 31), (7, 31)]
    leap = Calendar(years=1, start=date(2024, 2, 29))
    assert [d.year for d in leap.preview(3, after=after)] == [2028, 2032, 2036]


def test_time_of_day_is_the_zones_on_the_nights_when_clocks_change() -> None:
    """As for `At`: in a gap right after it, in a fold the first time."""
    rule = Calendar(days=1, start="2026-03-28", at="02:30", tz="Europe/Rome")
    found = rule.preview(3, after=datetime(2026, 3, 28, tzinfo=ROME))
    assert [d.isoformat() for d in found] == [
        "2026-03-28T02:30:00+01:00",
        "2026-03-29T03:00:00+02:00",
        "2026-03-30T02:30:00+02:00",
    ]
    autumn = Calendar(weeks=1, start="2026-10-18", at="02:30", tz="Europe/Rome")
    found = autumn.preview(2, after=datetime(2026, 10, 18, tzinfo=ROME))
    assert [d.isoformat() for d in found] == ["2026-10-18T02:30:00+02:00", "2026-10-25T02:30:00+02:00"]


def test_without_a_start_it_counts_from_the_local_day_of_its_schedules_creation() -> None:
    """Restarts on a durable store go on counting from there: the resolved rule is what is kept."""
    rule = Calendar(weeks=2, at="18:00", tz="Europe/Rome")
    assert rule.needs_resolution
    with pytest.raises(InvalidTrigger, match="the day its schedule is created"):
        rule.next(datetime(2026, 1, 1, tzinfo=UTC))
    late = datetime(2026, 1, 1, 23, 30, tzinfo=UTC)  # the second of January in Rome
    resolved = rule.resolved(int(late.timestamp()) * 10**9, "s")
    assert resolved == Calendar(weeks=2, at="18:00", tz="Europe/Rome", start="2026-01-02")
    assert resolved.resolved(0, "other") is resolved
    assert [d.day for d in rule.preview(2, after=late)] == [2, 16]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "a day at least"),
        ({"days": 0, "months": 0}, "a day at least"),
        ({"days": 1.5}, "days must be a whole number"),
        ({"days": True}, "days must be a whole number"),
        ({"months": -1}, "months must be greater than or equal to 0"),
        ({"years": 10_001}, "years must be less than or equal to 10000"),
        ({"days": 1, "start": datetime(2026, 1, 1)}, "and at= its time of day"),
        ({"days": 1, "start": "31.1.2026"}, "and at= its time of day"),
        ({"days": 1, "at": "25:00"}, "a time of day is HH:MM"),
        ({"days": 1, "missing": "last"}, "missing must be 'skip' or 'clamp'"),
        ({"days": 1, "tz": "Europe/Room"}, "Europe/Rome"),
        ({"years": 9999, "start": "2026-01-01"}, "past the year 9999"),
        ({"day": 1}, "did you mean 'days'"),
    ],
    ids=str,
)
def test_what_means_nothing_is_refused_when_it_is_built(options: dict[str, Any], said: str) -> None:
    """A wrong rule must fail on its own line, not at night."""
    with pytest.raises(InvalidTrigger, match=said):
        Calendar(**options)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (
            Calendar(months=1, start="2026-01-31", at="09:00", tz="Europe/Rome"),
            "every month at 09:00, from 31 January 2026, Rome time; a month without that day is left out",
        ),
        (
            Calendar(years=1, months=6, start="2026-01-29", missing="clamp"),
            (
                "every 1 year and 6 months at 00:00, from 29 January 2026, UTC; "
                "a month without that day takes its last day"
            ),
        ),
        (Calendar(weeks=2, start="2026-01-05"), "every 2 weeks at 00:00, from 5 January 2026, UTC"),
        (Calendar(days=3, at="18:00"), "every 3 days at 18:00, from the day its schedule is created, UTC"),
    ],
)
def test_it_says_what_it_means(rule: Trigger, words: str) -> None:
    """`qj explain` is read by people; and the rule survives JSON."""
    assert rule.explain() == words
    assert Trigger.from_json(rule.to_json()) == rule


def test_it_ends_with_the_calendar() -> None:
    """No date lies past 9999: the rule ends, it does not fail."""
    rule = Calendar(years=1000, start="2026-01-01")
    assert [d.year for d in rule.preview(20, after=datetime(2026, 1, 2, tzinfo=UTC))] == list(range(3026, 9999, 1000))
