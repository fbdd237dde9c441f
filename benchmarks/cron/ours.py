"""quarterjack: ``Cron.next_ns`` (what the scheduler calls) or ``Cron.next`` (datetimes, what people call)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from cron.walk import START, measure_walks, options_of_walk
from quarterjack import Cron

args, zone = options_of_walk()


def walk_ns(expression: str) -> Iterator[int]:
    trigger, at = Cron(expression, tz=args.zone), int(START.timestamp()) * 10**9
    while (fire := trigger.next_ns(at)) is not None:
        yield fire
        at = fire


def walk(expression: str) -> Iterator[datetime]:
    trigger, at = Cron(expression, tz=args.zone), START
    while (fire := trigger.next(at)) is not None:
        yield fire
        at = fire


measure_walks(
    args, walk_ns if args.how == "next_ns" else walk, "integer nanoseconds" if args.how == "next_ns" else "datetimes"
)
