"""How results are shown: a table for people, tab-separated lines for pipes, JSON for programs.

Whether people look is decided by stdout alone. rich is imported only where a
table is drawn. Piped lines have no heading and full ISO times; columns are
only ever added at the end (docs/command.md)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, tzinfo
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

import click

from ._shell import wrapped
from ._spans import in_words

if TYPE_CHECKING:
    from rich.console import Console, JustifyMethod
    from rich.text import Text

    from quarterjack import Trigger

__all__ = [
    "console",
    "for_people",
    "is_for_people",
    "iso",
    "json_option",
    "show_json",
    "show_table",
    "shown",
    "tell_notes",
    "until",
    "zone_option",
]

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_LONG: Final = frozenset({"rule"})
"""Columns whose text may be broken between words."""
_FOLDED: Final = _LONG | {"schedule"}
"""And within words, where even that is too wide: a time that is cut would be read as another one."""
_RIGHT: Final = frozenset(
    {"in", "runs", "skipped", "missed", "cancelled", "waiting", "longest wait", "busy"}
    | {"starts", "doubled", "early", "p50", "p99", "max", "drift", "an hour", "CPU", "memory"}
)
"""Columns of numbers and spans, which are read from their right ends."""
_SHORTEST_LONG: Final = 30
"""But not into lines shorter than this."""
_GAP: Final = 3
"""Between two columns."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON (docs/command.md has the schema).")


def _zone(ctx: click.Context, param: click.Parameter, value: str | None) -> tzinfo | None:
    """Return the zone of this name.

    Raises:
        click.BadParameter: If the machine knows none.
    """
    if value is None:
        return None
    try:
        return datetime.fromtimestamp(0).astimezone().tzinfo if value == "local" else ZoneInfo(value)
    except (ValueError, OSError, LookupError):
        message = f"no time zone {value!r}; write it as in Europe/Rome, or UTC"
        raise click.BadParameter(message, ctx, param) from None


zone_option = click.option(
    "--tz", "zone", callback=_zone, metavar="ZONE", help="Show times in this zone, as Europe/Rome."
)


def is_for_people() -> bool:
    """Say whether stdout is a terminal."""
    return sys.stdout.isatty()


def console(*, stderr: bool = False) -> Console:
    """Return a rich console; it honours NO_COLOR, and colours nothing but terminals."""
    from rich.console import Console  # noqa: PLC0415  # 60 ms that only drawing needs

    return Console(stderr=stderr, highlight=False)


def show_json(schema: str, **payload: Any) -> None:
    """Print one JSON document whose first key names its schema and version."""
    click.echo(json.dumps({"schema": f"quarterjack.{schema}/1", **payload}, indent=2, ensure_ascii=False))


def show_table(
    columns: Mapping[str, str],
    people: Sequence[Sequence[str]],
    plain: Iterable[Sequence[str]],
    *,
    beneath: Mapping[str, str] = NOTHING,
) -> None:
    """Print rows: *people* under headings on a terminal, *plain* as tab-separated lines otherwise.

    Args:
        columns: How rich is to style each column, by its heading.
        people: The rows as people read them.
        plain: The same rows as programs do.
        beneath: On a terminal too narrow for all columns, those whose cells go beneath another column's.
    """
    if not is_for_people():
        for row in plain:
            click.echo("\t".join(" ".join(cell.split()) for cell in row))
        return
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415  # as above
    from rich.table import Table  # noqa: PLC0415

    screen = console()
    lower = beneath if _width(columns, people) > screen.width else NOTHING
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in (heading for heading in columns if heading not in lower):
        headings = [heading, *(under for under, above in lower.items() if above == heading)]
        can_wrap = not _FOLDED.isdisjoint(headings)
        justify: JustifyMethod = "right" if len(headings) == 1 and headings[0] in _RIGHT else "left"
        table.add_column(
            ", ".join(headings), no_wrap=not can_wrap, overflow="fold" if can_wrap else "ellipsis", justify=justify
        )
    for row in people:
        table.add_row(*_cells(columns, row, lower))
    screen.print(table)


def _width(columns: Mapping[str, str], rows: Sequence[Sequence[str]]) -> int:
    """Return how many characters a table takes, if nothing but long texts is broken."""
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    return sum(
        min(width, _SHORTEST_LONG) if heading in _LONG else width
        for heading, width in zip(columns, widths, strict=True)
    ) + _GAP * len(columns)


def _cells(columns: Mapping[str, str], row: Sequence[str], lower: Mapping[str, str]) -> list[Text]:
    """Return a row's cells, those that go beneath another one in its second line."""
    from rich.text import Text  # noqa: PLC0415  # as above

    found = {heading: Text(cell, style) for (heading, style), cell in zip(columns.items(), row, strict=True)}
    for under, above in lower.items():
        cell = found.pop(under, None)
        if cell:
            found[above] = Text("\n").join([found[above], Text(cell.plain, columns[under] or "dim")])
    return list(found.values())


def tell_notes(notes: Iterable[str], *, stderr: bool = True) -> None:
    """Print what should be known beside the rows: on stderr, so that pipes stay clean, unless it is the answer."""
    stream = sys.stderr if stderr else sys.stdout
    for note in notes:
        click.secho(wrapped(f"· {note}", indent=2, stream=stream), err=stderr, dim=True)


def shown(at: datetime, trigger: Trigger | None, zone: tzinfo | None) -> datetime:
    """Return *at* in the zone asked for, else the rule's own, else the machine's."""
    return at.astimezone(zone or (trigger.zone if trigger is not None else None))


def iso(at: datetime | None) -> str | None:
    """Return an instant in ISO 8601 with its offset; None stays None."""
    return None if at is None else at.isoformat()


def for_people(at: datetime) -> str:
    """Return an instant as people read it: weekday, date, time to the millisecond, zone; no zeros at its end."""
    fraction = f".{at.microsecond // 1000:03}".rstrip(".0")
    return f"{at:%a %Y-%m-%d %H:%M:%S}{fraction} {at.tzname() or ''}".rstrip()


def until(seconds: float | None, *, is_live: bool) -> str:
    """Return the wait for a fire time in words: nothing for none, what is due already as it will be served."""
    if seconds is None:
        return ""
    if seconds > 0:
        return in_words(seconds)
    return "due now" if is_live else "at start"
