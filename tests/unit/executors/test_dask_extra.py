"""The executor for Dask without Dask."""

from __future__ import annotations

import importlib
import sys

import pytest

from quarterjack import MissingExtra


def test_without_the_extra_the_install_line_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for it learns what to type; everything else has been imported without it."""
    for name in [name for name in sys.modules if name.startswith("quarterjack.executors._dask")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "quarterjack.executors.dask", raising=False)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"pip install 'quarterjack\[dask\]'"):
        importlib.import_module("quarterjack.executors.dask")
