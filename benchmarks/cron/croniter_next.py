"""croniter: its iterator, which yields aware datetimes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from croniter import croniter

from cron.walk import START, measure_walks, options_of_walk

args, zone = options_of_walk()


def walk(expression: str) -> Iterator[datetime]:
    fires = croniter(expression, START.astimezone(zone))
    while True:
        yield fires.get_next(datetime)


measure_walks(args, walk)
