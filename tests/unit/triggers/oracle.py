"""Fire times by brute force: walk the clock minute by minute and look.

It shares nothing with the code under test but `zoneinfo`: every UTC minute of a
window is converted to local time, and the policies are applied to what was seen."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final
from zoneinfo import ZoneInfo

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE: Final = timedelta(minutes=1)
MARGIN: Final = timedelta(hours=30)
LONGEST_GAP: Final = timedelta(hours=3)

TRANSITIONS: Final = {
    "Europe/Rome": ("2026-03-29", "2026-10-25"),
    "America/New_York": ("2026-03-08", "2026-11-01"),
    "Australia/Lord_Howe": ("2026-04-05", "2026-10-04"),  # half an hour
    "Pacific/Apia": ("2011-12-30", "2012-04-01"),  # a day that never was
    "Africa/Casablanca": ("2026-02-15", "2026-03-22"),  # standard time is the exception
    "Europe/Dublin": ("2026-03-29", "2026-10-25"),  # winter is the daylight saving, negative
    "America/Sao_Paulo": ("2018-02-18", "2018-11-04"),  # at midnight
    "Antarctica/Troll": ("2026-03-29", "2026-10-25"),  # two hours
    "America/Caracas": ("2007-12-09", "2016-05-01"),  # half an hour, for good
    "Pacific/Kwajalein": ("1993-08-21",),  # a day that never was, at midnight
    "Asia/Gaza": ("2026-03-28", "2026-10-24"),
}


def ns(at: datetime) -> int:
    """Return an instant in nanoseconds since the epoch."""
    return (at - EPOCH) // timedelta(microseconds=1) * 1_000


def fire_times(
    zone: str, start: datetime, end: datetime, matches: Callable[[datetime], bool], *, gap: str, fold: str
) -> list[int]:
    """Return the instants in ``(start, end]`` that a rule over whole local minutes stands for.

    Args:
        zone: The zone's name.
        start: A whole minute, aware; itself not a possible answer.
        end: A whole minute, aware; the last possible answer.
        matches: Says of a naive local minute whether the rule names it.
        gap: The policy for lost minutes, not ``auto``.
        fold: The policy for repeated ones, not ``auto``.
    """
    tz = ZoneInfo(zone)
    seen: dict[datetime, list[datetime]] = {}
    found: set[datetime] = set()
    at, before = start - MARGIN, None
    while at <= end + MARGIN:
        wall = at.astimezone(tz).replace(tzinfo=None)
        if before is not None and wall - before > MINUTE:
            found |= _of_gap(before + MINUTE, wall, at, matches, gap)
        seen.setdefault(wall, []).append(at)
        before, at = wall, at + MINUTE
    for wall, instants in seen.items():
        if matches(wall):
            found |= set({"first": instants[:1], "last": instants[-1:], "both": instants}[fold])
    return sorted(ns(one) for one in found if start < one <= end)


def _of_gap(
    first: datetime, after: datetime, instant: datetime, matches: Callable[[datetime], bool], gap: str
) -> set[datetime]:
    """Return what the wall minutes ``[first, after)``, which the clock skipped at *instant*, stand for."""
    if gap == "skip" or after - first > LONGEST_GAP:
        return set()
    lost = [first + n * MINUTE for n in range((after - first) // MINUTE)]
    return {instant if gap == "run_after" else instant + (wall - first) for wall in lost if matches(wall)}


def random_expression(rng: Random) -> str:
    """Return a five-field cron expression that is rarely dull: few fields are free, most rules fire daily."""

    def field(low: int, high: int, free: float) -> str:
        draw = rng.random()
        if draw < free:
            return "*"
        if draw < free + 0.15:
            return f"*/{rng.choice([step for step in (2, 3, 5, 7, 10) if step <= high - low + 1])}"
        if draw < free + 0.3:
            first = rng.randint(low, high)
            return f"{first}-{rng.randint(first, high)}" + rng.choice(["", f"/{rng.randint(1, 4)}"])
        return ",".join(str(rng.randint(low, high)) for _ in range(rng.choice([1, 1, 2, 3])))

    hour = rng.choice([field(0, 23, 0.3), field(0, 4, 0.0), str(rng.randint(0, 4))])
    return " ".join([field(0, 59, 0.15), hour, field(1, 31, 0.7), field(1, 12, 0.85), field(0, 6, 0.7)])


def expression_matches(expression: str) -> Callable[[datetime], bool]:
    """Return the predicate of an expression that `random_expression` made, read the slow way."""
    fields = expression.split()
    lows, highs = (0, 0, 1, 1, 0), (59, 23, 31, 12, 6)
    minute, hour, day, month, weekday = (
        _values(text, low, high) for text, low, high in zip(fields, lows, highs, strict=True)
    )
    either = not fields[2].startswith("*") and not fields[4].startswith("*")

    def matches(wall: datetime) -> bool:
        if wall.minute not in minute or wall.hour not in hour or wall.month not in month:
            return False
        by_day, by_weekday = wall.day in day, wall.isoweekday() % 7 in weekday
        return by_day or by_weekday if either else by_day and by_weekday

    return matches


def _values(text: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in text.split(","):
        body, _, step = part.partition("/")
        first, _, last = body.partition("-")
        start, end = (low, high) if body == "*" else (int(first), int(last or first))
        found |= set(range(start, end + 1, int(step or 1)))
    return found
