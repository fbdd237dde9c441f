"""``qj lab``: measurements that anybody can repeat.

``qj lab drift`` compares the ways to do something every T seconds."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import click

from quarterjack._durations import NS_PER_S, parse_duration
from quarterjack.errors import MissingExtra, QuarterjackError
from quarterjack.lab.picture import picture
from quarterjack.lab.png import require_png, to_png
from quarterjack.lab.results import SCHEMA, NotAReport, Results
from quarterjack.lab.simulated import simulated
from quarterjack.lab.ways._case import BODIES
from quarterjack.lab.ways._catalog import Way, all_ways

from ._hints import listing, nearest, typed
from ._lab_measuring import Plan, fire_times, measure
from ._lab_showing import show, show_ways
from ._output import json_option, show_json
from ._shell import EXIT_USAGE, Failure

__all__ = ["command"]

FEWEST_TICKS: Final = 3
SHORTEST_S: Final = 0.01
MOST_SIMULATED: Final = 1_000_000
"""So many ticks are simulated at most: a day of them every 0.1 s."""
PICTURES: Final = (".svg", ".png")
OURS: Final = "ours"
SIGNALLED: Final = 128
"""To this shells add the number of the signal that ended a command."""


@click.group("lab")
def command() -> None:
    """Measurements that anybody can repeat."""


@command.command("drift")
@click.option("--for", "for_", default="60s", show_default=True, metavar="TIME", help="How long each way is measured.")
@click.option("--every", default="1s", show_default=True, metavar="TIME", help="From one tick to the next.")
@click.option(
    "--body", type=click.Choice(list(BODIES)), default="none", show_default=True, help="What each start does."
)
@click.option("--way", "names", multiple=True, metavar="NAME", help="Only this way; ours for all of ours. Repeatable.")
@click.option(
    "--in-turn/--side-by-side",
    "is_in_turn",
    default=None,
    help="One way after the other, or all at once; side by side unless the body computes.",
)
@click.option("--simulate", metavar="TIME", help="Walk so long with the turns that were measured, as 1d.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Draw it: .svg or .png.")
@click.option(
    "--theme", type=click.Choice(["auto", "light", "dark"]), default="auto", show_default=True, help="Of the picture."
)
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Show what --json once printed, instead of measuring.",
)
@click.option("--list", "is_listing", is_flag=True, help="Name the ways, and what they need.")
@json_option
def drift(
    for_: str,
    every: str,
    body: str,
    names: tuple[str, ...],
    is_in_turn: bool | None,
    simulate: str | None,
    plot: Path | None,
    theme: str,
    source: Path | None,
    is_listing: bool,
    as_json: bool,
) -> None:
    """Measure how the known ways to do something every T seconds keep time.

    Each way runs in a process of its own, and each start is compared with the
    moment that was promised. Ctrl-C shows what there is so far.

    \b
        qj lab drift --for 60s --plot drift.svg
        qj lab drift --for 10m --body sleep --way ours --way sleep-loop
        qj lab drift --for 30s --simulate 1d
    """
    ways = _chosen(names)
    if is_listing:
        show_ways(ways, as_json)
        return
    simulated_s = None if simulate is None else _seconds(simulate, "--simulate")
    _check_plot(plot)
    if source is None and sys.platform == "win32":
        raise Failure("the laboratory needs Linux or macOS to measure", "qj lab drift --from drift.json", EXIT_USAGE)
    if source is None:
        plan = _plan(for_, every, body, is_in_turn)
        _check_simulation(simulated_s, plan.period_ns)
        results, came = measure(plan, ways)
    else:
        results, came = _read(source, ways), 0
        _check_simulation(simulated_s, results.settings.period_ns)
    if simulated_s is not None:
        results = _simulated(results, simulated_s)
    if plot is not None:
        _draw(results, plot, theme)
    if as_json:
        show_json(SCHEMA, **results.to_dict())
        if plot is not None:
            click.echo(f"drawn: {plot}", err=True)
    else:
        show(results, plot)
    if came:
        raise click.exceptions.Exit(SIGNALLED + came)
    if any(row.recorded.error for row in results.rows):
        raise click.exceptions.Exit(1)


def _chosen(names: Iterable[str]) -> list[Way]:
    """Return the ways that are meant, in the order of the table; all without names."""
    ways = list(all_ways())
    known = {way.name: way for way in ways}
    wanted: set[str] = set()
    for name in names:
        if name == OURS:
            wanted |= {way.name for way in ways if way.is_ours}
        elif name in known:
            wanted.add(name)
        elif name in {"cron", "systemd"}:
            raise Failure(f"{name} is explained in docs/drift.md, not run", "qj lab drift --list", EXIT_USAGE)
        else:
            near = nearest(name, known)
            hint = "qj lab drift --list" if near is None else f"qj lab drift --way {near}"
            raise Failure(f"there is no way {name!r}; there are {listing(list(known))}", hint, EXIT_USAGE)
    return [way for way in ways if not wanted or way.name in wanted]


def _seconds(text: str, option: str) -> float:
    try:
        return parse_duration(text, option)
    except QuarterjackError as error:
        raise Failure(str(error), "qj lab drift --for 60s --every 1s", EXIT_USAGE) from None


def _plan(for_: str, every: str, body: str, is_in_turn: bool | None) -> Plan:
    period_ns = round(_seconds(every, "--every") * NS_PER_S)
    seconds = _seconds(for_, "--for")
    if period_ns < SHORTEST_S * NS_PER_S or period_ns % 1_000_000:
        message = f"--every must be whole milliseconds, and {SHORTEST_S * 1e3:g} ms at the least, got {every!r}"
        raise Failure(message, "qj lab drift --every 100ms", EXIT_USAGE)
    if seconds * NS_PER_S < FEWEST_TICKS * period_ns:
        message = f"--for {for_} is too short: with --every {every} it must hold {FEWEST_TICKS} ticks or more"
        raise Failure(message, f"qj lab drift --every {every} --for {10 * period_ns / NS_PER_S:g}s", EXIT_USAGE)
    return Plan(period_ns, seconds, body, body == "cpu" if is_in_turn is None else is_in_turn)


def _check_simulation(seconds: float | None, period_ns: int) -> None:
    if seconds is None:
        return
    ticks = seconds * NS_PER_S / period_ns
    if not FEWEST_TICKS <= ticks <= MOST_SIMULATED:
        message = f"--simulate must hold {FEWEST_TICKS} to {MOST_SIMULATED:,} ticks, got {ticks:,.0f}"
        raise Failure(message, "qj lab drift --simulate 1d --every 1s", EXIT_USAGE)


def _check_plot(plot: Path | None) -> None:
    """Refuse a picture that could not be written before anything is measured."""
    if plot is None:
        return
    if plot.suffix.lower() not in PICTURES:
        message = f"--plot draws {' or '.join(PICTURES)}, not {plot.suffix or plot.name!r}"
        raise Failure(message, f"qj lab drift --plot {plot.with_suffix('.svg')}", EXIT_USAGE)
    if not plot.parent.is_dir():
        raise Failure(f"there is no folder {plot.parent}", f"mkdir -p {plot.parent}", EXIT_USAGE)
    if plot.suffix.lower() == ".png":
        try:
            require_png()
        except MissingExtra as error:
            raise Failure(str(error), f"qj lab drift --plot {plot.with_suffix('.svg')}", EXIT_USAGE) from None


def _read(source: Path, ways: list[Way]) -> Results:
    try:
        told: Any = json.loads(source.read_text(encoding="utf-8"))
        return Results.from_dict(told, ways)
    except OSError as error:
        raise Failure(f"{source} cannot be read: {error.strerror}", "qj lab drift --json > drift.json") from None
    except (ValueError, NotAReport):  # JSON's own error is a ValueError, as NotAReport is
        raise Failure(f"{source} is no JSON of qj lab drift", "qj lab drift --json > drift.json") from None


def _simulated(results: Results, seconds: float) -> Results:
    is_ours = any(row.way.is_ours for row in results.rows)
    fires_ns = fire_times(results.settings.period_ns, seconds) if is_ours else None
    return simulated(results, seconds, fires_ns)


def _draw(results: Results, plot: Path, theme: str) -> None:
    svg = picture(results, theme)
    data = to_png(svg) if plot.suffix.lower() == ".png" else svg.encode()
    try:
        plot.write_bytes(data)
    except OSError as error:
        raise Failure(f"{plot} cannot be written: {error.strerror}", typed("--plot", "drift.svg")) from None
