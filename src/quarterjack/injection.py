"""Dependencies of a task's parameters: FastAPI's model, resolved by fast-depends.

``Depends`` is ours only in its types: it returns the declared type of what the
dependency yields, and imports fast-depends when the first one is declared, so
that applications without dependencies pay nothing. A task without dependencies
runs as it is."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, MutableMapping
from types import FunctionType
from typing import Annotated, Any, TypeVar, get_args, get_origin, overload

from ._signatures import hints_of, signature_of

__all__ = ["DependencyOverrides", "Depends", "dependency_parameters"]

T = TypeVar("T")


@overload
def Depends(dependency: Callable[..., AsyncIterator[T]], /, *, use_cache: bool = True) -> T: ...
@overload
def Depends(dependency: Callable[..., Coroutine[Any, Any, T]], /, *, use_cache: bool = True) -> T: ...
@overload
def Depends(dependency: Callable[..., Iterator[T]], /, *, use_cache: bool = True) -> T: ...
@overload
def Depends(dependency: Callable[..., T], /, *, use_cache: bool = True) -> T: ...
def Depends(dependency: Callable[..., Any], /, *, use_cache: bool = True) -> Any:  # noqa: N802  # the field's spelling
    """Fill a parameter with what *dependency* returns (or yields, with clean-up after the body).

    As a default, ``value: int = Depends(answer)``, or in the type,
    ``value: Annotated[int, Depends(answer)]``. Dependencies may have
    dependencies; with *use_cache* each is called once per job.
    """
    from fast_depends import Depends as depends  # noqa: N813, PLC0415  # 60 ms that most applications need not pay

    return depends(dependency, use_cache=use_cache, cast=False)


def dependency_parameters(fn: Callable[..., Any]) -> frozenset[str]:
    """Return the names of *fn*'s parameters that dependencies fill."""
    if "fast_depends" not in sys.modules:
        return frozenset()
    from fast_depends.dependencies import Dependant  # noqa: PLC0415  # loaded already, see above

    found = {
        name for name, parameter in signature_of(fn).parameters.items() if isinstance(parameter.default, Dependant)
    }
    for name, hint in hints_of(fn).items():
        if get_origin(hint) is Annotated and any(isinstance(extra, Dependant) for extra in get_args(hint)[1:]):
            found.add(name)
    return frozenset(found)


def _with_types(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return *fn* with its annotations resolved, where they are texts.

    fast-depends would evaluate them among the local variables of everybody who is
    calling just then: a dependency named ``service`` would be whatever one of our
    own variables of that name holds.
    """
    if not isinstance(fn, FunctionType) or hasattr(fn, "__wrapped__"):
        return fn
    hints = hints_of(fn)
    if not hints:
        return fn
    copy = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__dict__.update(fn.__dict__)
    copy.__doc__, copy.__module__, copy.__qualname__ = fn.__doc__, fn.__module__, fn.__qualname__
    copy.__kwdefaults__ = fn.__kwdefaults__
    copy.__annotations__ = hints
    return copy


class DependencyOverrides(MutableMapping[Callable[..., Any], Callable[..., Any]]):
    """``app.dependency_overrides``: another callable in a dependency's place, for tests."""

    def __init__(self) -> None:
        self._replacements: dict[Callable[..., Any], Callable[..., Any]] = {}
        self._provider: Any = None

    def wrap(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        """Return *fn* with its dependencies filled in at each call."""
        from fast_depends import Provider, inject  # noqa: PLC0415  # only tasks that declare dependencies come here

        if self._provider is None:
            self._provider = Provider()
            for original, replacement in self._replacements.items():
                self._provider.override(original, replacement)
        injected: Callable[..., Any] = inject(
            _with_types(fn), cast=False, cast_result=False, dependency_provider=self._provider
        )
        return injected

    def __setitem__(self, original: Callable[..., Any], replacement: Callable[..., Any]) -> None:
        self._replacements[original] = replacement
        if self._provider is not None:
            self._provider.override(original, replacement)

    def __delitem__(self, original: Callable[..., Any]) -> None:
        del self._replacements[original]
        if self._provider is not None:
            self._provider.overrides.pop(original, None)

    def __getitem__(self, original: Callable[..., Any]) -> Callable[..., Any]:
        return self._replacements[original]

    def __iter__(self) -> Iterator[Callable[..., Any]]:
        return iter(self._replacements)

    def __len__(self) -> int:
        return len(self._replacements)
