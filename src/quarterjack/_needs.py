"""What a task needs: the dependencies of its function, read once, where it is declared.

Reading asks for signatures and hints only; nothing is called, and fast-depends
is not loaded unless somebody's ``Depends`` has loaded it. What can never work is
refused here, on the user's line, and not when the first job begins."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, NamedTuple, get_args, get_origin

from ._chosen import chooser_for
from ._signatures import Hints, Kind, kind_of, label_of, read_hints, signature_of, signature_without
from .errors import InvalidOption

__all__ = ["Filling", "Fn", "Needs", "needs_of", "refuse_result", "with_replacements"]

Fn = Callable[..., Any]

_VARIADIC: Final = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})


class _Mark(NamedTuple):
    """What a hint alone asks for; has what is read of a ``Depends``."""

    dependency: Fn
    use_cache: bool = True


class Filling(NamedTuple):
    """What fills one parameter."""

    needs: Needs
    is_shared: bool
    """Called once per job, however many ask for it."""


@dataclass(frozen=True, slots=True, eq=False)
class Needs:
    """A callable, and what fills those of its parameters that its callers do not pass."""

    fn: Fn
    label: str
    kind: Kind
    signature: inspect.Signature
    filled: Mapping[str, Filling]

    @property
    def asked(self) -> dict[str, inspect.Parameter]:
        """The parameters that callers pass by name, so without ``*args`` and ``**kwargs``."""
        parameters = self.signature.parameters.items()
        return {name: p for name, p in parameters if name not in self.filled and p.kind not in _VARIADIC}

    @property
    def call_signature(self) -> inspect.Signature:
        """The signature as callers see it, without what dependencies fill."""
        return signature_without(self.signature, self.filled)


def needs_of(fn: Fn, hints: Hints) -> Needs:
    """Return what a task's function needs.

    Raises:
        InvalidOption: If a dependency cannot be called, cannot be read from its hint, depends on
            itself, is asynchronous though *fn* is not, or asks for an argument that *fn* does not take.
    """
    needs = _read(fn, hints, ())
    _refuse_impossible(needs, needs)
    return needs


def with_replacements(needs: Needs, replacements: Mapping[Fn, Fn]) -> Needs:
    """Return *needs* with other callables in the place of some dependencies, at any depth.

    A replacement may depend on what it replaces: inside it, that means the original.

    Raises:
        InvalidOption: As `needs_of`.
    """
    replaced = _replaced(needs, replacements)
    _refuse_impossible(replaced, replaced)
    return replaced


def refuse_result(dependency: Any) -> None:
    """Refuse a dependency that cannot be called; most often it has been called already."""
    if callable(dependency):
        return
    if inspect.iscoroutine(dependency):
        dependency.close()  # nobody will await it, and Python would complain of that besides
    name = getattr(dependency, "__name__", None)
    if name:
        raise InvalidOption(f"Depends takes a function, not what it returns: write Depends({name}), not {name}()")
    raise InvalidOption(f"Depends takes a function, such as Depends(get_session), got {dependency!r}")


def _read(fn: Fn, hints: Hints, chain: tuple[Fn, ...]) -> Needs:
    label, signature = label_of(fn), signature_of(fn)
    if fn in chain:
        raise InvalidOption(f"{label} depends on itself: {' needs '.join(map(label_of, (*chain, fn)))}")
    filled: dict[str, Filling] = {}
    for name, parameter in signature.parameters.items():
        mark = _mark(label, parameter, hints) or _resource_mark(parameter, hints, kind_of(chain[0] if chain else fn))
        if mark is not None:
            refuse_result(mark.dependency)
            needs = _read(mark.dependency, read_hints(mark.dependency), (*chain, fn))
            filled[name] = Filling(needs, mark.use_cache)
    return Needs(fn, label, kind_of(fn), signature, filled)


def _mark(label: str, parameter: inspect.Parameter, hints: Hints) -> Any:
    """Return the parameter's ``Depends(…)``, from its default or its hint; None without one."""
    name = parameter.name
    written, error = hints.unknown.get(name, (None, None))
    if isinstance(written, str) and "Depends" in written:
        raise InvalidOption(
            f"the hint of {label}'s parameter {name}, {written}, cannot be read: {error}; define or import what it "
            f"names above {label} (not under TYPE_CHECKING), or write {name} = Depends(…)"
        )
    if "fast_depends" not in sys.modules:  # asked after the hints were read: reading them may have loaded it
        return None
    from fast_depends.dependencies import Dependant  # noqa: PLC0415  # loaded already

    hint: Any = hints.known.get(name, written)
    extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    marks = [it for it in (parameter.default, *extras) if isinstance(it, Dependant)]
    if len(marks) > 1:
        raise InvalidOption(f"{label}'s parameter {name} has {len(marks)} Depends; only one can fill it")
    return marks[0] if marks else None


def _resource_mark(parameter: inspect.Parameter, hints: Hints, kind: Kind) -> _Mark | None:
    chooser = None if parameter.kind in _VARIADIC else chooser_for(hints.known.get(parameter.name), kind)
    return None if chooser is None else _Mark(chooser)


def _replaced(needs: Needs, replacements: Mapping[Fn, Fn]) -> Needs:
    filled: dict[str, Filling] = {}
    for name, (inner, is_shared) in needs.filled.items():
        original = _original(inner.fn, replacements)
        if original is None:
            filled[name] = Filling(_replaced(inner, replacements), is_shared)
            continue
        replacement = replacements[original]
        others = {key: value for key, value in replacements.items() if key != original}
        filled[name] = Filling(_replaced(_read(replacement, read_hints(replacement), ()), others), is_shared)
    return Needs(needs.fn, needs.label, needs.kind, needs.signature, filled)


def _original(fn: Fn, replacements: Mapping[Fn, Fn]) -> Fn | None:
    try:
        return fn if fn in replacements else None
    except TypeError:  # it has no hash, so nobody can have named it
        return None


def _refuse_impossible(root: Needs, needs: Needs) -> None:
    for inner, _ in needs.filled.values():
        if root.kind == "plain" and inner.kind in {"coroutine", "async generator"}:
            raise InvalidOption(
                f"{root.label} is a plain function and runs in a thread, so it cannot await its dependency "
                f"{inner.label}; write `async def {root.label}`, or make {inner.label} a plain function"
            )
        for name, parameter in inner.asked.items():
            if parameter.default is parameter.empty and name not in root.asked:
                raise InvalidOption(
                    f"{inner.label}{inner.signature} is a dependency of {root.label} and needs {name!r}, but "
                    f"{root.label} has no argument of that name to pass on; give {name} a default or a Depends(…)"
                )
        _refuse_impossible(root, inner)
