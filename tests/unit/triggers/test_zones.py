"""Daylight saving: every wall-clock rule against brute force, on the nights when clocks change."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo, available_timezones

import pytest

from quarterjack import Aligned, At, Cron, InvalidTrigger, Trigger
from quarterjack.errors import NeverFires
from quarterjack.triggers import _stretches

from .oracle import TRANSITIONS, expression_matches, fire_times, ns, random_expression

GAPS: Final = ("run_after", "shift", "skip")
FOLDS: Final = ("first", "last", "both")
NIGHTS: Final = [(zone, day) for zone, days in TRANSITIONS.items() for day in days]


def window(day: str, days: int = 2) -> tuple[datetime, datetime]:
    middle = datetime.fromisoformat(f"{day}T00:00Z")
    return middle - timedelta(days=days), middle + timedelta(days=days)


def named(hour: int, minute: int) -> Callable[[datetime], bool]:
    return lambda wall: (wall.hour, wall.minute) == (hour, minute)


def assert_yields(trigger: Trigger, expected: list[int], start: int, end: int) -> None:
    """Compare next, prev and count with a list of fire times in ``(start, end]``."""
    forwards: list[int] = []
    at = trigger.next_ns(start)
    while at is not None and at <= end:
        forwards.append(at)
        at = trigger.next_ns(at)
    assert forwards == expected
    backwards: list[int] = []
    at = trigger.prev_ns(end)
    while at is not None and at > start:
        backwards.append(at)
        at = trigger.prev_ns(at - 1)
    assert backwards[::-1] == expected
    assert trigger.count_ns(start, end, 10**6) == len(expected)
    for one in expected:
        assert trigger.prev_ns(one) == one
        assert trigger.next_ns(one - 1) == one


@pytest.mark.parametrize(("zone", "day"), NIGHTS)
def test_cron_fires_as_brute_force_says_when_the_clocks_change(zone: str, day: str) -> None:
    """The promise of the whole package is that no run is lost or doubled on the two special nights."""
    rng = Random(f"{zone} {day}")
    start, end = window(day)
    for gap, fold in product(GAPS, FOLDS):
        expression = random_expression(rng)
        try:
            trigger = Cron(expression, tz=zone, gap=gap, fold=fold)  # type: ignore[arg-type]  # drawn from the choices
        except NeverFires:
            continue
        expected = fire_times(zone, start, end, expression_matches(expression), gap=gap, fold=fold)
        assert_yields(trigger, expected, ns(start), ns(end))


@pytest.mark.parametrize(("zone", "day"), NIGHTS)
@pytest.mark.parametrize("expression", ["*/10 * * * *", "30 */1 * * *", "30 2 * * *", "15 0,1,2,3 * * *", "0 0 * * *"])
def test_what_is_left_to_auto_follows_debians_cron(zone: str, day: str, expression: str) -> None:
    """A star in minute or hour counts real time; a named time of day runs once, whatever the clock does."""
    start, end = window(day, days=1)
    elapsed = any(field.startswith("*") for field in expression.split()[:2])
    gap, fold = ("skip", "both") if elapsed else ("run_after", "first")
    expected = fire_times(zone, start, end, expression_matches(expression), gap=gap, fold=fold)
    trigger = Cron(expression, tz=zone)
    assert trigger.is_elapsed_like is elapsed
    assert_yields(trigger, expected, ns(start), ns(end))


@pytest.mark.parametrize(("zone", "day"), NIGHTS)
def test_at_fires_as_brute_force_says_when_the_clocks_change(zone: str, day: str) -> None:
    """A named time of day runs exactly once on each of its days, date-line moves aside."""
    rng = Random(day)
    start, end = window(day)
    for fold, gap in product(FOLDS, GAPS):
        hour, minute = rng.choice([0, 1, 2, 3, 23]), rng.choice([0, 15, 30, 59])
        at: Any = {"hour": hour, "minute": minute, "tz": zone, "gap": gap, "fold": fold}
        expected = fire_times(zone, start, end, named(hour, minute), gap=gap, fold=fold)
        assert_yields(At(**at), expected, ns(start), ns(end))


@pytest.mark.parametrize(("zone", "day"), NIGHTS)
@pytest.mark.parametrize("minutes", [15, 45, 7 * 60])
def test_aligned_fires_as_brute_force_says_when_the_clocks_change(zone: str, day: str, minutes: int) -> None:
    """Clock tops are what the clock on the wall shows, at both passes of a repeated hour."""
    start, end = window(day)
    expected = fire_times(
        zone, start, end, lambda wall: (wall.hour * 60 + wall.minute) % minutes == 0, gap="skip", fold="both"
    )
    assert_yields(Aligned(minutes=minutes, tz=zone), expected, ns(start), ns(end))


@pytest.mark.slow
def test_cron_fires_as_brute_force_says_in_every_zone() -> None:
    """Zones hold oddities nobody thinks of; each is looked at on one of its changes, drawn with a fixed seed."""
    rng = Random(2026)
    for zone in rng.sample(sorted(available_timezones() - {"localtime"}), 60):
        changes = _stretches.changes_in(
            ZoneInfo(zone), ns(datetime(1975, 1, 1, tzinfo=UTC)), ns(datetime(2037, 1, 1, tzinfo=UTC))
        )
        if not changes:
            continue
        at = datetime.fromtimestamp(rng.choice(changes).at // 60_000_000_000 * 60, UTC)
        start, end = at - timedelta(days=1), at + timedelta(days=1)
        gap, fold = rng.choice(GAPS), rng.choice(FOLDS)
        expression = f"{rng.choice(['*/15', '0,30', '20'])} {rng.choice(['*', '0-4', '1', '2', '0'])} * * *"
        expected = fire_times(zone, start, end, expression_matches(expression), gap=gap, fold=fold)
        trigger = Cron(expression, tz=zone, gap=gap, fold=fold)  # type: ignore[arg-type]  # drawn from the choices
        assert_yields(trigger, expected, ns(start), ns(end))


def test_a_named_time_inside_a_gap_runs_right_after_it() -> None:
    """The nightly job of half past two is not lost on the shortest night of the year."""
    trigger = Cron("30 2 * * *", tz="America/New_York")
    found = trigger.preview(2, after=datetime(2026, 3, 7, 12, tzinfo=UTC))
    assert [one.isoformat() for one in found] == ["2026-03-08T03:00:00-04:00", "2026-03-09T02:30:00-04:00"]


def test_a_named_time_inside_a_gap_merges_with_an_equal_one() -> None:
    """Two runs at one instant would be one key, and the second would be lost without a word."""
    trigger = Cron("0,30 2,3 * * *", tz="America/New_York")
    found = trigger.preview(2, after=datetime(2026, 3, 8, 6, tzinfo=UTC))
    assert [one.isoformat() for one in found] == ["2026-03-08T03:00:00-04:00", "2026-03-08T03:30:00-04:00"]


def test_a_gap_can_be_made_an_error() -> None:
    """Who would rather be told than have a run moved gets told, with the local time and the way out."""
    trigger = At("02:30", tz="Europe/Rome", gap="error")
    with pytest.raises(InvalidTrigger, match=r"2026-03-29 02:30:00 does not exist.*run_after"):
        trigger.next(datetime(2026, 3, 28, 12, tzinfo=UTC))
    with pytest.raises(InvalidTrigger, match="does not exist"):
        trigger.prev(datetime(2026, 3, 29, 12, tzinfo=UTC))
    assert trigger.next(datetime(2026, 3, 29, 12, tzinfo=UTC)) is not None


def test_a_day_the_date_line_swallowed_has_no_runs() -> None:
    """30 December 2011 did not happen in Samoa; a gap of a day is no daylight saving to make up for."""
    noon = At("12:00", tz="Pacific/Apia")
    found = noon.preview(2, after=datetime(2011, 12, 29, 12, tzinfo=UTC))
    assert [one.date().isoformat() for one in found] == ["2011-12-29", "2011-12-31"]


def test_the_stretches_of_a_zone_tile_time_with_its_own_offsets() -> None:
    """Every search walks them: a hole or a wrong offset would lose runs in that zone for ever."""
    rng = Random(7)
    for zone in rng.sample(sorted(available_timezones() - {"localtime"}), 40):
        tz = ZoneInfo(zone)
        at = ns(datetime(rng.randint(1900, 2080), 1, 1, tzinfo=UTC))
        for _ in range(40):
            here = _stretches.stretch(tz, at)
            assert here.start <= at < here.end
            for instant in (here.start, (here.start + here.end) // 2, here.end - 1):
                local = datetime.fromtimestamp(instant // 10**9, UTC).astimezone(tz)
                assert local.utcoffset() == timedelta(seconds=here.offset // 10**9)
            assert _stretches.stretch(tz, here.start) == here
            at = here.end


def test_no_zone_changes_its_offset_twice_between_two_probes() -> None:
    """The search for changes looks every two days; two closer than that would cancel out unseen."""
    hour = timedelta(hours=1)
    for zone in ("America/Boa_Vista", "Asia/Gaza", "Africa/Freetown", "America/Noronha"):  # the closest there are
        tz = ZoneInfo(zone)
        for year in {"Africa/Freetown": (1939,), "Asia/Gaza": (2040, 2054)}.get(zone, (2000,)):
            at = datetime(year, 1, 1, tzinfo=UTC)
            changes: list[datetime] = []
            while at.year == year:
                if at.astimezone(tz).utcoffset() != (at + hour).astimezone(tz).utcoffset():
                    changes.append(at)
                at += hour
            found = _stretches.changes_in(
                tz, ns(datetime(year, 1, 1, tzinfo=UTC)), ns(datetime(year, 12, 31, tzinfo=UTC))
            )
            assert len(found) == len(changes)


def test_an_unknown_zone_is_told_with_near_names() -> None:
    """A zone is easily misspelt, and a city alone is what people type first."""
    with pytest.raises(InvalidTrigger, match=r"no time zone is called 'Europe/Romme'; did you mean Europe/Rome"):
        At("14:00", tz="Europe/Romme")
    with pytest.raises(InvalidTrigger, match=r"did you mean Europe/Rome\?"):
        Cron("* * * * *", tz="rome")


def test_the_local_zone_is_used_only_when_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule must not mean another time on another machine, unless someone wrote just that."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    _stretches.zone.cache_clear()
    after = datetime(2026, 1, 1, tzinfo=UTC)
    assert At("00:00").preview(1, after=after)[0].isoformat() == "2026-01-02T00:00:00+00:00"
    assert At("00:00", tz="local").preview(1, after=after)[0].isoformat() == "2026-01-02T00:00:00+09:00"
    _stretches.zone.cache_clear()


def test_a_machine_without_a_zone_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unusable TZ is the machine's fault, and the message says what to write instead."""
    monkeypatch.setenv("TZ", "Nowhere/Land")
    _stretches.zone.cache_clear()
    with pytest.raises(InvalidTrigger, match=r'tz="local".*such as "Europe/Rome"'):
        At("00:00", tz="local")


def test_searches_leap_over_idle_years() -> None:
    """A rule for 29 February walks months, not minutes, in every zone."""
    trigger = Cron("0 12 29 2 *", tz="Europe/Rome")
    found = trigger.preview(2, after=datetime(2026, 1, 1, tzinfo=UTC))
    assert [one.year for one in found] == [2028, 2032]
    assert trigger.prev(datetime(2026, 1, 1, tzinfo=UTC)) == datetime(2024, 2, 29, 11, tzinfo=UTC)


def test_a_rule_that_only_ever_meets_a_gap_ends_its_search() -> None:
    """With gap="skip" nothing matches; the search must give up after 400 years instead of never."""
    trigger = Cron("0 30 2 29 3 * 2026", tz="Europe/Rome", gap="skip")
    assert trigger.next(datetime(2026, 1, 1, tzinfo=UTC)) is None
    assert trigger.prev(datetime(2027, 1, 1, tzinfo=UTC)) is None


def test_the_oracle_itself_sees_the_short_and_the_long_night() -> None:
    """An oracle that skipped the special hours would agree with any code."""
    start, end = window("2026-03-29", days=1)
    every = fire_times("Europe/Rome", start, end, lambda wall: True, gap="skip", fold="both")
    assert len(every) == 2 * 24 * 60
    named = fire_times("Europe/Rome", start, end, lambda w: (w.hour, w.minute) == (2, 30), gap="shift", fold="both")
    assert ns(datetime(2026, 3, 29, 1, 30, tzinfo=UTC)) in named
    start, end = window("2026-10-25", days=1)
    assert (
        len(fire_times("Europe/Rome", start, end, lambda w: (w.hour, w.minute) == (2, 30), gap="skip", fold="both"))
        == 3
    )
