"""Dependencies of a task's parameters: FastAPI's model, resolved by fast-depends.

``Depends`` is ours only in its types: it returns the declared type of what the
dependency yields, and imports fast-depends when the first one is declared, so
that applications without dependencies pay nothing. A task without dependencies
runs as it is.

What a task needs was read when it was declared (`_needs`); here it is put
together with the overrides of the moment, and `_parts` fills it in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, MutableMapping
from typing import Any, TypeVar, overload

from ._needs import Fn, Needs, refuse_result, with_replacements
from ._parts import awaiting, injected, passed_as

__all__ = ["DependencyOverrides", "Depends"]

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
    dependencies, and take the task's arguments by their names; with *use_cache*
    each is called once per job. Plain ones of a coroutine function run in a
    thread; a plain function can have plain ones only. A generator hears what
    ended the body, cancellation too; what the body raised ends the job anyway.

    Raises:
        InvalidOption: If *dependency* cannot be called.
    """
    from fast_depends import Depends as depends  # noqa: N813, PLC0415  # 60 ms that most applications need not pay

    refuse_result(dependency)
    return depends(dependency, use_cache=use_cache, cast=False)


class DependencyOverrides(MutableMapping[Fn, Fn]):
    """``app.dependency_overrides``: another callable in a dependency's place, for tests."""

    def __init__(self) -> None:
        self._replacements: dict[Fn, Fn] = {}
        self._version = 0
        """Rises with every change, so that tasks see it at their next call."""

    def wrap(self, needs: Needs) -> Fn:
        """Return a task's function with its dependencies filled in, at each call by the overrides of that moment.

        Raises:
            InvalidOption: If it cannot work with these overrides. A call raises it if they changed since.
        """
        signature = needs.call_signature
        names = {name: passed_as(parameter) for name, parameter in signature.parameters.items()}
        made = (self._version, self._injected(needs))

        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            if made[0] != self._version:
                made = (self._version, self._injected(needs))
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()  # dependencies that take an argument by its name get its default as well
            return made[1](**{names[name]: value for name, value in bound.arguments.items()})

        return awaiting(call) if needs.kind == "coroutine" else call

    def _injected(self, needs: Needs) -> Fn:
        return injected(with_replacements(needs, self._replacements))

    def __setitem__(self, original: Fn, replacement: Fn) -> None:
        refuse_result(replacement)
        self._replacements[original] = replacement
        self._version += 1

    def __delitem__(self, original: Fn) -> None:
        del self._replacements[original]
        self._version += 1

    def __getitem__(self, original: Fn) -> Fn:
        return self._replacements[original]

    def __iter__(self) -> Iterator[Fn]:
        return iter(self._replacements)

    def __len__(self) -> int:
        return len(self._replacements)
