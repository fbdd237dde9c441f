"""The grammar of cron fields: text in, bit masks out.

Strict ASCII. An error names the field, its column in the expression, what is
allowed and, where it can guess, what was meant."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final, NamedTuple

from quarterjack.errors import InvalidTrigger

__all__ = ["FIELDS", "CronFields", "DayRules", "Field", "ParsedField", "day_mask", "parse_field"]

_MONTHS: Final = {
    name: number
    for number, name in enumerate("jan feb mar apr may jun jul aug sep oct nov dec".split(), 1)  # noqa: SIM905
}
_WEEKDAYS: Final = {name: number for number, name in enumerate("sun mon tue wed thu fri sat".split())}  # noqa: SIM905
_PERIODS: Final = frozenset({"second", "minute", "hour"})
"""Fields whose steps are also periods that `Every` knows."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of the expression: its name, its range, and the names its values may go by."""

    name: str
    low: int
    high: int
    names: Mapping[str, int]


FIELDS: Final = {
    field.name: field
    for field in (
        Field("second", 0, 59, {}),
        Field("minute", 0, 59, {}),
        Field("hour", 0, 23, {}),
        Field("day of month", 1, 31, {}),
        Field("month", 1, 12, _MONTHS),
        Field("day of week", 0, 7, _WEEKDAYS),
        Field("year", 1970, 2199, {}),
    )
}


@dataclass(frozen=True, slots=True)
class DayRules:
    """Days that depend on the month: last days, nearest weekdays, n-th and last weekdays.

    Attributes:
        from_last: Days counted back from the month's last: ``L`` is 0, ``L-3`` is 3.
        nearest: Days whose nearest Monday to Friday is meant: ``15W``.
        last_weekday: True for ``LW``.
        nth: Pairs of weekday (Sunday is 0) and which one of the month; 0 is the last: ``5L``.
    """

    from_last: tuple[int, ...] = ()
    nearest: tuple[int, ...] = ()
    last_weekday: bool = False
    nth: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class ParsedField:
    """A field's values as a bit mask, and what a mask cannot say."""

    text: str
    mask: int
    rules: DayRules
    starts_with_star: bool
    forces_and: bool
    has_hash: bool


class CronFields(NamedTuple):
    """The seven fields of an expression, in its order."""

    second: ParsedField
    minute: ParsedField
    hour: ParsedField
    day: ParsedField
    month: ParsedField
    weekday: ParsedField
    year: ParsedField

    @property
    def both(self) -> bool:
        """True if a day must match day of month *and* weekday: Debian's rule, or a ``+``."""
        return self.weekday.forces_and or self.day.starts_with_star or self.weekday.starts_with_star


class _FieldParser:
    """Parses one field. *column* is where it begins in the expression, from 1."""

    def __init__(self, field: Field, text: str, column: int, expression: str, seed: str | None) -> None:
        self.field = field
        self.text = text
        self.column = column
        self.expression = expression
        self.seed = seed
        self.place = 0
        """Where the part being read begins in the field."""
        self.mask = 0
        self.has_hash = False
        self.from_last: list[int] = []
        self.nearest: list[int] = []
        self.last_weekday = False
        self.nth: list[tuple[int, int]] = []

    def fail(self, part: str, why: str) -> InvalidTrigger:
        at = self.column + self.place
        return InvalidTrigger(
            f"Cron {self.expression!r}: {self.field.name} {part!r} at column {at}: {why} "
            f"(allowed: {self.field.low}-{self.field.high})"
        )

    def parse(self) -> ParsedField:
        text = self.text
        forces_and = self.field.name == "day of week" and text.startswith("+")
        self.place = 1 if forces_and else 0
        for part in text[self.place :].split(","):
            self.part(part)
            self.place += len(part) + 1
        rules = DayRules(tuple(self.from_last), tuple(self.nearest), self.last_weekday, tuple(self.nth))
        return ParsedField(text, self.mask, rules, text.startswith("*"), forces_and, self.has_hash)

    def part(self, part: str) -> None:
        if not part:
            raise self.fail(part, "a comma stands where a value belongs")
        if self.special(part):
            return
        body, slash, step_text = part.partition("/")
        step = 1
        if slash:
            if not step_text.isdigit() or int(step_text) == 0:
                raise self.fail(part, "a step is a whole number from 1, as in */5")
            step = int(step_text)
            self.check_step(part, step)
        low, high = self.bounds(body, part, has_step=bool(slash), step=step)
        if low > high and self.field.name == "year":
            raise self.fail(part, f"years do not wrap around; write {high}-{low}")
        self.add(low, high, step)

    def check_step(self, part: str, step: int) -> None:
        """Refuse a step that leaves the field at once: nobody who writes */90 means "at minute 0"."""
        field = self.field
        span = (6 if field.name == "day of week" else field.high) - field.low + 1
        if step > span:
            longer = f"; a longer period is Every({field.name}s={step})" if field.name in _PERIODS else ""
            raise self.fail(part, f"a step of {step} is longer than the {span} values there are{longer}")

    def bounds(self, body: str, part: str, *, has_step: bool, step: int) -> tuple[int, int]:
        field = self.field
        top = 6 if field.name == "day of week" else field.high
        if body == "*":
            return field.low, top
        if body == "H" or body.startswith("H("):
            return self.hashed(body, part, step if has_step else None)
        first, dash, last = body.partition("-")
        low = self.value(first, part)
        if dash:
            return low, self.value(last, part)
        return low, top if has_step else low

    def value(self, text: str, part: str) -> int:
        field = self.field
        number = field.names.get(text.lower())
        if number is None:
            if not re.fullmatch("[0-9]{1,4}", text):
                near = difflib.get_close_matches(text.lower(), field.names, n=1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise self.fail(part, f"{text!r} is no number{' or name' if field.names else ''}{hint}")
            number = int(text)
        if not field.low <= number <= field.high:
            raise self.fail(part, f"{number} is out of range")
        return number

    def add(self, low: int, high: int, step: int) -> None:
        """Set the bits of a range; one that wraps (``fri-mon``, ``22-2``) goes over the end."""
        field = self.field
        top = 6 if field.name == "day of week" else field.high
        span = top - field.low + 1
        if field.name == "day of week":
            if low == 7 and high == 7:
                low = high = 0
            elif low == 7:
                low = 0
            elif high == 7:
                high = 6 if low == 0 else 7
        values = range(low, high + 1, step) if low <= high else range(low, high + span + 1, step)
        for value in values:
            self.mask |= 1 << ((value - field.low) % span + field.low)

    def hashed(self, body: str, part: str, step: int | None) -> tuple[int, int]:
        """Return the range that ``H`` stands for: one value, or a start with a step, by the schedule's id."""
        field = self.field
        low, high = field.low, {"day of month": 28, "day of week": 6}.get(field.name, field.high)
        if body != "H":
            match = re.fullmatch(r"H\(([0-9]+)-([0-9]+)\)", body)
            if match is None or int(match[1]) > int(match[2]):
                raise self.fail(part, "write H, H/15 or H(0-29)")
            low, high = self.value(match[1], part), self.value(match[2], part)
        self.has_hash = True
        digest = blake2b(f"{self.seed}\0{field.name}".encode(), digest_size=8).digest()
        drawn = int.from_bytes(digest, "big")
        if step is None:
            chosen = low + drawn % (high - low + 1)
            return chosen, chosen
        return low + drawn % min(step, high - low + 1), high

    def special(self, part: str) -> bool:
        """Take up what depends on the month; say whether *part* was such a thing."""
        upper = part.upper()
        if self.field.name == "day of month":
            return self.special_day(upper, part)
        if self.field.name == "day of week":
            return self.special_weekday(upper, part)
        return False

    def special_day(self, upper: str, part: str) -> bool:
        if upper in {"LW", "WL"}:
            self.last_weekday = True
            return True
        if match := re.fullmatch(r"L(?:-([0-9]{1,2}))?", upper):
            back = int(match[1] or 0)
            if back > 30:
                raise self.fail(part, "L counts back at most 30 days")
            self.from_last.append(back)
            return True
        if match := re.fullmatch(r"([0-9]{1,2})W", upper):
            self.nearest.append(self.value(match[1], part))
            return True
        return False

    def special_weekday(self, upper: str, part: str) -> bool:
        if match := re.fullmatch(r"([0-9]|[A-Z]{3})#([0-9])", upper):
            if not 1 <= int(match[2]) <= 5:
                raise self.fail(part, "a month has a 1st to 5th of a weekday, as in mon#2")
            self.nth.append((self.value(match[1], part) % 7, int(match[2])))
            return True
        if match := re.fullmatch(r"([0-9]|[A-Z]{3})L", upper):
            self.nth.append((self.value(match[1], part) % 7, 0))
            return True
        if upper == "L":
            raise self.fail(part, "write 6L or satL for the last Saturday, or sat for each")
        return False


def parse_field(name: str, text: str, column: int, expression: str, seed: str | None) -> ParsedField:
    """Return the parsed field called *name*; *seed* is what ``H`` is drawn from.

    Raises:
        InvalidTrigger: Naming field, column, what is allowed and a guess at what was meant.
    """
    return _FieldParser(FIELDS[name], text, column, expression, seed).parse()


def day_mask(days: ParsedField, weekdays: ParsedField, *, both: bool, first_weekday: int, length: int) -> int:
    """Return the days of one month that match, as a mask with bit *d* for day *d*.

    Args:
        days: The day-of-month field.
        weekdays: The day-of-week field.
        both: True if a day must match both fields, False if either is enough.
        first_weekday: Weekday of the 1st, Sunday is 0.
        length: Days in the month.
    """
    whole = (1 << (length + 1)) - 2
    by_day = days.mask & whole
    rules = days.rules
    for back in rules.from_last:
        if length - back >= 1:
            by_day |= 1 << (length - back)
    for day in rules.nearest:
        if day <= length:
            by_day |= 1 << _nearest_weekday(day, first_weekday, length)
    if rules.last_weekday:
        by_day |= 1 << _nearest_weekday(length, first_weekday, length)
    by_weekday = 0
    for day in range(1, length + 1):
        if weekdays.mask >> ((first_weekday + day - 1) % 7) & 1:
            by_weekday |= 1 << day
    for weekday, nth in weekdays.rules.nth:
        first = 1 + (weekday - first_weekday) % 7
        day = first + 7 * (nth - 1) if nth else first + 7 * ((length - first) // 7)
        if day <= length:
            by_weekday |= 1 << day
    return by_day & by_weekday if both else by_day | by_weekday


def _nearest_weekday(day: int, first_weekday: int, length: int) -> int:
    """Return the Monday to Friday nearest to *day* in the same month."""
    weekday = (first_weekday + day - 1) % 7
    if weekday == 6:
        return day - 1 if day > 1 else day + 2
    if weekday == 0:
        return day + 1 if day < length else day - 2
    return day
