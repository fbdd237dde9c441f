"""Loading an app in a process that is to run its bodies.

A module is imported. A program is run under another name than ``__main__``, so
that what it guards by ``if __name__ == "__main__":`` is left out; one without
a guard is run up to where it would start an app, for what stands behind that is
not for this process. Either way the app is a global of it by then."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

from ._remote import MAIN_ELSEWHERE, Bodies
from .base import AppRef

__all__ = ["AppStarts", "hold_if_loading", "is_loading", "load_bodies"]

_loads: Final[list[AppStarts]] = []
"""What to raise where an app would be started; empty while no program is being loaded."""
_programs: Final[list[ModuleType]] = []
"""The program, once it was run here. Not by its name in `sys.modules`: multiprocessing, if anybody has imported it,
calls the process's own main module so."""
_cut_short: Final[list[ModuleType]] = []
"""Those that came to where they start an app."""


class AppStarts(BaseException):
    """A program that is only loaded has come to where it starts its app. Ends the loading, in good order."""

    def __init__(self) -> None:
        super().__init__("this process loads the program for its tasks and does not start its app")
        self.is_raised = False


def hold_if_loading() -> None:
    """Go no further if the program is only loaded here; what starts an app asks this first."""
    if _loads:
        _loads[-1].is_raised = True
        raise _loads[-1]


def is_loading() -> bool:
    """Say whether the app is being loaded for its bodies only: it will not be started in this process."""
    return bool(_loads)


def load_bodies(ref: AppRef) -> Bodies:
    """Return the bodies of an app that stands elsewhere.

    Raises:
        Exception: What its module raises, or that there is no such module or app.
    """
    module = _module(ref)
    found: Any = module
    for part in ref.attribute.split("."):
        if found is module and module in _cut_short and not hasattr(module, part):
            raise AttributeError(
                f"{ref.path or ref.module} makes {part!r} behind the line that starts its first app, and another "
                "process reads it only as far as that: write it above"
            )
        found = getattr(found, part)
    return Bodies(found)


def _module(ref: AppRef) -> ModuleType:
    if ref.module is not None and not ref.is_main:
        return _imported(ref.module)
    if not _programs:
        _programs.append(_run_as_other(ref))
    return _programs[0]


def _imported(name: str) -> ModuleType:
    held = AppStarts()
    _loads.append(held)
    try:
        return importlib.import_module(name)
    except BaseException:  # what cut a module short may have been wrapped by it; all else goes on
        if not held.is_raised:
            raise
    finally:
        _loads.remove(held)
    # Cut short, it was taken out of sys.modules: run it once more, in a module that stays.
    spec = importlib.util.find_spec(name)
    return _executed(name, spec, *_source_of(spec, name))


def _run_as_other(ref: AppRef) -> ModuleType:
    if ref.module is None:
        path = Path(ref.path or "")
        code = compile(path.read_bytes(), str(path), "exec")
        return _executed(MAIN_ELSEWHERE, None, code, str(path))
    spec = importlib.util.find_spec(ref.module)
    return _executed(MAIN_ELSEWHERE, spec, *_source_of(spec, ref.module))


def _source_of(spec: ModuleSpec | None, name: str) -> tuple[CodeType, str | None]:
    loader: Any = None if spec is None else spec.loader
    code = loader.get_code(name) if hasattr(loader, "get_code") else None
    if spec is None or code is None:
        raise ImportError(f"no module {name!r} can be loaded here", name=name)
    return code, spec.origin


def _executed(name: str, spec: ModuleSpec | None, code: CodeType, file: str | None) -> ModuleType:
    """Run a module's code up to its end, or to where it would start its app."""
    module = ModuleType(name)
    module.__file__, module.__spec__ = file, spec
    module.__package__ = None if spec is None else spec.parent
    sys.modules[name] = module
    if name == MAIN_ELSEWHERE:
        sys.modules["__main__"] = module  # as its own code knows it
    held = AppStarts()
    _loads.append(held)
    try:
        exec(code, vars(module))  # noqa: S102  # the user's own program
    except BaseException:
        if not held.is_raised:
            raise
        _cut_short.append(module)
    finally:
        _loads.remove(held)
    return module
