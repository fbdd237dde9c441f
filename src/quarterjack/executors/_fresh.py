"""Tasks that somebody else cancels before their first step, as ``for task in asyncio.all_tasks(): …`` does.

Such a task never enters its coroutine, so nothing inside it can tell. A callback
of every task would, and costs a fifth of a job that does nothing (measured); so
what was begun in a turn of the loop is looked through in the next ones, which
costs a fiftieth."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final, Generic, TypeVar

__all__ = ["UNBEGUN", "Fresh"]

UNBEGUN: Final = "its asyncio task was cancelled before it began"

_T = TypeVar("_T")


class Fresh(Generic[_T]):
    """Those whose tasks were just made on a loop.

    Args:
        loop: Where. The first step of a task comes in the turn after the one it is made in.
        unbegun: Returns those of whom nothing has run.
        on_unbegun: Told of each that is one of those still when its first step has been due.
    """

    __slots__ = ("_context", "_loop", "_made", "_on_unbegun", "_unbegun")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        unbegun: Callable[[list[_T]], list[_T]],
        on_unbegun: Callable[[_T], None],
    ) -> None:
        self._loop = loop
        self._unbegun, self._on_unbegun = unbegun, on_unbegun
        self._made: list[_T] = []
        self._context = Context()

    def add(self, one: _T) -> None:
        """Its task was made."""
        if not self._made:
            self._loop.call_soon(self._look, context=self._context)
        self._made.append(one)

    def _look(self) -> None:
        made, self._made = self._made, []
        late = self._unbegun(made)
        if late:  # most of them were made after this was asked for, and begin after it, in this very turn
            self._loop.call_soon(self._look_again, late, context=self._context)

    def _look_again(self, late: list[_T]) -> None:
        for one in self._unbegun(late):
            self._on_unbegun(one)
