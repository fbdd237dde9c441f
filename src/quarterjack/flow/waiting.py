"""A job as strategies see it: what it is, how urgent and how heavy, and since when it waits."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterable, Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, SupportsFloat

from quarterjack.errors import InvalidOption

if TYPE_CHECKING:
    from .lane import Lane

__all__ = ["INSTANTS_ARE", "NO_KEY", "Phase", "Waiting", "instant"]

NO_KEY: Final[Mapping[str, Hashable]] = MappingProxyType({})


INSTANTS_ARE: Final = "it must be an instant in monotonic seconds: now, a later one, or math.inf"


def instant(found: Any, what: str) -> float:
    """Return what a user's gate or order answered, if it is an instant.

    Raises:
        InvalidOption: Naming *what* answered that.
    """
    if isinstance(found, float) or (isinstance(found, int) and not isinstance(found, bool)):
        return found
    if inspect.iscoroutine(found):
        found.close()
    elif isinstance(found, SupportsFloat) and not isinstance(found, bool):  # a number of some other library
        return float(found)
    raise InvalidOption(f"{what} returned {found!r}; {INSTANTS_ARE}")


class Phase(IntEnum):
    """Where a pass stands; the dispatcher alone moves it."""

    NEW = 0
    WAITING = 1
    TAKEN = 2
    """Admitted: its gates are taken, its body has not begun."""
    STARTED = 3
    OVER = 4


class Waiting:
    """A job on its way through a flow.

    The class holds the defaults, so that a subclass needs slots only for what it
    sets: a bare pass through one gate makes one of these each time.
    """

    if not TYPE_CHECKING:  # a checker would take it that no subclass may have the slots it sets
        __slots__ = ()

    id: str = ""
    task: str = ""
    """The task's name; of a `TaskManager` the function's."""
    fn: Any = None
    """The body; None for a bare pass."""
    args: tuple[Any, ...] = ()
    """What was given by position when it was submitted."""
    kwargs: Mapping[str, Any] = NO_KEY
    """What was given by name."""
    key: Mapping[str, Hashable] = NO_KEY
    """What ``by="name"`` looks up before it looks at the arguments: the metadata, and what ``key=`` adds to it."""
    how_keyed: str = "options(metadata={{{name!r}: …}})"
    """How whoever asks for such a pass gives it a key, for people: to be formatted with the *name*."""
    cost: float = 1.0
    """How much it weighs at gates that count by cost."""
    priority: int = 2
    """0 is most urgent."""
    metadata: Mapping[str, Any] | None = None
    attempt: int = 1
    """Which try this is, from 1."""
    enqueued_at: float = 0.0
    """Since when it waits: monotonic seconds. A retry keeps the age of its job."""
    started_at: float | None = None
    """When its body began: monotonic seconds; None before."""
    resource: Any = None
    """What a router chose for it."""

    lifted_to: int | None = None
    """The priority of who waits for it, where that is more urgent than its own."""
    awaits: Sequence[Iterable[Any]] = ()
    """The jobs its body waits for, one collection for each wait."""
    stands_in: Waiting | None = None
    """The batch it goes in."""

    # The dispatcher's own.
    _phase: Phase = Phase.NEW
    _lane: Lane
    _rank: float = 0.0
    _seq: int = 0

    @property
    def urgency(self) -> int:
        """Its priority, or that of who waits for it."""
        own, lifted = self.priority, self.lifted_to
        return own if lifted is None or own < lifted else lifted

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.task or 'pass'} {self.id}>"
