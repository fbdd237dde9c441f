"""What was made of an object, kept as long as the object may come again."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

__all__ = ["Memo"]

T = TypeVar("T")

_MOST: Final = 1_000


class Memo(Generic[T]):
    """Remembers something about objects that never change, by who they are; it holds them, so no id means two.

    Bounded: beyond a thousand objects it begins anew.
    """

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[int, tuple[object, T]] = {}

    def get(self, thing: object) -> T | None:
        """Return what was put for *thing*, or None."""
        found = self._known.get(id(thing))
        return None if found is None else found[1]

    def put(self, thing: object, value: T) -> T:
        """Remember *value*, and return it."""
        if len(self._known) >= _MOST:
            self._known.clear()
        self._known[id(thing)] = thing, value
        return value
