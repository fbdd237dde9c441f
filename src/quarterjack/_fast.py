"""Named tuples without the Python frame of their generated constructor.

``new_tuple(Plan, (a, b, c))`` is ``Plan(a, b, c)`` in a third of the time, and
checks nothing: only the few places that run once per job use it, with every
field in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

__all__ = ["new_tuple"]

new_tuple: Final[Callable[..., Any]] = tuple.__new__  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
