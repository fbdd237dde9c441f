"""Tables and JSON: medians over the rounds, and ratios made within each round."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from .case import Case, Column
from .rounds import Result

__all__ = ["as_json", "settings", "table"]


def _median_of(result: Result, metric: str) -> float:
    """Return a metric's median over the rounds that were answered; NaN when there was none."""
    values = [answered[metric] for answered in result.rounds if answered is not None and metric in answered]
    values = [value for value in values if not math.isnan(value)]
    return median(values) if values else math.nan


def _against(result: Result, other: Result | None, metric: str, how: str) -> float:
    """Return the median, over the rounds both answered, of this metric by (or less) the other's in the same round."""
    if other is None:
        return math.nan
    pairs = [(a[metric], b[metric]) for a, b in zip(result.rounds, other.rounds, strict=True) if a and b]
    if how == "less":
        return median([a - b for a, b in pairs]) if pairs else math.nan
    ratios = [a / b for a, b in pairs if a >= 0 and b > 0]  # a lag below zero is early, not better
    return median(ratios) if ratios else math.nan


def _find(results: Iterable[Result], name: str | None) -> Result | None:
    return next((result for result in results if result.contender.name == name), None)


def _numbers(case: Case, results: Sequence[Result], result: Result) -> dict[str, float]:
    """Return everything a row shows: medians, the ratio, and the distance to the machine's noise."""
    numbers = {column.metric: _median_of(result, column.metric) for column in case.columns}
    numbers["ratio"] = _against(result, _find(results, case.reference), case.ratio_of, "by")
    if case.over_floor is not None:
        numbers["over_floor"] = _against(result, _find(results, case.floor), case.over_floor, "less")
    return numbers


def _shown_columns(case: Case) -> list[Column]:
    heading = {column.metric: column.heading for column in case.columns}
    extra = [Column("ratio", "ratio")]
    if case.over_floor is not None:
        extra.append(Column("over_floor", f"{heading[case.over_floor]} over noise"))
    return [*case.columns, *extra]


def table(case: Case, results: Sequence[Result]) -> str:
    """Return the case as a Markdown table that also reads well on a terminal."""
    columns = _shown_columns(case)
    rows = [["contender", *(column.heading for column in columns)]]
    for result in results:
        numbers = _numbers(case, results, result)
        cells = [_cell(numbers[column.metric], column.decimals) for column in columns]
        rows.append([result.contender.name, *cells])
    lines = [f"### {case.name}: {case.title}", "", *_aligned(rows), ""]
    rounds = max((len(result.rounds) for result in results), default=0)
    lines.append(
        f"Medians of {rounds} round(s); ratio of `{case.ratio_of}` to {case.reference}, made within each round."
    )
    lines += [f"{result.contender.name}: {note}" for result in results if (note := _note(result))]
    return "\n".join(lines)


def _note(result: Result) -> str:
    failed = sum(answered is None for answered in result.rounds)
    failure = f"{failed} of {len(result.rounds)} rounds failed: {result.error}" if failed else ""
    return "; ".join(filter(None, (result.about.get("note", ""), failure)))


def _cell(value: float, decimals: int) -> str:
    return "–" if math.isnan(value) else f"{value:,.{decimals}f}"


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths))
    return [lines[0], f"|{rule}|", *lines[1:]]


def settings(results: Iterable[Result]) -> str:
    """Return one line per environment: versions, interpreter, loop, garbage collection and how it is set."""
    lines: dict[str, str] = {}
    for result in results:
        about = result.about
        if about:
            versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
            lines[result.contender.env] = (
                f"- {result.contender.env}: {versions}; {about['python']}; gc {about['gc']}; {about['settings']}"
            )
    return "\n".join(lines.values())


def as_json(case: Case, results: Sequence[Result]) -> dict[str, Any]:
    """Return the case for a machine: medians, ratios and every round as it was answered."""
    return {
        "title": case.title,
        "options": dict(case.options),
        "reference": case.reference,
        "ratio_of": case.ratio_of,
        "contenders": {result.contender.name: _contender_json(case, results, result) for result in results},
    }


def _contender_json(case: Case, results: Sequence[Result], result: Result) -> Mapping[str, Any]:
    numbers = _numbers(case, results, result)
    return {
        "median": {name: None if math.isnan(value) else value for name, value in numbers.items()},
        "rounds": [_without_nan(answered) for answered in result.rounds],
        "options": dict(result.contender.options),
        "about": result.about,
        "error": result.error,
    }


def _without_nan(answered: Mapping[str, float] | None) -> dict[str, float | None] | None:
    """JSON has no NaN: a metric that could not be made is null."""
    if answered is None:
        return None
    return {name: None if math.isnan(value) else value for name, value in answered.items()}
