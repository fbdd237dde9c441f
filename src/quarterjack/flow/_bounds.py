"""How many may wait before a flow, and for how long: checked, and taken over from the flows inside it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from quarterjack._choices import one_of
from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import whole_number
from quarterjack.errors import InvalidOption

from .room import Overflow

__all__ = ["Bounds"]


class Bounds(NamedTuple):
    """What bounds the jobs that wait before a flow; None is no bound."""

    max_queue: int | None = None
    overflow: Overflow = "reject"
    max_wait_s: float | None = None

    @classmethod
    def of(cls, max_queue: int | None, overflow: Overflow, max_wait: Seconds | None) -> Bounds:
        """Return what was asked for.

        Raises:
            InvalidOption: Naming the option, the value and the range.
        """
        one_of(overflow, "overflow", Overflow)
        if overflow != "reject" and max_queue is None:
            raise InvalidOption(f"overflow={overflow!r} says what becomes of one job too many; give max_queue= as well")
        return cls(
            None if max_queue is None else whole_number(max_queue, "max_queue", 1),
            overflow,
            None if max_wait is None else to_seconds(max_wait, "max_wait", exclusive=True),
        )

    def taking_over(self, inside: Iterable[Bounds]) -> Bounds:
        """Return these with those of the flows *inside*, whose jobs wait in one room now.

        Raises:
            InvalidOption: If two of them say how many may wait, or how long.
        """
        every = [self, *inside]
        queues = [one for one in every if one.max_queue is not None]
        waits = [one for one in every if one.max_wait_s is not None]
        if len(queues) > 1:
            _refuse("max_queue", [one.max_queue for one in queues])
        if len(waits) > 1:
            _refuse("max_wait", [one.max_wait_s for one in waits])
        max_queue, overflow = queues[0][:2] if queues else (None, "reject")
        return Bounds(max_queue, overflow, waits[0].max_wait_s if waits else None)

    def words(self) -> list[str]:
        """Return those that there are, as they are written."""
        said = [] if self.max_queue is None else [f"max_queue={self.max_queue}"]
        said += [] if self.overflow == "reject" else [f"overflow={self.overflow!r}"]
        return said if self.max_wait_s is None else [*said, f"max_wait={self.max_wait_s}"]


def _refuse(option: str, values: list[Any]) -> None:
    given = " and ".join(f"{option}={value:g}" for value in values)
    raise InvalidOption(
        f"{given}: a Flow inside another one counts as its strategies, and their jobs wait in one room, which has one "
        f"{option}; say it once, and share what is in the others by their gates: Flow(*inner.gates, …, {option}=…)"
    )
