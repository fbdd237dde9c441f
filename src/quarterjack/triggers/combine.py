"""Triggers made of triggers: `Union` for ``a | b``, `Filtered` for ``t & f`` and ``t - f``."""

from __future__ import annotations

from datetime import tzinfo
from typing import Any, Final, Self

from pydantic import model_validator

from quarterjack.errors import InvalidTrigger

from .base import NativeTrigger, Trigger
from .filters import Filter

__all__ = ["Filtered", "Union"]

SEARCH_STEPS: Final = 10_000
"""How many fire times or stretches a search through a filter looks at before it gives up."""


class Union(NativeTrigger):
    """The fire times of all its members, equal instants once. Made by ``a | b``."""

    members: tuple[Trigger, ...]

    def __init__(self, members: tuple[Trigger, ...] | list[Trigger], **unknown: Any) -> None:
        fields: dict[str, Any] = {"members": tuple(members)}
        super().__init__(**fields, **unknown)

    @classmethod
    def of(cls, *members: Trigger) -> Union:
        """Return the union of *members*, nested unions laid flat and repetitions left out.

        Raises:
            InvalidTrigger: If one is no trigger, or has no fire times of its own.
        """
        flat: list[Trigger] = []
        for member in members:
            for one in member.members if isinstance(member, Union) else (member,):
                if not isinstance(one, Trigger):
                    raise InvalidTrigger(f"| joins two triggers, got {one!r}; a filter stands behind & or -")
                if not one.is_periodic:
                    raise InvalidTrigger(f"{type(one).__name__} cannot be joined with |; give the task two triggers")
                if one not in flat:
                    flat.append(one)
        return cls(flat)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Union) and set(self.members) == set(other.members)

    def __hash__(self) -> int:
        return hash(frozenset(self.members))

    @property
    def zone(self) -> tzinfo | None:
        """The members' zone if they share one."""
        zones = {member.zone for member in self.members}
        return zones.pop() if len(zones) == 1 else None

    @property
    def fires_at_creation(self) -> bool:
        """True if any member does."""
        return any(member.fires_at_creation for member in self.members)

    @property
    def is_elapsed_like(self) -> bool:
        """True only if all members are: one that names a time of day must not run twice."""
        return all(member.is_elapsed_like for member in self.members)

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the union of the resolved members."""
        return Union(tuple(member.resolved(created_ns, schedule_id) for member in self.members))

    def next_ns(self, after: int, /) -> int | None:
        """Return the earliest of the members' next fire times."""
        return min((n for member in self.members if (n := member.next_ns(after)) is not None), default=None)

    def prev_ns(self, before: int, /) -> int | None:
        """Return the latest of the members' previous fire times."""
        return max((n for member in self.members if (n := member.prev_ns(before)) is not None), default=None)

    def explain(self) -> str:
        """Return the rule in words."""
        return ", and ".join(member.explain() for member in self.members)


class Filtered(NativeTrigger):
    """The fire times a filter allows (``&``) or does not allow (``-``)."""

    trigger: Trigger
    filter: Filter
    keep: bool = True

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.trigger.is_periodic:
            raise ValueError(f"{type(self.trigger).__name__} has no fire times that a filter could choose from")
        return self

    @property
    def zone(self) -> tzinfo | None:
        """The trigger's zone."""
        return self.trigger.zone

    @property
    def fires_at_creation(self) -> bool:
        """As its trigger."""
        return self.trigger.fires_at_creation

    @property
    def is_elapsed_like(self) -> bool:
        """As its trigger."""
        return self.trigger.is_elapsed_like

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the resolved trigger under the same filter."""
        return Filtered(trigger=self.trigger.resolved(created_ns, schedule_id), filter=self.filter, keep=self.keep)

    def _counts(self, at: int) -> bool:
        return self.filter.allows_ns(at, self.trigger.zone) == self.keep

    def next_ns(self, after: int, /) -> int | None:
        """Return the next fire time that counts.

        Raises:
            InvalidTrigger: If the filter let nothing through in 10,000 steps.
        """
        for _ in range(SEARCH_STEPS):
            found = self.trigger.next_ns(after)
            if found is None or self._counts(found):
                return found
            jump = self.filter.change_after_ns(found)
            after = found if jump is None else max(found, jump)
        raise self._nothing()

    def prev_ns(self, before: int, /) -> int | None:
        """Return the last fire time at or before *before* that counts."""
        for _ in range(SEARCH_STEPS):
            found = self.trigger.prev_ns(before)
            if found is None or self._counts(found):
                return found
            before = found - 1
        raise self._nothing()

    def _nothing(self) -> InvalidTrigger:
        return InvalidTrigger(
            f"the filter {self.filter!r} let nothing through in {SEARCH_STEPS} steps of {self.trigger!r}; "
            "check that it can ever allow one of these times"
        )

    def explain(self) -> str:
        """Return the rule in words."""
        return f"{self.trigger.explain()}, {'only' if self.keep else 'but not'} {self.filter.explain()}"
