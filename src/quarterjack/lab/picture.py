"""The picture: for each way its lag over time and how its lags are spread, on one logarithmic axis for all.

Pure: results in, SVG out. What is long enough to be seen is drawn as a band from the
least to the largest lag of each stretch of time, with the median as a line. Early
starts have no place on such an axis: they are marks at the panel's foot, and are
counted there. Those of a grid are red, as are missed ticks at the panel's head."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Final

from ._scale import Bin, LogScale, bins_of, histogram
from ._svg import document, element, points, text
from .account import Account
from .results import Results, Row
from .verdict import length
from .ways._case import BODIES

__all__ = ["picture"]

WIDTH: Final = 1080
MARGIN: Final = 20
TEXT_WIDTH: Final = 270
LETTERS: Final = 46
"""So many letters of the verdict fit into a line."""
TIME_X: Final = MARGIN + TEXT_WIDTH + 50
TIME_WIDTH: Final = 440
SPREAD_X: Final = TIME_X + TIME_WIDTH + 20
SPREAD_WIDTH: Final = WIDTH - MARGIN - SPREAD_X
TOP: Final = 86
ROW: Final = 92
PANEL: Final = 78
FOOT: Final = 34
STRETCHES: Final = 220
BARS: Final = 50
MOST_MARKS: Final = 400
"""So many missed ticks or early starts of a way are drawn; more would be one bar."""


def picture(results: Results, theme: str = "auto") -> str:
    """Return the picture of *results* as SVG.

    Args:
        results: What was measured, or simulated.
        theme: ``auto``, ``light`` or ``dark``.
    """
    rows = [row for row in results.rows if row.account is not None]
    scale = LogScale.around(lag for row in rows if row.account for _, lag in row.account.points)
    length_ns = round((results.settings.simulated_s or max((r.recorded.seconds for r in rows), default=1.0)) * 1e9)
    length_ns = max(length_ns, 1)
    parts = [*_head(results), *_columns(), *_foot(rows, scale, length_ns)]
    for number, row in enumerate(rows):
        parts += _row(row, TOP + number * ROW, scale, length_ns, results.settings.period_ns)
    return document(WIDTH, TOP + len(rows) * ROW + FOOT, theme, _title(results), parts)


def _title(results: Results) -> str:
    settings = results.settings
    whole = length(round((settings.simulated_s or settings.seconds) * 1e9))
    kind = "a simulation of" if settings.simulated_s else "measured for"
    return f"Something every {length(settings.period_ns)}: {kind} {whole}"


def _head(results: Results) -> Iterator[str]:
    settings = results.settings
    yield text(MARGIN, 30, _title(results), size=17, font_weight="600")
    together = "all ways side by side" if settings.is_side_by_side else "one way after the other"
    told = (
        f"the body {BODIES.get(settings.body, settings.body)}" if settings.body != "none" else "the body does nothing"
    )
    if settings.simulated_s:
        measured = length(round(settings.seconds * 1e9))
        told = f"walked on a virtual clock with the turns of {measured} that were measured; {told}"
    yield text(MARGIN, 50, f"{told}; {together}", "dim", 12)


def _columns() -> Iterator[str]:
    yield text(TIME_X, TOP - 10, "how late each start was, over time", "dim", 11)
    yield text(SPREAD_X, TOP - 10, "how lags are spread", "dim", 11)


def _foot(rows: list[Row], scale: LogScale, length_ns: int) -> Iterator[str]:
    y = TOP + len(rows) * ROW + 8
    for quarter in range(5):
        words = length(length_ns * quarter // 4)
        x = TIME_X + TIME_WIDTH * quarter / 4
        yield text(x, y, words, "dim", 10, text_anchor=("start", "middle", "middle", "middle", "end")[quarter])
    for mark, words in scale.marks()[::2]:
        share = scale.share(mark)
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        yield text(SPREAD_X + SPREAD_WIDTH * share, y, words, "dim", 10, text_anchor=anchor)


def _row(row: Row, top: float, scale: LogScale, length_ns: int, period_ns: int) -> Iterator[str]:
    account = row.account
    if account is None:
        return
    prefix = "ours-" if row.way.is_ours else ""
    yield text(MARGIN, top + 16, row.way.title, f"{prefix}ink", 13, font_weight="600")
    for number, line in enumerate(textwrap.wrap(row.verdict, LETTERS)[:3]):
        yield text(MARGIN, top + 33 + 15 * number, line, "dim", 11)
    yield from _panel(top, scale)
    is_grid = row.way.promise == "grid"
    yield from _lags(account, top, scale, length_ns, prefix)
    yield from _missed(account, top, length_ns, period_ns) if is_grid else ()
    yield from _early(account, top, length_ns, "wrong" if is_grid else f"{prefix}bar")
    yield from _spread(account, top, scale, prefix)


def _panel(top: float, scale: LogScale) -> Iterator[str]:
    yield element("rect", "panel", x=TIME_X, y=top, width=TIME_WIDTH, height=PANEL)
    yield element("rect", "panel", x=SPREAD_X, y=top, width=SPREAD_WIDTH, height=PANEL)
    marks = scale.marks()
    for number, (mark, words) in enumerate(marks):
        y = _y(mark, top, scale)
        yield element("line", "rule", x1=TIME_X, x2=TIME_X + TIME_WIDTH, y1=y, y2=y)
        if number % 2 == 0:
            yield text(TIME_X - 6, y + 3, words, "dim", 9, text_anchor="end")
            x = SPREAD_X + SPREAD_WIDTH * scale.share(mark)
            yield element("line", "rule", x1=x, x2=x, y1=top, y2=top + PANEL)


def _lags(account: Account, top: float, scale: LogScale, length_ns: int, prefix: str) -> Iterator[str]:
    bins = bins_of([point for point in account.points if point[1] >= 0], length_ns, STRETCHES)
    if not bins:
        return
    upper = [(_x(one, length_ns), _y(one.high_ns, top, scale)) for one in bins]
    lower = [(_x(one, length_ns), _y(one.low_ns, top, scale)) for one in reversed(bins)]
    middle = [(_x(one, length_ns), _y(one.mid_ns, top, scale)) for one in bins]
    yield element("polygon", f"{prefix}band", points=points(upper + lower))
    yield element("polyline", f"{prefix}line", points=points(middle))


def _missed(account: Account, top: float, length_ns: int, period_ns: int) -> Iterator[str]:
    served = {(at - lag) // period_ns for at, lag in account.points}
    missed = [tick * period_ns for tick in range(account.ticks) if tick not in served]
    yield from _marks(missed, top, length_ns, "wrong")


def _early(account: Account, top: float, length_ns: int, kind: str) -> Iterator[str]:
    early = [at for at, lag in account.points if lag < 0]
    yield from _marks(early, top + PANEL - 4, length_ns, kind)
    if early:
        told = f"{len(early):,} of {account.starts:,} earlier than their tick"
        yield text(TIME_X + 4, top + PANEL - 8, told, "dim", 9)


def _marks(moments_ns: list[int], y: float, length_ns: int, kind: str) -> Iterator[str]:
    for at_ns in moments_ns[:MOST_MARKS]:
        x = TIME_X + TIME_WIDTH * min(max(at_ns, 0), length_ns) / length_ns
        yield element("rect", kind, x=x - 1, y=y, width=2, height=4)


def _spread(account: Account, top: float, scale: LogScale, prefix: str) -> Iterator[str]:
    counts = histogram((lag for _, lag in account.points if lag >= 0), scale, BARS)
    most, width = max(counts), SPREAD_WIDTH / BARS
    for number, n in enumerate(counts):
        if n:
            height = max(1.0, (PANEL - 4) * n / most)
            x = SPREAD_X + number * width
            yield element("rect", f"{prefix}bar", x=x, y=top + PANEL - height, width=width - 0.5, height=height)


def _x(one: Bin, length_ns: int) -> float:
    return TIME_X + TIME_WIDTH * one.at_ns / length_ns


def _y(ns: int, top: float, scale: LogScale) -> float:
    return top + PANEL * (1 - scale.share(ns))
