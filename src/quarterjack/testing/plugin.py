"""The pytest plugin: explains differences between runs.

Switch it on in ``conftest.py``:

    pytest_plugins = ["quarterjack.testing.plugin"]

Importing it changes nothing; it has no options and no fixtures of its own."""

from __future__ import annotations

from typing import Any, cast

from ._runs import Runs

__all__ = ["pytest_assertrepr_compare"]


def pytest_assertrepr_compare(op: str, left: Any, right: Any) -> list[str] | None:
    """Explain ``world.runs(…) == [...]`` by what is missing (-) and what is too much (+)."""
    if op != "==" or not (isinstance(left, Runs) or isinstance(right, Runs)):
        return None
    runs, other = (left, right) if isinstance(left, Runs) else (right, left)
    if not isinstance(runs, Runs) or not isinstance(other, list):
        return None
    expected = cast("list[object]", other)
    words = [str(one) for one in expected]
    if runs.are_same_instants(words):
        return [
            "the same instants, written in another zone: runs are in the world's (virtual_time(…, tz=…))",
            *runs.difference(words),
        ]
    return [f"{len(runs)} runs, {len(expected)} expected", *runs.difference(words)]
