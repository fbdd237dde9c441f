"""Who is told of what happens in a store, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .base import Hint, HintListener

__all__ = ["Listeners"]


class Listeners:
    """Calls each listener for each hint, in the order they came."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: tuple[HintListener, ...] = ()

    def add(self, listener: HintListener) -> Callable[[], None]:
        """Tell *listener* from now on; return the function that ends it."""
        self._known = (*self._known, listener)

        def end() -> None:
            self._known = tuple(known for known in self._known if known is not listener)

        return end

    def tell(self, hint: Hint, ids: Sequence[str] = ()) -> None:
        """Tell all of them; no ids means "look at all"."""
        for listener in self._known:
            listener(hint, ids)
