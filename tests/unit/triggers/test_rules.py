"""What every trigger promises, against brute force and other people's cron."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterjack import (
    Aligned,
    At,
    Cron,
    Every,
    Forever,
    InvalidTrigger,
    NaiveDatetime,
    NeverFires,
    NotPeriodic,
    Once,
    OnStartup,
    Trigger,
    Weekdays,
)

ZONES = ["UTC", "Europe/Rome", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca"]
INSTANTS = st.datetimes(datetime(1975, 1, 1), datetime(2037, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))


@st.composite
def fields(draw: Any, low: int, high: int) -> str:
    """Draw one cron field: a star, a step, a range, a list."""
    a = draw(st.integers(low, high - 1))
    b = draw(st.integers(a + 1, high))
    choices = [
        "*",
        "*",
        f"*/{draw(st.integers(1, min(20, high - low + 1)))}",
        f"{a}",
        f"{a}-{b}",
        f"{a},{b}",
        f"{a}-{b}/2",
    ]
    return str(draw(st.sampled_from(choices)))


@st.composite
def expressions(draw: Any) -> str:
    """Draw a five-field expression that fires (days stay below 29)."""
    parts = [draw(fields(0, 59)), draw(fields(0, 23)), draw(fields(1, 28)), draw(fields(1, 12)), draw(fields(0, 6))]
    return " ".join(parts)


@st.composite
def periodic(draw: Any) -> Trigger:
    """Draw any trigger with fire times."""
    zone = draw(st.sampled_from(ZONES))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return Every(seconds=draw(st.integers(1, 10**6)), phase=draw(st.integers(-100, 100)))
    if kind == 1:
        return Aligned(minutes=draw(st.integers(1, 1440)), tz=zone)
    if kind == 2:
        return At(hour=draw(st.integers(0, 23)), minute=draw(st.integers(0, 59)), tz=zone)
    if kind == 3:
        return Cron(draw(expressions()), tz=zone)
    return Every(hours=draw(st.integers(1, 50))) | At("02:30", tz=zone)


@given(periodic(), INSTANTS)
@settings(max_examples=300, deadline=None)
def test_next_and_prev_are_inverse_and_strict(trigger: Trigger, at: datetime) -> None:
    """A fire time is after its question, and the last fire time at itself."""
    found = trigger.next(at)
    assert found is not None
    assert found > at
    assert trigger.prev(found) == found
    before = trigger.prev(at)
    assert before is not None
    assert before <= at
    assert trigger.next(before) == found
    assert trigger.next(before.astimezone(UTC) - timedelta(microseconds=1)) == before


@given(periodic(), INSTANTS)
@settings(max_examples=100, deadline=None)
def test_count_equals_enumeration_and_json_comes_back(trigger: Trigger, at: datetime) -> None:
    """Counting is a short cut, not another answer."""
    listed = trigger.preview(5, after=at)
    # In UTC: datetimes of one zone compare as wall time, and a repeated hour's two passes look equal then.
    assert all(a < b for a, b in pairwise(one.astimezone(UTC) for one in listed))
    assert trigger.count(at, listed[-1]) == len(listed)
    assert trigger.count(at, listed[-1], 2) == 2
    revived = Trigger.from_json(trigger.to_json())
    assert revived == trigger
    assert hash(revived) == hash(trigger)


def brute(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    """Walk every minute of UTC, convert, match, and apply Debian's rules for the two special nights."""
    parts = expression.split()
    tz = ZoneInfo(zone)
    elapsed = parts[0].startswith("*") or parts[1].startswith("*")
    sets = [expand(part, low, high) for part, (low, high) in zip(parts, BOUNDS, strict=True)]

    def matches(local: datetime) -> bool:
        day, weekday = local.day in sets[2], local.isoweekday() % 7 in sets[4]
        both = parts[2].startswith("*") or parts[4].startswith("*")
        return (
            local.minute in sets[0]
            and local.hour in sets[1]
            and local.month in sets[3]
            and ((day and weekday) if both else (day or weekday))
        )

    found: list[datetime] = []
    at, last_local = start, None
    while at <= end:
        local = at.astimezone(tz).replace(tzinfo=None)
        if last_local is not None and not elapsed and timedelta(minutes=1) < local - last_local <= timedelta(hours=3):
            skipped = last_local + timedelta(minutes=1)
            while skipped < local:
                if matches(skipped) and (not found or found[-1] != at):
                    found.append(at)
                skipped += timedelta(minutes=1)
        is_second_pass = at.astimezone(tz).fold == 1
        if matches(local) and (elapsed or not is_second_pass) and (not found or found[-1] != at):
            found.append(at)
        last_local = local
        at += timedelta(minutes=1)
    return found


BOUNDS = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]


def expand(part: str, low: int, high: int) -> set[int]:
    """Return the values of a plain field."""
    found: set[int] = set()
    for item in part.split(","):
        body, _, step = item.partition("/")
        if body == "*":
            first, last = low, high
        else:
            a, _, b = body.partition("-")
            first, last = int(a), int(b or a)
        found.update(range(first, last + 1, int(step or 1)))
    return found


NIGHTS = [
    ("Europe/Rome", datetime(2026, 3, 29, tzinfo=UTC)),
    ("Europe/Rome", datetime(2026, 10, 25, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 4, 4, tzinfo=UTC)),
    ("Australia/Lord_Howe", datetime(2026, 10, 3, tzinfo=UTC)),
    ("Europe/Dublin", datetime(2026, 10, 25, tzinfo=UTC)),
    ("Pacific/Apia", datetime(2011, 12, 30, tzinfo=UTC)),
]


@pytest.mark.parametrize(("zone", "night"), NIGHTS)
def test_cron_equals_brute_force_on_the_nights_when_clocks_change(zone: str, night: datetime) -> None:
    """Every kind of rule, minute by minute, forwards and backwards."""
    rng = random.Random(f"{zone}{night}")
    fixed = ["30 2 * * *", "0,30 1-3 * * *", "*/20 * * * *", "15 * * * *", "0 */2 * * *", "45 1 * * *", "0 0 * * *"]
    drawn = [f"{rng.randint(0, 59)} {rng.randint(0, 4)} * * *" for _ in range(6)]
    for expression in fixed + drawn:
        start, end = night - timedelta(hours=30), night + timedelta(hours=54)
        want = [at for at in brute(expression, zone, start - timedelta(days=1), end) if at > start]
        cron = Cron(expression, tz=zone)
        got: list[datetime] = []
        at = cron.next(start)
        while at is not None and at <= end:
            got.append(at)
            at = cron.next(at)
        assert [a.astimezone(UTC) for a in got] == want, expression
        back: list[datetime] = []
        last = cron.prev(end)
        while last is not None and last > start:
            back.append(last.astimezone(UTC))
            last = cron.prev(last.astimezone(UTC) - timedelta(microseconds=1))
        assert back[::-1] == want, expression


@given(expressions(), INSTANTS)
@settings(max_examples=200, deadline=None)
def test_cron_agrees_with_cronsim_and_croniter_in_utc(expression: str, at: datetime) -> None:
    """Three implementations, one answer (Debian's rule for days)."""
    at = at.replace(second=0, microsecond=0)
    ours = Cron(expression).preview(3, after=at)
    theirs = CronSim(expression, at)
    assert ours == [next(theirs) for _ in range(3)]
    other = croniter(expression, at, implement_cron_bug=True)
    assert ours == [other.get_next(datetime) for _ in range(3)]


@pytest.mark.parametrize(
    ("expression", "after", "want"),
    [
        ("0 0 L * *", "2026-02-01", "2026-02-28"),
        ("0 0 L-3 * *", "2026-02-01", "2026-02-25"),
        ("0 0 LW * *", "2026-05-01", "2026-05-29"),
        ("0 0 15W * *", "2026-02-01", "2026-02-16"),
        ("0 0 * * 5L", "2026-02-01", "2026-02-27"),
        ("0 0 * * mon#2", "2026-02-01", "2026-02-09"),
        ("0 0 * * fri-mon", "2026-02-03", "2026-02-06"),
        ("0 0 13 * +fri", "2026-01-01", "2026-02-13"),
        ("0 0 29 2 *", "2026-01-01", "2028-02-29"),
        ("30 0 0 1 1 *", "2026-06-01", "2027-01-01 00:00:30"),
        ("0 0 0 1 1 * 2030", "2026-06-01", "2030-01-01"),
    ],
)
def test_special_days(expression: str, after: str, want: str) -> None:
    """Last days, nearest weekdays, n-th weekdays, seconds and years."""
    begin = datetime.fromisoformat(after).replace(tzinfo=UTC)
    assert Cron(expression).next(begin) == datetime.fromisoformat(want).replace(tzinfo=UTC)


def test_overrides_of_gap_and_fold() -> None:
    """Each policy, on the nights it is about."""
    spring, autumn = datetime(2026, 3, 28, 12, tzinfo=UTC), datetime(2026, 10, 24, 12, tzinfo=UTC)

    def first(after: datetime, **policy: Any) -> str:
        found = At("02:30", tz="Europe/Rome", **policy).next(after)
        assert found is not None
        return found.isoformat()

    assert first(spring) == "2026-03-29T03:00:00+02:00"
    assert first(spring, gap="shift") == "2026-03-29T03:30:00+02:00"
    assert first(spring, gap="skip") == "2026-03-30T02:30:00+02:00"
    assert first(autumn) == "2026-10-25T02:30:00+02:00"
    assert first(autumn, fold="last") == "2026-10-25T02:30:00+01:00"
    both = At("02:30", tz="Europe/Rome", fold="both").preview(2, after=autumn)
    assert [at.isoformat() for at in both] == ["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00"]
    with pytest.raises(InvalidTrigger, match="does not exist"):
        first(spring, gap="error")


class OddSeconds(Trigger):
    """A custom rule with ``next`` alone."""

    step: int = 3

    def next(self, after: datetime) -> datetime | None:
        """Return the next odd instant."""
        return after + timedelta(seconds=self.step)


class Wrong(Trigger):
    """A custom rule that answers whatever it was told to."""

    answer: Any = None

    def next(self, after: datetime) -> datetime | None:
        """Return the wrong thing."""
        found: datetime | None = self.answer
        return found


def test_custom_triggers_need_next_alone_and_are_watched() -> None:
    """Prev and count follow from next, within bounds; wrong answers are refused."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    odd = OddSeconds(step=3)
    assert odd.next_ns(5) == 3 * 10**9
    assert odd.count(at, at + timedelta(seconds=10)) == 3
    assert Trigger.from_json(odd.to_json()) == odd
    for answer in (datetime(2026, 1, 2), at, at - timedelta(days=1), "tomorrow"):  # naive on purpose
        with pytest.raises(InvalidTrigger):
            Wrong(answer=answer).next_ns(int(at.timestamp()) * 10**9)
    assert Wrong().next_ns(0) is None


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (Every, "1 millisecond"),
        (lambda: Every(seconds=-1), "greater than or equal to 0"),
        (lambda: Every(seconds=0), "1 millisecond"),
        (lambda: Every(seconds=float("nan")), "finite"),
        (lambda: Every(days=10**12), "200 years"),
        (lambda: Every(secnds=1), "did you mean 'seconds'"),  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]  # the case
        (lambda: Aligned(hours=25), "24 hours"),
        (lambda: At("25:00"), "HH:MM"),
        (lambda: At("14:00", tz="Rome"), "Europe/Rome"),
        (lambda: At("14:00", on="someday"), "no weekday"),
        (lambda: At("14:00", on="sunday", at="monday"), "same thing"),
        (lambda: Cron("61 * * * *"), "minute '61' at column 1"),
        (lambda: Cron("* 24 * * *"), "hour '24' at column 3"),
        (lambda: Cron("* * * foo *"), "month 'foo' at column 7"),
        (lambda: Cron("* * * * mond"), "did you mean 'mon'"),
        (lambda: Cron("* * *"), "3 fields"),
        (lambda: Cron("*/0 * * * *"), "step"),
        (lambda: Cron("@dayly"), "@daily"),
        (lambda: Cron("0 0 30 2 *"), "never fires"),
        (lambda: Cron("H * * * *").next(datetime(2026, 1, 1, tzinfo=UTC)), "bound_to"),
        (lambda: Every(seconds=1) | OnStartup(), "OnStartup"),
        (lambda: OnStartup() | Every(seconds=1), "OnStartup"),
        (lambda: Every(seconds=1) & Every(seconds=2), "filter"),  # type: ignore[operator]
        (lambda: Once(datetime(2026, 1, 1)), "no zone"),  # naive on purpose
        (lambda: Once(datetime.max.replace(tzinfo=ZoneInfo("America/New_York"))), "at=9999-12-31T23:59:59"),
        (lambda: Once(datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo"))), "outside the years 1 to 9999 in UTC"),
        (lambda: Every(seconds=1, anchor=datetime.min.replace(tzinfo=ZoneInfo("Asia/Tokyo"))), "anchor=0001-01-01"),
        (lambda: Forever(10**400), "a number of about 400 digits"),
        (lambda: Forever(-(10**5000)), "pause must be 0 or more"),
        (lambda: At("14:30", hour=0), "given twice, as '14:30' and by hour"),
        (lambda: At("14:30", minute=0), "given twice, as '14:30' and by minute"),
        (lambda: Trigger.from_dict({"type": "Nobody"}), "Nobody"),
    ],
)
def test_bad_input_gets_a_clear_error(build: Any, words: str) -> None:
    """The field, the value, what is allowed, and what was meant."""
    with pytest.raises(InvalidTrigger) as caught:
        build()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_impossible_questions() -> None:
    """Naive datetimes, and rules without a list of fire times."""
    with pytest.raises(NaiveDatetime, match="tzinfo=UTC"):
        Every(seconds=1).next(datetime(2026, 1, 1))  # naive on purpose
    with pytest.raises(NotPeriodic):
        Forever().next(datetime(2026, 1, 1, tzinfo=UTC))
    with pytest.raises(NeverFires):
        Cron("0 0 31 4,6,9,11 *")


def test_filters_keep_or_drop_fire_times() -> None:
    """``&`` and ``-`` are complements, shown in the one zone named."""
    friday = datetime(2026, 3, 6, 22, tzinfo=UTC)
    rule, days = Every(hours=12), Weekdays("mon-fri", tz="Europe/Rome")
    assert [f"{at:%a %H}" for at in (rule & days).preview(2, after=friday)] == ["Mon 01", "Mon 13"]
    assert [f"{at:%a %H}" for at in (rule - days).preview(2, after=friday)] == ["Sat 01", "Sat 13"]
    assert (rule & days).prev(datetime(2026, 3, 8, tzinfo=UTC)) == datetime(2026, 3, 6, 12, tzinfo=UTC)
