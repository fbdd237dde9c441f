"""What a callable takes and how it runs: signature, type hints, kind, however it was made.

Hints are read one by one, so that one that cannot be resolved (an import for
type checkers only) hides none of the others. Names are looked up where the
function was written: among its globals, and among the locals of the functions
around it as long as those are running, which they are while a decorator runs."""

from __future__ import annotations

import difflib
import functools
import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from types import FrameType, FunctionType, SimpleNamespace
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeVar, cast, get_type_hints

from .errors import InvalidOption, UsageError

__all__ = [
    "Explained",
    "Hints",
    "Kind",
    "check_plain",
    "explained",
    "kind_of",
    "label_of",
    "misfit",
    "read_hints",
    "signature_of",
    "signature_without",
]

F = TypeVar("F", bound=Callable[..., Any])

Kind = Literal["plain", "coroutine", "generator", "async generator"]


class Hints(NamedTuple):
    """The type hints of a callable."""

    known: dict[str, Any]
    """By parameter, with their ``Annotated`` extras."""
    unknown: dict[str, tuple[Any, str]]
    """Those that could not be resolved, as written, and why not."""


# -- what it takes --------------------------------------------------------------------


def signature_of(fn: Callable[..., Any]) -> inspect.Signature:
    """Return the signature; ``(*args, **kwargs)`` for the built-in functions that do not tell theirs."""
    try:
        return inspect.signature(fn)
    except ValueError:
        kinds = (("args", inspect.Parameter.VAR_POSITIONAL), ("kwargs", inspect.Parameter.VAR_KEYWORD))
        return inspect.Signature([inspect.Parameter(name, kind) for name, kind in kinds])


def signature_without(signature: inspect.Signature, names: Collection[str]) -> inspect.Signature:
    """Return *signature* as those see it who do not pass the parameters *names*."""
    return signature.replace(parameters=[p for name, p in signature.parameters.items() if name not in names])


def misfit(fn: Callable[..., Any], count: int) -> str | None:
    """Return in words why *fn* cannot be called with *count* positional arguments; None if it can."""
    if not callable(fn):
        return f"{fn!r} cannot be called"
    signature = signature_of(fn)
    try:
        signature.bind(*[None] * count)
    except TypeError as error:
        return f"{label_of(fn)}{signature}: {error}"
    return None


# -- calls that do not fit ------------------------------------------------------------


def explained(fn: F) -> F:
    """Have calls of *fn* that do not fit it refused as wrong options are: by a sentence that says what it takes.

    *fn* is a method, or the ``__init__`` of a class.

    Raises:
        InvalidOption: Instead of the TypeError that Python raises.
    """

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:
                raise  # the call did fit; this is of something inside
            text = _misuse(fn, args[0], args[1:], kwargs)
        raise InvalidOption(text)

    return cast("F", call)


class Explained:
    """A class whose constructor, and those of its subclasses in this library, are `explained`."""

    __slots__ = ()
    _meant: ClassVar[Mapping[str, str]] = {}
    """What to write in place of options that people look for here."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        init = vars(cls).get("__init__")
        if init is not None and cls.__module__.startswith("quarterjack.") and not hasattr(init, "__wrapped__"):
            cls.__init__ = explained(init)  # type: ignore[method-assign]  # the same, but for what it says


def _misuse(fn: Callable[..., Any], owner: object, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """Return in words why *fn* cannot be called like that."""
    name = type(owner).__name__ if fn.__name__ == "__init__" else f"{type(owner).__name__}.{fn.__name__}"
    parameters = list(inspect.signature(fn).parameters.values())[1:]
    by_position = [one.name for one in parameters if one.kind in _BY_POSITION]
    options = [one.name for one in parameters if one.kind in _BY_NAME]
    others = [f"*{one.name}" for one in parameters if one.kind is one.VAR_POSITIONAL]
    takes = f"it takes {', '.join([*others, *options])}"
    for given in kwargs:
        if given not in options:
            meant: str | None = getattr(owner, "_meant", {}).get(given)
            if meant is not None:
                return f"{name} has no option {given!r}; {meant}"
            near = difflib.get_close_matches(given, options, n=1)
            if near or all(one.kind is not one.VAR_KEYWORD for one in parameters):
                return f"{name} has no option {given!r}; " + (f"did you mean {near[0]!r}?" if near else takes)
    if len(args) > len(by_position):
        first = f"{', '.join(by_position)} by position, all else by name" if by_position else "its options by name"
        return f"{name} takes {first}, got {len(args)} by position; {takes}"
    filled = {*by_position[: len(args)], *kwargs}
    missing = [one.name for one in parameters if one.default is one.empty and one.name in {*options} - filled]
    if missing:
        return f"{name} needs {', '.join(missing)}; {takes}"
    return f"{name} got {', '.join(sorted({*by_position[: len(args)]} & {*kwargs}))} twice; {takes}"


_BY_POSITION: Final = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_BY_NAME: Final = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


# -- its hints ------------------------------------------------------------------------


def read_hints(fn: Callable[..., Any]) -> Hints:
    """Return the type hints of what *fn* calls in the end: a partial's function, a class's ``__init__``."""
    target = _annotated(fn)
    inner = inspect.unwrap(target)
    hints, around = Hints({}, {}), _names_around(inner)
    for name, hint in getattr(target, "__annotations__", {}).items():
        alone = SimpleNamespace(__annotations__={name: hint}, __type_params__=getattr(inner, "__type_params__", ()))
        try:
            found = get_type_hints(alone, getattr(inner, "__globals__", {}), around, include_extras=True)[name]
            hints.known[name] = found.__value__ if type(found).__name__ == "TypeAliasType" else found
        except UsageError:  # what the hint calls refuses its argument: Depends(good()), say
            raise
        except Exception as error:  # a postponed hint is code of the user's, and may raise anything
            hints.unknown[name] = (hint, str(error))  # the words only: an exception would keep frames alive
    return hints


def _annotated(fn: Any) -> Any:
    """Return the function whose annotations are those of *fn*'s parameters."""
    inner = _inner(fn)
    if isinstance(inner, type):
        return inner.__init__  # type: ignore[misc]  # read, not called
    return inner if inspect.isroutine(inner) else getattr(inner, "__call__", inner)  # noqa: B004  # an instance


def _names_around(fn: Any) -> dict[str, Any]:
    """Return the names that the functions around *fn* gave a value, the innermost first.

    A postponed hint closes over nothing: what only it mentions is found in the frame
    that defines the function, or nowhere. Frames of other functions are never asked,
    for a common name would mean whatever one of them holds.
    """
    fn = getattr(fn, "__func__", fn)
    if not isinstance(fn, FunctionType) or "<locals>" not in fn.__qualname__:
        return {}
    names: dict[str, Any] = {}
    for name, cell in zip(fn.__code__.co_freevars, fn.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:  # not assigned yet: the function's own name, while it is being decorated
            continue
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        is_around = fn.__qualname__.startswith(f"{frame.f_code.co_qualname}.<locals>.")
        if is_around and frame.f_globals is fn.__globals__:
            names = {**frame.f_locals, **names}
        frame = frame.f_back
    return names


# -- how it runs ----------------------------------------------------------------------


def _inner(fn: Any) -> Any:
    """Return what a partial calls."""
    while isinstance(fn, functools.partial):
        fn = fn.func  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]  # whatever it is
    return fn  # pyright: ignore[reportUnknownVariableType]


def kind_of(fn: Callable[..., Any]) -> Kind:
    """Return what calling *fn* gives: a coroutine, a generator of either kind, or plainly its result."""
    inner = _inner(fn)
    if isinstance(inner, type):
        return "plain"  # calling it makes an instance, whatever that does when it is called
    for candidate in (inner, getattr(inner, "__call__", None)):  # noqa: B004  # asked for what it is, not whether
        if inspect.iscoroutinefunction(candidate):
            return "coroutine"
        if inspect.isasyncgenfunction(candidate):
            return "async generator"
        if inspect.isgeneratorfunction(candidate):
            return "generator"
    return "plain"


def check_plain(fn: Any, field: str) -> None:
    """Refuse a function for *field*, which is called plainly, that gives a coroutine or a generator.

    Such an object is no None, true, and equal to nothing else: what was to be asked for would be answered at random.

    Raises:
        InvalidOption: Naming *field* and the function.
    """
    kind = kind_of(fn)
    if kind != "plain":
        instead = "write def in place of async def" if kind == "coroutine" else "let it return its answer"
        raise InvalidOption(
            f"{field} must be a plain function, as it is called and not awaited; "
            f"{label_of(fn)} is a{'n' if kind[0] == 'a' else ''} {kind} function: {instead}"
        )


def label_of(fn: Any) -> str:
    """Return what people call *fn*."""
    inner = _inner(fn)
    return str(getattr(inner, "__name__", None) or type(inner).__name__)
