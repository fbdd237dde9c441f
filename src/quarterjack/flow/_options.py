"""Settings of strategies, checked: the field, the value, the range, the next step."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from quarterjack.errors import InvalidOption

__all__ = ["CRUMBS", "changed", "number"]

CRUMBS: Final = 1e-9
"""Costs such as 0.1 do not add up exactly in binary; a limit is a limit to this much."""


def number(
    value: Any, field: str, low: float, high: float = math.inf, *, whole: bool = False, exclusive: bool = False
) -> Any:
    """Return *value* if it is a number from *low* (beyond it, if *exclusive*) to *high*.

    Raises:
        InvalidOption: Naming *field*, the value and the range.
    """
    kind: Any = int if whole else (int, float)
    is_number = isinstance(value, kind) and not isinstance(value, bool) and not math.isnan(value)
    if not is_number or not (low < value if exclusive else low <= value) or value > high:
        noun = "a whole number" if whole else "a number"
        least = f"above {low:g}" if exclusive else f"{low:g} or more"
        upper = "" if math.isinf(high) else f" and at most {high:g}"
        raise InvalidOption(f"{field} must be {noun}, {least}{upper}, got {value!r}")
    return value


def changed(strategy: object, changes: Mapping[str, Any], settings: Iterable[str]) -> None:
    """Refuse changes of what *strategy* cannot change.

    Raises:
        InvalidOption: Naming what it can.
    """
    known = tuple(settings)
    for name in changes:
        if name not in known:
            raise InvalidOption(f"{type(strategy).__name__}.update takes {', '.join(known)}, got {name!r}")
