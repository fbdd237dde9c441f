"""`WeightedRoundRobin`: which of several resources a job gets, by weight and by health."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Generic, Literal, TypeVar, overload

from quarterjack._choices import one_of
from quarterjack._durations import Seconds, to_seconds
from quarterjack._numbers import number, shown
from quarterjack._signatures import Explained
from quarterjack.clock import Clock
from quarterjack.errors import CircuitOpen, FlowRefused, InvalidOption, NoResource

from ._fleet import fleet_forms
from ._keys import By
from ._options import CRUMBS, changed
from .base import Gate
from .breaker import CircuitBreaker
from .outcome import NOT_STARTED, Ended
from .waiting import Waiting

__all__ = ["OnDown", "Resource", "WeightedRoundRobin"]

T = TypeVar("T")

OnDown = Literal["fail", "hold"]
_CHANGEABLE: Final = ("weights", "health")
MAX_WEIGHT: Final = 1e9
FIRST_SHARE: Final = 0.1
"""Of its weight, for a resource that has just come back: some must try."""
KEPT_S: Final = 3600.0
"""A key that nobody used for so long begins a new round."""


@dataclass(frozen=True, slots=True, eq=False, init=False, repr=False)
class Resource(Explained, Generic[T]):
    """One of those that a `WeightedRoundRobin` chooses from.

    Attributes:
        name: What it is called; unique in its router.
        value: What the body works with: a client, a URL, anything.
        weight: How often it is chosen, compared with the others; 0 is never.
        breaker: A `CircuitBreaker` of its own: while it lets nothing through, the others are chosen.
        limit: A gate of its own, such as a `ConcurrencyLimit`: while it is full, the others are chosen.
    """

    name: str
    value: T
    weight: float
    breaker: CircuitBreaker | None
    limit: Gate | None

    @overload
    def __init__(
        self: Resource[None],
        name: str,
        value: None = None,
        weight: float = 1.0,
        breaker: CircuitBreaker | None = None,
        limit: Gate | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self,
        name: str,
        value: T,
        weight: float = 1.0,
        breaker: CircuitBreaker | None = None,
        limit: Gate | None = None,
    ) -> None: ...
    def __init__(
        self,
        name: str,
        value: Any = None,
        weight: float = 1.0,
        breaker: CircuitBreaker | None = None,
        limit: Gate | None = None,
    ) -> None:
        if not isinstance(name, str) or not name:
            raise InvalidOption(f"a Resource needs a name, got {shown(name)}")
        number(weight, f"weight of {name}", 0.0, MAX_WEIGHT)
        if breaker is not None and not isinstance(breaker, CircuitBreaker):
            raise InvalidOption(f"breaker of {name} must be a CircuitBreaker, got {shown(breaker)}")
        if limit is not None and not isinstance(limit, Gate):
            raise InvalidOption(f"limit of {name} must be a gate such as ConcurrencyLimit(5), got {shown(limit)}")
        fields = {"name": name, "value": value, "weight": weight, "breaker": breaker, "limit": limit}
        for field, given in fields.items():
            object.__setattr__(self, field, given)
        for gate in self.gates:
            if gate.by is not None:
                raise InvalidOption(f"{gate!r} of {name} goes by keys; give by= to the WeightedRoundRobin instead")
        if fleet_forms(self.gates):
            raise InvalidOption(f'{limit!r} of {name} has scope="fleet"; the limit of a resource holds in one process')

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Its breaker and its limit, as far as it has them."""
        return tuple(gate for gate in (self.breaker, self.limit) if gate is not None)

    def copied(self) -> Resource[T]:
        """Return it with gates of its own that have seen no job yet."""
        breaker = None if self.breaker is None else self.breaker.fresh()
        limit = None if self.limit is None else self.limit.fresh()
        return Resource(self.name, self.value, self.weight, breaker, limit)

    def __repr__(self) -> str:
        return f"<resource {self.name}>"


class _Target(Generic[T]):
    """What a router keeps about one resource."""

    __slots__ = ("began_with", "credit", "gates", "health", "picked", "resource", "returned_at", "running", "weight")

    def __init__(self, resource: Resource[T]) -> None:
        self.resource = resource
        self.gates = resource.gates
        self.weight = float(resource.weight)
        self.health = 1.0
        """As told by `update`."""
        self.credit = 0.0
        """What it is owed, in turns of all weights together."""
        self.began_with = 0.0
        """What it was owed at first: so again after each round."""
        self.returned_at = -math.inf
        """When its weight or health was last raised from 0."""
        self.running = 0
        self.picked = 0

    def effective(self, now: float, slow_start_s: float) -> float:
        """Return its weight as it counts now."""
        breaker = self.resource.breaker
        weight, since = self.weight * self.health, self.returned_at
        if breaker is not None:
            weight *= breaker.health(now)
            since = max(since, now if breaker.state != "closed" else breaker.recovered_at or since)
        if not slow_start_s or now >= since + slow_start_s:
            return weight
        return weight * max(FIRST_SHARE, (now - since) / slow_start_s)

    def opens_at(self, job: Waiting, now: float) -> tuple[float, bool]:
        """Return when it may be chosen, and whether it is down until then: by its weight, its breaker or a rejection.

        A full limit is no fault: it is busy, not down.
        """
        if self.weight <= 0 or self.health <= 0:
            return math.inf, True
        at, is_down = now, False
        for gate in self.gates:
            try:
                eta = gate.eta(job, now)
            except CircuitOpen as error:
                eta, is_down = math.inf if error.retry_in_s is None else now + error.retry_in_s, True
            except (FlowRefused, InvalidOption):  # that one can never take this job
                eta, is_down = math.inf, True
            if eta > now and gate is self.resource.breaker:
                is_down = True
            at = max(at, eta)
        return at, is_down

    def take(self, job: Waiting, now: float) -> None:
        """Take its gates, all or none."""
        taken: list[Gate] = []
        try:
            for gate in self.gates:
                gate.take(job, now)
                taken.append(gate)
        except BaseException:
            for gate in taken:
                gate.give(job, now, NOT_STARTED)
            raise
        self.running += 1
        self.picked += 1


class WeightedRoundRobin(Gate, Generic[T]):
    """Gives each job one of several resources, in turn, by their weights.

    Use it where the same can be had in several places: replicas, mirrors, API keys,
    accounts. The body finds its own as ``current_job().resource``, a block as the
    value of ``async with``; ``.value`` of it is what you put in. Not for work that
    belongs to one place: key a limit with ``by=`` there.

    Smooth: with weights 5, 1, 1 the order is a a b a c a a, not five of a in a row, and
    each run of so many picks has each its share exactly, as long as all are well. Who
    is down (its breaker is open, or its weight is 0) or busy (its limit is full) is left out, and
    is owed nothing for it. A weight counts by how well a resource is: the share of calls
    that its breaker saw fail, and *slow_start* after it was down. O(n) time and
    space for n resources.

    Args:
        resources: One or more, with names of their own. Their breakers and limits
            belong to this router alone.
        slow_start: Seconds in which a resource that comes back grows to its weight.
        on_down: When all are down, ``"fail"`` ends a job with `NoResource`, ``"hold"`` lets it wait. When
            some are merely busy it always waits.
        by: A turn for each key, with breakers and limits of its own, such as ``by="tenant"``.
        name: What it is called in `why_waiting`, `stats` and errors.

    Raises:
        InvalidOption: Naming the option, the value and the range.

    Source:
        Smooth weighted round-robin and slow start as in nginx
        (``ngx_http_upstream_round_robin.c``, I. Sysoev and M. Dounin, 2012).
    """

    def __init__(
        self,
        *resources: Resource[T],
        slow_start: Seconds = 0.0,
        on_down: OnDown = "fail",
        by: By | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(by=by, name=name)
        _check_resources(resources)
        one_of(on_down, "on_down", OnDown)
        self._slow_start_s = to_seconds(slow_start, "slow_start")
        self._on_down = on_down
        self._begin(resources)

    def _begin(self, resources: tuple[Resource[T], ...]) -> None:
        self._led = tuple(gate for resource in resources for gate in resource.gates)
        self.follows_wall_clock = any(gate.follows_wall_clock for gate in self._led)
        for gate in self._led:
            gate._leader = self
        self._targets = {resource.name: _Target(resource) for resource in resources}
        self._passes: dict[Waiting, _Target[T]] = {}
        self._left_at = -math.inf
        """When somebody left it last."""

    # -- as a gate -------------------------------------------------------------------

    def eta(self, job: Waiting, now: float) -> float:
        soonest, are_down = math.inf, True
        for target in self._targets.values():
            at, is_down = target.opens_at(job, now)
            if at <= now:
                return now
            soonest = min(soonest, at)
            are_down = are_down and is_down
        if are_down:
            self.check(job)  # a bare pass was not asked before whether it is too heavy for all of them
            if self._on_down == "fail":
                raise NoResource(self.label)
        return soonest

    def why_closed(self, job: Waiting) -> str:
        now = self.clock.monotonic()
        are_down = all(target.opens_at(job, now)[1] for target in self._targets.values())
        return "has no resource that is up" if are_down else "is full: all of its resources are busy or down"

    def take(self, job: Waiting, now: float) -> None:
        target = self._choose(job, now)
        target.take(job, now)
        self._passes[job] = target
        job.resource = target.resource

    def _choose(self, job: Waiting, now: float) -> _Target[T]:
        """Return whose turn it is: who is owed most, after each was paid its weight."""
        best = self._next([target for target in self._targets.values() if target.opens_at(job, now)[0] <= now], now)
        if best is None:
            raise NoResource(self.label)
        return best

    def _next(self, targets: Iterable[_Target[T]], now: float) -> _Target[T] | None:
        total, best = 0.0, None
        for target in targets:
            weight = target.effective(now, self._slow_start_s)
            target.credit += weight
            total += weight
            if best is None or target.credit > best.credit:
                best = target
        if best is not None:
            best.credit -= total
        return best

    def started(self, job: Waiting, now: float) -> None:
        target = self._passes.get(job)
        for gate in target.gates if target is not None else ():
            gate.started(job, now)

    def give(self, job: Waiting, now: float, ended: Ended) -> None:
        target = self._passes.pop(job, None)
        if target is None:
            return
        target.running -= 1
        self._left_at = now
        for gate in target.gates:
            gate.give(job, now, ended)

    def check(self, job: Waiting) -> None:
        refused: InvalidOption | None = None
        for target in self._targets.values():
            try:
                for gate in target.gates:
                    gate.check(job)
            except InvalidOption as error:
                refused = error
            else:
                return
        if refused is not None:
            raise refused

    # -- views and settings ----------------------------------------------------------

    @property
    def resources(self) -> tuple[Resource[T], ...]:
        """Those it chooses from."""
        return tuple(target.resource for target in self._targets.values())

    def is_idle(self, now: float) -> bool:
        if self._passes or not all(gate.is_idle(now) for target in self._targets.values() for gate in target.gates):
            return False
        is_round_over = all(abs(target.credit - target.began_with) < CRUMBS for target in self._targets.values())
        return is_round_over or now > self._left_at + KEPT_S

    def forget(self) -> None:
        self._passes.clear()
        for target in self._targets.values():
            target.running = 0
            for gate in target.gates:
                gate.forget()

    def fresh(self) -> WeightedRoundRobin[T]:
        gate = self._bare()  # not a deep one: values are clients and the like
        gate._begin(tuple(resource.copied() for resource in self.resources))
        for name, target in gate._targets.items():
            mine = self._targets[name]
            target.weight, target.health = mine.weight, mine.health
            target.credit = target.began_with = mine.credit
        self._next(self._targets.values(), self.clock.monotonic())  # keys do not all begin with the same one
        return gate

    def _anew(self, clock: Clock) -> WeightedRoundRobin[T]:
        gate = self._bare()
        gate.clock = clock
        gate._begin(tuple(resource.copied() for resource in self.resources))
        gate.forget()
        return gate

    def stats(self) -> dict[str, Any]:
        now = self.clock.monotonic()
        return {name: self._stats_of(target, now) for name, target in self._targets.items()}

    def _stats_of(self, target: _Target[T], now: float) -> dict[str, Any]:
        breaker = target.resource.breaker
        return {
            "weight": target.weight,
            "effective": target.effective(now, self._slow_start_s),
            "state": "closed" if breaker is None else breaker.state,
            "running": target.running,
            "picked": target.picked,
        }

    def _check_changes(self, changes: Mapping[str, Any]) -> None:
        changed(self, changes, _CHANGEABLE)
        for field, highest in (("weights", MAX_WEIGHT), ("health", 1.0)):
            values: Mapping[Any, Any] = changes.get(field, {})
            if not isinstance(values, Mapping):
                raise InvalidOption(
                    f'{field} must be a mapping such as {{"{next(iter(self._targets))}": 1}}, got {shown(values)}'
                )
            for name, value in values.items():
                if name not in self._targets:
                    raise InvalidOption(f"{field}: {self!r} has {', '.join(self._targets)}, got {shown(name)}")
                number(value, f"{field} of {name}", 0.0, highest)

    def _change(self, changes: Mapping[str, Any]) -> None:
        now = self.clock.monotonic()
        weights, health = changes.get("weights", {}), changes.get("health", {})
        for name, target in self._targets.items():
            before = target.weight * target.health
            target.weight = float(weights.get(name, target.weight))
            target.health = float(health.get(name, target.health))
            if not before and target.weight * target.health:
                target.returned_at, target.credit = now, 0.0


def _check_resources(resources: tuple[Any, ...]) -> None:
    """Refuse what cannot be chosen from."""
    if not resources:
        raise InvalidOption("WeightedRoundRobin needs resources, such as Resource('a', client), Resource('b', other)")
    names: set[str] = set()
    gates: set[Gate] = set()
    for resource in resources:
        if not isinstance(resource, Resource):
            raise InvalidOption(f"WeightedRoundRobin takes Resource(name, value), got {shown(resource)}")
        if resource.name in names:
            raise InvalidOption(f"two resources are called {resource.name!r}; each needs a name of its own")
        names.add(resource.name)
        for gate in resource.gates:
            if gate in gates or gate._leader is not None or gate._post is not None:
                raise InvalidOption(
                    f"{gate!r} of resource {resource.name!r} is in use elsewhere; make one for each resource"
                )
            gates.add(gate)
