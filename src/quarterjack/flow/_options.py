"""Settings of strategies, checked: the field, the value, the range, the next step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from quarterjack.errors import InvalidOption

__all__ = ["CRUMBS", "changed"]

CRUMBS: Final = 1e-9
"""Costs such as 0.1 do not add up exactly in binary; a limit is a limit to this much."""


def changed(strategy: object, changes: Mapping[str, Any], settings: Iterable[str]) -> None:
    """Refuse changes of what *strategy* cannot change.

    Raises:
        InvalidOption: Naming what it can.
    """
    known = tuple(settings)
    for name in changes:
        if name not in known:
            raise InvalidOption(f"{type(strategy).__name__}.update takes {', '.join(known)}, got {name!r}")
