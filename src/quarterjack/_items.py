"""Bodies of batches, seen as bodies of one item.

An app knows a batch's task by its item: that is what callers pass, what is
checked and stored, and what dependencies see. Here a function of a list is
given that face; the list itself comes back in as `Items`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, get_args, get_origin

from ._signatures import kind_of, label_of, read_hints, signature_of
from .errors import InvalidOption
from .flow.batch import results_of

__all__ = ["Items", "item_body", "item_signature"]

_BY_POSITION: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_ANY_NUMBER: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Items:
    """All the items of one batch, in the place of one."""

    __slots__ = ("items",)

    def __init__(self, items: list[Any]) -> None:
        self.items = items


def item_body(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    """Return *fn*, which takes a list, as a coroutine function of one item, or of `Items`.

    Its signature is that of *fn*, with the type of an item for that of the list, and
    the type of a result for that of the list of them.

    Raises:
        InvalidOption: If *fn* is no coroutine function whose first argument can be the list.
    """
    if not callable(fn):
        raise InvalidOption(f"@batch stands above a function of a list of items, got {fn!r}")
    label = label_of(fn)
    if kind_of(fn) != "coroutine":
        raise InvalidOption(
            f"@batch stands above a coroutine function; write `async def {label}(items: list[…])`, "
            "and `await asyncio.to_thread(…)` in it for what blocks"
        )
    signature = signature_of(fn)
    name, *_ = (*signature.parameters, None)
    if name is None or signature.parameters[name].kind not in _BY_POSITION:
        raise InvalidOption(
            f"the first argument of a batch's body is the list of items; write `{label}(items: list[…])`"
        )
    hints = read_hints(fn).known
    hints |= {name: _element(hints.get(name)), "return": _element(hints.get("return"))}

    @functools.wraps(fn)
    async def body(*args: Any, **kwargs: Any) -> Any:
        item, rest = (args[0], args[1:]) if args else (kwargs.pop(name), ())
        if isinstance(item, Items):
            return await fn(item.items, *rest, **kwargs)
        (result,) = results_of(await fn([item], *rest, **kwargs), 1, label)
        if isinstance(result, BaseException):
            raise result
        return result

    faced: Any = body
    faced.__annotations__ = {**getattr(fn, "__annotations__", {}), **hints}
    faced.__signature__ = signature.replace(
        parameters=[p.replace(annotation=hints[name]) if p.name == name else p for p in signature.parameters.values()],
        return_annotation=hints["return"],
    )
    return body


def item_signature(signature: inspect.Signature, label: str) -> inspect.Signature:
    """Return what callers of a batch's task pass: an item, and nothing else would reach the body.

    Raises:
        InvalidOption: If the body asks for more, which nobody could give it.
    """
    item, *others = signature.parameters.values()
    needed = [one.name for one in others if one.default is one.empty and one.kind not in _ANY_NUMBER]
    if needed:
        raise InvalidOption(
            f"@batch: {label}{signature} asks for {', '.join(needed)} beside its items, and a batch has nothing but "
            "items: give it a default, a Depends, or put it into each item"
        )
    return signature.replace(parameters=[item])


def _element(hint: Any) -> Any:
    """Return the type of what a list of this type holds."""
    origin, args = get_origin(hint), get_args(hint)
    is_list = isinstance(origin, type) and issubclass(origin, Sequence) and args
    return args[0] if is_list else Any
