"""The process of one way: started by path, with the case in its environment.

The package is made known under a name of its own, so that nothing of quarterjack
is imported; children that a way starts come by here too (multiprocessing runs this
file in each of them, under another name)."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Final

NAME: Final = "quarterjack_lab_ways"
HERE: Final = Path(__file__).parent


def load_package() -> None:
    """Make this folder importable as a package of its own, and quarterjack for those ways that are ours."""
    spec = importlib.util.spec_from_file_location(NAME, HERE / "__init__.py", submodule_search_locations=[str(HERE)])
    if spec is None or spec.loader is None:
        raise SystemExit(f"{HERE} cannot be loaded")
    sys.modules[NAME] = package = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(package)
    sys.path.append(str(HERE.parents[2]))


if NAME not in sys.modules:
    load_package()

if __name__ == "__main__":
    importlib.import_module(f"{NAME}._child").main()
