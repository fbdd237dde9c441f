"""Results of the laboratory, made by hand."""

from __future__ import annotations

from collections.abc import Sequence

from quarterjack.lab.results import Results, Row, Settings
from quarterjack.lab.ways._catalog import find
from quarterjack.lab.ways._heat import Recorded

MS = 1_000_000
S = 1_000 * MS
ORIGIN = 1_800_000_000 * S


def row(way: str, offsets_ms: Sequence[float], seconds: float = 60.0, error: str = "") -> Row:
    """Return a way's row whose starts are told in milliseconds after the first tick."""
    starts = [ORIGIN + round(at * MS) for at in offsets_ms]
    return Row.of(find(way), Recorded(way, ORIGIN, seconds, starts, 0.5, 20 * 2**20, error), S)


def kept(lag_ms: float = 0.2, ticks: int = 60) -> list[float]:
    """Return starts that keep to a grid of seconds."""
    return [1_000 * tick + lag_ms + 0.01 * (tick % 3) for tick in range(ticks)]


def losing(loss_ms: float, starts: int = 60) -> list[float]:
    """Return starts each a second and a loss after the one before."""
    return [n * (1_000 + loss_ms) for n in range(starts)]


def results(*rows: Row, body: str = "none") -> Results:
    """Return results of a minute, side by side."""
    return Results(Settings(S, 60.0, body, is_side_by_side=True, machine={"python": "CPython"}), rows)
