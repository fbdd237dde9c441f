"""Durations as people write them, and as the engine counts them.

At the surface a duration is seconds (int or float) or a ``timedelta``; the
testing kit and the command also take strings such as ``"1h30m"``. Inside,
everything is integer nanoseconds. Zero, negative, NaN and absurd values are
refused here, once, with the field's name in the message."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final

from ._numbers import shown
from .errors import InvalidOption

__all__ = ["MAX_SECONDS", "NS_PER_S", "Seconds", "parse_duration", "to_ns", "to_seconds"]

_LEAST: Final = 1e-9
"""Shortest of those that must be above 0: a nanosecond, below which it would be counted as none."""
_FORMS: Final = "seconds as a number, or a timedelta"
Seconds = float | timedelta
"""A duration at the surface: seconds as a number, or a ``timedelta``."""

NS_PER_S: Final = 1_000_000_000
MAX_SECONDS: Final = 200 * 366 * 86_400.0
"""Longest duration taken, about 200 years: past it datetimes overflow."""

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])", re.ASCII)


def to_seconds(value: Seconds, field: str, *, minimum: float = 0.0, exclusive: bool = False) -> float:
    """Return *value* in seconds after checking it lies in the allowed range.

    Raises:
        InvalidOption: If it is no number, NaN, below *minimum* (when *exclusive*: or less than a
            nanosecond above it) or above about 200 years. Names *field* and the range.
    """
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        seconds = _as_float(value)
    else:
        raise InvalidOption(f"{field} must be {_FORMS}, not {shown(value)}")
    low = f"more than {minimum:g}" if exclusive else f"{minimum:g} or more"
    too_low = seconds <= minimum if exclusive else seconds < minimum
    if math.isnan(seconds) or too_low or seconds > MAX_SECONDS:
        raise InvalidOption(
            f"{field} must be {low} and at most {MAX_SECONDS:g} seconds (about 200 years), got {shown(value)}"
        )
    if exclusive and seconds < minimum + _LEAST:
        raise InvalidOption(f"{field} must be at least a nanosecond above {minimum:g}, got {shown(value)}")
    return seconds


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number past 10**308
        return math.inf if value > 0 else -math.inf


def to_ns(value: Seconds, field: str, *, minimum: float = 0.0, exclusive: bool = False) -> int:
    """As `to_seconds`, in integer nanoseconds (exact for timedeltas and whole seconds)."""
    seconds = to_seconds(value, field, minimum=minimum, exclusive=exclusive)
    if isinstance(value, timedelta):
        return ((value.days * 86_400 + value.seconds) * 1_000_000 + value.microseconds) * 1_000
    return round(seconds * NS_PER_S)


def parse_duration(value: str | Seconds, field: str = "duration") -> float:
    """Return seconds for ``"90s"``, ``"1h30m"``, ``"2d"``, ``"250ms"``, a number or a timedelta.

    Raises:
        InvalidOption: If the text is not a duration; names *field* and shows the form.
    """
    if not isinstance(value, str):
        return to_seconds(value, field)
    text = value.strip().lower()
    parts = _PART.findall(text)
    if not parts or _PART.sub("", text).strip():
        raise InvalidOption(f'{field} must look like "90s", "1h30m", "2d" or "250ms", got {shown(value)}')
    return to_seconds(sum(float(number) * _UNITS[unit] for number, unit in parts), field)
