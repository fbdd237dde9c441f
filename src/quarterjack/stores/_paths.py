"""Code by its name: how a row speaks of exception types and functions.

A path is ``module:qualified.name``. Only what stands at the top of a module can
be found again by another process, and only classes of exceptions and plain
functions of users' own modules are ever looked up: a row must not be able to
name ``os.system``."""

from __future__ import annotations

import importlib
import sys
from types import FunctionType
from typing import Any, Final

__all__ = ["PathError", "path_of", "thing_at"]

_STANDARD: Final = sys.stdlib_module_names


class PathError(Exception):
    """Something has no path, or a path leads nowhere; the text is the reason, as the end of a sentence."""


def path_of(thing: Any) -> str:
    """Return the path of an exception type or a function.

    Raises:
        PathError: If another process could not find it by that.
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str):
        raise PathError(f"{thing!r} has no name")
    if "<" in name:
        raise PathError(f"{name} does not stand at the top of its module")
    path = f"{_importable(module)}:{name}"
    if _found(module, name) is not thing:
        raise PathError(f"{module}.{name} is something else")
    _check(thing, path)
    return path


def thing_at(path: str) -> Any:
    """Return the exception type or the function at *path*; its module is imported if need be.

    Raises:
        PathError: If there is none.
    """
    module, _, name = path.partition(":")
    found = _found(module, name)
    _check(found, path)
    return found


def _importable(module: str) -> str:
    """Return what other processes call *module*: ``python -m jobs`` runs ``jobs`` as ``__main__``."""
    spec = getattr(sys.modules.get(module), "__spec__", None) if module == "__main__" else None
    return module if spec is None else spec.name


def _found(module: str, name: str) -> Any:
    try:
        found: Any = sys.modules.get(module) or importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except Exception as error:  # importing runs a module of the user's, which may raise anything
        raise PathError(f"{module}:{name} cannot be imported: {type(error).__name__}: {error}") from None
    return found


def _check(thing: Any, path: str) -> None:
    """Refuse what no row may name."""
    if isinstance(thing, type) and issubclass(thing, BaseException):
        return
    if not isinstance(thing, FunctionType):
        raise PathError(f"{path} is no exception type and no function")
    if thing.__module__.partition(".")[0] in _STANDARD and thing.__module__ != "__main__":
        raise PathError(f"{path} belongs to the standard library; write a function of your own that calls it")
