"""Random rules with their meaning: each is drawn as a trigger and, beside it, as a predicate over wall times.

Nothing is parsed here. A cron field is drawn as what it means and then written
down, so that the grammar of the code under test is not asked what it read."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from random import Random
from typing import Any, Final
from zoneinfo import ZoneInfo

from quarterjack import Aligned, At, Cron, Trigger
from quarterjack.errors import NeverFires
from quarterjack.triggers import Between, Calendar, Dates, Filter, Weekdays

from .walk import DAY, HOUR, MINUTE, SECOND, offset

__all__ = ["FOLDS", "GAPS", "Sieve", "Subject", "aligned", "at", "calendar", "cron", "cron_text", "sieve"]

GAPS: Final = ("auto", "run_after", "shift", "skip")
FOLDS: Final = ("auto", "first", "last", "both")
_WEEKDAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_MONTHS: Final = ("", "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_EPOCH: Final = date(1970, 1, 1)

Days = Callable[[date], bool]
Walls = Callable[[int], bool]


@dataclass(frozen=True, slots=True)
class Subject:
    """A trigger under test and what it means."""

    trigger: Trigger
    matches: Walls
    gap: str
    fold: str


@dataclass(frozen=True, slots=True)
class Sieve:
    """A filter under test and which instants it means."""

    filter: Filter
    allows: Callable[[int], bool]


def day_of(wall: int) -> date:
    """Return the date of a wall time."""
    return _EPOCH + timedelta(days=wall // DAY)


def _policies(rng: Random, *, elapsed: bool) -> tuple[dict[str, Any], str, str]:
    """Draw the options, and say what ``auto`` stands for in them."""
    gap, fold = rng.choice(GAPS), rng.choice(FOLDS)
    given = {"gap": gap, "fold": fold}
    if gap == "auto":
        gap = "skip" if elapsed else "run_after"
    if fold == "auto":
        fold = "both" if elapsed else "first"
    return given, gap, fold


def _daily(days: Days, is_time: Callable[[int], bool]) -> Walls:
    """Return the predicate of a rule that names days, and times of day in nanoseconds."""
    known: dict[int, bool] = {}

    def matches(wall: int) -> bool:
        day = wall // DAY
        if not is_time(wall - day * DAY):
            return False
        if day not in known:
            known[day] = days(day_of(wall))
        return known[day]

    return matches


# -- cron ----------------------------------------------------------------------------------


def _spelt(rng: Random, value: int, names: tuple[str, ...]) -> str:
    if names and rng.random() < 0.4:
        return rng.choice([names[value], names[value].upper(), names[value].capitalize()])
    return f"{value:02}" if rng.random() < 0.1 else str(value)


def _item(rng: Random, low: int, high: int, names: tuple[str, ...]) -> tuple[str, set[int]]:
    """Draw one item of a field: a value, a range that may wrap, a step."""

    def spell(value: int) -> str:
        return _spelt(rng, value, names)

    a, b = rng.randint(low, high), rng.randint(low, high)
    step = rng.randint(1, min(high - low + 1, rng.choice([3, 10, 60])))
    span = high - low + 1
    around = [low + (a - low + n) % span for n in range((b - a) % span + 1)]
    kind = rng.choice(["value", "value", "range", "range by", "from by"])
    if kind == "value":
        return spell(a), {a}
    if kind == "range":
        return f"{spell(a)}-{spell(b)}", set(around)
    if kind == "range by":
        return f"{spell(a)}-{spell(b)}/{step}", set(around[::step])
    return f"{spell(a)}/{step}", set(range(a, high + 1, step))


def _field(rng: Random, low: int, high: int, *, free: float, names: tuple[str, ...] = ()) -> tuple[str, set[int]]:
    """Draw a field of plain values."""
    draw = rng.random()
    if draw < free:
        return "*", set(range(low, high + 1))
    if draw < free + 0.15:
        step = rng.randint(1, min(20, high - low + 1))
        return f"*/{step}", set(range(low, high + 1, step))
    items = [_item(rng, low, high, names) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    return ",".join(text for text, _ in items), {value for _, values in items for value in values}


def _nearest_weekday(year: int, month: int, day: int) -> date:
    """Return the Monday to Friday of that month which is nearest to the day."""
    length = monthrange(year, month)[1]
    candidates = [date(year, month, d) for d in range(1, length + 1) if date(year, month, d).isoweekday() < 6]
    return min(candidates, key=lambda one: (abs(one.day - day), one.day))


def _month_days(rng: Random, *, free: float) -> tuple[str, Days]:
    """Draw the day-of-month field."""
    if rng.random() < 0.75:
        text, values = _field(rng, 1, 31, free=free)
        return text, lambda day: day.day in values

    def length(day: date) -> int:
        return monthrange(day.year, day.month)[1]

    back, near = rng.randint(1, 5), rng.randint(1, 31)
    choices: list[tuple[str, Days]] = [
        ("L", lambda day: day.day == length(day)),
        (f"L-{back}", lambda day: day.day == length(day) - back),
        ("LW", lambda day: day == _nearest_weekday(day.year, day.month, length(day))),
        (f"{near}W", lambda day: near <= length(day) and day == _nearest_weekday(day.year, day.month, near)),
    ]
    text, special = rng.choice(choices)
    if rng.random() < 0.3:
        plain_text, values = _item(rng, 1, 31, ())
        return f"{plain_text},{text.lower()}", lambda day: day.day in values or special(day)
    return text, special


def _week_days(rng: Random, *, free: float) -> tuple[str, Days]:
    """Draw the day-of-week field, Sunday as 0 or as 7."""
    if rng.random() < 0.75:
        text, values = _field(rng, 0, 6, free=free, names=_WEEKDAYS)
        if rng.random() < 0.2 and not text.startswith("*"):
            text, values = rng.choice([("7", {0}), ("5-7", {5, 6, 0}), ("7-2", {0, 1, 2}), ("0-7", set(range(7)))])
        return text, lambda day: day.isoweekday() % 7 in values
    weekday, n = rng.randint(0, 6), rng.randint(1, 5)
    name = _spelt(rng, weekday, _WEEKDAYS).lstrip("0") or "0"

    def is_nth(day: date) -> bool:
        return day.isoweekday() % 7 == weekday and (day.day - 1) // 7 + 1 == n

    def is_last(day: date) -> bool:
        return day.isoweekday() % 7 == weekday and (day + timedelta(days=7)).month != day.month

    return rng.choice([(f"{name}#{n}", is_nth), (f"{name}L", is_last)])


def _days(rng: Random, near: date) -> tuple[list[str], Days, int]:
    """Draw day, month, weekday and, where there are seven fields, year; and how many fields there are."""
    free = rng.choice([0.95, 0.95, 0.5])
    day_text, by_day = _month_days(rng, free=0.1) if rng.random() > free else ("*", lambda day: True)
    week_text, by_week = _week_days(rng, free=0.1) if rng.random() > free else ("*", lambda day: True)
    month_text, months = _field(rng, 1, 12, free=0.9, names=_MONTHS)
    both = day_text.startswith("*") or week_text.startswith("*")
    if not both and rng.random() < 0.3:
        week_text, both = f"+{week_text}", True
    texts, fields = [day_text, month_text, week_text], 5
    years = None
    if rng.random() < 0.2:
        low, high = sorted((near.year + rng.randint(-2, 1), near.year + rng.randint(0, 2)))
        low, high = max(low, 1970), max(high, 1970)
        years = range(low, high + 1)
        texts, fields = [*texts, f"{low}-{high}" if low < high else str(low)], 7

    def matches(day: date) -> bool:
        if day.month not in months or (years is not None and day.year not in years):
            return False
        return by_day(day) and by_week(day) if both else by_day(day) or by_week(day)

    return texts, matches, fields


def cron_text(rng: Random, near: date, *, by_second: bool) -> tuple[str, Walls, bool]:
    """Draw an expression, its meaning, and whether it counts elapsed time; *near* is a date it should know.

    Without *by_second* it fires on whole minutes.
    """
    second_text, seconds = _field(rng, 0, 59, free=0.3) if by_second else ("0", {0})
    minute_text, minutes = _field(rng, 0, 59, free=0.2)
    small_hours = rng.random() < 0.5
    hour_text, hours = _field(rng, 0, 4 if small_hours else 23, free=0 if small_hours else 0.3)
    if small_hours:  # a step or an open end would go on beyond the small hours
        hour_text = ",".join(map(str, sorted(hours)))
    texts, days, fields = _days(rng, near)
    texts = [minute_text, hour_text, *texts]
    if by_second or fields == 7 or rng.random() < 0.1:
        texts.insert(0, second_text)
    starred = any(text.startswith("*") for text in (second_text, minute_text, hour_text))

    def is_time(within: int) -> bool:
        minute, rest = divmod(within, MINUTE)
        return minute // 60 in hours and minute % 60 in minutes and rest % SECOND == 0 and rest // SECOND in seconds

    return " ".join(texts), _daily(days, is_time), starred


def cron(rng: Random, zone: str, near: date, *, by_second: bool) -> Subject | None:
    """Draw a Cron, or None where the drawn dates never come."""
    text, matches, elapsed = cron_text(rng, near, by_second=by_second)
    given, gap, fold = _policies(rng, elapsed=elapsed)
    try:
        return Subject(Cron(text, tz=zone, **given), matches, gap, fold)
    except NeverFires:
        return None


# -- the other rules -------------------------------------------------------------------------


def at(rng: Random, zone: str, *, by_second: bool) -> Subject:
    """Draw an At, mostly in the small hours, where clocks are set."""
    hour = rng.choice([0, 0, 1, 1, 2, 2, 3, 4, 23, rng.randint(0, 23)])
    minute = rng.choice([0, 15, 30, 59, rng.randint(0, 59)])
    second = rng.choice([0, 59, rng.randint(0, 59)]) if by_second else 0
    weekdays = sorted(rng.sample(range(7), rng.choice([7, 7, 5, 3])))
    days = [_WEEKDAYS[day] for day in weekdays]
    given, gap, fold = _policies(rng, elapsed=False)
    trigger = At(hour=hour, minute=minute, second=second, on=days, tz=zone, **given)
    named = hour * HOUR + minute * MINUTE + second * SECOND
    return Subject(
        trigger, _daily(lambda day: day.isoweekday() % 7 in weekdays, lambda within: within == named), gap, fold
    )


def aligned(rng: Random, zone: str, unit: int) -> Subject:
    """Draw an Aligned whose period is a whole number of units of *unit* nanoseconds."""
    whole = DAY // unit
    most = min(whole, rng.choice([3, 60, 600, whole]))
    count = rng.choice([whole, rng.randint(1, most), rng.randint(1, most), rng.randint(1, most)])
    period = count * unit
    given, gap, fold = _policies(rng, elapsed=period < DAY)
    written: dict[str, Any] = {"minutes": count} if unit == MINUTE else {"milliseconds": period // 1_000_000}
    return Subject(Aligned(**written, tz=zone, **given), lambda wall: wall % DAY % period == 0, gap, fold)


def calendar(rng: Random, zone: str, near: date, *, by_second: bool) -> Subject:
    """Draw a Calendar whose start lies up to some years before *near*, or a little after it."""
    steps: dict[str, Any] = {
        "years": rng.choice([0, 0, 0, 1, 2]),
        "months": rng.choice([0, 0, 1, 1, 2, 7]),
        "weeks": rng.choice([0, 0, 0, 1, 3]),
        "days": rng.choice([0, 1, 1, 2, 10]),
    }
    if rng.random() < 0.4 or not any(steps.values()):
        steps = {"days": 1}  # the only step sure to meet the night in question
    start = near - timedelta(days=rng.choice([-1, 0, 1, rng.randint(0, 1500)]))
    missing: Any = rng.choice(["skip", "clamp"])
    within = rng.choice([0, 1, 2, 3, 23]) * HOUR + rng.choice([0, 30, 59]) * MINUTE
    within += rng.choice([0, 1, 59]) * SECOND if by_second else 0
    dates = _steps(start, near + timedelta(days=10), steps, clamp=missing == "clamp")
    given, gap, fold = _policies(rng, elapsed=False)
    clock = f"{within // HOUR:02}:{within // MINUTE % 60:02}:{within // SECOND % 60:02}"
    trigger = Calendar(**steps, at=clock, start=start, missing=missing, tz=zone, **given)
    return Subject(trigger, _daily(dates.__contains__, lambda one: one == within), gap, fold)


def _steps(start: date, end: date, steps: dict[str, Any], *, clamp: bool) -> set[date]:
    """Return the dates ``start + k * step`` up to *end*, each counted from the start itself."""
    found: set[date] = set()
    months = steps.get("years", 0) * 12 + steps.get("months", 0)
    days = steps.get("weeks", 0) * 7 + steps.get("days", 0)
    k, one = 0, start
    while one <= end:
        year, month = divmod(start.year * 12 + start.month - 1 + k * months, 12)
        length = monthrange(year, month + 1)[1]
        one = date(year, month + 1, min(start.day, length)) + timedelta(days=k * days)
        if clamp or start.day <= length:
            found.add(one)
        k += 1
    return found


# -- filters -------------------------------------------------------------------------------


def sieve(rng: Random, zone: str, near: date) -> Sieve:
    """Draw a filter that reads the clock of *zone*."""
    tz = ZoneInfo(zone)

    def wall_of(at: int) -> int:
        return at + offset(tz, at)

    kind = rng.choice(["weekdays", "between", "dates"])
    if kind == "weekdays":
        numbers = set(rng.sample(range(7), rng.randint(1, 6)))
        days = Weekdays([_WEEKDAYS[number] for number in numbers], tz=zone)
        return Sieve(days, lambda at: day_of(wall_of(at)).isoweekday() % 7 in numbers)
    if kind == "dates":
        dates = {near + timedelta(days=rng.randint(-5, 5)) for _ in range(rng.randint(1, 4))}
        return Sieve(Dates(*dates, tz=zone), lambda at: day_of(wall_of(at)) in dates)
    start, end = (hour * HOUR + rng.choice([0, 30]) * MINUTE for hour in rng.sample(range(24), 2))
    texts = (f"{one // HOUR:02}:{one // MINUTE % 60:02}" for one in (start, end))

    def between(at: int) -> bool:
        within = wall_of(at) % DAY
        return start <= within < end if start < end else within >= start or within < end

    return Sieve(Between(*texts, tz=zone), between)
