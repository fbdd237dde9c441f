"""Snapshots of the context that jobs are submitted in: one for all that come from the same.

A hundred thousand jobs that wait need not hold a hundred thousand copies, which the
collector would walk again and again. Whether a context is the one of before is
decided by its variables and the identity of their values, never by whether these are equal."""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import Final
from weakref import ref

__all__ = ["Snapshots"]

MOST_VARIABLES: Final = 8
"""With more of them to compare a copy of its own is the cheaper one."""


class Snapshots:
    """Takes them. Keeps none alive that no job holds."""

    __slots__ = ("_count", "_empty", "_last")

    def __init__(self) -> None:
        self._empty = Context()
        self._last: ref[Context] = ref(self._empty)
        self._count = 0
        """How many variables the last one has."""

    def take(self) -> Context:
        """Return a context as the running one is now: to be copied, and not to be entered."""
        here = copy_context()
        count = len(here)
        if not count:
            return self._empty
        if count == self._count:
            last = self._last()
            if last is not None and all(here.get(variable, self) is value for variable, value in last.items()):
                return last
        if count <= MOST_VARIABLES:
            self._last, self._count = ref(here), count
        return here
