"""What a rule does on the days on which the clock of its zone is set, in words and as facts."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterjack import Aligned, At, Between, Calendar, Cron, Every, NaiveDatetime, Trigger, Weekdays

ROME = ZoneInfo("Europe/Rome")
WINTER = datetime(2027, 1, 15, tzinfo=UTC)
FORWARD, BACK = "on 28 March 2027 the clocks go forward at 02:00: ", "on 31 October 2027 the clocks go back at 03:00: "
NOTHING = "no run is affected"


@pytest.mark.parametrize(
    ("trigger", "forward", "back"),
    [
        (At("09:00", on="mon-fri", tz="Europe/Rome"), NOTHING, NOTHING),
        (At("02:30", on="mon-fri", tz="Europe/Rome"), NOTHING, NOTHING),
        (
            At("02:30", tz="Europe/Rome"),
            "02:30 does not exist, it runs at 03:00 CEST",
            "02:30 comes twice, it runs the first time",
        ),
        (
            At("02:30", tz="Europe/Rome", gap="shift", fold="both"),
            "02:30 does not exist, it runs at 03:30 CEST",
            "02:30 comes twice, it runs both times",
        ),
        (
            At("02:30", tz="Europe/Rome", gap="skip", fold="last"),
            "02:30 does not exist, that run is left out",
            "02:30 comes twice, it runs the second time",
        ),
        (
            At("02:30", tz="Europe/Rome", gap="error"),
            "02:30 does not exist, and its schedule is parked (gap='error')",
            "02:30 comes twice, it runs the first time",
        ),
        (
            Cron("0,30 2,3 * * *", tz="Europe/Rome"),
            "02:00 and 02:30 do not exist, they become one with the run at 03:00 CEST",
            "02:00 and 02:30 come twice, they run the first time",
        ),
        (
            Cron("10,20 2 * * *", tz="Europe/Rome"),
            "02:10 and 02:20 do not exist, one run at 03:00 CEST stands for them",
            "02:10 and 02:20 come twice, they run the first time",
        ),
        (
            Cron("0,10,20,30,40 2 * * *", tz="Europe/Rome"),
            "1 run that day, not 5",
            "02:00 to 02:40 come twice, they run the first time",
        ),
        (Cron("*/30 * * * *", tz="Europe/Rome"), "46 runs that day, not 48", "50 runs that day, not 48"),
        (Aligned(minutes=20, tz="Europe/Rome"), "69 runs that day, not 72", "75 runs that day, not 72"),
        (Cron("*/10 2 * * *", tz="Europe/Rome"), "0 runs that day, not 6", "12 runs that day, not 6"),
        (
            Calendar(days=1, at="02:30", start=date(2026, 1, 1), tz="Europe/Rome"),
            "02:30 does not exist, it runs at 03:00 CEST",
            "02:30 comes twice, it runs the first time",
        ),
        (
            At("02:30", tz="Europe/Rome") | At("12:00", tz="Europe/Rome"),
            "02:30 does not exist, it runs at 03:00 CEST",
            "02:30 comes twice, it runs the first time",
        ),
        (At("02:30", tz="Europe/Rome") & Weekdays("mon-fri", tz="Europe/Rome"), NOTHING, NOTHING),
        (
            At("02:30", tz="Europe/Rome") - Between("02:45", "04:00", tz="Europe/Rome"),
            "02:30 does not exist, that run is left out",
            "02:30 comes twice, it runs the first time",
        ),
        (
            Every(minutes=5) & Between("02:00", "04:00", tz="Europe/Rome"),
            "12 runs that day, not 24",
            "36 runs that day, not 24",
        ),
    ],
    ids=repr,
)
def test_each_rule_says_what_it_does_on_the_two_nights(trigger: Trigger, forward: str, back: str) -> None:
    """Twice a year this is the question, and the answer follows from the rule and its policies."""
    changes = trigger.clock_changes(after=WINTER)
    assert [change.words for change in changes] == [FORWARD + forward, BACK + back]
    assert [change.is_affected for change in changes] == [forward != NOTHING, back != NOTHING]


def test_facts_stand_beside_the_words() -> None:
    """A dashboard draws them, and must not read sentences."""
    forward, back = At("02:30", tz="Europe/Rome").clock_changes(after=WINTER)
    assert forward.at == datetime(2027, 3, 28, 3, tzinfo=ROME)
    assert forward.shift == timedelta(hours=1)
    assert forward.skipped == (time(2, 30),)
    assert forward.instead == (datetime(2027, 3, 28, 3, tzinfo=ROME),)
    assert (back.shift, back.repeated, back.skipped, back.instead) == (timedelta(hours=-1), (time(2, 30),), (), ())


@pytest.mark.parametrize("trigger", [Every(hours=1), At("02:30"), Cron("* * * * *"), At("02:30", tz="Asia/Tokyo")])
def test_where_no_clock_is_set_there_is_nothing_to_tell(trigger: Trigger) -> None:
    """Elapsed time, UTC, and zones without daylight saving have no such days."""
    assert trigger.clock_changes(after=WINTER) == []


@pytest.mark.parametrize(
    ("trigger", "after", "words"),
    [
        (
            At("02:30", tz="Pacific/Apia"),
            datetime(2011, 12, 1, tzinfo=UTC),
            "on 30 December 2011 the clocks go forward by 1 day at 00:00: 02:30 does not exist, that run is left out",
        ),
        (
            At("01:45", tz="Australia/Lord_Howe"),
            datetime(2027, 3, 1, tzinfo=UTC),
            "on 4 April 2027 the clocks go back by 30 minutes at 02:00: 01:45 comes twice, it runs the first time",
        ),
        (
            At("00:30", tz="Africa/Cairo"),
            datetime(2027, 3, 1, tzinfo=UTC),
            "on 30 April 2027 the clocks go forward at 00:00: 00:30 does not exist, it runs at 01:00 EEST",
        ),
    ],
)
def test_odd_changes_are_told_as_well(trigger: Trigger, after: datetime, words: str) -> None:
    """Half an hour, at midnight, or a whole day across the date line."""
    assert trigger.clock_changes(after=after)[0].words == words


def test_a_rule_of_two_zones_names_them() -> None:
    """New York and Rome change on different days."""
    changes = (At("02:30", tz="Europe/Rome") | At("02:30", tz="America/New_York")).clock_changes(after=WINTER)
    assert [change.words.partition(": ")[0] for change in changes] == [
        "on 14 March 2027 the clocks go forward at 02:00, New York time",
        "on 28 March 2027 the clocks go forward at 02:00, Rome time",
        "on 31 October 2027 the clocks go back at 03:00, Rome time",
        "on 7 November 2027 the clocks go back at 02:00, New York time",
    ]


class Noons(Trigger):
    """A rule without a grid, on the wall clock of Rome."""

    hour: int = 12

    @property
    def zone(self) -> ZoneInfo:
        return ROME

    def next(self, after: datetime) -> datetime | None:
        local = after.astimezone(ROME)
        at = local.replace(hour=self.hour, minute=30, second=0, microsecond=0, fold=0)
        while at.astimezone(UTC) <= after.astimezone(UTC):
            at = (at + timedelta(days=1)).replace(fold=0)
        return at


def test_a_rule_of_ones_own_is_compared_with_other_days() -> None:
    """It has no grid to ask; what differs from the day and the week before is told."""
    assert [change.is_affected for change in Noons().clock_changes(after=WINTER)] == [False, False]
    forward, back = Noons(hour=2).clock_changes(after=WINTER)
    assert forward.words == FORWARD + "it runs at 03:30"
    assert not back.is_affected


@given(hour=st.integers(0, 5), minute=st.integers(0, 59), year=st.integers(1980, 2036))
def test_what_is_told_is_what_the_rule_does(hour: int, minute: int, year: int) -> None:
    """Words and fire times come from different places, and must not part."""
    trigger = Cron(f"{minute} {hour} * * *", tz="America/New_York")
    for change in trigger.clock_changes(after=datetime(year, 1, 1, tzinfo=UTC)):
        for run in change.instead:
            assert trigger.prev(run) == run
        low, high = change.at - timedelta(hours=12), change.at + timedelta(hours=12)
        ordinary = [at.time() for at in trigger.preview(3, after=low.astimezone(UTC)) if at.astimezone(UTC) < high]
        is_moved = bool(ordinary) and ordinary[0] != time(hour, minute)
        assert is_moved == bool(change.skipped)


def test_a_moment_without_a_zone_is_refused() -> None:
    """As everywhere: it names no instant."""
    with pytest.raises(NaiveDatetime, match="after="):
        At("02:30", tz="Europe/Rome").clock_changes(after=datetime(2027, 1, 1))


def test_only_changes_up_to_the_end_are_told() -> None:
    """A caller draws a week, and asks for that week alone."""
    trigger = At("02:30", tz="Europe/Rome")
    assert trigger.clock_changes(after=WINTER, until=datetime(2027, 3, 28, 0, 59, tzinfo=UTC)) == []
    assert len(trigger.clock_changes(after=WINTER, until=datetime(2027, 3, 28, 1, tzinfo=UTC))) == 1
