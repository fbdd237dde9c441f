"""Bodies of a manager's jobs: what can be submitted, and what is refused before it waits for anything."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType, UnionType
from typing import Any, Final, Union, get_args, get_origin

from quarterjack._signatures import kind_of, label_of, read_hints, signature_of
from quarterjack.errors import InvalidArguments, UsageError
from quarterjack.flow.stages import Dedupe
from quarterjack.policies.backoff import Retry

from .managed_items import check_item, is_batched

__all__ = ["Once", "check_body", "check_once", "close_unrun", "fits_as_it_is", "not_awaitable"]


class Once:
    """A coroutine object as a body: it can run once, and is closed if it never does."""

    __slots__ = ("__qualname__", "_coroutine")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.__qualname__: str = getattr(coroutine, "__qualname__", "coroutine")
        self._coroutine: Coroutine[Any, Any, Any] | None = coroutine

    def __call__(self) -> Coroutine[Any, Any, Any]:
        coroutine, self._coroutine = self._coroutine, None
        if coroutine is None:
            raise UsageError("a coroutine object cannot run twice; submit the function and its arguments instead")
        return coroutine

    def close(self) -> None:
        """It will not run: Python need not warn that nobody awaited it."""
        if self._coroutine is not None:
            self._coroutine.close()


def close_unrun(fn: object) -> None:
    """Close *fn* if it is a coroutine object that has not begun: it was refused, and nobody will await it."""
    if inspect.iscoroutine(fn) and inspect.getcoroutinestate(fn) == inspect.CORO_CREATED:
        fn.close()


# -- before it is submitted -----------------------------------------------------------


def check_once(arguments: object, retry: Retry, dedupe: Dedupe | None) -> None:
    """Refuse a coroutine object where it could not run, or nobody can tell what it would repeat.

    Raises:
        InvalidArguments: Saying why.
    """
    odds = {
        "with arguments": bool(arguments),
        "with retries": retry.attempts > 1,
        "under a Dedupe, which goes by function and key": dedupe is not None,
    }
    for why, is_so in odds.items():
        if is_so:
            raise InvalidArguments(
                f"a coroutine object cannot be submitted {why}; submit the function and its arguments instead"
            )


def fits_as_it_is(fn: object, count: int) -> bool:
    """Say whether *fn* is a coroutine function, written as such, that surely takes *count* positional arguments."""
    if type(fn) is MethodType:
        fn, count = fn.__func__, count + 1
    if type(fn) is not FunctionType:
        return False
    code = fn.__code__
    if not code.co_flags & inspect.CO_COROUTINE or code.co_kwonlyargcount:
        return False
    least = code.co_argcount - len(fn.__defaults__ or ())
    return least <= count and (count <= code.co_argcount or bool(code.co_flags & inspect.CO_VARARGS))


def check_body(fn: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: frozenset[str]) -> None:
    """Refuse what can only fail: arguments that do not fit, and a function that returns nothing to await.

    Of a plain function that is not always known before it was called: it may make a coroutine.

    Raises:
        InvalidArguments: Saying what *fn* takes; of a name among *options* also where that goes.
    """
    if not callable(fn):
        raise InvalidArguments(f"submit takes a coroutine function and its arguments, got {fn!r}")
    if is_batched(fn):
        check_item(fn, args, kwargs)
        return
    while isinstance(fn, partial):
        fn, args, kwargs = fn.func, (*fn.args, *args), {**fn.keywords, **kwargs}
    if (kwargs or not fits_as_it_is(fn, len(args))) and not isinstance(fn, Once):
        _check_returns(fn)
        _check_arguments(fn, args, kwargs, options)


def _check_arguments(
    fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], options: frozenset[str]
) -> None:
    signature = _own_signature(fn)
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        text = f"{label_of(fn)}{signature} cannot be called like that: {error}"
        for name in sorted(options & kwargs.keys() - signature.parameters.keys()):
            text += f"; {name}= is an option: manager.options({name}=…).submit({label_of(fn)}, …)"
        if any("Resource" in str(one.annotation) for one in signature.parameters.values()):
            text += "; what a router chose is current_job().resource here: only an app's task has it as an argument"
        raise InvalidArguments(text) from None


def _own_signature(fn: Callable[..., Any]) -> inspect.Signature:
    """Return what *fn* itself takes: a decorator may pass on other arguments than it is given."""
    bare = fn.__func__ if isinstance(fn, MethodType) else fn
    if not isinstance(bare, FunctionType):
        return signature_of(fn)
    signature = _signature_of_function(bare)
    if bare is fn:
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])


@lru_cache(maxsize=1024)
def _signature_of_function(fn: FunctionType) -> inspect.Signature:
    return inspect.signature(fn, follow_wrapped=False)


def _check_returns(fn: Callable[..., Any]) -> None:
    bare = fn.__func__ if isinstance(fn, MethodType) else fn
    what = kind_of(bare)
    if what in {"generator", "async generator"}:
        if isinstance(bare, FunctionType) and bare.__code__.co_flags & inspect.CO_ITERABLE_COROUTINE:
            return  # types.coroutine made it awaitable
        raise InvalidArguments(f"{label_of(fn)} is a{'n' if what[0] == 'a' else ''} {what} function{_ADVICE}")
    if isinstance(fn, type):
        if not hasattr(fn, "__await__"):
            raise InvalidArguments(f"{label_of(fn)} is a class{_ADVICE}")
        return
    if isinstance(fn, BuiltinFunctionType) and _gives_a_value(fn):
        raise _is_plain(fn, label_of(fn))
    if what != "plain" or not isinstance(bare, FunctionType):
        return
    if "return" in bare.__annotations__ and not hasattr(bare, "__wrapped__"):
        _check_annotation(bare)  # a decorator's function wears those of what it calls


_ADVICE: Final = ", which gives nothing to await: a manager runs coroutine functions"


@lru_cache(maxsize=1024)
def _check_annotation(fn: FunctionType) -> None:
    if _is_never_awaitable(read_hints(fn).known.get("return", Any)):
        raise _is_plain(fn, f"{label_of(fn)}{_signature_of_function(fn)}")


def _is_plain(fn: Callable[..., Any], what: str) -> InvalidArguments:
    async_def = "" if isinstance(fn, BuiltinFunctionType) else "make it async def, or "
    return InvalidArguments(
        f"{what} is no coroutine function: {async_def}run it in a thread, submit(asyncio.to_thread, {label_of(fn)}, …)"
    )


_VALUE_MODULES: Final = frozenset({"math", "nt", "posix", "time"})
_VALUE_BUILTINS: Final = frozenset({input, len, open, print, sorted})


def _gives_a_value(fn: BuiltinFunctionType) -> bool:
    """Say whether *fn* is one of those built-in functions that block or compute; ``anext``, say, gives an awaitable."""
    return fn in _VALUE_BUILTINS or (isinstance(fn.__self__, ModuleType) and fn.__module__ in _VALUE_MODULES)


def _is_never_awaitable(hint: Any) -> bool:
    """Say whether no value of that type can be awaited, as a type checker would."""
    if hint is None or hint is type(None):
        return True
    origin = get_origin(hint)
    if origin is Union or origin is UnionType:
        return all(map(_is_never_awaitable, get_args(hint)))
    kind = hint if origin is None else origin
    return isinstance(kind, type) and kind not in {object, Any} and not hasattr(kind, "__await__")


# -- once it was called ---------------------------------------------------------------


def not_awaitable(fn: Callable[..., Any], body: object) -> InvalidArguments:
    """Return what to raise about a body that is no coroutine."""
    name = getattr(fn, "__qualname__", repr(fn))
    returned = "None" if body is None else type(body).__name__
    return InvalidArguments(
        f"{name} returned {returned}, not something to await: a manager runs coroutine functions; "
        f"submit(asyncio.to_thread, {name}, …) runs it in a thread"
    )
