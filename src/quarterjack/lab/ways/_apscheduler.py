"""APScheduler 3 on asyncio, with what is in memory, and coroutines as jobs."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from importlib import import_module

from ._asyncio import run_on_loop
from ._case import NS_PER_S, Case
from ._catalog import way

__all__ = ["apscheduler"]


@way(
    "apscheduler",
    "APScheduler 3",
    "grid",
    "AsyncIOScheduler with an IntervalTrigger; no misfire limit, three instances at once",
    needs=(("apscheduler", "'apscheduler<4'"),),
)
def apscheduler(case: Case) -> None:
    """Add one job to an AsyncIOScheduler."""
    interval = import_module("apscheduler.triggers.interval")
    schedulers = import_module("apscheduler.schedulers.asyncio")
    logging.basicConfig(level=logging.WARNING)

    async def serve() -> None:
        defaults = {"misfire_grace_time": None, "coalesce": False, "max_instances": 3}
        scheduler = schedulers.AsyncIOScheduler(job_defaults=defaults, timezone=UTC)
        case.go()
        start = datetime.fromtimestamp(case.origin_ns / NS_PER_S, UTC)
        trigger = interval.IntervalTrigger(seconds=case.period_s, start_date=start, timezone=UTC)
        scheduler.add_job(case.run_body_async, trigger)
        scheduler.start()
        await asyncio.Event().wait()

    run_on_loop(serve, case)
