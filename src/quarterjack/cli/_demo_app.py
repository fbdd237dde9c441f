"""The application that ``qj demo`` runs: nothing here is staged but the work itself.

Seven schedules that show what the library is about: a punctual tick, a strike
on the clock face, a coroutine and a thread that say how far they are, a call
that fails now and then and is retried, a job that somebody cancels, and a cron
line that will not fire while you watch."""

from __future__ import annotations

import asyncio
import itertools
import time
from typing import Final

from quarterjack import Aligned, Cron, Every, Quarterjack, Retry, current_job

__all__ = ["GRACE_S", "PLACE_BY_TASK", "make_app"]

GRACE_S: Final = 1.0
"""How long running jobs may take to end when the demo does."""
PLACE_BY_TASK: Final = {"resize_photos": "thread"}
"""Where a task's body runs, if not on the event loop."""
STEPS: Final = 25
PATIENCE_S: Final = 4.0
"""How long the impatient one waits for the report, which takes three times as long."""
_ORDERS_S, _PHOTOS_S, _REPORT_S = 5.0, 6.0, 12.0


class ServiceUnavailable(Exception):
    """What the weather service of this demo answers now and then."""


def make_app() -> Quarterjack:
    """Return the demo's app, on the memory store."""
    app = Quarterjack(shutdown_grace=GRACE_S)
    _add_ticks(app)
    _add_work(app)
    _add_trouble(app)
    return app


def _add_ticks(app: Quarterjack) -> None:
    @app.task(Every(seconds=1))
    async def pulse() -> None:
        """Do nothing, on time."""

    @app.task(Aligned(seconds=15, tz="local"))
    async def strike() -> None:
        """Strike the quarters of the minute, on the clock face."""

    @app.task(Cron("30 6 * * mon-fri", tz="local"))
    async def bake_bread() -> None:
        """Wait for the morning."""


def _add_work(app: Quarterjack) -> None:
    @app.task(Every(seconds=8))
    async def import_orders() -> None:
        """Work on the event loop, beside everything else."""
        for step in range(1, STEPS + 1):
            await asyncio.sleep(_ORDERS_S / STEPS)
            current_job().progress(step, STEPS, f"{step * 40} orders")

    @app.task(Every(seconds=11))
    def resize_photos() -> None:
        """Block, in a thread, where it holds nobody up; end early when asked to."""
        job = current_job()
        for step in range(1, STEPS + 1):
            if job.cancel_requested:
                return
            time.sleep(_PHOTOS_S / STEPS)
            job.progress(step, STEPS, f"photo {step}")


def _add_trouble(app: Quarterjack) -> None:
    days = itertools.count(1)
    day_by_job: dict[str, int] = {}

    @app.task(Every(seconds=6), retry=Retry(on=Exception, attempts=3, base=1.0, jitter="none"))
    async def ask_weather() -> None:
        """Fail at first, succeed when tried again; every third day the service is down for good."""
        job = current_job()
        day = day_by_job.setdefault(job.id, next(days) if job.id not in day_by_job else 0)
        await asyncio.sleep(0.3)
        if job.attempt == 1 or day % 3 == 0:
            raise ServiceUnavailable("503, try later")
        del day_by_job[job.id]

    @app.task
    async def write_report() -> None:
        """Take longer than anybody waits."""
        for step in range(1, STEPS + 1):
            await asyncio.sleep(_REPORT_S / STEPS)
            current_job().progress(step, STEPS, f"page {step}")

    @app.task(Every(seconds=14))
    async def impatient() -> None:
        """Ask for a report, and cancel it."""
        report = await app.submit(write_report)
        await asyncio.sleep(PATIENCE_S)
        await report.cancel()
