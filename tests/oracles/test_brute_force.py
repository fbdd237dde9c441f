"""Every rule against brute force in every zone of tzdata, on nights when clocks are set, from 1970 to 2037.

What runs here by default is a sample with fixed seeds. ``QJ_FUZZ_MINUTES=10``
goes through all nights of all zones in a random order for so many minutes;
``QJ_FUZZ_SEED`` repeats such a run."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from itertools import pairwise
from random import Random
from time import monotonic
from typing import Final
from zoneinfo import ZoneInfo

import pytest

from quarterjack import Every, Trigger
from quarterjack.errors import InvalidTrigger
from quarterjack.triggers import Once
from quarterjack.triggers._stretches import stretch
from quarterjack.triggers.base import from_ns

from . import draw
from .nights import Disagreement, Night, compare, enumerated, one_night
from .tzif import listed_changes
from .walk import DAY, HOUR, MINUTE, SECOND, Change, Walk, changes, offset, shown, zones

TENTH: Final = SECOND // 10
YEARS: Final = range(1970, 2038)
SHARES: Final = 8
"""The zones are looked at in so many tests, so that one that hangs is told from the others."""
STEPS: Final = [MINUTE] * 14 + [SECOND] * 5 + [TENTH]
MOST_TOLD: Final = 20
SOME: Final = 2_000
NO_CAP: Final = 2**62


def a_night(zone: str, rng: Random) -> Night:
    """Return a night on which the zone's clock is set; of a zone that never did, any."""
    for year in rng.sample(YEARS, 12):
        if found := changes(zone, year, year):
            return Night(zone, rng.choice(found))
    return Night(zone, Change(rng.randint(0, 67 * 365) * DAY, 0))


# -- the sample --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("share", range(SHARES))
def test_rules_fire_as_brute_force_says_in_every_zone(share: int) -> None:
    """No run may be lost or doubled when a clock is set, and zones hold oddities that nobody thinks of."""
    for zone in zones()[share::SHARES]:
        rng = Random(f"minutes {zone}")
        one_night(a_night(zone, rng), rng, 2)


@pytest.mark.slow
@pytest.mark.parametrize("step", [SECOND, TENTH], ids=["seconds", "tenths"])
def test_rules_of_seconds_and_less_fire_as_brute_force_says(step: int) -> None:
    """The edge of a gap is one instant, which rules of whole minutes meet only by chance."""
    for number in range(16 if step == SECOND else 4):
        rng = Random(f"seconds {step} {number}")
        one_night(a_night(rng.choice(zones()), rng), rng, 4, step=step)


# Offsets of half a minute, a gap of a day in both forms, half an hour, two hours, three, midnight, negative.
ODD_NIGHTS: Final = (
    ("Africa/Monrovia", 1972),
    ("Pacific/Apia", 2011),
    ("Pacific/Kwajalein", 1993),
    ("Pacific/Kiritimati", 1994),
    ("Australia/Lord_Howe", 2026),
    ("Antarctica/Troll", 2026),
    ("Antarctica/Casey", 2020),
    ("America/Sao_Paulo", 2018),
    ("Africa/Casablanca", 2026),
    ("Europe/Dublin", 2026),
    ("Asia/Pyongyang", 2018),
    ("America/Caracas", 2016),
)


@pytest.mark.parametrize(("zone", "year"), ODD_NIGHTS)
def test_rules_fire_as_brute_force_says_on_the_oddest_nights(zone: str, year: int) -> None:
    """These are the nights on which schedulers are known to fail, so none is left to the draw."""
    for change in changes(zone, year, year)[:2]:
        one_night(Night(zone, change), Random(f"odd {zone} {change.at}"), 6)


# -- everywhere else ---------------------------------------------------------------------------


def any_rule(rng: Random, at: int) -> Trigger | None:
    """Draw a rule of any kind in any zone; *at* is an instant that is asked about."""
    zone, near = rng.choice(zones()), draw.day_of(at)
    kinds: list[Callable[[], draw.Subject | None]] = [
        lambda: draw.cron(rng, zone, near, by_second=rng.random() < 0.3),
        lambda: draw.at(rng, zone, by_second=True),
        lambda: draw.aligned(rng, zone, rng.choice([MINUTE, SECOND])),
        lambda: draw.calendar(rng, zone, near, by_second=True),
    ]
    drawn = rng.choice(kinds)()
    rule = None if drawn is None else drawn.trigger
    other = rng.choice(
        [
            Every(seconds=rng.randint(1, 10**6), phase=rng.randint(-100, 100)),
            Every(milliseconds=rng.randint(1, 10**4)),
            Once(from_ns(at + rng.randint(-DAY, DAY))),
        ]
    )
    choice = rng.random()
    if rule is None or choice < 0.1:
        return other
    if choice < 0.3:
        return rule | other
    return rule & draw.sieve(rng, zone, near).filter if choice < 0.4 else rule


def check_anywhere(rule: Trigger, at: int, rng: Random) -> None:
    """Hold a rule's answers around any instant against each other.

    Raises:
        Disagreement: Where they do not fit.
    """
    following, last = rule.next_ns(at), rule.prev_ns(at)
    claims = [following is None or following > at, last is None or last <= at]
    if following is not None:
        claims += [
            rule.prev_ns(following) == following,
            rule.next_ns(following - 1) == following,
            rule.prev_ns(following - 1) == last,
            rule.count_ns(at, following, 9) == 1,
            rule.count_ns(at, following - 1, 9) == 0,
        ]
    if last is not None:
        claims += [rule.next_ns(last - 1) == last, rule.next_ns(last) == following]
    if not all(claims):
        raise Disagreement(f"{rule!r}: next and prev of {shown(at)} are no neighbours: {last}, {following}: {claims}")
    _check_count(rule, at, rng)
    if Trigger.from_json(rule.to_json()) != rule:
        raise Disagreement(f"{rule!r} does not come back from JSON")


def _check_count(rule: Trigger, at: int, rng: Random) -> None:
    """Hold counting against enumeration over some fire times, and against itself over a long range."""
    end = at
    listed: list[int] = []
    while len(listed) < 60 and (following := rule.next_ns(end)) is not None and following < at + 6_000 * DAY:
        listed.append(following)
        end = following
    if any(a >= b for a, b in pairwise(listed)) or rule.count_ns(at, end, NO_CAP) != len(listed):
        raise Disagreement(f"{rule!r}: count({shown(at)}, {shown(end)}) is not {len(listed)}")
    middle, until = sorted(at + rng.randint(1, rng.choice([3 * DAY, 1_000 * DAY])) for _ in range(2))
    if isinstance(rule, Every) or len(some(rule, at, until)) < SOME:  # others may count by walking
        parts = rule.count_ns(at, middle, NO_CAP) + rule.count_ns(middle, until, NO_CAP)
        if rule.count_ns(at, until, NO_CAP) != parts:
            ends = " to ".join(map(shown, (at, middle, until)))
            raise Disagreement(f"{rule!r}: count from {ends} does not add up")


def some(rule: Trigger, start: int, end: int) -> list[int]:
    """Return the first fire times in ``(start, end]``."""
    found: list[int] = []
    at = rule.next_ns(start)
    while at is not None and at <= end and len(found) < SOME:
        found.append(at)
        at = rule.next_ns(at)
    return found


def anywhere(rng: Random) -> bool:
    """Draw a rule and an instant and check them; say whether there was something to check.

    Raises:
        Disagreement: At a difference.
    """
    at = rng.randint(0, 68 * 365 * DAY)
    rule = any_rule(rng, at)
    if rule is None:
        return False
    try:
        check_anywhere(rule, at, rng)
    except InvalidTrigger as error:
        if "let nothing through" not in str(error):
            raise
    return True


def test_neighbours_and_counts_agree_anywhere_in_time() -> None:
    """Most instants are no special night, and next, prev and count must tell one story there as well."""
    rng = Random("anywhere")
    assert sum(anywhere(rng) for _ in range(150)) > 100


# -- the oracle's own --------------------------------------------------------------------------


def test_the_walk_sees_what_rome_remembers() -> None:
    """An oracle that overlooks a gap or a fold would agree with code that does the same."""
    spring, autumn = (changes("Europe/Rome", 2026, 2026)[n] for n in (0, 1))
    assert shown(spring.at) == "2026-03-29T01:00:00+00:00"
    assert (spring.shift, autumn.shift) == (HOUR, -HOUR)

    def half_past_two(wall: int) -> bool:
        return wall % DAY == 2 * HOUR + 30 * MINUTE

    forward = Walk("Europe/Rome", spring.at - DAY, spring.at + 12 * HOUR, MINUTE)
    at = {gap: forward.fire_times(half_past_two, gap=gap, fold="both") for gap in ("skip", "run_after", "shift")}
    assert {gap: [shown(one, "Europe/Rome")[8:16] for one in found] for gap, found in at.items()} == {
        "skip": ["28T02:30"],
        "run_after": ["28T02:30", "29T03:00"],
        "shift": ["28T02:30", "29T03:30"],
    }
    back = Walk("Europe/Rome", autumn.at - 12 * HOUR, autumn.at + 12 * HOUR, MINUTE)
    first, last, both = (back.fire_times(half_past_two, gap="skip", fold=fold) for fold in ("first", "last", "both"))
    assert [shown(one) for one in both] == ["2026-10-25T00:30:00+00:00", "2026-10-25T01:30:00+00:00"]
    assert first + last == both


def test_a_wrong_rule_is_told() -> None:
    """A comparison that cannot fail proves nothing."""
    night = changes("Europe/Rome", 2026, 2026)[0]
    start, end = night.at - DAY, night.at + DAY
    rng = Random(1)
    rule = Every(hours=1)
    right = enumerated(rule, start, end)
    compare(rule, right, start, end, rng)
    for wrong in (right[1:], right[:-1], [*right, end - 1]):
        with pytest.raises(Disagreement):
            compare(rule, sorted(wrong), start, end, rng)


def test_the_stretches_hold_every_change_that_tzdata_lists() -> None:
    """The engine finds changes by probing; one that fell between two probes would shift a zone's runs for weeks."""
    first, last = 0, (2037 - 1970) * 365 * DAY
    seen: set[tuple[tuple[int, int], ...]] = set()
    for zone in zones():
        listed = tuple((at, shift) for at, shift in listed_changes(zone) if first < at < last)
        if not listed or listed in seen:
            continue
        seen.add(listed)
        tz = ZoneInfo(zone)
        for at, shift in listed:
            before, after = stretch(tz, at - 1), stretch(tz, at)
            assert (before.end, after.start) == (at, at), f"{zone} {shown(at)}"
            assert after.offset - before.offset == shift == offset(tz, at) - offset(tz, at - SECOND), zone
        assert all(b - a > 2 * DAY for (a, _), (b, _) in pairwise(listed)), zone
    assert len(seen) > 100


# -- the whole ---------------------------------------------------------------------------------


def every_night(rng: Random) -> list[Night]:
    """Return all nights of all zones, those of equal zones once, in a random order."""
    zones_by_changes: dict[tuple[Change, ...], list[str]] = {}
    for zone in zones():
        zones_by_changes.setdefault(tuple(changes(zone, YEARS[0], YEARS[-1])), []).append(zone)
    found = [Night(rng.choice(equal), change) for known, equal in zones_by_changes.items() for change in known]
    rng.shuffle(found)
    return found


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.skipif("QJ_FUZZ_MINUTES" not in os.environ, reason="for the whole, set QJ_FUZZ_MINUTES")
def test_all_nights_for_some_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    """The sample grows old; now and then someone looks everywhere, and says what they saw."""
    deadline = monotonic() + float(os.environ["QJ_FUZZ_MINUTES"]) * 60
    seed = os.environ.get("QJ_FUZZ_SEED") or secrets.token_hex(4)
    rng = Random(seed)
    nights = every_night(rng)
    visited = compared = elsewhere = 0
    told: list[str] = []
    while monotonic() < deadline and len(told) < MOST_TOLD:
        night, draws = nights[visited % len(nights)], f"{seed} {visited}"
        visited += 1
        try:
            compared += one_night(night, Random(draws), 4, step=rng.choice(STEPS))
            elsewhere += anywhere(Random(draws))
        except Exception as error:  # every kind of failure of the code under test is told, and the search goes on
            told.append(f"{night.zone} {shown(night.change.at)}, seed {draws!r}: {type(error).__name__}: {error}")
    with capsys.disabled():
        print(f"\nseed {seed}: {visited} of {len(nights)} nights, {compared} rules, {elsewhere} elsewhere")
    assert not told, "\n".join(told)
