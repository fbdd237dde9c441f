"""Cron against cronsim and croniter: one answer where the grammar is common, and every difference by name.

Both are asked in UTC, forwards and backwards, and in zones. Where they differ by
rule the rule is tested (croniter fires as ours with ``gap="run_after"`` and
``fold="both"``); the other differences are the rows of the tables in
docs/daylight-saving.md, each of them tested."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from croniter import croniter
from cronsim import CronSim, CronSimError

from quarterjack import Cron, InvalidTrigger
from quarterjack.errors import NeverFires
from quarterjack.triggers.base import from_ns

from .walk import DAY, HOUR, MINUTE, changes, local, zones

MORE: Final = 20 if "QJ_FUZZ_MINUTES" in os.environ else 1
"""The fuzz asks for so many times the sample."""
ANSWERS: Final = 5
HOURS: Final = frozenset(range(24))
PAGE: Final = Path(__file__).parents[2] / "docs" / "daylight-saving.md"


# -- what all three read alike -------------------------------------------------------------


def a_field(rng: Random, low: int, high: int, free: float) -> tuple[str, frozenset[int]]:
    """Draw a field of the common grammar: no range that wraps or has one value, no open step."""
    if rng.random() < free:
        return "*", frozenset(range(low, high + 1))
    if rng.random() < 0.2:
        step = rng.randint(1, min(20, high - low))
        return f"*/{step}", frozenset(range(low, high + 1, step))
    texts, values = list[str](), set[int]()
    for _ in range(rng.choice([1, 1, 2, 3])):
        first, last = sorted(rng.sample(range(low, high + 1), 2))
        step = rng.randint(1, 4)
        text, found = rng.choice(
            [
                (f"{first}", {first}),
                (f"{first}-{last}", set(range(first, last + 1))),
                (f"{first}-{last}/{step}", set(range(first, last + 1, step))),
            ]
        )
        texts.append(text)
        values |= found
    return ",".join(texts), frozenset(values)


class Drawn(NamedTuple):
    """An expression, and which hours it names."""

    text: str
    hours: frozenset[int]


def an_expression(rng: Random, specials: Iterable[str] = ()) -> Drawn:
    """Draw five fields of the common grammar; *specials* are weekdays or days beyond it that one oracle reads too."""
    minute, _ = a_field(rng, 0, 59, 0.2)
    hour, hours = a_field(rng, 0, rng.choice([4, 23]), 0.2)
    if hour.startswith("*") and hours != HOURS:
        hour, hours = ("*", HOURS) if hour == "*" else (hour, frozenset(range(0, 24, int(hour[2:]))))
    day, _ = a_field(rng, 1, 31, 0.7)
    month, _ = a_field(rng, 1, 12, 0.8)
    weekday, _ = a_field(rng, 0, 6, 0.7)
    chosen = rng.choice([*specials, ""]) if rng.random() < 0.3 else ""
    if chosen in {"L", "LW"}:
        day = chosen
    elif chosen:
        weekday = chosen
    return Drawn(f"{minute} {hour} {day} {month} {weekday}", hours)


def in_utc(found: Iterable[datetime]) -> list[datetime]:
    return [one.astimezone(UTC) for one in found]


def ours(text: str, start: datetime, **options: Any) -> list[datetime] | None:
    """Return our answers, None where we say that there is none."""
    try:
        return in_utc(Cron(text, **options).preview(ANSWERS, after=start))
    except NeverFires:
        return None


def ours_backwards(text: str, start: datetime) -> list[datetime] | None:
    try:
        rule, at = Cron(text), int(start.timestamp()) * 10**9
    except NeverFires:
        return None
    found: list[datetime] = []
    while len(found) < ANSWERS and (last := rule.prev_ns(at - 1)) is not None:
        found.append(from_ns(last))
        at = last
    return found


def of_cronsim(text: str, start: datetime, *, reverse: bool = False) -> list[datetime] | None:
    try:
        found = in_utc(islice(CronSim(text, start, reverse=reverse), ANSWERS))
    except CronSimError:
        return None
    return found or None


def of_croniter(text: str, start: datetime, *, reverse: bool = False) -> list[datetime] | None:
    walk = croniter(text, start, implement_cron_bug=True)
    try:
        return in_utc((walk.get_prev if reverse else walk.get_next)(datetime) for _ in range(ANSWERS))
    except Exception as error:  # its class is not public
        assert "failed to find" in str(error)  # noqa: PT017  # anything else is a failure of the test
        return None


CRONSIM_TOO: Final = ("L", "LW", "5#2", "1#1", "0#5", "2L", "0L", "1-7", "5-7", "7")
CRONITER_TOO: Final = ("L", "1-6", "7", "sat,sun", "mon-fri")


def an_instant(rng: Random) -> datetime:
    return from_ns(rng.randint(0, 60 * 365 * DAY) // MINUTE * MINUTE)


def test_cronsim_agrees_in_utc() -> None:
    """It reads what Debian's cron reads, and in UTC nothing else matters."""
    rng = Random("cronsim")
    for _ in range(400 * MORE):
        text, start = an_expression(rng, CRONSIM_TOO).text, an_instant(rng)
        assert ours(text, start) == of_cronsim(text, start), (text, start)
        assert ours_backwards(text, start) == of_cronsim(text, start, reverse=True), (text, start)


def test_croniter_agrees_in_utc() -> None:
    """With its switch for cron's rule about days it is a third witness."""
    rng = Random("croniter")
    for _ in range(300 * MORE):
        text, start = an_expression(rng, CRONITER_TOO).text, an_instant(rng)
        assert ours(text, start) == of_croniter(text, start), (text, start)
        assert ours_backwards(text, start) == of_croniter(text, start, reverse=True), (text, start)


def before_a_plain_change(rng: Random) -> tuple[str, datetime]:
    """Return a zone and an instant within 30 hours before its clock is set by one hour, not at midnight.

    Other changes are where both oracles go wrong, each in its way: the documentation has them.
    """
    while True:
        zone, year = rng.choice(zones()), rng.randint(1972, 2037)
        for change in changes(zone, year, year):
            if abs(change.shift) == HOUR and local(ZoneInfo(zone), change.at - MINUTE) % DAY != DAY - MINUTE:
                hours = rng.randint(2, 30)
                start = from_ns(change.at // HOUR * HOUR - hours * HOUR - rng.randint(0, 59) * MINUTE)
                return zone, start.astimezone(ZoneInfo(zone))


def is_fixed(text: str) -> bool:
    return not any(field.startswith("*") for field in text.split()[:2])


def test_cronsim_agrees_in_zones() -> None:
    """It is the other library that follows Debian's cron on the two special nights: five fields, one answer."""
    rng = Random("cronsim in zones")
    for _ in range(150 * MORE):
        text = an_expression(rng, CRONSIM_TOO).text
        zone, start = before_a_plain_change(rng)
        assert ours(text, start, tz=zone) == of_cronsim(text, start), (text, zone, start)


def test_cronsim_counts_real_time_whenever_there_are_seconds() -> None:
    """Six fields are beyond Debian's cron, and cronsim then knows no fixed times: a rule, and so it is tested."""
    rng = Random("cronsim, six fields")
    for _ in range(80 * MORE):
        text = f"{rng.choice([0, 30, 59])} {an_expression(rng).text}"
        zone, start = before_a_plain_change(rng)
        assert ours(text, start, tz=zone, gap="skip", fold="both") == of_cronsim(text, start), (text, zone, start)


def test_croniter_runs_right_after_gaps_and_in_both_passes_of_folds() -> None:
    """It knows no fixed times either; only a rule for every hour leaves out what a gap swallows."""
    rng = Random("croniter in zones")
    for _ in range(120 * MORE):
        text, hours = an_expression(rng, CRONITER_TOO)
        zone, start = before_a_plain_change(rng)
        gap = "skip" if hours == HOURS else "run_after"
        assert ours(text, start, tz=zone, gap=gap, fold="both") == of_croniter(text, start), (text, zone, start)


# -- every difference, by name -----------------------------------------------------------------


class Difference(NamedTuple):
    """A row of a table in the documentation: what we answer first, and what the other library does."""

    library: str
    expression: str
    after: str
    ours: str
    theirs: str


def documented() -> list[Difference]:
    """Return the rows of the tables under the headings that name a library."""
    found: list[Difference] = []
    library = ""
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            library = line.rpartition(" ")[2] if "Differences from" in line else ""
        elif library and line.startswith("| `"):
            expression, after, our, their, _ = (cell.strip() for cell in line.strip("|").split("|"))
            found.append(Difference(library, expression.strip("`"), after, our, their))
    return found


def first_answer(ask: Callable[[], datetime | None], zone: str) -> str:
    """Return the first answer as the table writes it: to the minute, with its offset where there is a zone."""
    try:
        found = ask()
    except (InvalidTrigger, CronSimError, ValueError):  # croniter's errors are ValueErrors
        return "refused"
    assert found is not None
    text = found.isoformat(" ", "seconds" if found.second else "minutes")
    return text if zone else text.removesuffix("+00:00")


@pytest.mark.parametrize("row", documented(), ids=str)
def test_differences_are_as_documented(row: Difference) -> None:
    """The table tells people who move here what will change, so each of its rows is asked of both sides."""
    when, _, zone = row.after.partition(", ")
    start = datetime.fromisoformat(when)
    tz = ZoneInfo(zone) if zone else UTC
    start = start.replace(tzinfo=tz) if start.tzinfo is None else start.astimezone(tz)
    theirs: dict[str, Callable[[], Any]] = {
        "cronsim": lambda: next(CronSim(row.expression, start)),
        "croniter": lambda: croniter(row.expression, start, implement_cron_bug=True).get_next(datetime),
    }
    assert first_answer(lambda: Cron(row.expression, tz=zone or "UTC").next(start), zone) == row.ours
    assert first_answer(theirs[row.library], zone) == row.theirs
    assert row.ours != row.theirs


def test_both_libraries_have_their_table() -> None:
    """A heading spelt otherwise would leave the test above without rows, and nobody would notice."""
    assert {row.library for row in documented()} == {"cronsim", "croniter"}
    assert len(documented()) > 30
