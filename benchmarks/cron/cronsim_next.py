"""cronsim: its iterator."""

from __future__ import annotations

from cronsim import CronSim

from cron.walk import START, measure_walks, options_of_walk

args, zone = options_of_walk()
measure_walks(args, lambda expression: CronSim(expression, START.astimezone(zone)))
