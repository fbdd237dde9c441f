"""What rules are called: sentences that people read before they deploy, so each is pinned.

``cron_words.txt`` is the table of cron lines, in Rome: read it like an editor when you change a word."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Final

import pytest

from quarterjack import (
    Aligned,
    At,
    Cron,
    Every,
    Filter,
    Forever,
    InvalidTrigger,
    Once,
    OnShutdown,
    OnStartup,
    Trigger,
    Weekdays,
)
from quarterjack.triggers import Between, Dates

ROME: Final = "Europe/Rome"
TABLE: Final = Path(__file__).with_name("cron_words.txt").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize(("expression", "words"), list(zip(TABLE[::2], TABLE[1::2], strict=True)))
def test_cron_lines_read_like_sentences(expression: str, words: str) -> None:
    """``qj explain`` exists because nobody reads cron by heart; a wrong sentence is worse than none."""
    assert Cron(expression, tz=ROME).explain() == words.strip()


def test_a_drawn_value_is_told_once_it_is_known() -> None:
    """Before, it is a minute of the schedule's own; a number would be a lie about some schedule."""
    rule = Cron("H 3 * * *").bound_to("nightly")
    found = rule.next(datetime(2026, 1, 1, tzinfo=UTC))
    assert found is not None
    assert rule.explain() == f"at 03:{found.minute:02} every day, UTC"


class OddHours(Filter):
    """A custom filter: it has no words of its own."""

    def allows(self, at: datetime) -> bool:
        """Allow odd hours."""
        return at.hour % 2 == 1


class Tidal(Trigger):
    """A custom rule: it has words of its own, and nothing else that a sentence is made of."""

    def next(self, after: datetime) -> datetime | None:
        """Return the next tide, roughly."""
        return after + timedelta(hours=12, minutes=25)

    def explain(self) -> str:
        """Return the rule in words."""
        return "at high tide"


SEVENS: Final = "every hour at :00, :07, :14, :21, :28, :35, :42, :49 and :56"
ANEW: Final = "the step of 7 begins anew each hour, Every(minutes=7) is even"
UNION_OF_THREE: Final = f"at 10:00 every day, and at 11:00 on Sundays, and {SEVENS}, all Rome time; {ANEW}"


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Every(seconds=10), "every 10 seconds"),
        (Every(minutes=1), "every minute"),
        (Every(seconds=90), "every 90 seconds"),
        (Every(hours=36), "every 36 hours"),
        (Every(milliseconds=250), "every 250 milliseconds"),
        (Every(seconds=1.5), "every 1.5 seconds"),
        (Every(hours=1, minutes=1, seconds=1), "every 1 hour, 1 minute and 1 second"),
        (Every(seconds=100_000), "every 1 day, 3 hours, 46 minutes and 40 seconds"),
        (Every(days=1), "every day at 00:00 UTC"),
        (Every(days=2, phase=3 * 3600), "every 2 days at 03:00 UTC"),
        (Every(weeks=1), "every week on Thursdays at 00:00 UTC"),
        (Every(minutes=5, phase=60), "every 5 minutes, shifted by 1 minute"),
        (Every(minutes=5, phase=-90), "every 5 minutes, shifted back by 90 seconds"),
        (Every(minutes=5, anchor="start"), "every 5 minutes, counted from its schedule's creation"),
        (Every(minutes=5, first="immediate"), "every 5 minutes, and once when its schedule is created"),
        (
            Every(hours=1, anchor=datetime(2026, 1, 31, 9, 30, tzinfo=UTC)),
            "every hour, counted from 31 January 2026 at 09:30 UTC",
        ),
        (
            Every(minutes=5, anchor="start").resolved(1_767_225_600_500_000_000, "x"),
            "every 5 minutes, counted from 1 January 2026 at 00:00:00.5 UTC",
        ),
        (Aligned(minutes=15, tz=ROME), "every 15 minutes on the clock, Rome time"),
        (Aligned(days=1, tz=ROME), "at 00:00 every day, Rome time"),
        (
            Aligned(minutes=7),
            "every 7 minutes on the clock, UTC; the grid begins anew each midnight, Every(minutes=7) is even",
        ),
        (At("14:30"), "at 14:30 every day, UTC"),
        (At("14:30:15", tz="Etc/UTC"), "at 14:30:15 every day, UTC"),
        (At("14:00", on="sunday", tz="Europe/Istanbul"), "at 14:00 on Sundays, Istanbul time"),
        (At("09:00", on="mon-fri", tz="America/New_York"), "at 09:00, Monday to Friday, New York time"),
        (At("09:00", on="fri-mon", tz="Japan"), "at 09:00, Friday to Monday, Japan time"),
        (At("09:00", on="fri-wed", tz="US/Eastern"), "at 09:00 every day but Thursday, US Eastern time"),
        (At("09:00", on="mon,thu", tz="Etc/GMT+5"), "at 09:00 on Mondays and Thursdays, Etc/GMT+5"),
        (At("09:00", tz="CET"), "at 09:00 every day, CET"),
        (Once(), "once, when its schedule is created"),
        (Once(datetime(2030, 1, 1, 9, tzinfo=UTC)), "once, on 1 January 2030 at 09:00 UTC"),
        (Forever(), "again as soon as the last run has ended"),
        (Forever(1.5), "again 1.5 seconds after the last run has ended"),
        (Forever(90), "again 90 seconds after the last run has ended"),
        (OnStartup(), "when the app starts"),
        (OnShutdown(), "when the app stops"),
    ],
)
def test_rules_read_like_sentences(rule: Trigger, words: str) -> None:
    """The list of schedules is read by people who did not write them."""
    assert rule.explain() == words


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (At("02:30", tz=ROME, gap="skip"), "a time that the clocks skip is left out"),
        (At("02:30", tz=ROME, gap="run_after"), "a time that the clocks skip runs right after"),
        (Cron("0 2 * * *", tz=ROME, gap="error"), "a time that the clocks skip is an error"),
        (Aligned(hours=1, tz=ROME, fold="first"), "a time that comes twice runs the first time"),
        (At("02:30", tz=ROME, fold="last"), "a time that comes twice runs the second time"),
        (
            Cron("30 2 * * *", tz=ROME, gap="shift", fold="both"),
            "a time that the clocks skip runs later by as much, one that comes twice runs both times",
        ),
    ],
)
def test_what_was_asked_for_the_two_special_nights_is_told(rule: Trigger, words: str) -> None:
    """Only a choice that was made is worth a word, and only where clocks are ever set."""
    plain, _, note = rule.explain().partition("; ")
    assert note == words
    assert plain.endswith("Rome time")
    assert "; " not in At("02:30", gap="skip", fold="both").explain()


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (At("17:00", tz=ROME) | At("09:00", tz=ROME), "at 09:00 and 17:00 every day, Rome time"),
        (
            At("09:00", on="mon-fri", tz=ROME) | At("17:00", on="mon-fri", tz=ROME),
            "at 09:00 and 17:00, Monday to Friday, Rome time",
        ),
        (
            At("14:00", on="sunday", tz="Europe/Istanbul") | Cron("*/5 9-17 * * mon-fri", tz="Europe/Istanbul"),
            "at 14:00 on Sundays, and every 5 minutes from 09:00 to 17:55, Monday to Friday, both Istanbul time",
        ),
        (
            At("09:00", tz=ROME) | At("09:00", tz="Asia/Tokyo"),
            "at 09:00 every day, Tokyo time, and at 09:00 every day, Rome time",
        ),
        (Every(hours=1) | At("10:00", tz=ROME), "at 10:00 every day, Rome time, and every hour"),
        (
            Cron("*/7 * * * *", tz=ROME) | At("10:00", tz=ROME) | At("11:00", on="sun", tz=ROME),
            UNION_OF_THREE,
        ),
        (
            At("02:30", tz=ROME, gap="skip") | At("02:45", on="sun", tz=ROME, gap="skip"),
            "at 02:30 every day, and at 02:45 on Sundays, both Rome time; a time that the clocks skip is left out",
        ),
        (Every(hours=5) | Tidal(), "every 5 hours, and at high tide"),
        (Every(minutes=1) & Weekdays("mon-fri", tz=ROME), "every minute, only Monday to Friday, Rome time"),
        (At("09:00", tz=ROME) & Weekdays("mon-fri"), "at 09:00 every day, Rome time, only Monday to Friday, UTC"),
        (At("09:00", tz=ROME) & OddHours(), "at 09:00 every day, Rome time, only OddHours()"),
        (
            At("09:00", on="mon-fri", tz=ROME) - Dates("2026-12-25", "2026-12-26", tz=ROME),
            "at 09:00, Monday to Friday, but not on 25 and 26 December 2026, Rome time",
        ),
        (
            At("09:00") - Dates("2026-12-25", "2026-11-01"),
            "at 09:00 every day, but not on 1 November and 25 December 2026, UTC",
        ),
        (
            At("09:00") - Dates("2026-12-25", "2027-01-01"),
            "at 09:00 every day, but not on 25 December 2026 and 1 January 2027, UTC",
        ),
        (
            At("09:00") - Dates(*(date(2026, month, 1) for month in range(1, 7))),
            "at 09:00 every day, but not on 6 dates from 1 January 2026 to 1 June 2026, UTC",
        ),
        (
            (Every(minutes=5) & Between("09:00", "17:00", tz=ROME)) - Weekdays("sat,sun", tz=ROME),
            "every 5 minutes, only from 09:00 until just before 17:00, but not on Saturdays and Sundays, Rome time",
        ),
        (
            (Every(hours=1) | At("10:00", tz=ROME)) & Weekdays("mon-fri", tz=ROME),
            "(at 10:00 every day, Rome time, and every hour), only Monday to Friday, Rome time",
        ),
        (
            Cron("*/7 9-17 * * *", tz=ROME) & Weekdays("mon-fri", tz=ROME),
            f"{SEVENS}, from 09:00 to 17:56, only Monday to Friday, Rome time; {ANEW}",
        ),
    ],
)
def test_combinations_read_like_one_sentence(rule: Trigger, words: str) -> None:
    """A zone is named once where it is shared, and every time where it is not."""
    assert rule.explain() == words


def drawn(rng: Random, low: int, high: int) -> str:
    """Return a cron field of any grammar, lists of everything included."""

    def part() -> str:
        a, b, step = rng.randint(low, high), rng.randint(low, high), rng.randint(1, high - low + 1)
        return rng.choice([f"{a}", f"{a}-{b}", f"*/{step}", f"{a}/{step}", f"{a}-{b}/{step}"])

    return "*" if rng.random() < 0.3 else ",".join(part() for _ in range(rng.choice([1, 1, 2, 3])))


def drawn_rules(seed: int, count: int) -> Iterator[Cron]:
    rng = Random(seed)
    while count:
        day = rng.choice([drawn(rng, 1, 31), "*", "L", "LW", "15W", "L-3", "L,15", "1W,LW"])
        weekday = rng.choice([drawn(rng, 0, 7), "*", "mon#2", "5L", "+mon", "+fri-mon", "mon#5,2", "fri#1,friL"])
        head = [rng.choice(["0", drawn(rng, 0, 59)]), drawn(rng, 0, 59), drawn(rng, 0, 23)]
        try:
            rule = Cron(" ".join([*head, day, drawn(rng, 1, 12), weekday]), tz=ROME)
        except InvalidTrigger:
            continue
        count -= 1
        yield rule


@pytest.mark.parametrize("seed", range(4))
def test_every_valid_line_has_words(seed: int) -> None:
    """One line without words took down the whole list of schedules."""
    for rule in drawn_rules(seed, 300):
        words = rule.explain()
        assert not re.search(r"  | ,|,,|None|^[ ,]", words), (rule, words)
        assert ", Rome time" in words


def test_times_of_day_in_words_are_the_times_it_fires() -> None:
    """What is named is all that happens on a day, and nothing else; nights without a change of clocks."""
    seen = 0
    for rule in drawn_rules(9, 600):
        named = re.match(r"at ((?:\d\d:\d\d(?::\d\d)?(?:, | and )?)+)", rule.explain())
        first = rule.next(datetime(2026, 6, 1, tzinfo=UTC))
        if named is None or first is None or not 4 < first.month < 10:
            continue
        seen += 1
        start = first.replace(hour=0, minute=0, second=0) - timedelta(seconds=1)
        fires = rule.preview(rule.count(start, start + timedelta(days=1)), after=start)
        texts = re.findall(r"[\d:]{5,8}", named[1])
        assert [at.strftime("%H:%M:%S")[: len(texts[0])] for at in fires] == texts, rule
    assert seen > 50


def test_windows_in_words_are_the_first_and_the_last_fire_time_of_a_day() -> None:
    """A window told as 09:00 to 17:59 made people wait for a run at 17:59 that never came."""
    for text in ("*/5 9-17 * * mon-fri", "30 9-17 * * 1", "* 3 * * *", "*/10 */5 9-17 * * *", "0 1-23/2 * * *"):
        rule = Cron(text, tz=ROME)
        first, last = re.findall(r"from (\d\d:[\d:]+) to (\d\d:[\d:]+)", rule.explain())[-1]
        monday = datetime(2026, 6, 1, tzinfo=rule.zone) - timedelta(seconds=1)
        evening = rule.prev(monday + timedelta(days=1))
        morning = rule.next(monday)
        assert morning is not None
        assert evening is not None
        assert (f"{morning:%H:%M:%S}"[: len(first)], f"{evening:%H:%M:%S}"[: len(last)]) == (first, last)


def test_equal_rules_have_equal_words() -> None:
    """Words come from what a line means, so two spellings of one rule read alike."""
    for one, other in (
        ("0 0 * * sun", "0 0 * * 7"),
        ("0,30 * * * *", "*/30 * * * *"),
        ("0 22-2 * * *", "0 22,23,0,1,2 * * *"),
        ("0 0 1 1 *", "@yearly"),
        ("0 9 * * 1,2,3,4,5", "0 9 * * mon-fri"),
        ("*/60 * * * *", "0 */1 * * *"),
    ):
        assert Cron(one).explain() == Cron(other).explain()
