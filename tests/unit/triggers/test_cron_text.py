"""Cron as text: what is read, what is refused and where."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest

from quarterjack import At, Cron, InvalidTrigger, NeverFires
from quarterjack.triggers.base import instant_ns

from .oracle import expression_matches, fire_times, ns, random_expression

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("expression", "where"),
    [
        ("60 * * * *", "minute '60' at column 1: 60 is out of range (allowed: 0-59)"),
        ("0 24 * * *", "hour '24' at column 3: 24 is out of range (allowed: 0-23)"),
        ("0 0 0 * *", "day of month '0' at column 5: 0 is out of range (allowed: 1-31)"),
        ("0 0 1 13 *", "month '13' at column 7"),
        ("0 0 * * 8", "day of week '8' at column 9: 8 is out of range (allowed: 0-7)"),
        ("61 0 0 * * *", "second '61' at column 1"),
        ("0 0 0 1 1 * 1800", "year '1800' at column 13"),
        ("1,2,70 * * * *", "minute '70' at column 5"),
        ("* * * *, *", "month '' at column 9: a comma"),
        ("*/x * * * *", "minute '*/x' at column 1: a step is a whole number"),
        ("* * * * mon#6", "a 1st to 5th"),
        ("* * L-31 * *", "L counts back at most 30 days"),
        ("* * 32W * *", "32 is out of range"),
        ("\u0661 * * * *", "only ASCII"),
        ("", "has 0 fields"),
        ("@often", "no such shorthand"),
        ("* * * * L", "write 6L"),
        ("H(9-3) * * * *", "write H, H/15 or H(0-29)"),
        ("0 0 0 1 1 * 2030-2020", "year '2030-2020' at column 13: years do not wrap around; write 2020-2030"),
        ("*/100 * * * *", "minute '*/100' at column 1: a step of 100 is longer than the 60 values there are"),
        ("*/100 * * * *", "a longer period is Every(minutes=100)"),
        ("0 0,*/25 * * *", "hour '*/25' at column 5: a step of 25 is longer than the 24 values"),
        ("0 0 */40 * *", "day of month '*/40' at column 5: a step of 40 is longer than the 31 values there are ("),
        ("0 0 * * */8", "a step of 8 is longer than the 7 values"),
        ("H/61 * * * *", "a step of 61"),
    ],
)
def test_what_cannot_be_read_is_pointed_at(expression: str, where: str) -> None:
    """A crontab line is five riddles; the error names the one that is wrong, and its column."""
    with pytest.raises(InvalidTrigger) as caught:
        Cron(expression)
    assert where in str(caught.value)


@pytest.mark.parametrize(
    "expression", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 8-14 * +mon#1", "0 0 0 29 2 * 2101-2103"]
)
def test_what_never_comes_is_refused_at_once(expression: str) -> None:
    """A job that silently never runs is found out when it is needed; the error comes when it is written."""
    with pytest.raises(NeverFires, match="never fires"):
        Cron(expression)


@pytest.mark.parametrize("seed", range(12))
def test_cron_in_utc_fires_as_brute_force_says(seed: int) -> None:
    """Whole months against an oracle that knows nothing of masks."""
    rng = Random(seed)
    start = START + timedelta(days=rng.randint(0, 365))
    end = start + timedelta(days=4)
    for _ in range(4):
        expression = random_expression(rng)
        try:
            rule = Cron(expression)
        except NeverFires:
            continue
        expected = fire_times("UTC", start, end, expression_matches(expression), gap="skip", fold="both")
        at, found = ns(start), []
        while (following := rule.next_ns(at)) is not None and following <= ns(end):
            found.append(following)
            at = following
        assert found == expected
        assert rule.count_ns(ns(start), ns(end), 10**6) == len(expected)


@pytest.mark.parametrize("tz", ["UTC", "Europe/Rome", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "expression", ["*/13 * * * *", "0 9 * * mon-fri", "30 2 1,15 * *", "0 0 L * *", "*/20 5 * * * *"]
)
def test_counting_equals_walking_over_years(expression: str, tz: str) -> None:
    """Months are counted, not walked, and the short cut must not lose a day at either end."""
    rule, rng = Cron(expression, tz=tz), Random(expression)
    low = instant_ns(START) + rng.randrange(10**9 * 86_400 * 300)
    high = low + rng.randrange(10**9 * 86_400 * 120, 10**9 * 86_400 * 250)
    walked, at = 0, low
    while (following := rule.next_ns(at)) is not None and following <= high:
        walked += 1
        at = following
    assert rule.count_ns(low, high, 10**9) == walked
    assert rule.count_ns(low, high, 3) == 3
    assert rule.count_ns(high, low, 10) == 0


def test_years_bound_a_rule_at_both_ends() -> None:
    """A rule of one year has a first and a last fire time, wherever it is asked from."""
    rule = Cron("0 0 12 1 1,7 * 2027")
    assert rule.preview(5, after=START) == [datetime(2027, 1, 1, 12, tzinfo=UTC), datetime(2027, 7, 1, 12, tzinfo=UTC)]
    assert rule.next(datetime(2027, 7, 1, 12, tzinfo=UTC)) is None
    assert rule.prev(datetime(2999, 1, 1, tzinfo=UTC)) == datetime(2027, 7, 1, 12, tzinfo=UTC)
    assert rule.prev(datetime(2027, 1, 1, 11, tzinfo=UTC)) is None


def test_a_drawn_value_depends_on_the_schedule_alone() -> None:
    """A hundred nightly jobs spread over the hour, each at the same minute on every replica and restart."""
    rule = Cron("H 3 * * *")
    assert rule.needs_resolution
    assert rule.bound_to("a") == rule.resolved(0, "a") == rule.bound_to("a")
    minutes = {rule.bound_to(f"job-{n}").preview(1, after=START)[0].minute for n in range(100)}
    assert len(minutes) > 40
    with pytest.raises(InvalidTrigger, match="bound_to"):
        rule.preview(1, after=START)


def test_drawn_values_keep_to_their_range_and_step() -> None:
    """``H/15`` is every quarter of an hour from a drawn minute, ``H(0-9)`` lies in the first ten."""
    for n in range(20):
        quarter = [one.minute for one in Cron("H/15 * * * *").bound_to(str(n)).preview(4, after=START)]
        assert {minute % 15 for minute in quarter} == {min(quarter)}
        assert len(set(quarter)) == 4
        assert Cron("H(0-9) * * * *").bound_to(str(n)).preview(1, after=START)[0].minute < 10


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("0 0 * * sun", "0 0 * * 7"),
        ("0 0 * * fri-mon", "0 0 * * 5,6,0,1"),
        ("0 22-2 * * *", "0 22,23,0,1,2 * * *"),
        ("0 0 1 JAN *", "0 0 1 1 *"),
        ("5/20 * * * *", "5,25,45 * * * *"),
        ("7-7 * * * *", "7 * * * *"),
        ("*/60 * * * *", "0 * * * *"),
        ("0 0 0 1 1 * 2030-2030", "0 0 0 1 1 * 2030"),
        ("0 0 1 1 *", "@yearly"),
        ("0 0 0 * * *", "@midnight"),
    ],
)
def test_two_spellings_fire_alike(one: str, other: str) -> None:
    """Every form a crontab knows is read as cron reads it."""
    assert Cron(one).preview(30, after=START) == Cron(other).preview(30, after=START)


def test_at_takes_every_spelling_of_its_days() -> None:
    """The three ways people wrote it before are one rule here."""
    assert At("14:00", on="every sunday") == At(hour=14, at="Sundays") == At("14:00:00", on=["sun"])
    assert At("09:00", on="weekdays") == At("09:00", on="mon-fri") == At("9:00", on="mon,tue,wed,thu and fri")
    assert At("09:00", on="every day") == At("09:00")
    assert At("08:00", on="fri-mon").preview(4, after=datetime(2026, 1, 1, 9, tzinfo=UTC))[-1].day == 5
