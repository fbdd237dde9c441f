"""Rules made of rules: `Union` (``a | b``) and `Filtered` (``rule & keep``, ``rule - drop``)."""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import cached_property
from typing import ClassVar, Final, Self

from pydantic import field_validator

from quarterjack.errors import InvalidTrigger

from ._words import Sentence
from ._zone import HORIZON_NS
from .base import NativeTrigger, Trigger
from .filters import Filter, WallFilter

__all__ = ["Filtered", "Union"]

LEAPS: Final = 10_000
"""How many spans of a filter a search leaps over before it gives up."""


class Union(NativeTrigger):
    """The fire times of all its members, equal ones once. Written ``a | b``; flat, and equal in any order."""

    positional: ClassVar[tuple[str, ...]] = ("members",)

    members: tuple[Trigger, ...]

    @classmethod
    def of(cls, *triggers: Trigger) -> Trigger:
        """Return the union of *triggers*; of one alone, the rule itself.

        Raises:
            InvalidTrigger: If one of them cannot be combined.
        """
        members = _flat(triggers)
        return members[0] if len(members) == 1 else cls(members=members)

    @field_validator("members", mode="after")
    @classmethod
    def _in_order(cls, members: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
        if not members:
            raise ValueError("it needs at least one member")
        return _flat(members)

    @cached_property
    def _common_zone(self) -> tzinfo | None:
        zones = {zone for member in self.members if (zone := member.zone) is not None}
        return zones.pop() if len(zones) == 1 else UTC if zones else None

    @property
    def zone(self) -> tzinfo | None:
        """The zone of all members that have one; UTC if they differ, None if none has one."""
        return self._common_zone

    @property
    def is_elapsed_like(self) -> bool:
        """True only if all members are: one that names a time of day must not run twice."""
        return all(member.is_elapsed_like for member in self.members)

    @property
    def needs_resolution(self) -> bool:
        """True if a member does."""
        return any(member.needs_resolution for member in self.members)

    @property
    def fires_at_creation(self) -> bool:
        """True if a member does."""
        return any(member.fires_at_creation for member in self.members)

    def resolved(self, created_ns: int, schedule_id: str) -> Trigger:
        """Return the union of the resolved members."""
        return Union.of(*(member.resolved(created_ns, schedule_id) for member in self.members))

    def next_ns(self, after: int, /) -> int | None:
        """Return the first fire time of any member after *after*."""
        return min((n for member in self.members if (n := member.next_ns(after)) is not None), default=None)

    def prev_ns(self, before: int, /) -> int | None:
        """Return the last fire time of any member at or before *before*."""
        return max((n for member in self.members if (n := member.prev_ns(before)) is not None), default=None)

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Return how many instants in ``(after, until]`` belong to any member, at most *cap*; walks them."""
        found, at = 0, self.next_ns(after)
        while at is not None and at <= until and found < cap:
            found += 1
            at = self.next_ns(at)
        return found

    def explain(self) -> str:
        """Return the rule in words: those of its members, a zone that all share at the end."""
        return self._sentence().text

    def _sentence(self) -> Sentence:
        return Sentence.of_several(member._sentence() for member in self.members)


def _flat(triggers: tuple[Trigger, ...]) -> tuple[Trigger, ...]:
    """Return the members without nesting, each once, in an order that depends only on what they are."""
    found: dict[str, Trigger] = {}
    for trigger in triggers:
        for member in trigger.members if isinstance(trigger, Union) else (trigger,):
            _check_combinable(member)
            found.setdefault(member.to_json(), member)
    return tuple(found[text] for text in sorted(found))


def _check_combinable(trigger: Trigger) -> None:
    if not trigger.is_periodic:
        raise InvalidTrigger(
            f"{trigger!r} cannot be combined: it has no fire times of its own; give the task two triggers instead"
        )


class Filtered(NativeTrigger):
    """A rule's fire times that a filter allows, or does not. Written ``rule & keep`` and ``rule - drop``."""

    trigger: Trigger
    filter: Filter
    keep: bool = True

    @field_validator("trigger", mode="after")
    @classmethod
    def _is_combinable(cls, trigger: Trigger) -> Trigger:
        _check_combinable(trigger)
        return trigger

    @property
    def zone(self) -> tzinfo | None:
        """The rule's zone, for the filter only chooses among its times; of a rule without one the filter's."""
        zone = self.trigger.zone
        return self.filter.zone if zone is None and isinstance(self.filter, WallFilter) else zone

    @property
    def is_elapsed_like(self) -> bool:
        """As the rule."""
        return self.trigger.is_elapsed_like

    @property
    def needs_resolution(self) -> bool:
        """As the rule."""
        return self.trigger.needs_resolution

    @property
    def fires_at_creation(self) -> bool:
        """As the rule: a run at creation is asked for by name, so no filter drops it."""
        return self.trigger.fires_at_creation

    def resolved(self, created_ns: int, schedule_id: str) -> Self:
        """Return the resolved rule under the same filter."""
        inner = self.trigger.resolved(created_ns, schedule_id)
        return self if inner is self.trigger else type(self)(trigger=inner, filter=self.filter, keep=self.keep)

    def _passes(self, at: int) -> bool:
        return self.filter.allows_ns(at, self.trigger.zone) is self.keep

    def next_ns(self, after: int, /) -> int | None:
        """Return the first fire time after *after* that passes, or None within 400 years.

        Raises:
            InvalidTrigger: If 10,000 leaps find none; the scheduler then parks the schedule.
        """
        limit = after + HORIZON_NS
        for _ in range(LEAPS):
            found = self.trigger.next_ns(after)
            if found is None or found > limit:
                return None
            if self._passes(found):
                return found
            after = max(found, self.filter.span_ns(found)[1] - 1)
        raise self._exhausted("after")

    def prev_ns(self, before: int, /) -> int | None:
        """Return the last fire time at or before *before* that passes; raises as `next_ns` does."""
        limit = before - HORIZON_NS
        for _ in range(LEAPS):
            found = self.trigger.prev_ns(before)
            if found is None or found < limit:
                return None
            if self._passes(found):
                return found
            before = min(found, self.filter.span_ns(found)[0]) - 1
        raise self._exhausted("before")

    def count_ns(self, after: int, until: int, cap: int, /) -> int:
        """Return how many fire times in ``(after, until]`` pass, at most *cap*; counts whole spans at once."""
        total = 0
        while total < cap:
            found = self.trigger.next_ns(after)
            if found is None or found > until:
                break
            end = min(max(found, self.filter.span_ns(found)[1] - 1), until)
            if self._passes(found):
                total += self.trigger.count_ns(found - 1, end, cap - total)
            after = end
        return total

    def _exhausted(self, where: str) -> InvalidTrigger:
        return InvalidTrigger(
            f"{self.filter!r} let nothing through in {LEAPS:,} steps of {self.trigger!r} {where} the instant asked; "
            "check that it can ever allow one of these times"
        )

    def explain(self) -> str:
        """Return the rule in words, with the filter's after it."""
        return self._sentence().text

    def _sentence(self) -> Sentence:
        rule, keep = self.trigger._sentence(), "only" if self.keep else "but not"
        words, zone = self.filter.explain(), ""
        if isinstance(self.filter, WallFilter):
            words, zone = self.filter.day_words(), self.filter.zone_words()
        if rule.parts > 1:
            # Else the filter would seem to belong to the last of them alone.
            rule = Sentence(when=f"({rule.core})", zone=rule.zone, notes=rule.notes)
        own = f", {rule.zone}" if rule.zone and rule.zone != zone else ""
        return rule._replace(days=f"{rule.days}{own}, {keep} {words}", zone=zone, is_filtered=True)
