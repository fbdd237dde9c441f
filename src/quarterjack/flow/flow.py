"""`Flow`: any list of strategies in the one order that works.

    dedupe → deadline → fallback → retry → [order; all gates, taken at once] → wraps → timeout → body

The order is not the caller's to choose, because the wrong one is a trap that
no test of the caller shows. A retry inside a concurrency limit would hold its
slot through every pause; a breaker outside a retry would see one call where the
service saw three. (Measured: `docs/flow/composition.md`.)"""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain, count
from typing import Any, Final, TypeVar

from quarterjack._durations import Seconds
from quarterjack._numbers import shown
from quarterjack._signatures import Explained
from quarterjack.errors import InvalidOption
from quarterjack.policies.backoff import Retry

from ._bounds import Bounds
from ._fleet import refuse_twins
from .base import Gate, Order, Wrap
from .batch import Batch
from .dispatcher import Dispatcher
from .permit import Passable, Turnstile
from .room import Overflow, WaitingRoom
from .stages import Deadline, Dedupe, Fallback, Timeout

__all__ = ["Flow", "Strategy"]

Strategy = Gate | Order | Wrap | Retry | Timeout | Deadline | Fallback | Dedupe
"""What a flow is made of."""

_T = TypeVar("_T")
_KINDS: Final = "gates, an Order, a Retry, wraps, Timeout, Deadline, Fallback or Dedupe"


class Flow(Explained, Passable):
    """Strategies that every job passes, in the canonical order. Immutable; the gates in it live.

    The same flow on two tasks is one: they share its limits. One of gates alone can be passed by
    ``async with``, as each of them; ``max_queue``, ``overflow`` and ``max_wait`` count and bound those
    who wait for that.

    Args:
        strategies: Gates and wraps in any number, at most one of each other kind; a `Flow` counts as its
            strategies and brings its bounds, each of those below, which only one of them may say.
        max_queue: Jobs that may wait; None is no bound.
        overflow: What becomes of one more: ``"reject"`` raises `QueueFull`, ``"drop_oldest"``
            ends the one that has waited longest with it, ``"block"`` lets ``await
            submit_wait(…)`` and ``await app.submit(…)`` wait for room.
        max_wait: Seconds a job may wait before it ends with `WaitedTooLong`.

    Raises:
        InvalidOption: Naming what cannot work together, and why.
    """

    def __init__(
        self,
        *strategies: Strategy | Flow,
        max_queue: int | None = None,
        overflow: Overflow = "reject",
        max_wait: Seconds | None = None,
    ) -> None:
        parts = _unfolded(strategies)
        self.gates: Final = _gates(parts)
        self.wraps: Final = tuple(part for part in parts if isinstance(part, Wrap))
        self.order: Final = _only(parts, Order, "two Orders cannot both say who is next")  # type: ignore[type-abstract]  # only asked about
        self.retry: Final = _only(parts, Retry, "two retries would multiply their attempts")
        self.timeout: Final = _only(parts, Timeout, "only the shorter would ever be met")
        self.deadline: Final = _only(parts, Deadline, "only the shorter would ever be met")
        self.fallback: Final = _only(parts, Fallback, "only one can stand in")
        self.dedupe: Final = _only(parts, Dedupe, "only one can say what is the same")
        if self.timeout is not None and self.deadline is not None and self.timeout.seconds > self.deadline.seconds:
            raise InvalidOption(
                f"Timeout({self.timeout.seconds:g}) of an attempt is above Deadline({self.deadline.seconds:g}) "
                "of the whole job and could never be met; lower it or raise the deadline"
            )
        inside = dict.fromkeys(part for part in strategies if isinstance(part, Flow))
        self._bounds: Final[Bounds] = Bounds.of(max_queue, overflow, max_wait).taking_over(
            one._bounds for one in inside
        )
        self.max_queue: Final = self._bounds.max_queue
        self.overflow: Final = self._bounds.overflow
        self.max_wait_s: Final = self._bounds.max_wait_s

    def room(
        self, dispatcher: Dispatcher, start: Callable[[Any], None], refuse: Callable[[Any, Exception], None]
    ) -> WaitingRoom:
        """Return a waiting room before its gates."""
        return self._room(dispatcher, self.order, start, refuse)

    def _room(
        self,
        dispatcher: Dispatcher,
        order: Order | None,
        start: Callable[[Any], None],
        refuse: Callable[[Any, Exception], None],
    ) -> WaitingRoom:
        return WaitingRoom(
            dispatcher,
            self.gates,
            order,
            start=start,
            refuse=refuse,
            max_queue=self.max_queue,
            overflow=self.overflow,
            max_wait_s=self.max_wait_s,
        )

    def stats(self) -> dict[str, Any]:
        """Return what each of its gates tells of itself, per key where it goes by keys.

        By its name; of several with one name the second is called ``"ConcurrencyLimit 2"``, and so on.
        """
        found: dict[str, Any] = {}
        for gate in self.gates:
            names = chain((gate.label,), (f"{gate.label} {number}" for number in count(2)))
            found[next(name for name in names if name not in found)] = gate.stats_by_key()
        return found

    def _room_of_passes(
        self, dispatcher: Dispatcher, start: Callable[[Any], None], refuse: Callable[[Any, Exception], None]
    ) -> WaitingRoom:
        idle = (self.dedupe, self.deadline, self.fallback, self.retry, self.order, *self.wraps, self.timeout)
        found = ", ".join(repr(part) for part in idle if part is not None)
        if found:
            raise InvalidOption(
                f"{found}: what acts on jobs cannot act around a block; pass a flow of the gates alone there, "
                "and make the jobs' flow of it: gates = Flow(…), then Flow(gates, …)"
            )
        return self._room(dispatcher, None, start, refuse)

    def _turnstile_here(self) -> Turnstile:
        turnstile = super()._turnstile_here()
        turnstile.dispatcher.flows.add(turnstile)
        return turnstile

    def __repr__(self) -> str:
        outside: list[Any] = [self.dedupe, self.deadline, self.fallback, self.retry]
        steps = [repr(part) for part in outside if part is not None]
        inside = [f"order {self.order!r}"] if self.order is not None else []
        if self.gates or inside:
            steps.append("[" + ", ".join([*inside, *map(repr, self.gates)]) + "]")
        steps += [repr(wrap) for wrap in self.wraps]
        steps += [repr(self.timeout)] if self.timeout is not None else []
        return f"Flow({', '.join([' → '.join([*steps, 'body']), *self._bounds.words()])})"


def _unfolded(strategies: tuple[Any, ...]) -> list[Any]:
    parts: list[Any] = []
    for strategy in strategies:
        if isinstance(strategy, Flow):
            own = (strategy.dedupe, strategy.deadline, strategy.fallback, strategy.retry, strategy.order)
            parts += [part for part in own if part is not None]
            parts += [*strategy.gates, *strategy.wraps]
            parts += [strategy.timeout] if strategy.timeout is not None else []
        elif isinstance(strategy, Gate | Order | Wrap | Retry | Timeout | Deadline | Fallback | Dedupe):
            parts.append(strategy)
        else:
            hint = " (the class; make an object of it)" if isinstance(strategy, type) else ""
            if isinstance(strategy, Batch):
                hint = " (which stands before a flow: manager.batch(…), @app.batch(…))"
            raise InvalidOption(f"a Flow is made of {_KINDS}, got {shown(strategy)}{hint}")
    return parts


def _gates(parts: list[Any]) -> tuple[Gate, ...]:
    """Return the gates in order, each once: the same object named twice is one gate, not two slots of it."""
    gates = tuple(dict.fromkeys(part for part in parts if isinstance(part, Gate)))
    refuse_twins(gates)
    return gates


def _only(parts: list[Any], kind: type[_T], why: str) -> _T | None:
    found = [part for part in parts if isinstance(part, kind)]
    other = next((part for part in found if part is not found[0]), None)
    if other is not None:
        raise InvalidOption(f"a Flow takes one {kind.__name__}, got {shown(found[0])} and {shown(other)}: {why}")
    return found[0] if found else None
