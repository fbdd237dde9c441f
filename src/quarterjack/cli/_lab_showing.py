"""How results of the laboratory are shown: a table, the verdicts, and what should be known beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import click

from quarterjack.lab.results import Results, Row
from quarterjack.lab.verdict import length, span
from quarterjack.lab.ways._case import BODIES
from quarterjack.lab.ways._catalog import Way

from ._output import console, is_for_people, show_json, show_table, tell_notes
from ._shell import wrapped
from ._spans import in_words

__all__ = ["show", "show_ways"]

COLUMNS: Final = (
    "way",
    "starts",
    "missed",
    "doubled",
    "early",
    "p50",
    "p99",
    "max",
    "drift",
    "an hour",
    "CPU",
    "memory",
)
WIDE: Final = 130
"""Narrower terminals get two tables: what was counted, and what was timed."""
HALVES: Final = (
    ("way", "starts", "missed", "doubled", "early", "drift", "an hour"),
    ("way", "p50", "p99", "max", "CPU", "memory"),
)
UNKNOWN: Final = "?"


def show(results: Results, plot: Path | None) -> None:
    """Print the table; on a terminal the verdicts below it, otherwise in its last column."""
    if is_for_people():
        click.secho(_head(results), bold=True)
    if results.rows:
        _show_tables(results.rows)
    if is_for_people():
        width = max((len(row.way.name) for row in results.rows), default=0)
        for row in results.rows:
            line = f"{row.way.name:{width}}  {row.verdict}"
            click.secho(wrapped(line, indent=width + 2), fg="cyan" if row.way.is_ours else None)
    tell_notes(_notes(results, plot), stderr=not is_for_people())


def _show_tables(rows: Sequence[Row]) -> None:
    is_narrow = is_for_people() and console().width < WIDE
    people, plain = [_for_people(row) for row in rows], [_plain(row) for row in rows]
    for headings in HALVES if is_narrow else (COLUMNS,):
        places = [COLUMNS.index(heading) for heading in headings]
        columns = dict.fromkeys(headings, "") | {"way": "bold"}
        show_table(columns, [[row[place] for place in places] for row in people], plain)


def _head(results: Results) -> str:
    settings = results.settings
    whole = in_words(settings.simulated_s or settings.seconds)
    kind = f"a simulation of {whole}" if settings.simulated_s else f"measured for {whole}"
    return f"something every {length(settings.period_ns)}, {kind}, body: {BODIES.get(settings.body, settings.body)}"


def _for_people(row: Row) -> Sequence[str]:
    account, recorded = row.account, row.recorded
    if account is None:
        return [row.way.name, *["—"] * (len(COLUMNS) - 1)]
    counts = (account.missed, account.doubled, account.early)
    spans = (account.p50_ns, account.p99_ns, account.max_ns, account.drift_ns, account.drift_per_hour_ns)
    return [
        row.way.name,
        f"{account.starts:,}",
        *(f"{n:,}" for n in counts),
        *map(span, spans),
        UNKNOWN if recorded.cpu_s is None else span(round(recorded.cpu_s * 1e9)),
        UNKNOWN if recorded.memory_bytes is None else f"{recorded.memory_bytes / 2**20:,.0f} MiB",
    ]


def _plain(row: Row) -> Sequence[str]:
    """Return the row as programs read it: spans in milliseconds, CPU time in seconds, memory in bytes."""
    account, recorded = row.account, row.recorded
    if account is None:
        return [row.way.name, *[""] * (len(COLUMNS) - 1), row.verdict]
    counts = (account.starts, account.missed, account.doubled, account.early)
    spans = (account.p50_ns, account.p99_ns, account.max_ns, account.drift_ns, account.drift_per_hour_ns)
    return [
        row.way.name,
        *map(str, counts),
        *(f"{ns / 1e6:.3f}" for ns in spans),
        "" if recorded.cpu_s is None else f"{recorded.cpu_s:.6f}",
        "" if recorded.memory_bytes is None else str(recorded.memory_bytes),
        row.verdict,
    ]


def _notes(results: Results, plot: Path | None) -> Iterator[str]:
    settings = results.settings
    if settings.simulated_s:
        measured = in_words(settings.seconds)
        yield (
            f"this is a simulation: {in_words(settings.simulated_s)} on a virtual clock, each turn drawn from those "
            f"that were measured in {measured}; quarterjack's own scheduler fired on that clock"
        )
    if not results.rows:
        yield "nothing was measured"
    shortest = min((row.recorded.seconds for row in results.rows), default=settings.seconds)
    if not settings.simulated_s and shortest < settings.seconds:
        yield f"interrupted: measured for {in_words(shortest)} instead of {in_words(settings.seconds)}"
    if settings.is_side_by_side and settings.body == "cpu":
        yield "the ways computed side by side, and took the processors from each other (--in-turn)"
    for name, why in results.left_out.items():
        yield f"{name} is left out: {why}"
    if plot is not None:
        yield f"drawn: {plot}"


def show_ways(ways: Iterable[Way], as_json: bool) -> None:
    """Print the ways, what each does, and what it still needs here."""
    listed = list(ways)
    if as_json:
        fields = ("name", "title", "promise", "about", "why_not", "is_ours")
        show_json("drift-ways", ways=[{field: getattr(way, field) for field in fields} for way in listed])
        return
    rows = [[way.name, way.about, way.why_not] for way in listed]
    show_table({"way": "bold", "rule": "", "not here": "yellow"}, rows, rows)
