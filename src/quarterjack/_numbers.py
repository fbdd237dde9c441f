"""Options that are numbers, checked: the field, the value, the range."""

from __future__ import annotations

import math
from typing import Any, Final

from .errors import InvalidOption

__all__ = ["number", "shown", "whole_number"]

_MOST: Final = 2**63 - 1
"""Whoever writes more means no limit; stores keep no larger number, and floats are no match for one of 400 digits."""
_PRINTED_BITS: Final = 128


def number(value: Any, field: str, low: float, high: float = math.inf, *, exclusive: bool = False) -> Any:
    """Return *value* if it is a finite number from *low* (beyond it, if *exclusive*) to *high*.

    Raises:
        InvalidOption: Naming *field*, the value and the range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= _MOST
    if not is_number or not (low < value if exclusive else low <= value) or value > high:
        least, upper = ("above", " and at most") if exclusive else ("from", " to")
        most = "" if math.isinf(high) else f"{upper} {high:g}"
        raise InvalidOption(f"{field} must be a number {least} {low:g}{most}, got {shown(value)}")
    return value


def whole_number(value: Any, field: str, low: int, high: int = _MOST) -> int:
    """Return *value* if it is a whole number from *low* to *high*.

    Raises:
        InvalidOption: Naming *field*, the value and the range.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        is_too_large = isinstance(value, int) and value > high
        most = f" to {high}" if high != _MOST or is_too_large else ""
        raise InvalidOption(f"{field} must be a whole number from {low}{most}, got {shown(value)}")
    return value


def shown(value: Any) -> str:
    """Return a wrong value for a message; of a giant number its size, for Python refuses to print the longest."""
    if isinstance(value, int) and value.bit_length() > _PRINTED_BITS:
        return f"a number of about {value.bit_length() * math.log10(2):,.0f} digits"
    try:
        return repr(value)
    except Exception:  # such a number within a list, or a repr of the user's
        return f"a {type(value).__name__} that cannot be printed"
