"""Periods written in units: what `Every` and `Aligned` add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field

__all__ = ["LONGEST_NS", "SHORTEST_NS", "Amount", "Shift", "exact_ns", "given", "total_ns"]

_SECOND_NS: Final = 1_000_000_000
_UNITS_NS: Final[Mapping[str, int]] = {
    "weeks": 604_800 * _SECOND_NS,
    "days": 86_400 * _SECOND_NS,
    "hours": 3_600 * _SECOND_NS,
    "minutes": 60 * _SECOND_NS,
    "seconds": _SECOND_NS,
    "milliseconds": 1_000_000,
}
SHORTEST_NS: Final = 1_000_000
LONGEST_NS: Final = 200 * 366 * 86_400 * _SECOND_NS
"""About 200 years: from today, anything longer leaves what datetimes can name."""
_MOST: Final = 10**13
"""More milliseconds than the longest period has; keeps every amount exact as a float."""
_WIDEST_SHIFT_S: Final = 200 * 366 * 86_400

Amount = Annotated[float, Field(strict=True, ge=0, le=_MOST, allow_inf_nan=False)]
"""How many of a unit; fractions are allowed."""
Shift = Annotated[float, Field(strict=True, ge=-_WIDEST_SHIFT_S, le=_WIDEST_SHIFT_S, allow_inf_nan=False)]
"""Seconds in either direction, up to about 200 years."""


def exact_ns(amount: float, unit_ns: int) -> int:
    """Return *amount* of a unit in nanoseconds: whole amounts exactly, fractions to the nearest."""
    return int(amount) * unit_ns if float(amount).is_integer() else round(amount * unit_ns)


def total_ns(rule: Any) -> int:
    """Return the sum of a rule's units in nanoseconds."""
    return sum(exact_ns(amount, size) for unit, size in _UNITS_NS.items() if (amount := getattr(rule, unit, 0)))


def given(rule: Any) -> str:
    """Return the units of a rule as they were written: ``days=1, hours=1``."""
    named = [f"{unit}={amount:g}" for unit in _UNITS_NS if (amount := getattr(rule, unit, 0))]
    return ", ".join(named) or "no time at all"
