"""Named tuples without the Python frame of their generated constructor.

``new_tuple(Plan, (a, b, c))`` is ``Plan(a, b, c)`` in a third of the time, and
checks nothing: only the few places that run once per job use it, with every
field in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

__all__ = ["new_tuple"]

N = TypeVar("N", bound=tuple[Any, ...])

new_tuple: Final = cast("Callable[[type[N], tuple[Any, ...]], N]", tuple.__new__)
