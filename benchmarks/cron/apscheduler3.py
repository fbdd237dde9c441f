"""APScheduler 3: CronTrigger from a crontab line, asked for the next time after the last."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from apscheduler.triggers.cron import CronTrigger

from cron.walk import START, measure_walks, options_of_walk

args, zone = options_of_walk()


def walk(expression: str) -> Iterator[datetime]:
    trigger = CronTrigger.from_crontab(expression, timezone=zone)
    last, now = None, START.astimezone(zone)
    while True:
        last = trigger.get_next_fire_time(last, now)
        now = last + timedelta(microseconds=1)
        yield last


measure_walks(args, walk)
