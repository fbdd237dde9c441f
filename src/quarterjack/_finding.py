"""Where an app stands in the program: how another process is to find it again.

A body of another process is named by its task, so that process needs the app:
it imports the module that has it as a global, or runs the script that does (up
to the point where the script starts the app: nothing behind that is run)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import UsageError
from .executors import AppRef

__all__ = ["find_app"]


def find_app(app: object, bodies: Iterable[Callable[..., Any]]) -> AppRef:
    """Return how another process finds *app*; the modules of its *bodies* are where it is looked for first.

    Raises:
        UsageError: If it is no global of a module, or of a script that is a file.
    """
    main = sys.modules.get("__main__")
    for module in _modules(bodies):
        for name, value in tuple(vars(module).items()):
            if value is app:
                return _ref_of_main(module, name) if module is main else _ref_of(module, name)
    raise UsageError(
        "this app is no global of a module, so no other process can find it: put `app = Quarterjack(…)` at the top "
        'level of a file, or use executor="thread"'
    )


def _modules(bodies: Iterable[Callable[..., Any]]) -> Iterator[ModuleType]:
    """Yield the modules that may hold the app, the likeliest first; the program's own among them."""
    names = [name for name in dict.fromkeys(getattr(fn, "__module__", None) for fn in bodies) if name]
    for name in (*names, *tuple(sys.modules)):
        module = sys.modules.get(name)
        if isinstance(module, ModuleType):
            yield module


def _ref_of(module: ModuleType, name: str) -> AppRef:
    """Return it by the module's name, if an import of that finds the same file; else by the file."""
    file: str | None = getattr(module, "__file__", None)
    parent, _, _ = module.__name__.rpartition(".")
    folders = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    spec = PathFinder.find_spec(module.__name__, folders)  # not importlib's: that asks sys.modules, which we alone have
    if file is not None and (spec is None or spec.origin != file):
        return AppRef(None, str(Path(file).resolve()), name)
    return AppRef(module.__name__, None, name)


def _ref_of_main(main: ModuleType, name: str) -> AppRef:
    spec = getattr(main, "__spec__", None)
    if spec is not None:  # python -m package.module
        return AppRef(spec.name, None, name, is_main=True)
    file: str | None = getattr(main, "__file__", None)
    if file is None or not Path(file).is_file():
        raise UsageError(
            "this app was typed in, so no other process can find it: save the program in a file, "
            'or use executor="thread"'
        )
    return AppRef(None, str(Path(file).resolve()), name, is_main=True)
