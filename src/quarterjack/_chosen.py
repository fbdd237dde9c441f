"""The resource that a router of a job's flow chose, as a dependency: for bodies that ask for it by a type hint.

    @app.task(flow=Flow(mirrors))
    async def fetch(path: str, mirror: Resource[str]) -> bytes: ...

Callers pass the path alone. ``mirror: Resource[str] | None`` is None where nothing chose."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from ._signatures import Kind
from .context import current_job
from .errors import InvalidOption
from .flow.flow import Flow
from .flow.round_robin import Resource, WeightedRoundRobin

__all__ = ["chooser_for", "is_sought", "may_choose", "not_routed"]


def chooser_for(hint: Any, kind: Kind) -> Callable[[], Any] | None:
    """Return what fills a parameter of that *hint* in a task of that *kind*; None if it asks for no resource."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    is_optional = get_origin(hint) in {Union, UnionType} and NoneType in get_args(hint)
    kinds = [one for one in get_args(hint) if one is not NoneType] if is_optional else [hint]
    if len(kinds) != 1 or (kinds[0] is not Resource and get_origin(kinds[0]) is not Resource):
        return None
    if kind == "coroutine":  # a plain dependency would be called in a thread
        return _maybe_awaited if is_optional else _awaited
    return _maybe if is_optional else _sure


def is_sought(fillings: Iterable[Callable[..., Any]]) -> bool:
    """Say whether one of what fills a task's parameters cannot do without a resource."""
    return any(one is _sure or one is _awaited for one in fillings)


def may_choose(flow: Flow | None) -> bool:
    """Say whether a gate of *flow* chooses a resource; of one of the user's own nobody knows that before it did."""
    gates = () if flow is None else flow.gates
    is_ours = (type(gate).__module__.startswith("quarterjack.") for gate in gates)
    return not all(is_ours) or any(isinstance(gate, WeightedRoundRobin) for gate in gates)


def _maybe() -> Any:
    return current_job().resource


def _sure() -> Any:
    resource = _maybe()
    if resource is None:
        raise not_routed(current_job().task)
    return resource


def not_routed(task: str) -> InvalidOption:
    """Return what to raise where nothing chose what *task* asks for."""
    return InvalidOption(
        f"{task} asks for a Resource, and nothing in its flow chose one: give it a "
        "WeightedRoundRobin, @app.task(flow=Flow(WeightedRoundRobin(…))), or write `Resource[…] | None`"
    )


async def _maybe_awaited() -> Any:
    return _maybe()


async def _awaited() -> Any:
    return _sure()
