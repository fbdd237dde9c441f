"""The drift laboratory without quarterjack: its account and its ways, loaded by their paths.

Contenders run in environments of their own, where the package around them cannot be
imported; both are made to need the standard library alone."""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, Final

__all__ = ["account", "catalog", "heat"]

LAB: Final = Path(__file__).resolve().parent.parent / "src" / "quarterjack" / "lab"


def _load(name: str, path: Path) -> ModuleType:
    """Import the file at *path* as *name*; its folder is searched for what it imports relatively."""
    is_package = path.name == "__init__.py"
    folders = [str(path.parent)] if is_package else None
    spec = importlib.util.spec_from_file_location(name, path, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be loaded")
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


account: Final[Any] = _load("lab_account", LAB / "account.py")
_load("lab_ways", LAB / "ways" / "__init__.py")
catalog: Final[Any] = import_module("lab_ways._catalog")
heat: Final[Any] = import_module("lab_ways._heat")
